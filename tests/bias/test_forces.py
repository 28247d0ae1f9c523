"""The contract every bias force keeps: each kind, backend and platform; and what is known of the biases."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from helpers.forces import PLATFORMS, TOLERANCE, make_context
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from openmm import unit
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from latf_openmm.bias.biased_system import add_bias
from latf_openmm.bias.latent_cv import latent_cv
from latf_openmm.bias.potentials import BIAS_KINDS, Bias, BiasContext, BiasSettings
from latf_openmm.bias.potentials.base import AdaptiveBias
from latf_openmm.bias.potentials.flow_barrier import FlowBarrier, FlowBarrierSettings
from latf_openmm.bias.potentials.harmonic import Harmonic, HarmonicSettings, MovingHarmonicSettings
from latf_openmm.bias.potentials.metadynamics import MetadynamicsSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.bias.potentials.sum import SumSettings
from latf_openmm.bias.potentials.table import TabulatedBias
from latf_openmm.bias.potentials.walls import WallSettings
from latf_openmm.errors import BackendError, ConfigError, LatfError, ModelError
from latf_openmm.features import FeatureSettings, resolve_features
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.coordination import CoordinationSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.force_groups import BIAS_GROUP
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.model.flow import FlowSettings
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.sampling.stage import SimulationSettings
from latf_openmm.settings import validate
from latf_openmm.systems import BuiltSystem, SystemSettings
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.systems.lj7 import LJ7Settings
from latf_openmm.systems.three_hole import ThreeHoleSettings

Array = NDArray[np.float64]
_KJ = unit.kilojoule_per_mole
_FORCE = _KJ / unit.nanometer
ROOT = Path(__file__).parents[2]
NO_BOX = torch.empty(0)
STEP = 1e-6  # nm, of the finite differences


@dataclass(frozen=True)
class Case:
    """A system with the features of its collective variables."""

    system: SystemSettings
    features: tuple[FeatureSettings, ...]
    temperature: float  # in the system's own scale; the structures come from a short run at it
    time_step: float  # ps
    n_copies: int
    hidden: tuple[int, ...]


CASES = {
    "dipeptide": Case(
        AlanineDipeptideSettings(),
        (DistanceSettings(selection="element != H", minimum_bonds=3), TorsionSettings(angles=["phi", "psi"])),
        300.0,
        0.002,
        1,
        (16,),
    ),
    "lj7": Case(LJ7Settings(), (CoordinationSettings(r0=1.5),), 0.5, 0.005, 3, ()),
}


@dataclass(frozen=True)
class Line:
    """One bias, and the transform of the flow it is used with."""

    settings: BiasSettings
    transform: str = "spline"


# At least one line for each kind.
BIASES = {
    "harmonic": Line(HarmonicSettings(centre=[0.25, -0.5], force_constant=[8.0, 3.0])),
    "flow_barrier, table": Line(FlowBarrierSettings(barrier_kt=6.0, points=60)),
    "flow_barrier, affine": Line(FlowBarrierSettings(barrier_kt=6.0, tabulate=False), "affine"),
    "flow_barrier, spline": Line(FlowBarrierSettings(barrier_kt=6.0, tabulate=False)),
    "moving_harmonic": Line(
        MovingHarmonicSettings(start=[0.25, -0.5], end=[1.0, 0.0], force_constant=8.0, steps=100)
    ),
    "walls": Line(WallSettings(low=[None, 0.2], high=[-0.3, None], force_constant=60.0, power=3)),
    "metadynamics": Line(MetadynamicsSettings(sigma=0.3, height=2.0)),
    "opes": Line(OpesSettings(sigma=0.3, barrier=30.0)),
    "sum": Line(
        SumSettings(
            parts=[
                OpesSettings(sigma=0.3, barrier=30.0, flavour="explore", components=[1]),
                HarmonicSettings(centre=[0.25], force_constant=8.0, components=[0]),
            ]
        )
    ),
}

BACKENDS: dict[str, dict[str, Any]] = {
    "compiled": {"backend": "compiled"},
    "torchforce-traced": {"backend": "torchforce", "forces": "traced"},
    "torchforce-autograd": {"backend": "torchforce", "forces": "autograd"},
    "python": {"backend": "python"},
}


def row(case: str, bias: str, backend: str, platform: str) -> Any:
    """A row of the contract; those of the molecule by the slower backends are slow but for two biases."""
    slow = (
        case == "dipeptide"
        and backend not in ("compiled", "torchforce-traced")
        and bias not in ("harmonic", "opes")
    )
    return pytest.param(case, bias, backend, platform, marks=[pytest.mark.slow] if slow else [])


contract = pytest.mark.parametrize(
    ("case", "bias", "backend", "platform"),
    [row(*values) for values in product(CASES, BIASES, BACKENDS, PLATFORMS)],
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):  # NumPy's linear algebra crawls when its threads wait for each other
        yield
    torch.set_num_threads(before)


# --- models, structures, contexts ------------------------------------------------------------------


@cache
def structures(name: str, n: int = 300) -> Array:
    """Frames of one copy from a short unbiased run, shape (n, n_atoms, 3) [nm]."""
    case = CASES[name]
    built = case.system.build(1)
    integrator = openmm.LangevinMiddleIntegrator(
        case.system.scale.kelvin(case.temperature), 2.0, case.time_step
    )
    integrator.setRandomNumberSeed(1)
    ctx = openmm.Context(built.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    ctx.setPositions(built.positions[0])
    ctx.setVelocitiesToTemperature(case.system.scale.kelvin(case.temperature), 1)
    integrator.step(500)
    frames = np.empty((n, built.n_atoms, 3))
    for index in range(n):
        integrator.step(20)
        state = ctx.getState(positions=True)
        frames[index] = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    return frames


def shaken(model: LatentThermodynamicFlow, size: float = 0.2) -> LatentThermodynamicFlow:
    """Give a new flow, which is the identity, modest random parameters."""
    with torch.no_grad():
        for parameter in model.flows[0].parameters():
            parameter.add_(size * torch.randn(parameter.shape))
    return model.eval()


@cache
def trained(name: str, transform: str) -> TrainedModel:
    """Random encoder and flow around the structures of one case; nobody may change it."""
    case = CASES[name]
    topology = case.system.build(1).mdtraj_topology()
    resolved = tuple(resolve_features(case.features, topology))
    torch.manual_seed(3)
    flow = FlowSettings(transform=transform, layers=2, hidden=[8], bins=5)  # type: ignore[arg-type]
    model_settings = ModelSettings(encoder_hidden=list(case.hidden), flow=flow)
    atoms = tuple(str(atom) for atom in topology.atoms)
    empty = TrainedModel(nn.Module(), resolved, atoms, "any", (case.temperature,))  # type: ignore[arg-type]
    x = empty.feature_module()(torch.from_numpy(structures(name)), NO_BOX).float()
    model = LatentThermodynamicFlow(model_settings, x.shape[1], 3, case.temperature)
    model.feature_mean.copy_(x.mean(0))
    model.feature_scale.copy_(x.std(0))
    with torch.no_grad():
        z = model.encode(x)
    model.flows[0].whiten(z.mean(0), z.std(0))
    return TrainedModel(shaken(model), resolved, atoms, "any", (case.temperature,))


def model_of(name: str, line: str) -> TrainedModel:
    return trained(name, BIASES[line].transform)


def new_bias(name: str, line: str) -> Bias:
    case = CASES[name]
    kT = case.system.scale.kT(case.temperature)
    bias = BIASES[line].settings.build(BiasContext.of_model(model_of(name, line).model, case.temperature, kT))
    if isinstance(bias, AdaptiveBias):
        features, model = model_of(name, line).feature_module(), copy.deepcopy(model_of(name, line).model)
        with torch.no_grad():
            z = model.double().encode(features(torch.from_numpy(structures(name)[::10]), NO_BOX))
        for rows in z.split(3):
            bias.update(rows)
    return bias


@cache
def start(name: str, line: str) -> Array:
    """One structure for each copy where the bias is far from constant, shape (n_copies, n_atoms, 3)."""
    frames = structures(name)[::3]
    order = np.argsort([largest_slope(name, line, frame) for frame in frames])
    ranks = np.linspace(0.6, 0.9, CASES[name].n_copies) * len(order)
    return frames[order[ranks.astype(int)]]


def largest_slope(name: str, line: str, frame: Array) -> float:
    """Largest derivative of the bias energy by a coordinate, by plain torch."""
    features, model, bias = pristine(name, line)
    x = torch.from_numpy(frame[None]).requires_grad_(True)
    (slope,) = torch.autograd.grad(bias(model.encode(features(x, NO_BOX))).sum(), x)
    return float(slope.abs().max())


@cache
def pristine(name: str, line: str) -> tuple[nn.Module, LatentThermodynamicFlow, Bias]:
    found = model_of(name, line)
    return found.feature_module(), copy.deepcopy(found.model).double(), new_bias(name, line)


def eager(name: str, line: str, positions: Array) -> Tensor:
    """The bias energy by plain torch, copy after copy, without any of the code under `md`."""
    features, model, bias = pristine(name, line)
    total = torch.zeros((), dtype=torch.float64)
    for frame in torch.from_numpy(positions):
        total = total + bias(model.encode(features(frame[None], NO_BOX))).sum()
    return total.detach()


@cache
def built_system(name: str) -> tuple[BuiltSystem, str]:
    """The caller's System, and its XML before anything was done with it."""
    built = CASES[name].system.build(CASES[name].n_copies)
    return built, openmm.XmlSerializer.serialize(built.system)


@cache
def biased(name: str, line: str, backend: str) -> openmm.System:
    built, _ = built_system(name)
    cv = latent_cv(model_of(name, line))
    return add_bias(
        built.system, cv, new_bias(name, line), n_copies=CASES[name].n_copies, **BACKENDS[backend]
    )


@cache
def context(name: str, line: str, backend: str, platform: str) -> openmm.Context:
    return make_context(biased(name, line, backend), platform)


def energy(ctx: openmm.Context, positions: Array, groups: Any = frozenset({BIAS_GROUP})) -> float:
    ctx.setPositions(positions.reshape(-1, 3))
    state = ctx.getState(energy=True, groups=set(groups))
    return float(state.getPotentialEnergy().value_in_unit(_KJ))


def energy_and_forces(ctx: openmm.Context, positions: Array) -> tuple[float, Array]:
    ctx.setPositions(positions.reshape(-1, 3))
    state = ctx.getState(energy=True, forces=True, groups={BIAS_GROUP})
    values = np.asarray(state.getForces(asNumpy=True).value_in_unit(_FORCE)).reshape(positions.shape)
    return float(state.getPotentialEnergy().value_in_unit(_KJ)), values


def forces(ctx: openmm.Context, positions: Array) -> Array:
    return energy_and_forces(ctx, positions)[1]


def difference_error(ctx: openmm.Context, positions: Array, n_directions: int | None = None) -> float:
    """Largest deviation of the forces from central differences, relative to the largest force.

    Along every coordinate, or to save time along random directions.
    """
    exact = forces(ctx, positions).ravel()
    directions = np.eye(exact.size)
    if n_directions is not None:
        directions = np.random.default_rng(4).normal(size=(n_directions, exact.size))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    x = positions.ravel()
    numeric = [
        (energy(ctx, x - STEP * direction) - energy(ctx, x + STEP * direction)) / (2 * STEP)
        for direction in directions
    ]
    return float(np.abs(directions @ exact - numeric).max() / np.abs(exact).max())


def moved_rigidly(positions: Array, seed: int) -> tuple[Array, Array]:
    """Every copy turned and shifted by itself; and the rotation matrices, shape (n_copies, 3, 3)."""
    rng = np.random.default_rng(seed)
    turns = np.array([Rotation.random(rng=rng).as_matrix() for _ in positions])
    return np.einsum("cij,caj->cai", turns, positions) + rng.normal(size=(len(positions), 1, 3)), turns


# --- the contract ----------------------------------------------------------------------------------


def test_every_kind_is_in_the_contract() -> None:
    assert {line.settings.kind for line in BIASES.values()} == set(BIAS_KINDS)  # type: ignore[attr-defined]
    assert {"Reference", "CPU"} <= set(PLATFORMS)
    assert all(system.features for system in CASES.values())


@pytest.mark.parametrize(("case", "bias"), list(product(CASES, BIASES)))
def test_the_test_structures_feel_the_bias(case: str, bias: str) -> None:
    # Otherwise the contract below would compare zeros.
    ctx = context(case, bias, "python", "Reference")
    assert np.abs(forces(ctx, start(case, bias))).reshape(CASES[case].n_copies, -1).max(1).min() > 1.0
    assert abs(float(eager(case, bias, start(case, bias)))) > 0.01


@contract
def test_energy_is_the_eager_torch_value(case: str, bias: str, backend: str, platform: str) -> None:
    # For several copies this is also "the batched energy is the sum of the single copies".
    ctx = context(case, bias, backend, platform)
    for shift in (0.0, 0.003):
        x = start(case, bias) + shift * np.random.default_rng(5).normal(size=start(case, bias).shape)
        assert energy(ctx, x) == pytest.approx(float(eager(case, bias, x)), rel=1e-9)


@contract
def test_forces_are_finite_differences_of_the_energy(
    case: str, bias: str, backend: str, platform: str, record_property: Callable[[str, object], None]
) -> None:
    directions = None if platform == "Reference" else 12
    error = difference_error(context(case, bias, backend, platform), start(case, bias), directions)
    record_property("relative_error", float(error))
    assert error < TOLERANCE.get(platform, 1e-6)


@contract
def test_invariant_features_give_neither_net_force_nor_torque(
    case: str, bias: str, backend: str, platform: str
) -> None:
    x, ctx = start(case, bias), context(case, bias, backend, platform)
    f = forces(ctx, x)
    size = np.abs(f).max()
    assert np.abs(f.sum(axis=1)).max() < 1e-9 * size  # of every copy, not only of the whole System
    assert np.abs(np.cross(x, f).sum(axis=1)).max() < 1e-9 * size
    turned, turns = moved_rigidly(x, seed=6)
    assert energy(ctx, turned) == pytest.approx(energy(ctx, x), rel=1e-9)
    np.testing.assert_allclose(
        forces(ctx, turned), np.einsum("cij,caj->cai", turns, f), rtol=0, atol=1e-8 * size
    )


@contract
def test_xml_round_trip(case: str, bias: str, backend: str, platform: str) -> None:
    text = openmm.XmlSerializer.serialize(biased(case, bias, backend))
    x = start(case, bias)
    v, f = energy_and_forces(context(case, bias, backend, platform), x)
    again = make_context(openmm.XmlSerializer.deserialize(text), platform)
    v_again, f_again = energy_and_forces(again, x)
    assert v_again == pytest.approx(v, rel=1e-12)
    np.testing.assert_allclose(f_again, f, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("case", "bias", "backend"), list(product(CASES, BIASES, BACKENDS)))
def test_the_system_is_copied_and_gains_one_force_in_its_own_group(
    case: str, bias: str, backend: str
) -> None:
    built, before = built_system(case)
    system = biased(case, bias, backend)
    assert openmm.XmlSerializer.serialize(built.system) == before
    assert system.getNumForces() == built.system.getNumForces() + 1
    in_group = [force for force in system.getForces() if force.getForceGroup() == BIAS_GROUP]
    assert [force.getName() for force in in_group] == ["LatentBias"]
    assert not in_group[0].usesPeriodicBoundaryConditions()
    # The other forces are as they were.
    others = set(range(32)) - {BIAS_GROUP}
    x = start(case, bias)
    plain = energy(make_context(built.system, "Reference"), x, range(32))
    assert energy(context(case, bias, backend, "Reference"), x, others) == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize(("bias", "backend"), list(product(list(BIASES)[:3], BACKENDS)))
def test_later_changes_to_the_modules_do_not_reach_the_force(bias: str, backend: str) -> None:
    built, _ = built_system("lj7")
    model = copy.deepcopy(model_of("lj7", bias))
    cv, module = latent_cv(model), new_bias("lj7", bias)
    system = add_bias(built.system, cv, module, n_copies=3, **BACKENDS[backend])
    x = start("lj7", bias)
    early = make_context(system, "Reference")
    before = energy(early, x)
    with torch.no_grad():
        for part in (cv, module, model.model):
            for tensor in [*part.buffers(), *part.parameters()]:
                if tensor.is_floating_point():
                    tensor.mul_(1.5)
    cv.n_atoms = 1
    for ctx in (early, make_context(system, "Reference")):
        assert energy(ctx, x) == pytest.approx(before, rel=1e-12)


def test_the_model_is_left_as_it_is() -> None:
    model = copy.deepcopy(model_of("lj7", "flow_barrier, spline"))
    before = {key: value.clone() for key, value in model.model.state_dict().items()}
    bias = FlowBarrierSettings(tabulate=False).build(BiasContext.of_model(model.model, 0.5, 0.5))
    cv = latent_cv(model)
    for part in (bias, cv):
        assert all(tensor.dtype == torch.float64 for tensor in part.parameters())
        assert not any(tensor.requires_grad for tensor in part.parameters())
    after = model.model.state_dict()
    assert all(value.dtype == after[key].dtype and value.equal(after[key]) for key, value in before.items())
    assert all(parameter.requires_grad for parameter in model.model.parameters())


# --- periodic boxes --------------------------------------------------------------------------------

BOXES = {
    "rectangular": np.diag([2.0, 2.3, 2.6]),
    "triclinic": np.array([[2.2, 0.0, 0.0], [0.7, 2.1, 0.0], [-0.9, 0.8, 2.4]]),
}
N_ARGON = 8
ARGON_PAIRS = [(0, 1), (2, 3)]
ARGON_HARMONIC = HarmonicSettings(centre=[0.25, 0.5], force_constant=[100.0, 40.0])


def argon(box: Array) -> tuple[openmm.System, Array]:
    """Argon-like particles; the pair (0, 1) is close only through the box's faces."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*box)
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.8)
    for _ in range(N_ARGON):
        system.addParticle(39.9)
        force.addParticle(0.0, 0.34, 0.99)
    system.addForce(force)
    fractions = np.array(list(product([0.25, 0.75], repeat=3)))
    fractions[:4] = [[0.03, 0.06, 0.04], [0.94, 0.95, 0.93], [0.3, 0.3, 0.5], [0.5, 0.45, 0.52]]
    return system, fractions @ box


def nearest(delta: Array, box: Array) -> float:
    """The distance to the nearest image, by trying them all."""
    shifts = np.array(list(product(range(-3, 4), repeat=3))) @ box
    return float(np.linalg.norm(delta + shifts, axis=1).min())


@cache
def argon_model() -> TrainedModel:
    """Collective variables that are two distances themselves."""
    model = LatentThermodynamicFlow(ModelSettings(), 2, 2, 100.0)
    with torch.no_grad():
        model.encoder.mean[0].weight.copy_(torch.eye(2))  # type: ignore[union-attr,operator]
        model.encoder.mean[0].bias.zero_()  # type: ignore[union-attr,operator]
    features = DistanceSettings(pairs=ARGON_PAIRS)
    return TrainedModel(model.eval(), (features,), ("AR",) * N_ARGON, "K", (100.0,))


@cache
def argon_biased(box: str, backend: str) -> openmm.System:
    bias = ARGON_HARMONIC.build(BiasContext.of_model(argon_model().model, 100.0, 1.0))
    return add_bias(argon(BOXES[box])[0], latent_cv(argon_model()), bias, **BACKENDS[backend])


def argon_energy(x: Array, box: Array) -> float:
    d = np.array([nearest(x[j] - x[i], box) for i, j in ARGON_PAIRS])
    return float(0.5 * (np.array([100.0, 40.0]) * (d - [0.25, 0.5]) ** 2).sum())


@pytest.mark.parametrize(
    ("box", "backend", "platform"),
    list(product(BOXES, BACKENDS, PLATFORMS)),
)
def test_periodic_boxes(box: str, backend: str, platform: str) -> None:
    vectors = BOXES[box]
    _, x = argon(vectors)
    system = argon_biased(box, backend)
    assert system.getForce(1).usesPeriodicBoundaryConditions()
    ctx = make_context(system, platform)
    plain = np.linalg.norm(x[1] - x[0])
    assert nearest(x[1] - x[0], vectors) < 0.7 * plain  # the pair crosses the boundary
    expected = argon_energy(x, vectors)
    assert expected > 1.0
    assert energy(ctx, x) == pytest.approx(expected, rel=1e-6)
    assert difference_error(ctx, x) < TOLERANCE.get(platform, 1e-6)
    # An atom, or all, moved by box vectors.
    f = forces(ctx, x)
    for shift in ([1, 0, 0], [0, -2, 0], [0, 0, 1], [-1, 2, 3]):
        for atoms in ([0], [3], list(range(N_ARGON))):
            moved = x.copy()
            moved[atoms] += np.array(shift) @ vectors
            assert energy(ctx, moved) == pytest.approx(expected, rel=1e-6)
            np.testing.assert_allclose(forces(ctx, moved), f, rtol=0, atol=1e-8 * np.abs(f).max())
    # The box is read at every evaluation.
    wider = vectors * 1.1
    ctx.setPeriodicBoxVectors(*wider)
    assert energy(ctx, x) == pytest.approx(argon_energy(x, wider), rel=1e-6)
    assert argon_energy(x, wider) != pytest.approx(expected, rel=0.01)


# --- dynamics --------------------------------------------------------------------------------------


def total_energies(
    system: openmm.System, x: Array, v: Array, n_blocks: int, block: int
) -> tuple[Array, Array]:
    """Total energy and bias energy along a run at constant energy."""
    integrator = openmm.VerletIntegrator(0.00025)
    ctx = make_context(system, "Reference", integrator)
    ctx.setPositions(x)
    ctx.setVelocities(v)
    total, bias = np.empty(n_blocks), np.empty(n_blocks)
    for index in range(n_blocks):
        integrator.step(block)
        state = ctx.getState(energy=True)
        total[index] = (state.getPotentialEnergy() + state.getKineticEnergy()).value_in_unit(_KJ)
        state = ctx.getState(energy=True, groups={BIAS_GROUP})
        bias[index] = state.getPotentialEnergy().value_in_unit(_KJ)
    return total, bias


def drift_and_fluctuation(total: Array) -> tuple[float, float]:
    """Change over the run of a line through the energies, and the standard deviation around it."""
    time = np.linspace(0.0, 1.0, len(total))
    slope, offset = np.polyfit(time, total, 1)
    return float(slope), float(np.std(total - slope * time - offset))


def test_energy_conservation(record_property: Callable[[str, object], None]) -> None:
    """40,000 steps of 0.25 fs; drift below 0.2 kJ/mol, fluctuation below 0.1 (kT = 2.5), the bias on or off."""
    built, _ = built_system("dipeptide")
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.001)
    integrator.setRandomNumberSeed(2)
    ctx = make_context(built.system, "Reference", integrator)
    ctx.setPositions(built.positions[0])
    ctx.setVelocitiesToTemperature(300.0, 3)
    integrator.step(2000)
    state = ctx.getState(positions=True, velocities=True)
    x, v = state.getPositions(asNumpy=True), state.getVelocities(asNumpy=True)

    system = biased("dipeptide", "flow_barrier, table", "compiled")
    plain = drift_and_fluctuation(total_energies(built.system, x, v, 400, 100)[0])
    total, bias = total_energies(system, x, v, 400, 100)
    with_bias = drift_and_fluctuation(total)
    record_property("without_bias", [float(value) for value in plain])
    record_property("with_bias", [float(value) for value in with_bias])
    record_property("bias_energy_std", float(bias.std()))
    assert bias.std() > 1.0  # the bias is at work
    for drift, fluctuation in (plain, with_bias):
        assert abs(drift) < 0.2
        assert fluctuation < 0.1


# --- the table -------------------------------------------------------------------------------------


def gradient(bias: Bias, z: Tensor) -> Tensor:
    """Gradient of the energies, shape as `z`."""
    z = z.detach().clone().requires_grad_(True)
    return torch.autograd.grad(bias(z).sum(), z)[0]


def spline_value(values: Array, axes: list[Array], point: Array, derivative: int | None = None) -> float:
    """Tensor product of SciPy's clamped cubic splines at one point; or its derivative along one axis."""
    rest = values
    for axis, grid in enumerate(axes):
        spline = CubicSpline(grid, rest, axis=0, bc_type="clamped")
        rest = spline(point[axis], 1 if axis == derivative else 0)
    return float(rest)


@given(
    shape=st.lists(st.integers(4, 9), min_size=1, max_size=3),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_table_is_the_clamped_cubic_spline(shape: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    low = rng.normal(size=len(shape))
    high = low + rng.uniform(0.5, 3.0, len(shape))
    bias = TabulatedBias(values, low.tolist(), high.tolist())
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, shape, strict=True)]
    points = np.concatenate([rng.uniform(low, high, (6, len(shape))), [low, high]])
    z = torch.from_numpy(points)
    np.testing.assert_allclose(bias(z), [spline_value(values, axes, p) for p in points], atol=1e-11)
    slopes = [[spline_value(values, axes, p, axis) for axis in range(len(shape))] for p in points[:6]]
    np.testing.assert_allclose(gradient(bias, z)[:6], slopes, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_table_of_a_known_smooth_function(dim: int) -> None:
    # prod_i cos(k_i s_i), s from 0 to pi along each axis: its slope vanishes at the edges.
    n, k = 41, [2.0, 1.0, 3.0][:dim]
    low, high = np.array([-1.0, 0.5, 2.0])[:dim], np.array([1.5, 1.0, 4.0])[:dim]
    scale = torch.from_numpy(np.pi / (high - low))

    def exact(z: Tensor) -> Tensor:
        return torch.cos((z - torch.from_numpy(low)) * scale * torch.tensor(k)).prod(dim=1)

    grid = np.array(list(product(*[np.linspace(a, b, n) for a, b in zip(low, high, strict=True)])))
    values = exact(torch.from_numpy(grid)).numpy().reshape([n] * dim)
    bias = TabulatedBias(values, low.tolist(), high.tolist())
    np.testing.assert_allclose(bias(torch.from_numpy(grid[::7])), values.ravel()[::7], rtol=0, atol=1e-12)
    z = torch.from_numpy(np.random.default_rng(0).uniform(low, high, (500, dim)))
    # The error of cubic spline interpolation, 5/384 h^4 |f''''| and 1/24 h^3 |f''''|, summed over axes.
    h = np.pi / (n - 1)
    assert float((bias(z) - exact(z)).abs().max()) < 1.2 * sum(5 / 384 * (h * c) ** 4 for c in k)
    free = z.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(exact(free).sum(), free)
    # In units of s; a tensor product adds the value error of the other axes to each slope.
    bound = 1.2 * sum(h**3 * c**4 / 24 for c in k) + max(k) * sum(5 / 384 * (h * c) ** 4 for c in k)
    assert float(((gradient(bias, z) - slope) / scale).abs().max()) < bound


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_table_has_continuous_second_derivatives_inside(dim: int) -> None:
    rng = np.random.default_rng(1)
    bias = TabulatedBias(rng.normal(size=[9] * dim), [0.0] * dim, [8.0] * dim)  # cells of size 1

    def second(z: Tensor) -> Tensor:
        """All second derivatives by central differences of the gradient, shape (n, d, d)."""
        h = 1e-6
        return torch.stack(
            [(gradient(bias, z + h * e) - gradient(bias, z - h * e)) / (2 * h) for e in torch.eye(dim)], dim=1
        )

    for axis in range(dim):
        borders = torch.from_numpy(rng.uniform(0.3, 7.7, (7, dim)))
        borders[:, axis] = torch.arange(1.0, 8.0)
        aside = 1e-5 * torch.eye(dim, dtype=torch.float64)[axis]
        left, right = second(borders - aside), second(borders + aside)
        assert float(left.abs().max()) > 1.0
        # Third derivatives are of order 10: across 2e-5 they change the second ones by 1e-3 at most.
        assert float((left - right).abs().max()) < 2e-3


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_table_is_constant_outside_without_a_jump(dim: int) -> None:
    rng = np.random.default_rng(2)
    bias = TabulatedBias(rng.normal(size=[10, 7, 8][:dim]), [0.0] * dim, [1.0] * dim)
    for axis, (edge, outwards) in product(range(dim), [(0.0, -1.0), (1.0, 1.0)]):
        at = torch.from_numpy(rng.uniform(0.2, 0.8, (20, dim)))
        at[:, axis] = edge
        for distance in (1e-9, 0.1, 3.0, 1e6):
            outside = at.clone()
            outside[:, axis] += outwards * distance
            torch.testing.assert_close(bias(outside), bias(at), rtol=0, atol=1e-12)
            assert float(gradient(bias, outside)[:, axis].abs().max()) < 1e-12
        inside = at.clone()
        inside[:, axis] -= outwards * 1e-7
        torch.testing.assert_close(bias(inside), bias(at), rtol=0, atol=1e-10)
        assert float(gradient(bias, inside)[:, axis].abs().max()) < 1e-3  # second derivative times 1e-7
        # The slope along the edge goes on outside.
        others = [i for i in range(dim) if i != axis]
        far = at.clone()
        far[:, axis] += outwards
        torch.testing.assert_close(gradient(bias, far)[:, others], gradient(bias, at)[:, others])


# --- the flow's own barrier ------------------------------------------------------------------------


class KnownDensity(nn.Module):
    """A standard normal density in one dimension."""

    def forward(self, z: Tensor) -> Tensor:
        return -0.5 * z[:, 0] ** 2 - 0.5 * np.log(2 * np.pi)


def test_flow_barrier_against_a_hand_calculation() -> None:
    kT, barrier, gamma = 2.5, 10.0, 5.0
    log_max = -0.5 * np.log(2 * np.pi)
    bias = FlowBarrier(KnownDensity(), log_max, barrier, (1 - 1 / gamma) * kT)  # type: ignore[arg-type]
    # (1 - 1/5) 2.5 = 2; eps = exp(-10 / 2); r(2)/r_max = exp(-2); far outside only eps is left.
    expected = [2 * np.log(1 + np.exp(-5)) + 10, 2 * np.log(np.exp(-2) + np.exp(-5)) + 10, 0.0]
    z = torch.tensor([[0.0], [2.0], [40.0]], dtype=torch.float64)
    np.testing.assert_allclose(bias(z), expected, rtol=0, atol=1e-12)
    # dV/dz = 2 (-z) r / (r + eps)
    slope = [0.0, 2 * (-2) * np.exp(-2) / (np.exp(-2) + np.exp(-5)), 0.0]
    np.testing.assert_allclose(gradient(bias, z)[:, 0], slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "gamma"), [({}, 8.0), ({"bias_factor": 3.0}, 3.0), ({"barrier_kt": 1.0}, 1.5)]
)
def test_flow_barrier_settings_follow_the_formula(given: dict[str, float], gamma: float) -> None:
    model, kT, temperature = model_of("lj7", "flow_barrier, spline").model, 0.7, 0.8
    bias = FlowBarrierSettings(tabulate=False, **given).build(BiasContext.of_model(model, temperature, kT))  # type: ignore[arg-type]
    assert isinstance(bias, FlowBarrier)
    density = copy.deepcopy(model).double().density(temperature)
    z = density.sample(2000, torch.Generator().manual_seed(1))
    barrier = given.get("barrier_kt", 8.0) * kT
    with torch.no_grad():
        ratio = np.exp(density.log_prob(z).numpy() - bias.log_max)
        factor = (1 - 1 / gamma) * kT
        expected = factor * np.log(ratio + np.exp(-barrier / factor)) + barrier
        np.testing.assert_allclose(bias(z), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("transform", ["spline", "affine"])
def test_flow_barrier_rises_from_zero_to_the_barrier_at_the_flows_maximum(transform: str) -> None:
    model, kT = trained("lj7", transform).model, 0.5
    bias = FlowBarrierSettings(barrier_kt=8.0, tabulate=False).build(BiasContext.of_model(model, 0.5, kT))
    density = copy.deepcopy(model).double().density(0.5)
    generator = torch.Generator().manual_seed(2)
    z = density.sample(20_000, generator)
    with torch.no_grad():
        values, log_density = bias(z), density.log_prob(z)
        everywhere = bias(z.mean(0) + 30 * z.std(0) * torch.randn(20_000, 2, generator=generator))
    assert int(values.argmax()) == int(log_density.argmax())
    assert float(everywhere.min()) >= -1e-9
    assert float(everywhere.min()) < 1e-3 * kT  # zero where the flow has no density
    # The maximum over other samples than those the settings saw, in kT.
    assert 7.9 < float(values.max()) / kT < 8.1
    far = torch.tensor([[1e3, 0.0], [-1e6, 1e6]], dtype=torch.float64)
    assert float(bias(far).abs().max()) < 1e-9
    assert float(gradient(bias, far).abs().max()) == 0.0


@pytest.mark.parametrize(("transform", "tolerance"), [("spline", 0.05), ("affine", 0.01)])
def test_tabulated_flow_barrier_is_the_direct_one(
    transform: str, tolerance: float, record_property: Callable[[str, object], None]
) -> None:
    """On samples of the flow, with the default number of points; tolerance in kT."""
    model, kT = trained("lj7", transform).model, 0.5
    direct, table = (
        FlowBarrierSettings(tabulate=choice).build(BiasContext.of_model(model, 0.5, kT))
        for choice in (False, None)
    )
    assert isinstance(table, TabulatedBias)
    z = copy.deepcopy(model).double().density(0.5).sample(5000, torch.Generator().manual_seed(3))
    with torch.no_grad():
        error = float((table(z) - direct(z)).abs().max()) / kT
    record_property("error_kT", float(error))
    assert error < tolerance


def test_tables_are_the_default_up_to_three_dimensions() -> None:
    for dim, points in ((1, 400), (3, 10), (4, None)):
        torch.manual_seed(0)
        flow = FlowSettings(layers=2, hidden=[8])
        model = LatentThermodynamicFlow(ModelSettings(latent_dim=dim, flow=flow), 5, 2, 1.0)
        bias = FlowBarrierSettings(points=points).build(BiasContext.of_model(model, 1.0, 1.0))
        assert isinstance(bias, TabulatedBias if dim <= 3 else FlowBarrier)
        z = model.double().density(1.0).sample(50, torch.Generator().manual_seed(0))
        values = bias(z)
        assert values.shape == (50,)
        assert values.dtype == torch.float64
        assert bool((values > 0).all())


def test_harmonic_against_a_hand_calculation() -> None:
    model = LatentThermodynamicFlow(ModelSettings(), 5, 2, 1.0)
    z = torch.tensor([[1.0, 1.0], [0.5, -2.0]], dtype=torch.float64)
    each = HarmonicSettings(centre=[0.5, -1.0], force_constant=[2.0, 4.0]).build(
        BiasContext.of_model(model, 1.0, 1.0)
    )
    assert isinstance(each, Harmonic)
    assert each(z).tolist() == [0.25 + 8.0, 2.0]
    one = HarmonicSettings(centre=[0.5, -1.0], force_constant=2.0).build(
        BiasContext.of_model(model, 1.0, 1.0)
    )
    assert one(z).tolist() == [0.25 + 4.0, 1.0]


def test_harmonic_centre_and_strength_keep_double_precision() -> None:
    model = LatentThermodynamicFlow(ModelSettings(), 5, 2, 1.0)
    bias = HarmonicSettings(centre=[0.1, 0.2], force_constant=1.1).build(
        BiasContext.of_model(model, 1.0, 1.0)
    )
    z = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    assert float(bias(z)) == pytest.approx(0.55 * (0.2**2 + 0.5**2), rel=1e-13)


# --- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bias", "dim", "message"),
    [
        (HarmonicSettings(centre=[0.0], force_constant=1.0), 2, r"bias\.centre: 1 values for 2 collective"),
        (
            HarmonicSettings(centre=[0.0] * 3, force_constant=1.0),
            2,
            r"bias\.centre: 3 values for 2 collective",
        ),
        (
            HarmonicSettings(centre=[0.0] * 2, force_constant=[1.0]),
            2,
            r"bias\.force_constant: 1 values for 2 collective",
        ),
        (
            HarmonicSettings(centre=[0.0] * 2, force_constant=-1.0),
            2,
            r"bias\.force_constant: must not be negative",
        ),
        (
            HarmonicSettings(centre=[0.0] * 2, force_constant=[1.0, -2.0]),
            2,
            r"bias\.force_constant: must not be negative",
        ),
        (FlowBarrierSettings(tabulate=True), 4, r"bias\.tabulate: a table of 4 dimensions is too large"),
    ],
)
def test_settings_that_do_not_fit_the_model(bias: BiasSettings, dim: int, message: str) -> None:
    model = LatentThermodynamicFlow(ModelSettings(latent_dim=dim), 5, 2, 1.0)
    with pytest.raises(ConfigError, match=message):
        bias.build(BiasContext.of_model(model, 1.0, 1.0))


def test_a_degenerate_density_is_refused() -> None:
    model = LatentThermodynamicFlow(ModelSettings(), 5, 2, 1.0)
    model.flows[0].scale.fill_(float("nan"))
    with pytest.raises(ConfigError, match="density is degenerate"):
        FlowBarrierSettings().build(BiasContext.of_model(model, 1.0, 1.0))


@pytest.mark.parametrize("n_copies", [1, 2, 4])
def test_system_with_the_wrong_number_of_particles(n_copies: int) -> None:
    built, _ = built_system("lj7")
    cv, bias = latent_cv(model_of("lj7", "harmonic")), new_bias("lj7", "harmonic")
    expected = f"7 atoms x {n_copies} copies = {7 * n_copies} particles, the System has 21"
    with pytest.raises(ModelError, match=expected):
        add_bias(built.system, cv, bias, n_copies=n_copies)


def test_unknown_backend() -> None:
    needed = {"timestep": 0.002, "friction": 1.0, "frame_interval": 1, "temperatures": [300.0], "frames": 10}
    with pytest.raises(ConfigError, match=r"backend: .*'auto', 'compiled', 'python' or 'torchforce'"):
        validate(SimulationSettings, {**needed, "backend": "plumed"}, "here")
    built, _ = built_system("lj7")
    cv, bias = latent_cv(model_of("lj7", "harmonic")), new_bias("lj7", "harmonic")
    with pytest.raises(LatfError, match="plumed"):
        add_bias(built.system, cv, bias, n_copies=3, backend="plumed")


_WITHOUT_TORCHFORCE = """
import logging
import latf_openmm
import openmm, torch
from latf_openmm.errors import BackendError
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.bias.potentials import BiasContext
from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.bias.biased_system import add_bias
from latf_openmm.bias.latent_cv import latent_cv
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.systems.three_hole import ThreeHoleSettings

logging.basicConfig(level=logging.WARNING)
torch.set_num_threads(1)
torch.manual_seed(0)
model = LatentThermodynamicFlow(ModelSettings(), 2, 2, 1.0).eval()
trained = TrainedModel(model, (CoordinateSettings(atoms=[0], axes="xy"),), ("AR1",), "reduced", (1.0,))
bias = HarmonicSettings(centre=[0.0, 0.0], force_constant=2.0).build(BiasContext.of_model(model, 1.0, 1.0))
built = ThreeHoleSettings().build(2)
try:
    add_bias(built.system, latent_cv(trained), bias, n_copies=2, backend="torchforce")
except BackendError as error:
    print("ERROR", error)
system = add_bias(built.system, latent_cv(trained), bias, n_copies=2, backend="auto")
force = system.getForce(system.getNumForces() - 1)
platform = openmm.Platform.getPlatformByName("Reference")
context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
context.setPositions(built.positions.reshape(-1, 3))
energy = context.getState(energy=True, groups={31}).getPotentialEnergy()._value
z = model.encode(torch.from_numpy(built.positions[:, 0, :2]).float())
print("FORCE", type(force).__name__, abs(energy / float((z**2).sum()) - 1) < 1e-5)
"""


def test_without_torchforce(tmp_path: Path) -> None:
    (tmp_path / "openmmtorch.py").write_text("raise ImportError('no plugin on this machine')\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    child = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCHFORCE],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    error, force = child.stdout.strip().splitlines()
    assert error.startswith("ERROR backend 'torchforce'")
    assert "no plugin on this machine" in error
    assert "install latf-openmm[torchforce-cpu]" in error
    assert force == "FORCE PythonForce True"
    assert "unavailable" not in child.stderr  # what is used by default needs no plugin


def test_no_backend_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openmmtorch", None)
    monkeypatch.delattr(openmm, "PythonForce")
    built, _ = built_system("lj7")
    cv, bias = latent_cv(model_of("lj7", "harmonic")), new_bias("lj7", "harmonic")
    with pytest.raises(
        BackendError, match=r"no backend can bias OpenMM here: compiled: .*python: .*torchforce: "
    ):
        add_bias(built.system, cv, bias, n_copies=3)
    with pytest.raises(BackendError, match=r"backend 'python': OpenMM .* has no PythonForce"):
        add_bias(built.system, cv, bias, n_copies=3, backend="python")


def test_features_that_are_not_invariant_feel_translation() -> None:
    # The three-hole features are plain coordinates: the contract's invariance must not be demanded of them.
    built = ThreeHoleSettings().build(1)
    features = CoordinateSettings(atoms=[0], axes="xy")
    model = LatentThermodynamicFlow(ModelSettings(), 2, 2, 1.0).eval()
    atoms = tuple(str(atom) for atom in mdtraj.Topology.from_openmm(built.topology).atoms)
    cv = latent_cv(TrainedModel(model, (features,), atoms, "reduced", (1.0,)))
    assert not cv.features.invariant
    bias = HarmonicSettings(centre=[0.0, 0.0], force_constant=2.0).build(
        BiasContext.of_model(model, 1.0, 1.0)
    )
    ctx = make_context(add_bias(built.system, cv, bias), "Reference")
    assert difference_error(ctx, built.positions) < 1e-6


def test_a_box_smaller_than_twice_the_cutoff_is_refused() -> None:
    system = openmm.System()
    force = openmm.NonbondedForce()
    for _ in range(N_ARGON):
        system.addParticle(40.0)
        force.addParticle(0.0, 0.3, 1.0)
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(1.1)
    system.addForce(force)
    system.setDefaultPeriodicBoxVectors([2.5, 0, 0], [0, 2.5, 0], [0, 0, 2.0])
    with pytest.raises(
        ModelError, match=r"2 nm wide, less than twice the cutoff of NonbondedForce \(1.1 nm\)"
    ):
        add_bias(
            system,
            latent_cv(argon_model()),
            ARGON_HARMONIC.build(BiasContext.of_model(argon_model().model, 100.0, 1.0)),
        )
