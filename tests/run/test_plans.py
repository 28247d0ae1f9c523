"""Whether walkers move among temperatures is chosen by the error expected: synthetic walkers, and a small loop."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.ensembles import pool_of, trained, walk

from latf_openmm.ensembles.pool import Pool
from latf_openmm.frames.moves import paths_of_stages, round_trips
from latf_openmm.frames.trajectory import FeatureTrajectory, WalkerPaths
from latf_openmm.reweighting.estimators import statistical_inefficiency
from latf_openmm.run.strategies import Decision, RoundState
from latf_openmm.run.strategies.active import ActiveSettings
from latf_openmm.run.strategies.entries import Entries, along_temperature
from latf_openmm.run.strategies.error_model import ErrorModel
from latf_openmm.run.strategies.plans import Plan, outlooks
from latf_openmm.sampling.tempering.base import moves_of_a_round_trip
from latf_openmm.sampling.tempering.exchange import ExchangeSettings

STAY, MOVE = "walkers stay at the temperatures chosen", "walkers move among all temperatures"
SPREAD = "walkers stay at all temperatures"
STAY_BIASED, MOVE_BIASED = f"{STAY} with the bias", f"{MOVE} with the bias"
CHOSEN = Plan((1.0, 1.1), (), moving=False, chosen=True)
EXACT = ActiveSettings(population_tolerance=0.003)
"""Populations are what is known least."""


def state_of(pool: Pool, targets: tuple[float, ...] = (1.0,), **changes: object) -> RoundState:
    s = RoundState(trained(), pool, 0, targets, (1.0, 2.0), 4, 1000, False, 5, ExchangeSettings(interval=10))
    return replace(s, **changes)  # type: ignore[arg-type]


def held(temperature: float, seed: int, above: tuple[bool, ...]) -> list[FeatureTrajectory]:
    """Walkers that never leave the state they were put in, in equilibrium inside it: x0 > 0.5, or below."""
    walkers = []
    for i, inside in enumerate(above):
        t = walk(temperature, 3000, seed + i, 0.0, 0.8)
        kept = (t.features[:, 0] > 0.5) == inside
        walkers.append(
            replace(
                t,
                features=t.features[kept],
                potential_energy=t.potential_energy[kept],
                log_weights=t.log_weights[kept],
            )
        )
    return walkers


def free(temperature: float, seed: int, n: int = 4, stiffening: float = 0.0) -> list[FeatureTrajectory]:
    return [walk(temperature, 3000, seed + i, stiffening, 0.8) for i in range(n)]


def in_a_bath(walkers: list[FeatureTrajectory]) -> list[FeatureTrajectory]:
    """Walkers with the energies of 2000 oscillators added."""
    rng = np.random.default_rng(4)
    return [
        replace(
            t, potential_energy=t.potential_energy + 0.5 * t.temperature * rng.chisquare(2000, t.n_frames)
        )
        for t in walkers
    ]


def errors_of(decision: Decision) -> dict[str, float]:
    return {row["plan"]: row["error expected"] for row in decision.diagnostics["plans"]}


def test_a_rare_state_in_the_cold_is_for_walkers_that_move() -> None:
    """At T = 1 no walker ever left x0 < 0.5, at T = 2 all cross."""
    pool = pool_of(*held(1.0, 0, (False,) * 4), *free(2.0, 9))
    made = EXACT.decide(state_of(pool))
    errors = errors_of(made)
    assert set(errors) == {STAY, SPREAD, MOVE}
    assert errors[MOVE] < 0.9 * errors[STAY]
    assert errors[MOVE] < errors[SPREAD] < errors[STAY]
    assert made.moving
    assert made.temperatures == (1.0, 2.0)
    assert made.biased == ()
    assert set(made.starts) == {1.0, 2.0}
    assert f"{MOVE}: expected error {errors[MOVE]:.3g} of the tolerance" in made.reasons[1]
    assert (
        f"{errors[STAY]:.3g} if {STAY}, {errors[SPREAD]:.3g} if {SPREAD}: alone a walker" in made.reasons[1]
    )
    assert [row["chosen"] for row in made.diagnostics["plans"]] == [False, False, True]
    json.dumps(made.diagnostics, allow_nan=False)
    # Nothing to choose from where the configuration has no tempering.
    without = EXACT.decide(state_of(pool, tempering=None))
    assert not without.moving
    assert "plans" not in without.diagnostics


def test_where_everything_crosses_walkers_stay_where_they_are_needed() -> None:
    made = EXACT.decide(state_of(pool_of(*free(1.0, 0), *free(2.0, 9))))
    errors = errors_of(made)
    assert errors[STAY] < errors[MOVE]
    assert not made.moving
    assert all(t < 1.3 for t in made.temperatures)
    assert made.reasons[1].startswith(f"{STAY}: expected error")


def test_walkers_stay_at_all_temperatures_where_each_of_them_is_wanted() -> None:
    """Nothing is exchanged on this ladder, and frames of one temperature hardly count at the other."""
    pool = pool_of(*in_a_bath(free(1.0, 0)), *in_a_bath(free(2.0, 9)))
    known = ErrorModel(state_of(pool, targets=(1.0, 2.0)), EXACT)
    rows = [known.target(t) for t in (1.0, 2.0)]
    best, every = outlooks(known, rows, replace(CHOSEN, temperatures=(1.0,)), 5.0)
    assert (best.plan.name, best.plan.temperatures) == (SPREAD, (1.0, 2.0))
    assert [outlook.plan.name for outlook in every] == [STAY, SPREAD, MOVE]


def test_on_a_ladder_too_far_apart_walkers_stay() -> None:
    """A bath of 2000 oscillators takes all exchange away; cold walkers are stuck all the same."""
    pool = pool_of(*in_a_bath([*held(1.0, 0, (False,) * 4), *free(2.0, 9)]))
    made = EXACT.decide(state_of(pool))
    assert not made.moving
    assert "a walker that moves is expected to make less than 0.01 round trips" in made.reasons[1]
    (moving,) = (row for row in made.diagnostics["plans"] if row["plan"] == MOVE)
    assert moving["round trips of a walker"] < 1e-6


def test_a_bias_that_is_needed_is_chosen() -> None:
    """Unbiased walkers are stuck at both temperatures, those of an earlier biased round cross."""
    stuck = [*held(1.0, 0, (False, True, False, True)), *held(2.0, 20, (False, True, False, True))]
    never = EXACT.decide(state_of(pool_of(*stuck), can_bias=True))
    before = EXACT.decide(state_of(pool_of(*stuck, *free(1.0, 50, 3, -0.4)), can_bias=True))
    for made in (never, before):
        errors = errors_of(made)
        assert set(errors) == {STAY, STAY_BIASED, SPREAD, MOVE, MOVE_BIASED}
        assert errors[MOVE_BIASED] < errors[MOVE]
        assert errors[STAY_BIASED] < errors[STAY]
        assert made.biased == made.temperatures
    # What is expected of the bias was measured.
    rows = {row["plan"]: row for row in before.diagnostics["plans"]}
    assert rows[MOVE_BIASED]["entries of a walker into its rarest state"] > 30
    assert rows[MOVE]["entries of a walker into its rarest state"] < 0.5
    assert errors_of(EXACT.decide(state_of(pool_of(*stuck)))).keys() == {STAY, SPREAD, MOVE}


def test_entries_with_a_bias_are_held_beyond_its_temperatures() -> None:
    """Two biased temperatures close to each other, with the rates of very different walks, say nothing of T = 2."""
    slow = [walk(1.0, 3000, i, -0.3, 0.995) for i in range(2)]
    quick = [walk(1.05, 3000, 5 + i, -0.3, 0.5) for i in range(2)]
    known = ErrorModel(
        state_of(pool_of(*free(1.0, 20, 1), *free(2.0, 9, 1), *slow, *quick), can_bias=True), EXACT
    )
    rates = known.entries.rates(biased=True, independent=True)
    assert rates[1.05][1] > 3 * rates[1.0][1]
    _, every = outlooks(known, [known.target(1.0)], Plan((1.0, 1.05), (1.0, 1.05), False, True), 5.0)
    entries = {outlook.plan.name: outlook.entries for outlook in every}
    assert entries[MOVE_BIASED] == pytest.approx(1000 * np.mean([rates[t].min() for t in (1.0, 1.05)]))
    assert entries[STAY_BIASED] == pytest.approx(entries[MOVE_BIASED])


def moved(n: int, every: int) -> Pool:
    """Two walkers that change places between T = 1 and 2 every so many frames."""
    trajectories, number = [], np.arange(n)
    for place, temperature in enumerate((1.0, 2.0)):
        t = walk(temperature, n, place, 0.0, 0.8)
        walkers = (number // every + place) % 2
        breaks = tuple(range(every, n, every))
        trajectories.append(replace(t, breaks=breaks, paths=WalkerPaths("000", walkers, number)))
    return pool_of(*trajectories)


def test_round_trips_are_those_measured() -> None:
    pool = moved(600, 50)
    paths = paths_of_stages(pool.trajectories)
    assert list(paths) == ["000"]
    assert all(len(path) == 600 for path in paths["000"].values())
    assert paths["000"][0][[0, 49, 50, 99, 100]].tolist() == [1, 1, 2, 2, 1]
    assert round_trips(paths["000"], (1.0, 2.0)) == 10
    known = ErrorModel(state_of(pool), EXACT)
    rows = [known.target(1.0)]
    best, every = outlooks(known, rows, CHOSEN, 5.0)
    assert [outlook.trips for outlook in every] == [0.0, 0.0, pytest.approx(1000 * 10 / 1200)]
    assert best in every
    # Walkers of another ladder say nothing of this one: its acceptance is that of two temperatures by their energies.
    other = ErrorModel(state_of(pool, configured=(1.0, 1.5)), EXACT)
    _, every = outlooks(other, rows, CHOSEN, 5.0)
    assert every[2].trips == pytest.approx(1000 / 10 / (2 / 0.68), rel=0.15)


def test_moves_of_a_round_trip() -> None:
    """Of walkers on a ladder whose neighbours exchange in turn with these probabilities."""
    rng, acceptances, n = np.random.default_rng(1), np.array([0.6, 0.3, 0.8]), 100_000
    order, paths = np.arange(4), np.empty((n, 4))
    for number in range(n):
        for low in range(number % 2, 3, 2):
            if rng.random() < acceptances[low]:
                order[[low, low + 1]] = order[[low + 1, low]]
        paths[number, order] = np.arange(4)
    trips = round_trips(dict(enumerate(paths.T)), (0, 3))
    assert 4 * n / trips == pytest.approx(moves_of_a_round_trip(acceptances), rel=0.05)
    assert moves_of_a_round_trip([0.5]) == 4.0
    assert moves_of_a_round_trip([0.0, 1.0]) > 1e11


def test_entries_of_walkers_that_move_are_followed() -> None:
    """Every entry of a walker counts where it is, at a move too."""
    pool = moved(600, 2)
    entries = Entries(pool, 2).rates(biased=False, independent=False)
    states = pool.states.reshape(2, 600)
    number = np.arange(600)
    walkers = [states[(number // 2 + first) % 2, number] for first in (0, 1)]
    at = [np.array([1.0, 2.0])[(number // 2 + first) % 2] for first in (0, 1)]
    for temperature in (1.0, 2.0):
        into = sum(
            int(((s[1:] == 1) & (s[:-1] == 0) & (t[1:] == temperature)).sum())
            for s, t in zip(walkers, at, strict=True)
        )
        assert entries[temperature][1] == pytest.approx(into / 600)
    assert Entries(pool, 2).rates(biased=True, independent=False) == {}


def test_entries_say_as_much_as_independent_frames() -> None:
    """Of a walker between two states with shares 0.2 and 0.8: K / (2 p (1 - p)) entries against N / g."""
    rng, n, out = np.random.default_rng(3), 60_000, 0.02
    draws, states = rng.random(n), np.zeros(n, dtype=bool)
    for i in range(1, n):
        states[i] = states[i - 1] ^ (draws[i] < (out if states[i - 1] else out / 4))
    t = walk(1.0, n, 0, 0.0, 0.0)
    t = replace(t, features=np.where(np.arange(4) == 0, states[:, None], t.features).astype(np.float32))
    entries = n * Entries(pool_of(t), 2).rates(biased=False, independent=True)[1.0]
    p = states.mean()
    expected = n / statistical_inefficiency([states[:, None].astype(float)])
    np.testing.assert_allclose(entries / (2 * p * (1 - p)), expected, rtol=0.25)


def test_rates_between_and_beyond_temperatures() -> None:
    rates = {1.0: np.array([1e-4, 0.2]), 2.0: np.array([1e-2, 0.2])}
    np.testing.assert_allclose(along_temperature(rates, 4 / 3), [1e-3, 0.2])
    np.testing.assert_allclose(along_temperature(rates, 1 / 1.5), [1e-6, 0.2])
    np.testing.assert_allclose(along_temperature(rates, 1e9), [1.0, 0.2], rtol=1e-6)
    np.testing.assert_allclose(along_temperature({1.0: np.array([0.1])}, 7.0), [0.1])
