"""Whether biases are right on a GPU, what they cost there, how many walkers fill it, and a short loop: one table each.

python -m benchmarks.gpu.run --platform CUDA --output OUT                        # at most 8 minutes on one device
python -m benchmarks.gpu.run --platform Reference --output OUT --seconds 0.02    # to try the script

Rows are measured in this order until the time is up; OUT/gpu.md has what was measured so far.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import openmm
import torch

from benchmarks.biasing.cost import Molecule, _biases, _trained, chignolin, dipeptide
from latf_openmm.bias.biased_system import add_bias
from latf_openmm.bias.force import stepping
from latf_openmm.bias.force.base import _BACKENDS, BACKEND_NAMES
from latf_openmm.bias.force.bias_energy import BiasEnergy
from latf_openmm.bias.latent_cv import latent_cv
from latf_openmm.bias.potentials.base import bias_context
from latf_openmm.force_groups import BIAS_GROUP
from latf_openmm.run.config import load_config
from latf_openmm.run.loop import run_loop
from latf_openmm.run.verify import verify_run
from latf_openmm.sampling.contexts import PlatformChoice
from latf_openmm.settings import validate
from latf_openmm.systems.chignolin import ChignolinSettings
from latf_openmm.systems.copies import many_copies

_MINUTES = 7.5
"""After which no row is begun."""
_WALKERS = (1, 4, 16, 64, 256)
"""Copies in one Context."""

_QUICK = {
    "lag": 2,
    "initial_states": 5,
    "epochs_joint": 1,
    "epochs_flow": 1,
    "refinements": 1,
    "pairs_per_epoch": 500,
}
"""Settings of a training that is not looked at."""


def precisions(platform: str) -> tuple[dict[str, str], ...]:
    """Properties to measure with."""
    names = openmm.Platform.getPlatformByName(platform).getPropertyNames()
    return ({"Precision": "mixed"}, {"Precision": "double"}) if "Precision" in names else ({},)


def backends() -> list[str]:
    """Backends that work here."""
    return [name for name in BACKEND_NAMES if name != "auto" and _BACKENDS[name].why_unavailable() is None]


def tip3p() -> Molecule:
    built = ChignolinSettings(solvent="tip3p").build()
    name = f"chignolin, TIP3P, {built.n_atoms} atoms"
    return Molecule(name, built.topology, built.system, built.positions[0], "name CA", ())


def heading(title: str, *columns: str) -> str:
    """A title and the first lines of a table."""
    return f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def contract(platform: str, _seconds: float) -> Iterator[str]:
    """Rows: bias, backend, precision, relative error of energy and forces."""
    yield heading("Energies and forces beside torch", "bias", "backend", "precision", "energy", "forces")
    molecule = dipeptide()
    trained = _trained(molecule)
    cv = latent_cv(trained)
    for kind, bias in _biases(bias_context(trained, 300.0)).items():
        for backend in backends():
            system = add_bias(molecule.system, cv, bias, backend=backend)
            for properties in precisions(platform):
                context = PlatformChoice(platform, properties).context(system)
                context.setPositions(molecule.positions)
                state = context.getState(positions=True, energy=True, forces=True, groups={BIAS_GROUP})
                x = torch.from_numpy(np.array(state.getPositions(asNumpy=True)._value))
                energy, forces = BiasEnergy(cv, bias).energy_and_forces(x, torch.empty(0), bias.state)
                e = abs(state.getPotentialEnergy()._value / float(energy) - 1)
                f = np.abs(state.getForces(asNumpy=True)._value - forces.numpy()).max() / float(
                    forces.abs().max()
                )
                yield f"| {kind} | {backend} | {properties.get('Precision', 'double')} | {e:.0e} | {f:.0e} |"


def stepper(
    system: openmm.System, positions: np.ndarray, platform: str, seconds: float
) -> Callable[[], float]:
    """Return a function that measures the time of a step [us]."""
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    context = PlatformChoice(platform, precisions(platform)[0]).context(system, integrator)
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 50)

    def steps(n: int) -> float:
        with stepping("traced"):
            begin = time.perf_counter()
            integrator.step(n)
            context.getState(energy=True)  # waits for the device
            return (time.perf_counter() - begin) / n * 1e6

    steps(20)
    n = max(5, int(seconds / (steps(20) * 1e-6)))
    return lambda: steps(n)


def cost(platform: str, seconds: float) -> Iterator[str]:
    """Rows: molecule, bias, backend, time of a step, and more than a plain one; medians of paired turns."""
    yield heading("Cost of a step", "molecule", "bias", "backend", "step [us]", "more [us]", "ratio")
    for molecule in (chignolin(), tip3p()):
        trained = _trained(molecule)
        cv = latent_cv(trained)
        plain = stepper(molecule.system, molecule.positions, platform, seconds)
        for kind, bias in _biases(bias_context(trained, 300.0)).items():
            for backend in backends():
                biased = stepper(
                    add_bias(molecule.system, cv, bias, backend=backend),
                    molecule.positions,
                    platform,
                    seconds,
                )
                pairs = np.array([(plain(), biased()) for _ in range(5)])
                step, more = np.median(pairs[:, 1]), np.median(pairs[:, 1] - pairs[:, 0])
                ratio = np.median(pairs[:, 1] / pairs[:, 0])
                yield f"| {molecule.name} | {kind} | {backend} | {step:.0f} | {more:.0f} | {ratio:.3f} |"


def walkers(platform: str, seconds: float) -> Iterator[str]:
    """Rows: walkers in one Context, time of a walker-step plain and with OPES."""
    yield heading("Walkers in one Context", "walkers", "plain [us a walker-step]", "with OPES", "ratio")
    molecule = dipeptide()
    trained = _trained(molecule)
    cv, bias = latent_cv(trained), _biases(bias_context(trained, 300.0))["opes"]
    for n in _WALKERS:
        many = many_copies(molecule.system, n)
        x = many.placed(np.repeat(molecule.positions[None], n, axis=0)).reshape(-1, 3)
        plain = stepper(many.system, x, platform, seconds)
        biased = stepper(add_bias(many.system, cv, bias, n_copies=n), x, platform, seconds)
        pairs = np.median([(plain() / n, biased() / n) for _ in range(3)], axis=0)
        yield f"| {n} | {pairs[0]:.2f} | {pairs[1]:.2f} | {pairs[1] / pairs[0]:.3f} |"


def loop(platform: str, output: Path, steps: int = 2000) -> Iterator[str]:
    """A loop of two rounds of the dipeptide with OPES; what `verify` says of it."""
    yield f"\n## A loop of two rounds, {steps} steps a walker, with OPES\n"
    config = load_config("alanine_dipeptide/fast")
    data = config.model_dump(mode="json", exclude_none=True)
    short = {"platform": platform, "processes": 1, "walkers": 2, "frame_interval": 10, "frames": steps // 10}
    data["simulation"] |= short
    data |= {"bias": {"kind": "opes", "barrier": 20.0, "pace": 100}, "loop": {"rounds": 2}}
    data["training"] |= _QUICK
    data.pop("validation", None)
    begin = time.perf_counter()
    run = run_loop(validate(type(config), data, "gpu"), output / "loop")
    report = verify_run(run.path)
    yield f"{time.perf_counter() - begin:.0f} s; verify: {'whole' if report.intact else report.damages}"


def main() -> None:
    """Do the parts, and write after each row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--platform", default="CUDA")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=0.3, help="of one measurement")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    begin, lines = (
        time.monotonic(),
        [f"# Biases on {options.platform}, OpenMM {openmm.__version__}, torch {torch.__version__}"],
    )
    parts = [part(options.platform, options.seconds) for part in (contract, cost, walkers)]
    for row in chain(*parts, loop(options.platform, options.output)):
        lines.append(row)
        print(row, flush=True)
        (options.output / "gpu.md").write_text("\n".join(lines) + "\n")
        if time.monotonic() - begin > 60 * _MINUTES:
            return


if __name__ == "__main__":
    main()
