"""Population annealing against the three-hole potential, whose distribution is known at every temperature."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from latf_openmm.errors import SimulationError
from latf_openmm.reweighting.weights import systematic
from latf_openmm.sampling.annealing import (
    Annealed,
    AnnealingSettings,
    anneal,
    expected_changes,
    frames_beside,
)
from latf_openmm.sampling.dynamics import DynamicsSettings
from latf_openmm.sampling.population import Population, changed, next_temperature, resampled
from latf_openmm.sampling.propagator import SETTLE, Propagator
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.systems.lj7 import LJ7Settings
from latf_openmm.systems.three_hole import ThreeHoleSettings, three_hole_potential
from latf_openmm.units import REDUCED

Array = NDArray[np.float64]
SYSTEM = ThreeHoleSettings()
DYNAMICS = DynamicsSettings(timestep=0.01, friction=1.0, frame_interval=10)
Hole = Callable[[Array], Array]


def upper(positions: Array) -> Array:
    """Whether the particle is in the upper, shallow hole."""
    return positions[..., 0, 1] > 1.0


def exact(temperature: float) -> tuple[float, float]:
    """Mean potential energy, and population of the upper hole."""
    found = SYSTEM.exact_ensemble(temperature)
    assert found is not None
    planar = found.weights @ three_hole_potential(found.positions[:, 0, 0], found.positions[:, 0, 1])
    return float(planar + 0.5 * temperature), float(found.weights @ upper(found.positions))


def population(temperature: float, n: int, seed: int = 0) -> Population:
    """Independent walkers of the exact distribution."""
    found = SYSTEM.exact_ensemble(temperature)
    assert found is not None
    rng = np.random.default_rng(seed)
    positions = found.positions[rng.choice(len(found.weights), n, p=found.weights)].copy()
    spacing = np.diff(np.unique(found.positions[:, 0, 0])).min()
    positions[:, 0, :2] += rng.uniform(-0.5, 0.5, (n, 2)) * spacing
    positions[:, 0, 2] = rng.normal(0, np.sqrt(temperature / (2 * SYSTEM.flatness)), n)
    energies = Propagator(SYSTEM, DYNAMICS).energies(positions, None)
    return Population(temperature, positions, None, energies, np.zeros(n), np.arange(n))


def gaussian(n: int = 4000, seed: int = 0) -> Population:
    energies = np.random.default_rng(seed).normal(3.0, 2.0, n)
    return Population(1.0, np.zeros((n, 1, 3)), None, energies, np.zeros(n), np.arange(n))


@pytest.mark.parametrize("goal", [0.2, 5.0])
def test_a_change_leaves_the_share_asked_for(goal: float) -> None:
    before = gaussian()
    temperature = next_temperature(before, goal, REDUCED, 0.6)
    assert (temperature - 1.0) * (goal - 1.0) > 0
    weights = changed(before, temperature, REDUCED).weights
    assert 1 / (weights**2).sum() / len(weights) == pytest.approx(0.6, abs=1e-3)
    # Gaussian energies: exp(-(d beta)^2 var U).
    assert abs(1 / temperature - 1) == pytest.approx(np.sqrt(-np.log(0.6)) / 2.0, rel=0.05)
    assert next_temperature(before, 1.0001, REDUCED, 0.6) == 1.0001


def test_expected_changes_of_gaussian_energies() -> None:
    now, n = gaussian(), 0
    while now.temperature != 0.5:  # at beta' the mean moves, the variance does not
        temperature = next_temperature(now, 0.5, REDUCED, 0.7)
        now = Population(
            temperature, now.positions, None, now.energies, now.log_weights, now.ancestors, n + 1
        )
        n += 1
    assert n == pytest.approx(expected_changes(1.0, 0.5, 4.0, 0.7), abs=2)


def test_redraws_change_no_average() -> None:
    before = gaussian(500)
    before = changed(before, 0.6, REDUCED)
    wanted = before.weights @ before.energies
    rng = np.random.default_rng(1)
    for log_psi in (np.zeros(500), np.sin(before.energies), -0.5 * before.energies):
        means = []
        for _ in range(400):
            after = resampled(before, log_psi, rng)
            assert len(after) == 500
            means.append(after.weights @ after.energies)
        assert abs(np.mean(means) - wanted) < 4 * np.std(means) / 20 + 0.01 * abs(wanted)


def test_walkers_with_even_weights_stay() -> None:
    before = gaussian(100)
    assert resampled(before, np.zeros(100), np.random.default_rng(0)) is before


def test_systematic_draws_are_within_one_of_their_weights() -> None:
    rng = np.random.default_rng(0)
    weights = rng.random(50)
    weights /= weights.sum()
    counts = np.bincount(systematic(weights, 400, rng), minlength=50)
    assert np.abs(counts - 400 * weights).max() < 1


class CountingPropagator(Propagator):
    """Counts how often walkers are moved."""

    def __init__(self) -> None:
        super().__init__(SYSTEM, DYNAMICS)
        self.calls = 0

    def propagated(self, population: Population, steps: int, seed: int) -> Population:
        self.calls += 1
        return super().propagated(population, steps, seed)


def reached(goal: float, **changes: object) -> tuple[Annealed, Array]:
    lookahead = changes.pop("lookahead", None)
    settings = AnnealingSettings(walkers=3000, frames=1).model_copy(update=changes)
    start = population(1.3, 3000)
    (found,) = anneal(Propagator(SYSTEM, DYNAMICS), start, [goal], settings, 7, lookahead)  # type: ignore[arg-type]
    return found, found.population.weights


@pytest.mark.parametrize("steps", [1, 60])
@pytest.mark.parametrize("goal", [0.6, 1.8])
def test_weights_are_exact_however_short_the_dynamics(steps: int, goal: float) -> None:
    found, weights = reached(goal, steps=steps)
    energy, share = exact(goal)
    families = 1 / (np.bincount(found.population.ancestors, weights) ** 2).sum()
    assert families > 300
    assert abs(weights @ found.population.energies - energy) < 3.5 * np.sqrt(1.5 * goal**2 / families)
    error = np.sqrt(share * (1 - share) / families)
    assert abs(weights @ upper(found.population.positions) - share) < 3.5 * error


def test_a_wrong_lookahead_is_no_error() -> None:
    def nonsense(positions: Array, boxes: Array | None, temperature: float, goal: float) -> Array:
        return np.where(upper(positions), 1.5, 0.0)

    found, weights = reached(0.6, steps=20, lookahead=nonsense)
    energy, share = exact(0.6)
    assert abs(weights @ found.population.energies - energy) < 0.05
    assert weights @ upper(found.population.positions) == pytest.approx(share, abs=0.02)


def test_moves_leave_a_distribution_alone() -> None:
    """At a step so long that velocities drawn without regard to the scheme would heat z to three times kT."""
    dynamics = DYNAMICS.model_copy(update={"timestep": 0.1})
    propagator, now = Propagator(SYSTEM, dynamics), population(0.7, 2000)
    squares, energies = [], []
    for seed in range(15):
        now = propagator.propagated(now, 3, seed)
        squares.append((now.positions[:, 0, 2] ** 2).mean())
        energies.append(now.energies.mean())
    exact_square = 0.7 / (2 * SYSTEM.flatness)
    assert np.mean(squares[3:]) == pytest.approx(exact_square, rel=0.03)
    usual = population(0.7, 2000, seed=5)
    start = usual.energies.mean()
    for seed in range(40):
        usual = Propagator(SYSTEM, DYNAMICS).propagated(usual, 10, seed)
    assert usual.energies.mean() == pytest.approx(start, abs=0.07)


def test_several_goals_in_one_sweep() -> None:
    settings = AnnealingSettings(walkers=500, steps=20, frames=3)
    start = population(1.3, 500)
    found = list(anneal(Propagator(SYSTEM, DYNAMICS), start, [1.1, 0.9, 0.7], settings, 3))
    assert [one.population.temperature for one in found] == [1.1, 0.9, 0.7]
    assert found[0].positions.shape == (3, 500, 1, 3)
    assert found[0].energies.shape == (3, 500)
    np.testing.assert_allclose(
        found[1].energies[1], Propagator(SYSTEM, DYNAMICS).energies(found[1].positions[1], None)
    )
    for one in found:
        share = exact(one.population.temperature)[1]
        assert one.population.weights @ upper(one.population.positions) == pytest.approx(share, abs=0.07)


@pytest.mark.parametrize("stop_after", range(1, 10))
def test_an_interrupted_sweep_goes_on_as_if_nothing_happened(tmp_path: Path, stop_after: int) -> None:
    settings = AnnealingSettings(walkers=50, steps=5, frames=2, overlap=0.9)
    start, goals = population(1.3, 50), [1.0, 0.7]
    once, interrupted = CountingPropagator(), CountingPropagator()
    whole = list(anneal(once, start, goals, settings, 3))
    told: list[float] = []
    resumed: list[float] = []

    class StoppedError(Exception):
        pass

    def advance(amount: float, note: str) -> None:
        told.append(amount)
        if len(told) == stop_after:
            raise StoppedError

    keep = tmp_path / "walkers.npz"
    got: dict[float, Annealed] = {}
    for advanced in (advance, lambda amount, note: resumed.append(amount)):
        try:
            for one in anneal(interrupted, start, goals, settings, 3, keep=keep, advance=advanced):
                got[one.population.temperature] = one
        except StoppedError:
            assert keep.is_file()
    assert interrupted.calls == once.calls  # nothing that was told is done twice
    rounds = whole[-1].population.changes + 2 * settings.frames
    assert sum(resumed) == rounds * (settings.steps + SETTLE) * 50  # what was done before counts
    for one in whole:
        same = got[one.population.temperature]
        np.testing.assert_array_equal(same.positions, one.positions)
        np.testing.assert_array_equal(same.population.log_weights, one.population.log_weights)
    assert not list(anneal(Propagator(SYSTEM, DYNAMICS), start, goals, settings, 3, keep=keep))
    assert not frames_beside(keep)


def test_a_walker_that_explodes_loses_its_weight() -> None:
    start = population(0.7, 20)
    start.positions[3] = 1e4
    found = Propagator(SYSTEM, DYNAMICS).propagated(start, 100, 1)
    assert not np.isfinite(found.log_weights[3])
    assert np.isfinite(np.delete(found.log_weights, 3)).all()
    assert found.weights[3] == 0
    start.positions[:] = 1e4
    with pytest.raises(SimulationError, match=r"all walkers became unstable at 0\.7"):
        Propagator(SYSTEM, DYNAMICS).propagated(start, 100, 1)


def dipeptides(positions: Array, n: int) -> Population:
    return Population(300.0, np.repeat(positions, n, axis=0), None, np.zeros(n), np.zeros(n), np.arange(n))


def test_molecules_move_in_one_context() -> None:
    system = AlanineDipeptideSettings()
    dynamics = DynamicsSettings(timestep=0.002, friction=1.0, frame_interval=10, context_walkers=3)
    start = dipeptides(system.build(1).positions, 7)  # in threes, and one is left over
    found = Propagator(system, dynamics).propagated(start, 200, 1)
    np.testing.assert_allclose(found.energies, Propagator(system, dynamics).energies(found.positions, None))
    assert len(set(found.energies)) == 7
    assert np.abs(found.positions).max() < 1.5
    assert found.energies.mean() > -110  # warmer than the start, which is minimised
    start.positions[4] = start.positions[4, 0]  # all atoms in one place
    lost = Propagator(system, dynamics).propagated(start, 200, 1)
    assert list(np.flatnonzero(~np.isfinite(lost.log_weights))) == [4]


def test_molecules_move_in_several_processes() -> None:
    system = AlanineDipeptideSettings()
    dynamics = DynamicsSettings(timestep=0.002, friction=1.0, frame_interval=10)
    built = system.build(1)
    start = dipeptides(built.positions, 4)
    with Propagator(system, dynamics, 2) as propagator:
        found = propagator.propagated(start, 200, 1)
        again = propagator.propagated(start, 200, 1)
    np.testing.assert_array_equal(found.positions, again.positions)
    np.testing.assert_allclose(found.energies, Propagator(system, dynamics).energies(found.positions, None))
    assert len(set(found.energies)) == 4
    bonds = [(b[0].index, b[1].index) for b in built.topology.bonds() if b[1].element.symbol == "H"]
    for i, j in bonds:  # constrained ones
        lengths = np.linalg.norm(found.positions[:, i] - found.positions[:, j], axis=1)
        np.testing.assert_allclose(lengths, lengths[0], atol=1e-5)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_time_of_a_propagation_does_not_count_contexts_and_processes(processes: int) -> None:
    """Twice the steps take about twice as long, also in processes that begin just now."""
    dynamics = DYNAMICS.model_copy(update={"context_walkers": 1})
    with Propagator(LJ7Settings(), dynamics, processes) as propagator:
        built = LJ7Settings().build(1).positions[0]
        start = Population(0.2, np.stack([built] * 4), None, np.zeros(4), np.zeros(4), np.arange(4))
        short, long = propagator.seconds(start, 1000), propagator.seconds(start, 5000)
    assert 2.0 < long / short < 8.0
    assert short < 2.0
