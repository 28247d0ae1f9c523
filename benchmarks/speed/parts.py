"""What is measured; each part runs in a process of its own and prints rows as JSON."""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def peak_gb() -> float:
    """Most memory of this process so far [GB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def best(function: Callable[[], object], times: int = 3) -> float:
    """Shortest wall time of a call [s]."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        function()
        found.append(time.perf_counter() - begin)
    return min(found)


def startup() -> list[Row]:
    """Commands from nothing to their end."""

    def run(*command: str) -> float:
        return best(lambda: subprocess.run([sys.executable, *command], capture_output=True, check=False))

    cli = ("-m", "latf_openmm.cli")
    return [
        {"what": "latf-openmm --help", "seconds": run(*cli, "--help")},
        {"what": "latf-openmm doctor", "seconds": run(*cli, "doctor")},
        {"what": "python -c 'import torch'", "seconds": run("-c", "import torch")},
    ]


def generation() -> list[Row]:
    """Independent samples of r_T(z), one committee of four; the first rows are the paper's flow and the default."""
    import torch

    from latf_openmm.model.flow import FlowSettings
    from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings

    rows, n = [], 1_000_000
    for transform, layers, hidden in (
        ("affine", 16, [16, 16]),
        ("spline", 6, [32, 32]),
        ("spline", 16, [32, 32]),
    ):
        torch.manual_seed(0)
        flow = FlowSettings(transform=transform, layers=layers, hidden=hidden)  # type: ignore[arg-type]
        model = LatentThermodynamicFlow(ModelSettings(flow=flow), 10, 2, 1.0, n_members=4).eval()
        for parameter in model.flows.parameters():
            torch.nn.init.normal_(parameter, 0.0, 0.1)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            seconds = best(lambda: model.density(1.3).sample(n))  # noqa: B023 - called at once
            rows.append(
                {
                    "flow": f"{layers} layers, {transform}, {'x'.join(map(str, hidden))}",
                    "threads": threads,
                    "samples": n,
                    "seconds": seconds,
                    "samples a second": n / seconds,
                }
            )
    return rows


def reweighting(frames: int) -> list[Row]:
    """Fifty temperatures from one pool: weights, populations, energy and heat capacity, with errors."""
    import numpy as np
    import torch

    from latf_openmm.ensembles.pool import make_pool
    from latf_openmm.ensembles.reweighter import Reweighter
    from latf_openmm.frames.trajectory import FeatureTrajectory
    from latf_openmm.frames.walkers import WalkerFrames
    from latf_openmm.model.checkpoint import TrainedModel
    from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
    from latf_openmm.units import REDUCED

    rng, simulated, walkers = np.random.default_rng(0), (1.0, 1.4, 2.0), 10
    trajectories, owners = [], []
    for temperature in simulated:
        for walker in range(walkers):
            n = frames // (walkers * len(simulated))
            x = (np.sqrt(temperature) * rng.standard_normal((n, 6))).astype(np.float32)
            energy = 0.5 * np.square(x, dtype=np.float64).sum(axis=1)
            name = f"T{temperature}"
            trajectories.append(
                FeatureTrajectory(x, temperature, 1.0, energy, np.zeros(n), name, scale=REDUCED)
            )
            owners.append(WalkerFrames(name, walker, temperature, None, ()))  # type: ignore[arg-type]
    model = LatentThermodynamicFlow(ModelSettings(), 6, 5, 1.0).eval()
    trained = TrainedModel(model, (), (), "reduced", simulated)
    torch.set_num_threads(2)
    begin = time.perf_counter()
    reweighter = Reweighter(trained, make_pool(trained, owners, trajectories), 0)
    first = reweighter.at(1.0)
    first.energy()
    prepared = time.perf_counter() - begin
    for temperature in np.linspace(1.0, 2.0, 50):
        found = reweighter.at(float(temperature))
        found.populations(), found.energy(), found.heat_capacity()
    seconds = time.perf_counter() - begin
    return [
        {"frames": frames, "MBAR and bootstrap": prepared, "50 temperatures": seconds, "peak GB": peak_gb()}
    ]


def scaling(frames: int, descriptors: int) -> list[Row]:
    """Training: descriptors in one array, as those of a run are; two temperatures, twenty walkers."""
    import numpy as np

    from latf_openmm.frames.trajectory import FeatureTrajectory, new_features
    from latf_openmm.model.latf import ModelSettings
    from latf_openmm.training.fit import fit
    from latf_openmm.training.settings import TrainingSettings
    from latf_openmm.units import REDUCED

    rng, each = np.random.default_rng(0), frames // 20
    everything = new_features(20 * each, descriptors, Path.cwd())
    trajectories = []
    for walker in range(20):
        temperature = 1.0 if walker < 10 else 2.0
        x = everything[walker * each : (walker + 1) * each]
        rng.standard_normal(out=x, dtype=np.float32)
        x *= np.float32(0.5 * np.sqrt(temperature))
        side = 2 * (np.cumsum(rng.random(each) < 0.005) % 2) - 1  # two states
        x[:, 0] += side
        x[:, 1] += 0.5 * side
        energy = 2 * np.square(x[:, :4], dtype=np.float64).sum(axis=1)
        trajectories.append(
            FeatureTrajectory(x, temperature, 1.0, energy, np.zeros(each), f"T{temperature}", scale=REDUCED)
        )
    begin = time.perf_counter()
    settings = TrainingSettings(lag=2, restarts=1, refinements=5, epochs_flow=10)
    found = fit(trajectories, ModelSettings(), settings, 1)
    return [
        {
            "frames": frames,
            "descriptors": descriptors,
            "descriptors, GB": 4e-9 * frames * descriptors,
            "seconds": time.perf_counter() - begin,
            "peak GB": peak_gb(),
            "states": found.model.n_states,
        }
    ]


def featurisation() -> list[Row]:
    """Descriptors of chignolin's heavy atoms from frames in memory, beside MDTraj."""
    import mdtraj
    import numpy as np
    import torch

    from latf_openmm.features import build_features, resolve_features
    from latf_openmm.features.distances import DistanceSettings
    from latf_openmm.features.torsions import TorsionSettings
    from latf_openmm.frames.trajectory import featurise
    from latf_openmm.run.config import load_config

    torch.set_num_threads(1)
    built = load_config("chignolin").system.build(1)
    topology = built.mdtraj_topology()
    rng, n = np.random.default_rng(0), 5000
    xyz = (built.positions[:1] + 0.02 * rng.standard_normal((n, topology.n_atoms, 3))).astype(np.float32)
    trajectory = mdtraj.Trajectory(xyz, topology)
    rows = []
    heavy = DistanceSettings(selection="name CA or name CB", minimum_bonds=3)
    backbone = TorsionSettings(angles=["phi", "psi"])
    for name, settings in (("distances", heavy), ("torsions, sine and cosine", backbone)):
        module = build_features(resolve_features([settings], topology)).double()
        if name == "distances":
            atoms = topology.select("name CA or name CB")
            pairs = np.array([(a, b) for i, a in enumerate(atoms) for b in atoms[i + 1 :]])

            def theirs(opt: bool, pairs: Any = pairs) -> object:
                return mdtraj.compute_distances(trajectory, pairs, periodic=False, opt=opt)

        else:

            def theirs(opt: bool, pairs: Any = None) -> object:
                phi, psi = (
                    compute(trajectory, periodic=False, opt=opt)[1]
                    for compute in (mdtraj.compute_phi, mdtraj.compute_psi)
                )
                angles = np.concatenate([phi, psi], axis=1)
                return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

        ours = best(lambda: featurise(module, xyz))  # noqa: B023 - called at once
        python, compiled = best(lambda: theirs(False)), best(lambda: theirs(True))
        rows.append(
            {
                "what": name,
                "descriptors": len(module.names),
                "frames": n,
                "latf-openmm": ours,
                "MDTraj, Python": python,
                "MDTraj, C": compiled,
                "Python / ours": python / ours,
            }
        )
    return rows


def untrained(topology: Any, settings: Any, hidden: list[int], scale: str, temperature: float) -> Any:
    """A network on descriptors with random weights, which costs what a trained one does."""
    import torch

    from latf_openmm.features import resolve_features
    from latf_openmm.model.checkpoint import TrainedModel
    from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings

    features = tuple(resolve_features([settings], topology))
    n_features = sum(item.build().n_features for item in features)
    torch.manual_seed(0)
    model = LatentThermodynamicFlow(ModelSettings(encoder_hidden=hidden), n_features, 2, temperature)
    return TrainedModel(model, features, tuple(map(str, topology.atoms)), scale, (temperature,))


def walkers() -> list[Row]:
    """Copies of LJ7 in one Context, without and with a bias on a network, against a Context for each."""
    import numpy as np
    import openmm
    import torch

    from latf_openmm.bias.biased_system import add_bias
    from latf_openmm.bias.latent_cv import latent_cv
    from latf_openmm.bias.potentials.base import bias_context
    from latf_openmm.bias.potentials.harmonic import HarmonicSettings
    from latf_openmm.features.coordination import CoordinationSettings
    from latf_openmm.systems.lj7 import LJ7Settings

    torch.set_num_threads(1)
    settings, rng = LJ7Settings(), np.random.default_rng(0)
    one = settings.build(1)
    trained = untrained(one.mdtraj_topology(), CoordinationSettings(r0=1.5), [32, 32], "reduced", 0.2)
    bias = HarmonicSettings(centre=[0.0, 0.0], force_constant=10.0).build(bias_context(trained, 0.4))
    alone: dict[str, float] = {}
    rows = []
    for n in (1, 4, 16, 64, 256):
        built = settings.build(n)
        systems = {
            "no bias": built.system,
            "bias": add_bias(built.system, latent_cv(trained), bias, n_copies=n),
        }
        row: Row = {"walkers": n}
        for name, system in systems.items():
            integrator = openmm.LangevinMiddleIntegrator(settings.scale.kelvin(0.4), 0.5, 0.005)
            platform = openmm.Platform.getPlatformByName("Reference")
            context = openmm.Context(system, integrator, platform)
            context.setPositions(
                (built.positions + 1e-3 * rng.standard_normal(built.positions.shape)).reshape(-1, 3)
            )
            integrator.step(50)
            steps = max(20, 4000 // n)
            seconds = best(lambda: integrator.step(steps)) / steps  # noqa: B023 - called at once
            alone.setdefault(name, seconds)
            row[f"{name}, us a step"] = 1e6 * seconds
            row[f"{name}, a walker"] = 1e6 * seconds / n
            row[f"{name}, faster than alone"] = n * alone[name] / seconds
        rows.append(row)
    return rows


def molecules(name: str, platform: str, largest: int) -> list[Row]:
    """Copies of a molecule in one Context, without and with a bias, and with a temperature each."""
    import numpy as np
    import openmm
    import torch

    from latf_openmm.bias.biased_system import add_bias
    from latf_openmm.bias.latent_cv import latent_cv
    from latf_openmm.bias.potentials.base import bias_context
    from latf_openmm.bias.potentials.harmonic import HarmonicSettings
    from latf_openmm.features.distances import DistanceSettings
    from latf_openmm.run.config import load_config
    from latf_openmm.sampling.langevin import draw_velocities, langevin_integrator

    there = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    if platform not in there:
        return []
    torch.set_num_threads(1)
    settings = load_config(name).system
    one = settings.build(1)
    selection = "element != H" if name == "alanine_dipeptide" else "name CA"
    distances = DistanceSettings(selection=selection)
    trained = untrained(one.mdtraj_topology(), distances, [64, 64], "K", 300.0)
    bias = HarmonicSettings(centre=[0.0, 0.0], force_constant=10.0).build(bias_context(trained, 300.0))
    rows = []
    for n in (n for n in (1, 4, 16, 64, 256) if n <= largest):
        built = settings.build(n)
        kelvin = np.repeat(np.linspace(300.0, 450.0, n), built.n_atoms)
        biased = add_bias(built.system, latent_cv(trained), bias, n_copies=n)
        middle = openmm.LangevinMiddleIntegrator
        cases = {
            "no bias": (built.system, middle(300.0, 1.0, 0.004)),
            "bias": (biased, middle(300.0, 1.0, 0.004)),
            "bias, own temperatures": (biased, langevin_integrator(kelvin, 1.0, 0.004)),
        }
        row: Row = {"system": name, "platform": platform, "walkers": n}
        for case, (system, integrator) in cases.items():
            given = {"Threads": "1"} if platform == "CPU" else {}
            context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform), given)
            context.setPositions(built.placed(built.positions).reshape(-1, 3))
            draw_velocities(context, kelvin, 1)

            def run(steps: int, integrator: Any = integrator, context: Any = context) -> None:
                integrator.step(steps)
                context.getState(positions=True)  # a GPU has not ended before

            run(20 if n < 64 else 3)
            begin = time.perf_counter()
            run(2)
            steps = max(3, int(1.0 / ((time.perf_counter() - begin) / 2)))
            seconds = best(lambda: run(steps)) / steps  # noqa: B023 - called at once
            row[f"{case}, us a walker and step"] = 1e6 * seconds / n
            row[f"{case}, ns/day"] = n * 4e-6 * 86400 / seconds
        rows.append(row)
    return rows


def training(work: str, seed: int) -> list[Row]:
    """All stages with the defaults: three starts, four flows, reweighted frames."""
    import torch

    from benchmarks.quality.cases import SYSTEMS
    from benchmarks.quality.data import training_data
    from latf_openmm.training.fit import fit
    from latf_openmm.training.settings import TrainingSettings

    class Clock:
        """Stands in for a progress bar: knows when each stage ended."""

        def __init__(self) -> None:
            self.names: list[str] = []
            self.ends: dict[str, float] = {}

        def add_task(self, description: str, **_: object) -> int:
            self.names.append(description.strip())
            return len(self.names) - 1

        def update(self, task: int, **_: object) -> None:
            self.ends[self.names[task]] = time.perf_counter()

    torch.set_num_threads(1)
    case = SYSTEMS["lj7"]
    frames = training_data(case, case.regimes["plentiful"], seed, Path(work))
    clock, begin = Clock(), time.perf_counter()
    found = fit(frames, case.model, TrainingSettings(lag=2), seed, clock)  # type: ignore[arg-type]
    rows, before = [], begin
    for stage, end in clock.ends.items():
        epochs = [epoch for epoch in found.history if epoch.stage == stage]
        rows.append(
            {
                "stage": stage,
                "epochs": len(epochs),
                "seconds": end - before,
                "states": epochs[-1].n_states,
                "held-out": epochs[-1].divergence if stage == "flow" else epochs[-1].prediction,
            }
        )
        before = end
    total = {"stage": "all", "seconds": time.perf_counter() - begin, "states": found.model.n_states}
    return [*rows, total]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part")
    parser.add_argument("arguments", nargs="*")
    choice = parser.parse_args()
    arguments = [int(text) if text.isdigit() else text for text in choice.arguments]
    functions: dict[str, Callable[..., list[Row]]] = {
        "startup": startup,
        "generation": generation,
        "reweighting": reweighting,
        "scaling": scaling,
        "featurisation": featurisation,
        "training": training,
        "walkers": walkers,
        "molecules": molecules,
    }
    print(json.dumps(functions[choice.part](*arguments)))


if __name__ == "__main__":
    main()
