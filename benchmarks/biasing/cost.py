"""What a bias costs a step: every way of applying it, side by side in one run, as ratios.

A network on 45 distances (64, 64, 2 variables) biases alanine dipeptide in implicit solvent, chignolin in implicit
solvent, and alanine dipeptide in a box of water. The ways take turns in random order, and each turn is compared with
plain steps right before it: what a step takes changes from second to second. The medians of these ratios count.
"""

import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import app, unit
from torch import Tensor

from benchmarks.biasing.samplers import OneComponent
from latf_openmm.bias.biased_system import add_bias
from latf_openmm.bias.cv import CollectiveVariables
from latf_openmm.bias.force import stepping
from latf_openmm.bias.force.base import ForcesName
from latf_openmm.bias.force.bias_energy import BiasEnergy, trace_forces
from latf_openmm.bias.latent_cv import latent_cv
from latf_openmm.bias.multistep import MultistepStepper
from latf_openmm.bias.potentials import Bias
from latf_openmm.bias.potentials.base import AdaptiveBias, BiasContext, bias_context
from latf_openmm.bias.potentials.flow_barrier import FlowBarrierSettings
from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.bias.potentials.metadynamics import MetadynamicsSettings
from latf_openmm.bias.potentials.opes import Opes, OpesSettings
from latf_openmm.features import resolve_features
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.force_groups import BIAS_GROUP
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.systems.chignolin import ChignolinSettings
from latf_openmm.systems.library import library_folder

_KERNELS = 200  # updates of the adaptive biases before their cost is measured
_SECONDS = 0.1  # of one measurement
_REPEATS = 30


@dataclass(frozen=True)
class Molecule:
    """One system of the table.

    Attributes
    ----------
    selection
        Atoms whose distances the network sees.
    platforms
        Where it is measured.
    """

    name: str
    topology: app.Topology
    system: openmm.System
    positions: NDArray[np.float64]
    selection: str
    platforms: tuple[str, ...]


def dipeptide() -> Molecule:
    built = AlanineDipeptideSettings().build()
    return Molecule(
        "alanine dipeptide, OBC2, 22 atoms",
        built.topology,
        built.system,
        built.positions[0],
        "element != H",
        ("Reference", "CPU"),
    )


def chignolin() -> Molecule:
    built = ChignolinSettings(hydrogen_mass=1.008).build()
    return Molecule(
        "chignolin, OBC2, 166 atoms", built.topology, built.system, built.positions[0], "name CA", ("CPU",)
    )


def water_box() -> Molecule:
    pdb = app.PDBFile(str(library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"))
    field = app.ForceField("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addSolvent(field, model="tip3p", numAdded=826)
    system = field.createSystem(
        modeller.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.9 * unit.nanometer,
        constraints=app.HBonds,
    )
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    n = len(positions)
    return Molecule(
        f"alanine dipeptide in water, PME, {n} atoms",
        modeller.topology,
        system,
        positions,
        "element != H and not water",
        ("CPU",),
    )


def custom_cv_way(molecule: Molecule, cv: CollectiveVariables, table: bool) -> openmm.System:
    """Two TorchForces in a CustomCVForce: a restraint, or a table as `openmm.app.Metadynamics` has it."""
    import openmmtorch

    force = openmm.CustomCVForce("table(a, b)" if table else "50*(a^2 + b^2)")
    if table:
        values = np.random.default_rng(0).normal(size=101 * 101)
        force.addTabulatedFunction("table", openmm.Continuous2DFunction(101, 101, values, -9, 9, -9, 9))
    for index, name in enumerate("ab"):
        force.addCollectiveVariable(name, openmmtorch.TorchForce(torch.jit.script(OneComponent(cv, index))))
    force.setForceGroup(BIAS_GROUP)
    result = copy.deepcopy(molecule.system)
    result.addForce(force)
    return result


def _trained(molecule: Molecule) -> TrainedModel:
    """A network on the molecule's distances; untrained, which costs the same."""
    import mdtraj

    topology = mdtraj.Topology.from_openmm(molecule.topology)
    features = resolve_features([DistanceSettings(selection=molecule.selection)], topology)
    n = features[0].build().n_features
    torch.manual_seed(0)
    model = LatentThermodynamicFlow(ModelSettings(encoder_hidden=[64, 64]), n, 2, 300.0)
    return TrainedModel(model, tuple(features), tuple(map(str, topology.atoms)), "K", (300.0,))


def _biases(context: BiasContext) -> dict[str, Bias]:
    biases = {
        "harmonic": HarmonicSettings(centre=[0.0, 0.0], force_constant=100.0).build(context),
        "flow_barrier": FlowBarrierSettings().build(context),
        "metadynamics": MetadynamicsSettings(height=0.01).build(context),
        "opes": OpesSettings(barrier=30.0).build(context),
    }
    generator = torch.Generator().manual_seed(0)
    for bias in biases.values():
        if isinstance(bias, AdaptiveBias):
            for row in torch.randint(20_000, (_KERNELS,), generator=generator):
                bias.update(context.samples("")[row : row + 1])
    return biases


def _stepper(way: "Way", platform: str, positions: NDArray[np.float64]) -> Callable[[], float]:
    """Return a function that measures the time of a step [us]."""
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    properties = {"Threads": "1"} if platform == "CPU" else {}
    context = openmm.Context(way.system, integrator, openmm.Platform.getPlatformByName(platform), properties)
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 50)
    stepper = MultistepStepper(context, way.every) if way.every > 1 else context.getIntegrator()
    stepper.step(20)
    start = time.perf_counter()
    stepper.step(20)
    n = max(5, int(_SECONDS / ((time.perf_counter() - start) / 20)))
    forces: ForcesName = "traced" if way.recorded else "autograd"

    def measure(context: openmm.Context = context) -> float:  # which has to live as long as this does
        with stepping(forces):
            stepper.step(n // 4)  # another Context was in the caches, and its thread awake
            start = time.perf_counter()
            stepper.step(n)
            return (time.perf_counter() - start) / n * 1e6

    return measure


@dataclass(frozen=True)
class Way:
    """How the bias is applied.

    Attributes
    ----------
    every
        Steps between its evaluations.
    recorded
        Whether its forces are not differentiated at every step.
    """

    system: openmm.System
    every: int = 1
    recorded: bool = True


def ways(molecule: Molecule) -> dict[str, Way]:
    trained = _trained(molecule)
    cv = latent_cv(trained)
    biases = _biases(bias_context(trained, 300.0))
    found = {"no bias": Way(molecule.system)}
    if not molecule.system.usesPeriodicBoundaryConditions():  # where it would not see the box
        found["harmonic, two TorchForces in CustomCVForce"] = Way(
            custom_cv_way(molecule, cv, False), recorded=False
        )
        found["table, two TorchForces in CustomCVForce"] = Way(
            custom_cv_way(molecule, cv, True), recorded=False
        )
    for kind, bias in biases.items():
        name = f"{kind}, {bias.n_kernels} kernels" if isinstance(bias, Opes) else kind
        for backend, label in (
            ("compiled", "compiled"),
            ("torchforce", "TorchForce"),
            ("python", "torch in PythonForce"),
        ):
            found[f"{name}, {label}"] = Way(add_bias(molecule.system, cv, bias, backend=backend))
    autograd = add_bias(molecule.system, cv, biases["harmonic"], backend="torchforce", forces="autograd")
    found["harmonic, TorchForce that differentiates at every step"] = Way(autograd, recorded=False)
    opes = add_bias(molecule.system, cv, biases["opes"], backend="compiled", multistep=True)
    for n in (2, 4):
        found[f"opes, compiled, every {n} steps (MultistepStepper)"] = Way(opes, n)
    return found


@dataclass(frozen=True)
class Cost:
    """What a step takes [us]; its ratio to a plain one at about that time, with the standard error of the median."""

    step: float
    ratio: float
    error: float


def measure(molecule: Molecule, platform: str) -> dict[str, Cost]:
    """Measure each way."""
    steppers = {name: _stepper(way, platform, molecule.positions) for name, way in ways(molecule).items()}
    rng, names, plain = np.random.default_rng(0), list(steppers), steppers["no bias"]
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(_REPEATS):
        for place in rng.permutation(len(names)):
            pairs[names[place]].append((plain(), steppers[names[place]]()))
    found = {}
    for name, times in pairs.items():
        ratios = np.array([way / alone for alone, way in times])
        again = [np.median(rng.choice(ratios, len(ratios))) for _ in range(200)]
        step = float(np.median([way for _, way in times]))
        found[name] = Cost(step, float(np.median(ratios)), float(np.std(again)))
    return found


def operations() -> str:
    """Where the time of one evaluation goes, on the dipeptide's network."""
    molecule = dipeptide()
    trained = _trained(molecule)
    cv, context = latent_cv(trained), bias_context(trained, 300.0)
    x = torch.from_numpy(molecule.positions)
    rows = []
    for kind, bias in _biases(context).items():
        graph = torch.jit.freeze(trace_forces(BiasEnergy(cv, bias), False))
        n = sum(
            not node.kind().startswith("prim::") and "Device" not in node.kind()
            for node in graph.graph.nodes()
        )
        arguments = (x, torch.empty(0), bias.state)
        with torch.no_grad():
            seconds = _best(graph, arguments)
        rows.append(f"| {kind} | {n} | {seconds * 1e6:.0f} | {seconds * 1e6 / n:.2f} |")
    return "\n".join(rows)


def _best(graph: torch.jit.ScriptModule, arguments: tuple[Tensor, ...]) -> float:
    times = []
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(200):
            graph(*arguments)
        times.append((time.perf_counter() - start) / 200)
    return float(np.median(times[5:]))


def page() -> str:
    """Markdown tables of all molecules."""
    torch.set_num_threads(1)
    # On one core; else the CPU platform's thread is moved from core to core, at twice the time of a step.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    parts = []
    for molecule in (dipeptide(), chignolin(), water_box()):
        for platform in molecule.platforms:
            found = measure(molecule, platform)
            plain = found["no bias"].step
            custom = found.get("harmonic, two TorchForces in CustomCVForce")
            rows = []
            for name, cost in found.items():
                share = "" if custom is None else f"{(cost.ratio - 1) / (custom.ratio - 1):.2f}"
                ratio = f"{cost.ratio:.3f} ± {cost.error:.3f}"
                rows.append(
                    f"| {name} | {cost.step:.0f} | {(cost.ratio - 1) * plain:.0f} | {ratio} | {share} |"
                )
                print(molecule.name, platform, rows[-1], flush=True)
            parts.append(
                f"### {molecule.name}, {platform} platform\n\n"
                "| way | step [us] | more than plain [us] | step / plain | bias / CustomCVForce way |\n"
                "|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
            )
    return _PAGE.format(tables="\n".join(parts), operations=operations(), repeats=_REPEATS, seconds=_SECONDS)


_PAGE = """## Cost of a step

Langevin dynamics, 2 fs, one thread; a network of 45 distances, 64, 64 and 2 variables. All ways of a table are
measured in turn, in random order, {repeats} times for {seconds:g} s; ratios are to plain steps right before, medians
and their standard errors. "CustomCVForce way": two TorchForces, one for each variable, in a CustomCVForce, which is
what `openmm.app.Metadynamics` needs for them; its harmonic form is the unit of the last column. The process is bound to
one core: the CPU platform hands its work to a thread, and where that is moved about, plain chignolin takes 0.6 to 1.1
ms from one second to the next. "compiled" is the default; "TorchForce" and "torch in PythonForce" run the recorded
graph by torch. Steps with recorded forces are taken in torch's inference mode, as the driver does.

{tables}
### Where the time goes

One evaluation of energy and forces by torch outside OpenMM, dipeptide network: what it costs is the number of
operations, not their arithmetic.

| bias | operations | time [us] | time of an operation [us] |
|---|---|---|---|
{operations}
"""


if __name__ == "__main__":
    print(page())
