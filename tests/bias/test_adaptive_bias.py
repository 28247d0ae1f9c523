"""Biases that change while the simulation runs: in step with the force, restarts, and their physics."""

import copy
import gc
import io
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from openmm import app, unit
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits
from torch import Tensor

from latf_openmm.bias.biased_system import add_bias
from latf_openmm.bias.cv import FeatureCV, torsion_cv
from latf_openmm.bias.potentials import BIAS_KINDS, Bias, BiasSettings
from latf_openmm.bias.potentials.base import AdaptiveBias, BiasContext, cv_context
from latf_openmm.bias.potentials.flow_barrier import FlowBarrierSettings
from latf_openmm.bias.potentials.harmonic import HarmonicSettings, MovingHarmonic, MovingHarmonicSettings
from latf_openmm.bias.potentials.metadynamics import Metadynamics, MetadynamicsSettings
from latf_openmm.bias.potentials.opes import Opes, OpesSettings
from latf_openmm.bias.potentials.sum import AdaptiveSum, SumSettings
from latf_openmm.bias.potentials.walls import WallSettings
from latf_openmm.bias.updater import BiasUpdater, load_bias
from latf_openmm.errors import ConfigError
from latf_openmm.features import build_features
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.force_groups import BIAS_GROUP
from latf_openmm.model.flow import FlowSettings
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.settings import validate

Array = NDArray[np.float64]
_KJ = unit.kilojoule_per_mole
BACKENDS = ["compiled", "torchforce", "python"]
TAU = 2 * np.pi
KT = cv_context([0.0], 300.0).kT
QUICK = settings(max_examples=20, deadline=None, derandomize=True)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


# --- a small molecule: four atoms in a chain; its torsion (periodic) and its length -----------------

N_ATOMS = 4


def chain(n_copies: int = 1) -> tuple[openmm.System, Array]:
    """Independent chains, and their positions, shape (n_copies, 4, 3)."""
    system = openmm.System()
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for first in range(0, n_copies * N_ATOMS, N_ATOMS):
        for _ in range(N_ATOMS):
            system.addParticle(12.0)
        for i in range(first, first + 3):
            bonds.addBond(i, i + 1, 0.15, 50_000.0)
        for i in range(first, first + 2):
            angles.addAngle(i, i + 1, i + 2, 1.9, 300.0)
    system.addForce(bonds)
    system.addForce(angles)
    one = np.array([[0.14, 0.05, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.15], [0.0, 0.14, 0.2]])
    noise = np.random.default_rng(0).normal(0.0, 0.003, (n_copies, N_ATOMS, 3))
    return system, one + noise


def chain_cv() -> FeatureCV:
    """The torsion angle and the distance between the ends."""

    class AngleAndLength(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([torch.atan2(x[:, 0], x[:, 1]), x[:, 2]], dim=1)

    features = build_features([TorsionSettings(atoms=[(0, 1, 2, 3)]), DistanceSettings(pairs=[(0, 3)])])
    return FeatureCV(features, AngleAndLength(), N_ATOMS, [TAU, 0.0])


CHAIN = cv_context([TAU, 0.0], 300.0)
ADAPTIVE: dict[str, BiasSettings] = {
    "metadynamics": MetadynamicsSettings(sigma=[0.4, 0.02], low=[-np.pi, 0.1], high=[np.pi, 0.6], pace=4),
    "metadynamics, wall": MetadynamicsSettings(
        sigma=0.02, low=[0.1], high=[0.6], outside="wall", pace=4, components=[1], bias_factor=None
    ),
    "opes": OpesSettings(sigma=[0.4, 0.02], barrier=30.0, pace=4),
    "opes, explore": OpesSettings(sigma=[0.4, 0.02], barrier=30.0, pace=4, flavour="explore"),
    "moving_harmonic": MovingHarmonicSettings(
        start=[3.0, 0.3], end=[-2.0, 0.4], force_constant=[20.0, 800.0], steps=100, pace=4
    ),
    "sum": SumSettings(
        parts=[
            WallSettings(low=[0.25], high=[0.35], force_constant=5000.0, components=[1]),
            OpesSettings(sigma=0.4, barrier=30.0, pace=4, components=[0]),
            HarmonicSettings(centre=[0.3], force_constant=300.0, components=[1]),
        ]
    ),
    "sum in a sum": SumSettings(
        parts=[
            SumSettings(
                parts=[
                    MetadynamicsSettings(
                        sigma=0.02, low=[0.1], high=[0.6], outside="wall", pace=4, components=[0]
                    )
                ],
                components=[1],
            ),
            HarmonicSettings(centre=[3.0], force_constant=5.0, components=[0]),
        ]
    ),
}
each_bias = pytest.mark.parametrize("name", ADAPTIVE)
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def new(name: str) -> AdaptiveBias:
    bias = ADAPTIVE[name].build(CHAIN)
    assert isinstance(bias, AdaptiveBias)
    return bias


def make_context(system: openmm.System, positions: Array | None = None, seed: int = 1) -> openmm.Context:
    integrator = openmm.LangevinMiddleIntegrator(300.0, 2.0, 0.002)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    if positions is not None:
        context.setPositions(positions.reshape(-1, 3))
        context.setVelocitiesToTemperature(300.0, seed)
    return context


def bias_energy(context: openmm.Context) -> float:
    return float(context.getState(energy=True, groups={BIAS_GROUP}).getPotentialEnergy().value_in_unit(_KJ))


def advance(context: openmm.Context, updater: BiasUpdater, n_updates: int) -> None:
    for _ in range(n_updates):
        context.getIntegrator().step(updater.bias.pace)
        updater.update(context)


def phase_point(context: openmm.Context) -> Array:
    state = context.getState(positions=True, velocities=True)
    return np.concatenate(
        [
            state.getPositions(asNumpy=True).value_in_unit(unit.nanometer),
            state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond),
        ]
    )


def same_snapshot(one: AdaptiveBias, other: AdaptiveBias) -> bool:
    a, b = one.snapshot(), other.snapshot()
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


# --- 1. the bias in the Context is the one in Python --------------------------------------------------


@each_bias
@each_backend
def test_the_force_and_python_have_the_same_bias(name: str, backend: str) -> None:
    """Three copies are three walkers that share the bias."""
    check_force_and_python(name, backend, n_copies=3)


@each_backend
def test_the_same_with_one_copy(backend: str) -> None:
    check_force_and_python("opes", backend, n_copies=1)


def check_force_and_python(name: str, backend: str, n_copies: int) -> None:
    system, x = chain(n_copies)
    cv, bias = chain_cv(), new(name)
    biased = add_bias(system, cv, bias, n_copies=n_copies, backend=backend)
    context = make_context(biased, x)
    updater = BiasUpdater(cv, bias, n_copies=n_copies)
    rng = np.random.default_rng(2)
    for _ in range(30):
        context.getIntegrator().step(bias.pace)
        z = updater.update(context)
        assert z.shape == (n_copies, 2)
        assert bias_energy(context) == pytest.approx(float(bias(z).sum()), rel=1e-13, abs=1e-13)
    assert int(bias.updates) == 30
    assert int(bias.sent) > 0
    # Elsewhere too; and a force that is made with the present state is the one that messages led to.
    fresh = context
    if backend == "python":
        fresh = make_context(add_bias(system, cv, bias, n_copies=n_copies, backend=backend))
    spread = []
    for _ in range(10):
        positions = (x + rng.normal(0.0, 0.03, x.shape)).reshape(-1, 3)
        values = []
        for ctx in (context, fresh):
            ctx.setPositions(positions)
            state = ctx.getState(energy=True, forces=True, groups={BIAS_GROUP})
            values.append((bias_energy(ctx), state.getForces(asNumpy=True)._value))
        expected = float(bias(updater.variables(context)).sum())
        assert values[0][0] == pytest.approx(expected, rel=1e-13, abs=1e-13)
        assert values[0][0] == values[1][0]
        np.testing.assert_array_equal(values[0][1], values[1][1])
        spread.append(values[0][0])
    assert np.ptp(spread) > 0.1


@each_backend
def test_two_adaptive_biases_in_one_system(backend: str) -> None:
    """Each with a name and a group of its own."""
    system, x = chain()
    cv = chain_cv()
    parts = {
        "First": (new("opes"), 30),
        "Second": (new("moving_harmonic"), 31),
    }
    for name, (bias, group) in parts.items():
        system = add_bias(system, cv, bias, backend=backend, name=name, group=group)
    context = make_context(system, x)
    updaters = [BiasUpdater(cv, bias, name=name) for name, (bias, _) in parts.items()]
    for _ in range(10):
        context.getIntegrator().step(4)
        for updater in updaters:
            updater.update(context)
    for updater, (_, group) in zip(updaters, parts.values(), strict=True):
        z = updater.variables(context)
        state = context.getState(energy=True, groups={group})
        assert state.getPotentialEnergy()._value == pytest.approx(float(updater.bias(z).sum()), rel=1e-13)


@pytest.mark.parametrize("way", ["reinitialize", "second Context", "its XML"])
@each_backend
def test_a_new_context_of_an_old_system_has_the_present_bias(backend: str, way: str) -> None:
    # Its global parameter says how many messages; a new Context begins with those of the moment of add_bias.
    system, x = chain()
    cv, bias = chain_cv(), new("opes")
    biased = add_bias(system, cv, bias, backend=backend)
    context = make_context(biased, x)
    updater = BiasUpdater(cv, bias)
    advance(context, updater, 5)
    now = bias_energy(context)
    if way == "reinitialize":
        context.reinitialize(preserveState=True)
        other = context
    else:
        if way == "its XML":
            biased = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(biased))
        other = make_context(biased, x)
        assert bias_energy(other) == pytest.approx(float(new("opes")(updater.variables(other))), rel=1e-12)
        other.setState(context.getState(positions=True, velocities=True, parameters=True))
    assert bias_energy(other) == now
    advance(other, updater, 5)
    assert bias_energy(other) == pytest.approx(float(bias(updater.variables(other)).sum()), rel=1e-12)


@each_backend
def test_back_to_an_earlier_moment(backend: str) -> None:
    system, x = chain()
    cv, bias = chain_cv(), new("metadynamics")
    context = make_context(add_bias(system, cv, bias, backend=backend), x)
    updater = BiasUpdater(cv, bias)
    energies, states = [], []
    for _ in range(6):
        advance(context, updater, 1)
        states.append(context.getState(positions=True, velocities=True, parameters=True))
        energies.append(bias_energy(context))
    for moment in (3, 0, 5, 2):
        context.setState(states[moment])
        assert bias_energy(context) == energies[moment]
    with pytest.raises(ConfigError, match="has received 3 messages, the one in Python has sent 6"):
        updater.update(context)


def test_a_context_of_a_later_bias_is_noticed() -> None:
    system, x = chain()
    cv, bias = chain_cv(), new("opes")
    advance(make_context(add_bias(system, cv, bias), x), BiasUpdater(cv, bias), 3)
    later = make_context(add_bias(system, cv, bias), x)
    later.setParameter("LatentBias_messages", 1.0)
    with pytest.raises(openmm.OpenMMException, match="make its System anew"):
        bias_energy(later)


def test_the_file_of_messages_ends_with_the_bias() -> None:
    system, x = chain()
    cv, bias = chain_cv(), new("opes")
    context = make_context(add_bias(system, cv, bias), x)
    updater = BiasUpdater(cv, bias)
    advance(context, updater, 3)
    path = bias.messages().path
    assert path.stat().st_size == 8 * bias.message_size * int(bias.sent)
    now = bias_energy(context)
    copied = copy.deepcopy(bias)
    assert same_snapshot(copied, bias)
    assert copied.messages().path != path
    del updater, bias
    gc.collect()
    assert not path.exists()
    assert bias_energy(context) == now


# --- 2. restart -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("metadynamics", "torchforce"),
        ("metadynamics, wall", "python"),
        ("metadynamics", "compiled"),
        ("opes", "python"),
        ("opes", "compiled"),
        ("opes, explore", "torchforce"),
        ("moving_harmonic", "compiled"),
        ("sum", "compiled"),
        ("sum in a sum", "python"),
    ],
)
def test_restart_is_the_uninterrupted_run_bit_for_bit(name: str, backend: str, tmp_path: Path) -> None:
    system, x = chain(2)
    cv, bias = chain_cv(), new(name)
    context = make_context(add_bias(system, cv, bias, n_copies=2, backend=backend), x)
    updater = BiasUpdater(cv, bias, n_copies=2)
    advance(context, updater, 12)
    context.getIntegrator().step(1)  # not only right after an update
    (tmp_path / "checkpoint").write_bytes(context.createCheckpoint())
    updater.save(tmp_path / "bias")
    middle = phase_point(context)
    advance(context, updater, 12)

    again = new(name)
    load_bias(again, tmp_path / "bias")
    second = make_context(add_bias(system, cv, again, n_copies=2, backend=backend), seed=99)
    second.loadCheckpoint((tmp_path / "checkpoint").read_bytes())
    np.testing.assert_array_equal(phase_point(second), middle)
    advance(second, BiasUpdater(cv, again, n_copies=2), 12)
    np.testing.assert_array_equal(phase_point(second), phase_point(context))
    assert same_snapshot(again, bias)
    assert bias_energy(second) == bias_energy(context)
    assert not np.array_equal(phase_point(context), middle)


def test_bias_and_checkpoint_of_different_moments(tmp_path: Path) -> None:
    backend = "python"
    system, x = chain()
    cv, bias = chain_cv(), new("opes")
    updater = BiasUpdater(cv, bias)
    context = make_context(add_bias(system, cv, bias, backend=backend), x)
    advance(context, updater, 3)
    updater.save(tmp_path / "early")
    advance(context, updater, 3)
    checkpoint, sent = context.createCheckpoint(), int(bias.sent)

    early = new("opes")
    load_bias(early, tmp_path / "early")
    second = make_context(add_bias(system, cv, early, backend=backend))
    second.loadCheckpoint(checkpoint)
    with pytest.raises(
        ConfigError, match=rf"has received {sent} messages, the one in Python has sent"
    ) as error:
        BiasUpdater(cv, early).update(second)
    assert "restore both from the same moment, the bias with load_bias before add_bias" in str(error.value)
    assert int(early.sent) < sent  # and nothing was changed

    # The bias was loaded after add_bias.
    late = new("opes")
    third = make_context(add_bias(system, cv, late, backend=backend), x)
    load_bias(late, tmp_path / "early")
    with pytest.raises(ConfigError, match="received 0 messages"):
        BiasUpdater(cv, late).update(third)


def test_the_context_has_no_such_bias() -> None:
    system, x = chain()
    cv = chain_cv()
    static = HarmonicSettings(centre=[0.0, 0.3], force_constant=1.0).build(CHAIN)
    others = add_bias(system, cv, static), add_bias(system, cv, new("opes"), name="Other", backend="python")
    for biased in (system, *others):
        with pytest.raises(ConfigError, match="no adaptive bias of the name 'LatentBias'; make its System"):
            BiasUpdater(cv, new("opes")).update(make_context(biased, x))


def damaged(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif how == "another file":
        path.write_text("steps: 100\n")
    elif how == "another torch file":
        torch.save({"weight": torch.zeros(3)}, path)
    else:
        torch.save(torch.zeros(3), path)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize(
    "how", ["missing", "empty", "cut off", "another file", "another torch file", "a tensor"]
)
def test_damaged_files_are_one_clear_error(how: str, tmp_path: Path) -> None:
    cv, bias = chain_cv(), new("opes")
    path = tmp_path / "bias.pt"
    BiasUpdater(cv, bias).save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["bias.pt"]  # nothing half-written is left
    damaged(path, how)
    before = bias.snapshot()
    with pytest.raises(
        ConfigError, match=r"bias\.pt: (not the state of a bias \(.+\)|no such file)"
    ) as error:
        load_bias(bias, path)
    assert len(error.value.problems) == 1
    assert all(torch.equal(value, before[name]) for name, value in bias.snapshot().items())


@pytest.mark.parametrize(
    ("saved", "loading"),
    [
        (OpesSettings(sigma=0.3, barrier=30.0), MetadynamicsSettings(sigma=0.3, low=[0.0], high=[2.0])),
        (
            MovingHarmonicSettings(start=[0.0], end=[1.0], force_constant=1.0, steps=9),
            OpesSettings(barrier=9.0, sigma=1),
        ),
        (
            MetadynamicsSettings(sigma=0.3, low=[0.0], high=[2.0], points=[50]),
            MetadynamicsSettings(sigma=0.3, low=[0.0], high=[2.0], points=[60]),
        ),
        (
            MetadynamicsSettings(sigma=0.3, low=[0.0], high=[2.0], points=[50]),
            MetadynamicsSettings(sigma=0.3, low=[0.5], high=[2.5], points=[50]),
        ),
    ],
)
def test_the_state_of_another_bias(saved: BiasSettings, loading: BiasSettings, tmp_path: Path) -> None:
    context = cv_context([0.0], 300.0)
    cv = FeatureCV(build_features([CoordinateSettings(atoms=[0], axes="x")]), None, 1)
    bias, other = saved.build(context), loading.build(context)
    assert isinstance(bias, AdaptiveBias)
    assert isinstance(other, AdaptiveBias)
    bias.update(torch.tensor([[1.0]]))
    BiasUpdater(cv, bias).save(tmp_path / "bias")
    with pytest.raises(ConfigError, match=r"a snapshot .* does not belong to this bias, which has"):
        load_bias(other, tmp_path / "bias")


def test_the_state_of_a_bias_on_other_variables(tmp_path: Path) -> None:
    cv = chain_cv()
    for one, two in (
        (OpesSettings(sigma=0.3, barrier=30.0), OpesSettings(sigma=0.3, barrier=30.0, components=[0])),
        (
            ADAPTIVE["moving_harmonic"],
            MovingHarmonicSettings(start=[0], end=[1], force_constant=1, steps=9, components=[1]),
        ),
    ):
        bias, other = one.build(CHAIN), two.build(CHAIN)
        assert isinstance(bias, AdaptiveBias)
        assert isinstance(other, AdaptiveBias)
        BiasUpdater(cv, bias).save(tmp_path / "bias")
        with pytest.raises(ConfigError, match=r"a snapshot with 'state' of .* does not belong"):
            load_bias(other, tmp_path / "bias")


# --- 3. as a reporter ----------------------------------------------------------------------------------


class Log:
    """A reporter that records the bias energy every step, and how many updates there were then."""

    def __init__(self, bias: AdaptiveBias) -> None:
        self.bias = bias
        self.rows: list[tuple[int, int, float]] = []

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:  # noqa: N802
        # OpenMM calls reporters that do not ask for positions after those that do.
        return {"steps": 1, "periodic": False, "include": ["positions"]}

    def report(self, simulation: Any, state: openmm.State) -> None:
        self.rows.append((simulation.currentStep, int(self.bias.updates), bias_energy(simulation.context)))


def chain_topology() -> app.Topology:
    topology = app.Topology()
    residue = topology.addResidue("BUT", topology.addChain())
    for index in range(N_ATOMS):
        topology.addAtom(f"C{index}", app.element.carbon, residue)
    return topology


@each_backend
def test_as_a_reporter_of_a_simulation(backend: str) -> None:
    def simulation(bias: AdaptiveBias) -> app.Simulation:
        system, x = chain()
        integrator = openmm.LangevinMiddleIntegrator(300.0, 2.0, 0.002)
        integrator.setRandomNumberSeed(3)
        made = app.Simulation(
            chain_topology(),
            add_bias(system, chain_cv(), bias, backend=backend),
            integrator,
            openmm.Platform.getPlatformByName("Reference"),
        )
        made.context.setPositions(x[0])
        made.context.setVelocitiesToTemperature(300.0, 3)
        return made

    bias, by_hand = new("opes"), new("opes")
    run = simulation(bias)
    log = Log(bias)
    run.reporters.append(log)
    run.reporters.append(app.StateDataReporter(io.StringIO(), 3, potentialEnergy=True))
    run.reporters.append(BiasUpdater(chain_cv(), bias))
    for steps in (1, 2, 10, 30):  # 43 steps; the pace is 4
        run.step(steps)
    assert int(bias.updates) == 10
    # A reporter that comes before the updater has the frame with the bias it was simulated with.
    assert [updates for step, updates, _ in log.rows if step % 4 == 0] == list(range(10))
    assert [updates for step, updates, _ in log.rows if step % 4 == 1] == list(range(11))
    jumps = [abs(b[2] - a[2]) for a, b in zip(log.rows, log.rows[1:], strict=False)]
    assert max(jumps) > 1.0

    other = simulation(by_hand)
    updater = BiasUpdater(chain_cv(), by_hand)
    for _ in range(10):
        other.context.getIntegrator().step(4)
        updater.update(other.context)
    other.context.getIntegrator().step(3)
    np.testing.assert_array_equal(phase_point(other.context), phase_point(run.context))
    assert same_snapshot(bias, by_hand)


# --- 4. metadynamics --------------------------------------------------------------------------------------

GRIDS: dict[str, tuple[list[float], list[float], list[float], list[float], list[int]]] = {
    # periods, low, high, sigma, points
    "1-D": ([0.0], [-1.0], [2.0], [0.25], [91]),
    "1-D, periodic": ([TAU], [-np.pi], [np.pi], [0.5], [90]),
    "1-D, other domain": ([TAU], [0.0], [TAU], [0.5], [90]),
    "2-D": ([0.0, 0.0], [-1.0, 0.0], [2.0, 0.5], [0.25, 0.06], [81, 61]),
    "2-D, mixed": ([0.0, TAU], [-1.0, -np.pi], [2.0, np.pi], [0.25, 0.5], [81, 80]),
    "3-D, mixed": ([TAU, 0.0, 0.0], [-np.pi, -1.0, 0.0], [np.pi, 2.0, 1.0], [0.8, 0.5, 0.2], [41, 40, 36]),
}
each_grid = pytest.mark.parametrize("grid", GRIDS)


def metadynamics(grid: str, **given: Any) -> Metadynamics:
    periods, low, high, sigma, points = GRIDS[grid]
    bias = MetadynamicsSettings(sigma=sigma, low=low, high=high, points=points, **given).build(
        cv_context(periods, 300.0)
    )
    assert isinstance(bias, Metadynamics)
    return bias


def hills(grid: str, centres: Array, heights: Array, z: Array) -> Array:
    """The sum of Gaussians with their mirror or periodic images at z (n, dim), shape (n,)."""
    periods, low, high, sigma, _ = GRIDS[grid]
    total = np.zeros(len(z))
    for centre, height in zip(centres, heights, strict=True):
        value = np.full(len(z), height)
        for axis, period in enumerate(periods):
            c = centre[axis]
            if period > 0:
                images = [c + n * period for n in range(-3, 4)]
            else:
                images = [c, 2 * low[axis] - c, 2 * high[axis] - c]
            value = value * sum(np.exp(-0.5 * ((z[:, axis] - image) / sigma[axis]) ** 2) for image in images)
        total += value
    return total


def random_points(grid: str, n: int, seed: int) -> Array:
    _, low, high, _, _ = GRIDS[grid]
    return np.random.default_rng(seed).uniform(low, high, (n, len(low)))


def gradient(bias: Bias, z: Tensor) -> Tensor:
    z = z.detach().clone().requires_grad_(True)
    return torch.autograd.grad(bias(z).sum(), z)[0]


def heights_of(messages: list[Tensor]) -> Array:
    return np.array([float(message[-1]) for message in messages])


@each_grid
def test_metadynamics_is_the_sum_of_gaussians(grid: str) -> None:
    bias = metadynamics(grid, height=1.5, bias_factor=5.0)
    centres = random_points(grid, 12, seed=1)
    centres[0] = GRIDS[grid][1]  # one right at the corner
    centres[2] = centres[1]
    heights = np.concatenate([heights_of(bias.update(torch.from_numpy(z[None]))) for z in centres])
    assert heights[0] == 1.5
    assert heights.min() < 0.9 * 1.5
    nodes = np.stack(np.meshgrid(*[bias.spline.axis(i) for i in range(bias.spline.dim)], indexing="ij"), -1)
    nodes = nodes.reshape(-1, bias.spline.dim)[:: max(1, len(nodes.ravel()) // 5000)]
    exact = hills(grid, centres, heights, nodes)
    np.testing.assert_allclose(bias(torch.from_numpy(nodes)), exact, rtol=0, atol=1e-11 * exact.max())
    # Between the nodes within spline accuracy, 5/384 (h/sigma)^4 max|g''''| (3 for a Gaussian), a sum over axes.
    z = random_points(grid, 400, seed=2)
    exact = hills(grid, centres, heights, z)
    ratio = bias.spline.spacing.numpy() / GRIDS[grid][3]
    error = np.abs(bias(torch.from_numpy(z)).numpy() - exact).max()
    assert error < 2 * 5 / 384 * 3 * (ratio**4).sum() * exact.max()
    # What is kept for free energies is the same thing.
    flat = bias.values.numpy().ravel()
    full = np.stack(np.meshgrid(*[bias.spline.axis(i) for i in range(bias.spline.dim)], indexing="ij"), -1)
    np.testing.assert_allclose(
        flat,
        hills(grid, centres, heights, full.reshape(-1, bias.spline.dim)),
        rtol=0,
        atol=1e-12 * flat.max(),
    )


@each_grid
def test_metadynamics_at_and_beyond_the_edges(grid: str) -> None:
    periods, low, high, _, _ = GRIDS[grid]
    bias = metadynamics(grid, height=2.0)
    bias.update(torch.from_numpy(random_points(grid, 15, seed=3)))
    steepest = float(gradient(bias, torch.from_numpy(random_points(grid, 300, seed=4))).abs().max())
    for axis, (edge, outwards) in product(range(len(low)), [(low, -1.0), (high, 1.0)]):
        at = torch.from_numpy(random_points(grid, 30, seed=5))
        at[:, axis] = edge[axis]
        step = torch.zeros_like(at)
        step[:, axis] = outwards * 1e-9
        torch.testing.assert_close(bias(at + step), bias(at - step), rtol=0, atol=1e-7)
        torch.testing.assert_close(
            gradient(bias, at + step), gradient(bias, at - step), rtol=0, atol=1e-5 * steepest
        )
        if periods[axis] > 0:
            torch.testing.assert_close(
                bias(at + 3 * periods[axis] * (step != 0).double()), bias(at), rtol=0, atol=1e-10
            )
            assert float(gradient(bias, at)[:, axis].abs().max()) > 0.01 * steepest
        else:
            assert float(gradient(bias, at)[:, axis].abs().max()) < 1e-12 * steepest
            torch.testing.assert_close(bias(at + 1e9 * step), bias(at))
            assert float(gradient(bias, at + 1e9 * step)[:, axis].abs().max()) < 1e-12 * steepest


@pytest.mark.parametrize("gamma", [2.0, 10.0, None])
def test_well_tempered_heights(gamma: float | None) -> None:
    bias = metadynamics("2-D, mixed", height=1.2, bias_factor=gamma)
    centres = random_points("2-D, mixed", 40, seed=6) * [0.3, 0.3]  # on top of each other
    heights: list[float] = []
    for rows in centres.reshape(20, 2, 2):  # two walkers, one after the other
        for z, height in zip(rows, heights_of(bias.update(torch.from_numpy(rows))), strict=True):
            before = hills("2-D, mixed", centres[: len(heights)], np.array(heights), z[None])[0]
            expected = 1.2 if gamma is None else 1.2 * np.exp(-before / (KT * (gamma - 1)))
            assert height == pytest.approx(expected, rel=1e-3)
            heights.append(height)
    assert (min(heights) < 0.3 * 1.2) == (gamma == 2.0)


@given(seed=st.integers(0, 2**20))
@QUICK
def test_gaussians_of_constant_height_commute(seed: int) -> None:
    centres = torch.from_numpy(random_points("2-D, mixed", 8, seed))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(8))
    one, other = (metadynamics("2-D, mixed", height=1.0, bias_factor=None) for _ in range(2))
    one.update(centres)
    shifts = torch.arange(-4, 4).unsqueeze(1) * torch.tensor([0.0, TAU], dtype=torch.float64)
    for z in centres[order] + shifts:
        other.update(z.unsqueeze(0))
    torch.testing.assert_close(one.state, other.state, rtol=0, atol=1e-12)


def test_nothing_is_added_from_outside_the_grid() -> None:
    bias = metadynamics("2-D, mixed")
    inside = torch.tensor([[0.0, 0.0], [2.0, 9.0], [-1.0, -7.0]], dtype=torch.float64)  # edges, another image
    assert len(bias.update(inside)) == 3
    before = bias.snapshot()
    outside = torch.tensor([[2.0 + 1e-9, 0.0], [-1.5, 1.0]], dtype=torch.float64)
    assert bias.update(outside) == []
    after = bias.snapshot()
    assert all(torch.equal(before[name], after[name]) for name in ("state", "values", "sent"))
    assert int(after["updates"]) == 2
    mixed = torch.cat([outside, inside[:1]])
    assert len(bias.update(mixed)) == 1


@each_grid
@pytest.mark.parametrize("gamma", [4.0, None])
def test_free_energy_and_offset_by_direct_quadrature(grid: str, gamma: float | None) -> None:
    periods, low, high, _, points = GRIDS[grid]
    bias = metadynamics(grid, height=2.0, bias_factor=gamma)
    assert bias.offset() == pytest.approx(0.0, abs=1e-12)
    centres = random_points(grid, 25, seed=7)
    heights = np.concatenate([heights_of(bias.update(torch.from_numpy(z[None]))) for z in centres])
    factor = 1.0 if gamma is None else gamma / (gamma - 1)
    axes = [
        np.linspace(a, b, n, endpoint=p == 0) for a, b, n, p in zip(low, high, points, periods, strict=True)
    ]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(low))
    surface = -factor * hills(grid, centres, heights, nodes).reshape(points)
    np.testing.assert_allclose(bias.free_energy(), surface - surface.min(), rtol=0, atol=1e-10)
    # c(t) = kT log (int exp(-F/kT) / int exp(-(F + V)/kT)), F the present estimate; midpoints, a finer grid.
    fine = [
        a + (b - a) * (np.arange(2 * n) + 0.5) / (2 * n) for a, b, n in zip(low, high, points, strict=True)
    ]
    nodes = np.stack(np.meshgrid(*fine, indexing="ij"), -1).reshape(-1, len(low))
    v = hills(grid, centres, heights, nodes)
    expected = KT * (logsumexp(factor * v / KT) - logsumexp((factor - 1) * v / KT))
    assert expected > 0.5 * KT
    # The sum over nodes counts the edges in full, which weighs a sum over the inside like 1 to its points.
    assert bias.offset() == pytest.approx(
        expected, abs=KT * sum(1.0 / n for n, p in zip(points, periods, strict=True) if not p) + 1e-6
    )


def test_walls_outside_the_grid_restore() -> None:
    given = {"sigma": [0.25, 0.5], "low": [-1.1, -np.pi], "high": [2.0, np.pi], "bias_factor": None}
    bias = MetadynamicsSettings(**given, outside="wall", wall_force_constant=[70.0, 1.0]).build(  # type: ignore[arg-type]
        cv_context([0.0, TAU], 300.0)
    )
    assert isinstance(bias, AdaptiveSum)
    bias.update(torch.tensor([[-1.0, 0.3], [1.9, 0.0], [0.5, 0.0]], dtype=torch.float64))
    inside = torch.tensor([[-1.1, 0.2], [2.0, 0.2], [0.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(bias(inside), bias.lead(inside), rtol=0, atol=0)
    beyond = torch.tensor([[-1.5, 0.2], [2.3, 0.2], [0.0, 50.0]], dtype=torch.float64)
    same = torch.tensor([[-1.1, 0.2], [2.0, 0.2], [0.0, 50.0 - 8 * TAU]], dtype=torch.float64)
    expected = bias(same) + torch.tensor([35.0 * 0.4**2, 35.0 * 0.3**2, 0.0], dtype=torch.float64)
    torch.testing.assert_close(bias(beyond), expected, rtol=0, atol=1e-12)
    slope = gradient(bias, beyond)[:, 0].tolist()
    assert slope[:2] == pytest.approx([-70.0 * 0.4, 70.0 * 0.3])


def test_three_points_for_each_sigma_are_the_default() -> None:
    bias = MetadynamicsSettings(sigma=0.3).build(cv_context([TAU], 300.0))
    assert isinstance(bias, Metadynamics)
    assert bias.height == pytest.approx(0.5 * KT)
    assert (float(bias.spline.low), bias.spline.points) == (pytest.approx(-np.pi), [63])
    bias.update(torch.tensor([[3.0]]))
    z = np.linspace(-4, 4, 500)
    delta = (z[:, None] - 3.0 + np.pi) % TAU - np.pi
    exact = 0.5 * KT * np.exp(-0.5 * (delta[:, 0] / 0.3) ** 2)
    np.testing.assert_allclose(bias(torch.from_numpy(z[:, None])), exact, rtol=0, atol=1e-3 * KT)


# --- 5. OPES ------------------------------------------------------------------------------------------------


class SlowOpes:
    """OPES as in the papers and in PLUMED, with lists and loops, one walker after the other.

    Invernizzi and Parrinello, J. Phys. Chem. Lett. 11, 2731 (2020); J. Chem. Theory Comput. 18, 3988 (2022).
    """

    def __init__(
        self, sigma: list[float], barrier: float, gamma: float, periods: list[float], explore: bool
    ) -> None:
        self.kT, self.dim, self.periods, self.explore = KT, len(sigma), periods, explore
        self.prefactor = gamma - 1 if explore else 1 - 1 / gamma
        self.epsilon = np.exp(-barrier / (self.prefactor * KT))
        self.cutoff2 = 2 * barrier / KT if explore else 2 * barrier / (self.prefactor * KT)
        self.sigma0 = [s * np.sqrt(gamma) if explore else s for s in sigma]
        self.kernels: list[tuple[list[float], list[float], float]] = []
        self.zed, self.norm, self.counter = 1.0, 1.0, 1
        self.sum_w = self.epsilon**self.prefactor
        self.sum_w2 = self.sum_w**2

    def difference(self, axis: int, a: float, b: float) -> float:
        period = self.periods[axis]
        return (b - a + period / 2) % period - period / 2 if period else b - a

    def kernel(self, one: tuple[list[float], list[float], float], z: list[float]) -> float:
        centre, sigma, height = one
        squared = sum((self.difference(i, centre[i], z[i]) / sigma[i]) ** 2 for i in range(self.dim))
        if squared >= self.cutoff2:
            return 0.0
        return height * float(np.exp(-0.5 * squared) - np.exp(-0.5 * self.cutoff2))

    def bias(self, z: list[float]) -> float:
        density = sum(self.kernel(one, z) for one in self.kernels) / self.norm
        return self.prefactor * self.kT * float(np.log(density / self.zed + self.epsilon))

    def near(self, centre: list[float], itself: int | None) -> int | None:
        best, found = 1.0, None  # the threshold
        for k, (other, sigma, _) in enumerate(self.kernels):
            squared = sum((self.difference(i, centre[i], other[i]) / sigma[i]) ** 2 for i in range(self.dim))
            if k != itself and squared < best:
                best, found = squared, k
        return found

    def merged(self, a: Any, b: Any) -> tuple[list[float], list[float], float]:
        height = a[2] + b[2]
        centre, sigma = [], []
        for i in range(self.dim):
            x, y = a[0][i], a[0][i] + self.difference(i, a[0][i], b[0][i])
            mean = (a[2] * x + b[2] * y) / height
            square = (a[2] * (a[1][i] ** 2 + x**2) + b[2] * (b[1][i] ** 2 + y**2)) / height
            centre.append(mean)
            sigma.append(float(np.sqrt(square - mean**2)))
        return centre, sigma, height

    def add(self, kernel: tuple[list[float], list[float], float]) -> None:
        near = self.near(kernel[0], None)
        if near is None:
            self.kernels.append(kernel)
            return
        self.kernels[near] = self.merged(self.kernels[near], kernel)
        giver = near
        while (near := self.near(self.kernels[giver][0], giver)) is not None:
            first, last = sorted([near, giver])
            self.kernels[first] = self.merged(self.kernels[first], self.kernels[last])
            del self.kernels[last]
            giver = first

    def update(self, walkers: Array) -> None:
        weights = [np.exp(self.bias(z) / self.kT) for z in walkers.tolist()]
        self.counter += len(weights)
        self.sum_w += sum(weights)
        self.sum_w2 += sum(w**2 for w in weights)
        size = self.counter if self.explore else (1 + self.sum_w) ** 2 / (1 + self.sum_w2)
        self.norm = self.counter if self.explore else self.sum_w
        scale = (size * (self.dim + 2) / 4) ** (-1 / (4 + self.dim))
        for z, weight in zip(walkers.tolist(), weights, strict=True):
            height = (1.0 if self.explore else weight) / scale**self.dim
            self.add((z, [s * scale for s in self.sigma0], height))
        total = sum(self.kernel(one, other[0]) for other in self.kernels for one in self.kernels)
        self.zed = total / self.norm / len(self.kernels)


OPES = {  # periods, gamma, walkers
    "1-D": ([0.0], None, 1),
    "1-D, periodic": ([TAU], 6.0, 1),
    "2-D": ([0.0, 0.0], None, 1),
    "2-D, mixed, walkers": ([TAU, 0.0], None, 3),
}


def opes(
    periods: list[float], flavour: str, gamma: float | None = None, barrier: float = 30.0, **given: Any
) -> Opes:
    made = OpesSettings(
        sigma=[0.3, 0.25, 0.4][: len(periods)],
        barrier=barrier,
        bias_factor=gamma,
        flavour=flavour,  # type: ignore[arg-type]
        **{"min_sigma": 1e-3, **given},
    ).build(cv_context(periods, 300.0))
    assert isinstance(made, Opes)
    return made


@pytest.mark.parametrize("flavour", ["metad", "explore"])
@pytest.mark.parametrize("case", OPES)
def test_opes_is_the_slow_and_obvious_implementation(case: str, flavour: str) -> None:
    periods, gamma, walkers = OPES[case]
    dim = len(periods)
    bias = opes(periods, flavour, gamma)
    slow = SlowOpes([0.3, 0.25][:dim], 30.0, gamma or 30.0 / KT, periods, flavour == "explore")
    rng = np.random.default_rng(8)
    wells = np.array([[-1.0, 2.9], [1.2, -0.5], [3.0, 0.4]])[:, :dim]
    for count in range(300 // walkers):
        z = wells[(count + np.arange(walkers)) // 20 % 3] + 0.4 * rng.normal(size=(walkers, dim))
        z += np.array(periods) * rng.integers(-1, 2, dim)
        bias.update(torch.from_numpy(z))
        slow.update(z)
        if count in (0, 3, 20):
            assert bias.n_kernels == len(slow.kernels)
    z = rng.uniform(-4, 4, (200, dim))
    np.testing.assert_allclose(
        bias(torch.from_numpy(z)), [slow.bias(p) for p in z.tolist()], rtol=0, atol=1e-9
    )
    assert bias.n_kernels == len(slow.kernels) > 1
    assert bias.n_kernels < 150
    assert bias.effective_size == pytest.approx((1 + slow.sum_w) ** 2 / (1 + slow.sum_w2))
    assert np.ptp(bias(torch.from_numpy(z)).numpy()) > 15.0


# V at cos(q + i) 2.5 for q = 0, 1, 2 after kernels at 3 sin(1.3 k (i + 1) + i), k = 1 to 200: PLUMED 2.10's
# OPES_METAD and OPES_METAD_EXPLORE with PACE=10 SIGMA=0.3,0.25 BARRIER=30 and our kT [kJ/mol].
PLUMED = {
    ("metad", (0.0,)): [-3.34150938979, -5.30220293111, -7.59144060905],
    ("explore", (0.0,)): [13.4146481208, 5.57363982092, 3.38697639999],
    ("metad", (TAU,)): [0.804850469157, -12.6815186923, -10.7311423159],
    ("explore", (TAU,)): [14.7974702152, 3.9653283058, 0.998733903399],
    ("metad", (0.0, 0.0)): [-25.7278687978, -29.8761550807, -30.0],
    ("explore", (0.0, 0.0)): [-3.67871765726, -13.2656450431, -28.5145841926],
    ("metad", (0.0, TAU)): [-25.7278687978, -29.8761550807, -29.9995796029],
    ("explore", (0.0, TAU)): [-3.69963083228, -13.2819817454, -22.1405954664],
}


@pytest.mark.parametrize(("flavour", "periods"), PLUMED)
def test_opes_against_plumed(flavour: str, periods: tuple[float, ...]) -> None:
    bias = opes(list(periods), flavour, min_sigma=1e-6)
    axis = np.arange(len(periods))
    for k in range(1, 201):
        bias.update(torch.from_numpy(3 * np.sin(1.3 * k * (axis + 1) + axis))[None])
    z = 2.5 * np.cos(axis + np.arange(3.0)[:, None])
    np.testing.assert_allclose(bias(torch.from_numpy(z)), PLUMED[flavour, periods], rtol=0, atol=1e-8)


@pytest.mark.parametrize("flavour", ["metad", "explore"])
@given(seed=st.integers(0, 2**20), shift=st.floats(-1000, 1000))
@QUICK
def test_opes_depends_on_differences_only(flavour: str, seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.normal(size=(30, 2)))
    images = torch.from_numpy(np.round(rng.normal(size=(30, 2)))) * torch.tensor([0.0, TAU]).double()
    images[:, 1] *= TAU / float(torch.tensor(TAU))
    move = torch.tensor([shift, 0.0], dtype=torch.float64)
    one, other = opes([0.0, TAU], flavour), opes([0.0, TAU], flavour)
    for k in range(20):
        one.update(z[k : k + 1])
        other.update(z[k : k + 1] + images[k : k + 1] + move)
    torch.testing.assert_close(other(z + images + move), one(z), rtol=0, atol=1e-6)
    # Between -barrier and what the largest ratio of P to its mean can give; -barrier far from everything.
    assert float(one(z).min()) >= -30.0 - 1e-9
    far = torch.tensor([[1e4, 0.0]], dtype=torch.float64)
    assert float(one(far)) == pytest.approx(-30.0)
    assert float(gradient(one, far).abs().max()) == 0.0


def test_kernels_do_not_become_narrower_than_asked() -> None:
    bias = opes([0.0], "explore", gamma=4.0, min_sigma=0.8, compression_threshold=0.0)
    for _ in range(30):
        bias.update(torch.tensor([[0.5]]))
    assert bias.n_kernels == 30  # without a threshold none merge
    widths = bias.state[1:, 1].tolist()
    # Silverman's rule with 2 samples, the first of which is the start; then less and less.
    assert widths[0] == pytest.approx(0.3 * 2 * (2 * 3 / 4) ** (-1 / 5))
    assert widths[3] == pytest.approx(0.3 * 2 * 0.8)
    assert widths[-1] == pytest.approx(0.3 * 2 * 0.8)


# --- 6. convergence with an ideal sampler -----------------------------------------------------------------

_AXIS = np.linspace(-1.9, 1.9, 305)


def double_well(z: Array) -> Array:
    """Two wells 1 kT apart, a barrier of 5 kT [kJ/mol]."""
    return np.asarray(KT * (4.5 * (z**2 - 1) ** 2 + 0.5 * z))


class IdealSampler:
    """Draws from exp(-(F + V)/kT) by its inverse distribution function, at a low-discrepancy sequence."""

    def __init__(self, bias: AdaptiveBias, walkers: int) -> None:
        self.bias, self.walkers, self.count = bias, walkers, 0
        self.z: list[float] = []
        self.v: list[float] = []

    def update(self) -> None:
        v = self.bias(torch.from_numpy(_AXIS[:, None])).numpy()
        density = np.exp(-(double_well(_AXIS) + v) / KT)
        cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
        golden = (np.sqrt(5) - 1) / 2
        u = (self.count * self.walkers + np.arange(self.walkers) + 0.5) * golden % 1.0
        z = np.interp(u * cumulative[-1], cumulative, _AXIS)
        self.z += z.tolist()
        self.v += np.interp(z, _AXIS, v - self.bias.offset()).tolist()
        self.bias.update(torch.from_numpy(z[:, None]))
        self.count += 1

    def reweighted(self, skip: int) -> tuple[Array, Array]:
        """Free energies [kJ/mol] of bins from frames weighted by exp((V - offset)/kT), and those of F."""
        edges = np.linspace(-1.7, 1.7, 35)
        z, v = np.array(self.z[skip:]), np.array(self.v[skip:])
        counts = np.histogram(z, edges, weights=np.exp((v - v.max()) / KT))[0]
        fine = np.linspace(-1.7, 1.7, 3401)[:-1] + 0.0005
        exact = np.histogram(fine, edges, weights=np.exp(-double_well(fine) / KT))[0]
        return -KT * np.log(counts), -KT * np.log(exact)


def deviation(estimate: Array, exact: Array) -> float:
    """Largest deviation [kT] where the exact free energy is below 5 kT, but for a constant."""
    exact = exact - exact.min()
    low = exact < 5 * KT
    difference = (estimate - exact)[low]
    weight = np.exp(-exact[low] / KT)
    return float(np.abs(difference - (weight * difference).sum() / weight.sum()).max() / KT)


IDEAL: dict[str, tuple[BiasSettings, int]] = {
    "metadynamics": (
        MetadynamicsSettings(
            sigma=0.1, height=0.4 * KT, bias_factor=8.0, low=[-1.9], high=[1.9], points=[153]
        ),
        4000,
    ),
    "opes": (OpesSettings(sigma=0.05, barrier=10 * KT, compression_threshold=0.5), 2000),
    "opes, explore": (
        OpesSettings(sigma=0.1, barrier=10 * KT, compression_threshold=0.5, flavour="explore"),
        4000,
    ),
}


@pytest.mark.parametrize("walkers", [pytest.param(1, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("name", IDEAL)
def test_convergence_with_an_ideal_sampler(
    name: str, walkers: int, record_property: Callable[[str, object], None]
) -> None:
    """The free energy from the bias and that from its frames are the true one within 0.1 kT."""
    made, frames = IDEAL[name]
    bias = made.build(cv_context([0.0], 300.0))
    assert isinstance(bias, AdaptiveBias)
    sampler = IdealSampler(bias, walkers)
    for _ in range(frames // walkers):
        sampler.update()
    factor = bias.bias_factor if isinstance(bias, Metadynamics) else 10.0
    v = bias(torch.from_numpy(_AXIS[:, None])).numpy()
    by_bias = deviation(-v / (1 - 1 / factor), double_well(_AXIS))
    by_frames = deviation(*sampler.reweighted(frames // 3))
    record_property("deviations_kT", [by_bias, by_frames])
    # The explore flavour's kernels are wide: its bias is for exploring.
    assert by_bias < (0.5 if name == "opes, explore" else 0.1)
    # c(t) belongs to the long-time limit: early frames of metadynamics have approximate weights.
    assert by_frames < (0.2 if name == "metadynamics" else 0.1)
    # With the bias the barrier is (nearly) gone.
    assert np.ptp((double_well(_AXIS) + v)[np.abs(_AXIS) < 1.1]) < 1.5 * KT


# --- 7. moving restraints ------------------------------------------------------------------------------------

STIFF, TRAP = 40.0, 60.0  # of the oscillator 1/2 STIFF z^2 and of the restraint [kJ/mol]
SERIES = STIFF * TRAP / (STIFF + TRAP)


def moving(start: float, end: float, steps: int, period: float = 0.0) -> MovingHarmonic:
    made = MovingHarmonicSettings(start=[start], end=[end], force_constant=TRAP, steps=steps, pace=1)
    bias = made.build(cv_context([period], 300.0))
    assert isinstance(bias, MovingHarmonic)
    return bias


@pytest.mark.parametrize("n", [1, 7, 200])
def test_work_of_a_pull_in_equilibrium(n: int) -> None:
    """A harmonic oscillator that is always in equilibrium with the restraint."""
    bias = moving(-0.4, 1.1, n)
    width = np.sqrt(KT / (STIFF + TRAP))
    for _ in range(n):
        mean = float(bias.state) * TRAP / (STIFF + TRAP)
        # Two points have the mean and the variance of the Boltzmann distribution, so the work is exact.
        bias.update(torch.tensor([[mean - width], [mean + width]], dtype=torch.float64))
    free_energy = 0.5 * SERIES * (1.1**2 - 0.4**2)
    dissipated = 0.5 * TRAP**2 / (STIFF + TRAP) * 1.5**2 / n
    assert float(bias.work) / 2 == pytest.approx(free_energy + dissipated, rel=1e-10)
    if n == 200:
        assert dissipated < 0.1 * KT


def test_jarzynski_with_fast_pulls() -> None:
    """Overdamped motion, propagated exactly; the work exceeds the free energy, its exponential average not."""
    rng = np.random.default_rng(9)
    pulls, n = 300, 12
    variance = KT / (STIFF + TRAP)
    decay = 0.75
    work = []
    for _ in range(pulls):
        bias = moving(0.0, 0.5, n)
        z = rng.normal(0.0, np.sqrt(variance))
        for _ in range(n):
            mean = float(bias.state) * TRAP / (STIFF + TRAP)
            z = mean + decay * (z - mean) + rng.normal(0.0, np.sqrt(variance * (1 - decay**2)))
            bias.update(torch.tensor([[z]], dtype=torch.float64))
        work.append(float(bias.work) / KT)
    free_energy = 0.5 * SERIES * 0.5**2 / KT
    estimate = -logsumexp(-np.array(work), b=1 / pulls)
    factors = np.exp(-(np.array(work) - free_energy))
    error = factors.std() / factors.mean() / np.sqrt(pulls)
    assert error < 0.15
    assert abs(estimate - free_energy) < 3 * error
    assert np.mean(work) - free_energy > 3 * np.std(work) / np.sqrt(pulls)


def test_a_restraint_takes_the_shorter_way_and_arrives() -> None:
    bias = moving(3.0, -3.0, 10, period=TAU)
    z = torch.tensor([[3.1]], dtype=torch.float64)
    centres = []
    for _ in range(14):
        bias.update(z)
        centres.append(float(bias.state))
    steps = np.minimum(np.arange(1, 15), 10) / 10
    np.testing.assert_allclose(centres, 3.0 + steps * (TAU - 6.0), rtol=0, atol=1e-12)
    assert int(bias.sent) == 10  # nothing is sent after the arrival
    assert float(bias(torch.tensor([[-3.0]], dtype=torch.float64))) == pytest.approx(0.0, abs=1e-20)
    assert float(bias(torch.tensor([[-3.1]], dtype=torch.float64))) == pytest.approx(0.5 * TRAP * 0.01)
    # The work at a fixed z is the change of the energy.
    assert float(bias.work) == pytest.approx(float(bias(z)) - 0.5 * TRAP * 0.1**2)


@pytest.mark.parametrize("steps", [1, 20, 39, 40, 41])
def test_as_many_moves_as_fit(steps: int) -> None:
    made = MovingHarmonicSettings(start=[0.0], end=[1.0], force_constant=1.0, steps=steps)
    bias = made.build(cv_context([0.0], 300.0))
    assert isinstance(bias, MovingHarmonic)
    assert bias.pace == 20
    for _ in range(5):
        bias.update(torch.zeros(1, 1))
    assert int(bias.sent) == {1: 1, 20: 1, 39: 2, 40: 2, 41: 3}[steps]
    assert float(bias.state) == 1.0


@each_backend
def test_work_is_the_change_of_the_energy_in_the_context(backend: str) -> None:
    system, x = chain(2)
    cv, bias = chain_cv(), new("moving_harmonic")
    context = make_context(add_bias(system, cv, bias, n_copies=2, backend=backend), x)
    updater = BiasUpdater(cv, bias, n_copies=2)
    work = 0.0
    for _ in range(25):
        context.getIntegrator().step(4)
        before = bias_energy(context)
        updater.update(context)
        work += bias_energy(context) - before
    assert isinstance(bias, MovingHarmonic)
    assert float(bias.work) == pytest.approx(work, rel=1e-10)
    assert abs(work) > 1.0
    assert bias.state.tolist() == pytest.approx([3.0 + (TAU - 5.0), 0.4])


# --- 8. bad input ----------------------------------------------------------------------------------------------

_LINE = cv_context([0.0], 300.0)
_PLANE = cv_context([0.0, TAU], 300.0)
_GRID = {"low": [0.0], "high": [2.0]}


@pytest.mark.parametrize(
    ("made", "context", "message"),
    [
        (
            OpesSettings(sigma=1.0, barrier=9.0, components=[2]),
            _PLANE,
            "there is no component 2; .* are 0 to 1",
        ),
        (OpesSettings(sigma=1.0, barrier=9.0, components=[-1]), _PLANE, "there is no component -1"),
        (
            OpesSettings(sigma=1.0, barrier=9.0, components=[1, 1]),
            _PLANE,
            r"components: \[1, 1\] names one twice",
        ),
        (OpesSettings(sigma=0.0, barrier=9.0), _LINE, r"bias\.sigma: expected widths above 0, got \[0\.0\]"),
        (OpesSettings(sigma=[1.0, -1.0], barrier=9.0), _PLANE, r"bias\.sigma: expected widths above 0"),
        (OpesSettings(sigma=[1.0], barrier=9.0), _PLANE, r"bias\.sigma: 1 values for 2 collective variables"),
        (OpesSettings(barrier=9.0), _LINE, r"bias\.sigma: has to be given for .* without a trained model"),
        (
            OpesSettings(sigma=1.0, barrier=2.0),
            _LINE,
            r"bias\.barrier: 2 kJ/mol is not above kT = 2\.49 kJ/mol",
        ),
        (
            OpesSettings(sigma=1.0, barrier=40_000.0),
            _LINE,
            r"bias\.barrier: 40000 kJ/mol is 16036 kT; expected 1247 kJ/mol or less; is it in J/mol\?",
        ),
        (
            OpesSettings(sigma=20.0, barrier=9.0),
            _PLANE,
            r"bias\.sigma: 20 covers all of variable 1, whose extent is 6\.283; .* \(angles are in radians",
        ),
        (MetadynamicsSettings(sigma=1.5, **_GRID), _LINE, r"bias\.sigma: 1\.5 covers all of variable 0"),
        (
            MetadynamicsSettings(sigma=0.1, height=1200.0, **_GRID),
            _LINE,
            r"bias\.height: 1200 kJ/mol is 481 kT; expected 249\.4 kJ/mol or less",
        ),
        (MetadynamicsSettings(sigma=0.0, **_GRID), _LINE, r"bias\.sigma: expected widths above 0"),
        (MetadynamicsSettings(sigma=-0.1, **_GRID), _LINE, r"bias\.sigma: expected widths above 0"),
        (MetadynamicsSettings(sigma=[0.1, 0.1], **_GRID), _LINE, r"bias\.sigma: 2 values for 1 collective"),
        (
            MetadynamicsSettings(**_GRID),
            _LINE,
            r"bias\.sigma: has to be given for .* without a trained model",
        ),
        (MetadynamicsSettings(sigma=0.1), _LINE, r"bias\.low/high: has to be given for .* without a trained"),
        (MetadynamicsSettings(sigma=0.1, low=[0.0]), _LINE, r"bias\.low/high: give both or neither"),
        (MetadynamicsSettings(sigma=0.1, low=[0.0], high=[0.0]), _LINE, "0 is not below 0 for variable 0"),
        (MetadynamicsSettings(sigma=0.1, low=[2.0], high=[1.0]), _LINE, "2 is not below 1 for variable 0"),
        (MetadynamicsSettings(sigma=0.1, **_GRID), _PLANE, r"bias\.low: 1 values for 2 collective variables"),
        (
            MetadynamicsSettings(sigma=0.1, low=[0.0, -3.0], high=[2.0, 3.0]),
            _PLANE,
            r"variable 1 has the period 6\.28319; -3 to 3 is not one",
        ),
        (
            MetadynamicsSettings(sigma=0.1, points=[10], **_GRID),
            _LINE,
            "10 points from 0 to 2 are too few for sigma 0.1 of variable 0; expected 21 or more",
        ),
        (MetadynamicsSettings(sigma=0.1, points=[40, 40], **_GRID), _LINE, r"bias\.points: 2 values for 1"),
        (
            MetadynamicsSettings(sigma=1e-4, **_GRID),
            _LINE,
            "2000 points from 0 to 2 are too few for sigma 0.0001",
        ),
        (
            MetadynamicsSettings(sigma=0.1, outside="wall", wall_force_constant=-1.0, **_GRID),
            _LINE,
            r"bias\.wall_force_constant: must not be negative",
        ),
        (
            MetadynamicsSettings(sigma=0.1, low=[0.0] * 4, high=[1.0] * 4),
            cv_context([0.0] * 4, 300.0),
            "metadynamics has a grid of up to 3 dimensions, not 4; 'opes' has none",
        ),
        (
            SumSettings(
                parts=[
                    OpesSettings(sigma=1.0, barrier=9.0),
                    HarmonicSettings(centre=[0.0], force_constant=1.0),
                    MetadynamicsSettings(sigma=0.1, **_GRID),
                ]
            ),
            _LINE,
            r"bias\.parts: 2 of them change while the simulation runs; one sum can have one",
        ),
        (
            SumSettings(
                parts=[
                    OpesSettings(sigma=1.0, barrier=9.0),
                    MetadynamicsSettings(sigma=0.1, outside="wall", **_GRID),
                ]
            ),
            _LINE,
            "2 of them change",
        ),
        (
            SumSettings(parts=[HarmonicSettings(centre=[0.0], force_constant=1.0, components=[3])]),
            _PLANE,
            "component 3",
        ),
        (
            WallSettings(low=[0.0], force_constant=1.0),
            _PLANE,
            r"bias\.low: 1 values for 2 collective variables",
        ),
        (WallSettings(low=[0.0], force_constant=-1.0), _LINE, r"bias\.force_constant: must not be negative"),
        (
            MovingHarmonicSettings(start=[0.0], end=[1.0], force_constant=1.0, steps=9),
            _PLANE,
            r"bias\.start: 1 values",
        ),
        (
            MovingHarmonicSettings(start=[0.0], end=[1.0, 1.0], force_constant=1.0, steps=9),
            _LINE,
            r"bias\.end: 2 values for 1",
        ),
        (
            MovingHarmonicSettings(start=[0.0], end=[1.0], force_constant=-1.0, steps=9),
            _LINE,
            "must not be negative",
        ),
        (FlowBarrierSettings(), _LINE, "flow_barrier needs a trained model"),
    ],
)
def test_settings_that_do_not_fit_the_variables(
    made: BiasSettings, context: BiasContext, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        made.build(context)
    assert len(error.value.problems) == 1
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (HarmonicSettings(centre=[0.0, -60.0], force_constant=1.0), "centre: -60"),
        (
            MovingHarmonicSettings(start=[0.0, 0.0], end=[0.0, 180.0], force_constant=1.0, steps=10),
            "end: 180",
        ),
        (WallSettings(low=[None, -120.0], force_constant=1.0), "low: -120"),
    ],
)
def test_degrees_of_a_periodic_variable_are_asked_about(
    made: BiasSettings, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    made.build(_PLANE)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"bias.{name} of variable 1 is more than its period of 6.283")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "opes", "barrier": float("nan")}, "barrier: .*finite"),
        ({"kind": "opes", "barrier": -3.0}, "barrier: .*greater than 0"),
        ({"kind": "opes", "barrier": 30.0, "bias_factor": 1.0}, "bias_factor: .*greater than 1"),
        ({"kind": "opes", "barrier": 30.0, "flavour": "explorer"}, "flavour: .*'metad' or 'explore'"),
        ({"kind": "opes", "barrier": 30.0, "sigma": float("inf")}, "sigma.*: .*finite"),
        ({"kind": "opes", "barrier": 30.0, "components": []}, "components: .*at least 1"),
        ({"kind": "metadynamics", "height": 0.0}, "height: .*greater than 0"),
        ({"kind": "metadynamics", "bias_factor": 0.5}, "bias_factor: .*greater than 1"),
        ({"kind": "metadynamics", "pace": 0}, "pace: .*greater than or equal to 1"),
        ({"kind": "metadynamics", "outside": "nothing"}, "outside: .*'flat' or 'wall'"),
        ({"kind": "metadynamics", "sigmas": 0.1}, "sigmas: unknown key; did you mean 'sigma'"),
        (
            {"kind": "moving_harmonic", "start": [0], "end": [1], "force_constant": 1.0},
            "steps: this key is required",
        ),
        ({"kind": "walls", "force_constant": 1.0}, "give 'low', 'high' or both"),
        (
            {"kind": "walls", "low": [1.0], "high": [1.0], "force_constant": 1.0},
            "lower wall 1.0 is not below the upper",
        ),
        (
            {"kind": "walls", "low": [2.0], "high": [1.0], "force_constant": 1.0},
            "lower wall 2.0 is not below the upper",
        ),
        (
            {"kind": "walls", "low": [0.0], "force_constant": 1.0, "power": 1},
            "power: .*greater than or equal to 2",
        ),
        ({"kind": "sum", "parts": []}, "parts: .*at least 1"),
        (
            {"kind": "sum", "parts": [{"kind": "opos"}]},
            r"parts: \[0\].kind: expected one of .*opes.*, got 'opos'",
        ),
        ({"kind": "sum", "parts": [{"sigma": 1.0}]}, r"parts: \[0\].kind: expected one of .*, got None"),
        (
            {"kind": "sum", "parts": [{"kind": "harmonic", "centre": [0.0], "force_constnat": 1.0}]},
            r"parts: .*\[0\].*force_constnat: unknown key; did you mean 'force_constant'",
        ),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        validate(BIAS_KINDS[given["kind"]], given, "bias")
    assert "\n" not in error.value.problems[0]


def shifted_model() -> LatentThermodynamicFlow:
    """Normal densities around (0, 20), of widths 1 and 3."""
    model = LatentThermodynamicFlow(ModelSettings(flow=FlowSettings(layers=2, hidden=[8])), 5, 2, 300.0)
    model.flows[0].whiten(torch.tensor([0.0, 20.0]), torch.tensor([1.0, 3.0]))
    return model.eval()


def test_grid_and_widths_come_from_the_model() -> None:
    context = BiasContext.of_model(shifted_model(), 300.0, KT)
    bias = MetadynamicsSettings().build(context)
    assert isinstance(bias, Metadynamics)
    low, high = bias.spline.low.tolist(), bias._high()
    samples = context.samples("here")
    assert low < samples.quantile(0.01, dim=0).tolist() < samples.quantile(0.99, dim=0).tolist() < high
    # Of the second variable alone, also where it is chosen twice over.
    one = MetadynamicsSettings(components=[1]).build(context)
    nested = SumSettings(components=[1, 0], parts=[MetadynamicsSettings(components=[0])]).build(context)
    assert isinstance(one, Metadynamics)
    assert isinstance(nested, AdaptiveSum)
    assert isinstance(nested.lead, Metadynamics)
    for part in (one, nested.lead):
        assert part.sigma == pytest.approx([bias.sigma[1]])
        assert float(part.spline.low) == pytest.approx(low[1])
    assert nested.update(torch.tensor([[500.0, 20.0]], dtype=torch.float64))[0][0] == 20.0


def test_a_grid_that_does_not_cover_the_model() -> None:
    context = BiasContext.of_model(shifted_model(), 300.0, KT)
    made = MetadynamicsSettings(low=[-9.0, 0.0], high=[9.0, 20.0])
    with pytest.raises(
        ConfigError, match=r"bias\.low/high: the grid covers only \d+% of the model's density; it rea"
    ):
        made.build(context)
    MetadynamicsSettings(low=[-9.0, 0.0], high=[9.0, 40.0]).build(context)


def test_a_start_outside_the_grid() -> None:
    for outside in ("flat", "wall"):
        bias = MetadynamicsSettings(sigma=0.1, outside=outside, **_GRID).build(_LINE)  # type: ignore[arg-type]
        assert isinstance(bias, AdaptiveBias)
        with pytest.raises(
            ConfigError, match=r"does not cover the start: z = \[2\.5\], the grid is from \[0\.0\] to"
        ):
            bias.update(torch.tensor([[1.0], [2.5]]))
        assert int(bias.sent) == int(bias.updates) == 0
        bias.update(torch.tensor([[1.0]]))
        assert bias.update(torch.tensor([[2.5]])) == []


@each_bias
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_collective_variable_that_is_not_finite(name: str, value: float) -> None:
    bias = new(name)
    bias.update(torch.tensor([[3.0, 0.3]], dtype=torch.float64))
    before = bias.snapshot()
    with pytest.raises(ConfigError, match="a collective variable is not finite"):
        bias.update(torch.tensor([[3.0, 0.3], [3.0, value]], dtype=torch.float64))
    assert all(torch.equal(before[key], now) for key, now in bias.snapshot().items())


def test_a_torsion_that_is_not_defined() -> None:
    cv = torsion_cv([(0, 1, 2, 3)], N_ATOMS)
    bias = OpesSettings(sigma=0.3, barrier=30.0).build(cv_context([TAU], 300.0))
    assert isinstance(bias, AdaptiveBias)
    system, _ = chain()
    context = make_context(add_bias(system, cv, bias), np.arange(4.0)[:, None] * [0.0, 0.0, 0.15])
    with pytest.raises(ConfigError, match="not finite"):
        BiasUpdater(cv, bias).update(context)


@pytest.mark.parametrize(
    "made",
    [
        HarmonicSettings(centre=[0.0, 0.0], force_constant=1.0),
        WallSettings(low=[0.0, 0.0], force_constant=1.0),
        SumSettings(parts=[HarmonicSettings(centre=[0.0, 0.0], force_constant=1.0)]),
    ],
)
def test_an_updater_of_a_static_bias(made: BiasSettings) -> None:
    with pytest.raises(ConfigError, match="does not change while the simulation runs; it needs no updater"):
        BiasUpdater(chain_cv(), made.build(CHAIN))  # type: ignore[arg-type]
