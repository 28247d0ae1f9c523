"""Measure what the bias costs a step: every way of applying it, side by side, as ratios.

    python benchmarks/bias_cost.py

Alanine dipeptide on the Reference platform: 45 heavy-atom distances -> 64 -> 64 -> 2, tabulated and harmonic
bias, against the same step without bias, and against two TorchForces in a CustomCVForce (one a collective
variable, what `openmm.app.Metadynamics` would use). The ways are interleaved, several repeats each; printed are
medians and the ratio to the CustomCVForce way.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import openmm
import torch
from torch import Tensor, nn

import latf_openmm  # noqa: F401
from latf_openmm.features import resolve_features
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.md.bias import Bias
from latf_openmm.md.bias.base import bias_context
from latf_openmm.md.bias.flow_barrier import FlowBarrierSettings
from latf_openmm.md.bias.harmonic import HarmonicSettings
from latf_openmm.md.bias.metadynamics import MetadynamicsSettings
from latf_openmm.md.bias.opes import Opes, OpesSettings
from latf_openmm.md.biased_system import add_bias
from latf_openmm.md.cv import CollectiveVariables, SingleFrameCV
from latf_openmm.md.latent_cv import latent_cv
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings


class OneComponent(nn.Module):
    """One collective variable, as a TorchForce of its own wants it."""

    def __init__(self, cv: CollectiveVariables, index: int) -> None:
        super().__init__()
        self.cv = SingleFrameCV(cv)
        self.index = index

    def forward(self, positions: Tensor) -> Tensor:  # noqa: D102
        return self.cv(positions)[self.index]


def custom_cv_way(system: openmm.System, cv: CollectiveVariables) -> openmm.System:
    import copy

    import openmmtorch

    force = openmm.CustomCVForce("50*(a^2 + b^2)")
    for index, name in enumerate("ab"):
        force.addCollectiveVariable(name, openmmtorch.TorchForce(torch.jit.script(OneComponent(cv, index))))
    result = copy.deepcopy(system)
    result.addForce(force)
    return result


def stepper(system: openmm.System, positions: np.ndarray, steps: int) -> Callable[[], float]:
    context = openmm.Context(
        system, openmm.VerletIntegrator(1e-6), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(positions)
    context.getIntegrator().step(50)

    def measure() -> float:
        start = time.perf_counter()
        context.getIntegrator().step(steps)
        return (time.perf_counter() - start) / steps * 1e6

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    built = AlanineDipeptideSettings().build()
    topology = built.mdtraj_topology()
    features = resolve_features([DistanceSettings(selection="element != H")], topology)
    model = LatentThermodynamicFlow(ModelSettings(encoder_hidden=[64, 64]), 45, 2, 300.0)
    trained = TrainedModel(model, tuple(features), tuple(map(str, topology.atoms)), "K", (300.0,))
    cv, context = latent_cv(trained), bias_context(trained, 300.0)
    harmonic = HarmonicSettings(centre=[0.0, 0.0], strength=100.0).build(context)
    table = FlowBarrierSettings().build(context)
    direct = FlowBarrierSettings(tabulate=False).build(context)

    def ours(bias: Bias, **options: str) -> openmm.System:
        return add_bias(built.system, cv, bias, **options)

    systems = {
        "no bias": built.system,
        "harmonic, two TorchForces in CustomCVForce": custom_cv_way(built.system, cv),
        "harmonic, TorchForce, traced": ours(harmonic, backend="torchforce", forces="traced"),
        "harmonic, TorchForce, autograd": ours(harmonic, backend="torchforce", forces="autograd"),
        "harmonic, PythonForce, traced": ours(harmonic, backend="python"),
        "flow_barrier, TorchForce, traced": ours(table, backend="torchforce", forces="traced"),
        "flow_barrier, TorchForce, autograd": ours(table, backend="torchforce", forces="autograd"),
        "flow_barrier, PythonForce, traced": ours(table, backend="python"),
        "flow_barrier without its table, TorchForce, traced": ours(
            direct, backend="torchforce", forces="traced"
        ),
    }
    for kind, settings in (
        ("metadynamics", MetadynamicsSettings(height=0.01)),
        ("opes", OpesSettings(barrier=30.0)),
    ):
        adaptive = settings.build(context)
        for _ in range(200):
            adaptive.update(context.samples("")[torch.randint(20_000, (1,))])
        for backend, name in (("torchforce", "TorchForce"), ("python", "PythonForce")):
            kernels = f", {adaptive.n_kernels} kernels" if isinstance(adaptive, Opes) else ""
            systems[f"{kind}{kernels}, {name}, traced"] = ours(adaptive, backend=backend)
    positions = built.positions[0]
    measures = {name: stepper(system, positions, args.steps) for name, system in systems.items()}
    times: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(args.repeats):
        for name, measure in measures.items():
            times[name].append(measure())
    median = {name: float(np.median(values)) for name, values in times.items()}
    plain = median["no bias"]
    base = median["harmonic, two TorchForces in CustomCVForce"] - plain
    print("| way | step [us] | bias [us] | bias / CustomCVForce way |")
    print("|---|---|---|---|")
    for name, value in median.items():
        print(f"| {name} | {value:.0f} | {value - plain:.0f} | {(value - plain) / base:.2f} |")


if __name__ == "__main__":
    main()
