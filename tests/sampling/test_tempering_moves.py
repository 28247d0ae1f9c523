"""Moves of walkers among temperatures, on states whose distribution is known exactly."""

import json
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter
from scipy.special import softmax

from latf_openmm.sampling.tempering import TEMPERING_KINDS, AnyTempering, Moves
from latf_openmm.sampling.tempering.base import expected_acceptance, temperatures_needed
from latf_openmm.sampling.tempering.exchange import ExchangeSettings
from latf_openmm.sampling.tempering.expanded import ExpandedSettings, Visits
from latf_openmm.units import KELVIN

Array = NDArray[np.float64]

CASES: dict[str, dict[str, Any]] = {
    "exchange": {"pairs": "all", "interval": 3},
    "expanded": {"learning": 0.1, "interval": 3},
}

ENERGIES = np.array(
    [0.0, 1.0, 2.5, 3.0, 6.0, 7.5]
)  # kJ/mol, of states that all but the last two jumps connect
BIASES = np.array(
    [[0.0, 2.0, -1.0, 0.0, 1.0, 0.5], [1.0, 0.0, 0.0, -2.0, 0.0, 0.0], [0.0] * 6, [0.5, 0, 0, 0, 3, 0]]
)
TEMPERATURES = (300.0, 400.0, 520.0, 700.0)


class StateWalkers:
    """Walkers on six states; between moves, Metropolis steps to neighbouring ones."""

    def __init__(self, temperatures: tuple[float, ...], biases: Array, seed: int) -> None:
        self.biases = biases
        self.states = np.zeros(len(temperatures), dtype=np.int64)
        self.rng = np.random.default_rng(seed)
        self.set_temperatures(np.array(temperatures))

    def energies(self) -> Array:
        return ENERGIES[self.states]

    def bias_energies(self) -> Array:
        return self.biases[:, self.states]

    def exchange(self, walkers: NDArray[np.int64]) -> None:
        self.states = self.states[walkers]

    def set_temperatures(self, temperatures: Array) -> None:
        self.temperatures = temperatures
        self.kT = np.array([KELVIN.kT(t) for t in temperatures])

    def step(self) -> None:
        """One Metropolis step of every walker."""
        places = np.arange(len(self.states))
        new = self.states + self.rng.choice([-1, 1], len(places))
        possible = (new >= 0) & (new < len(ENERGIES))
        new = np.clip(new, 0, len(ENERGIES) - 1)
        after = ENERGIES[new] + self.biases[places, new]
        change = after - ENERGIES[self.states] - self.biases[places, self.states]
        accepted = possible & (self.rng.random(len(places)) < np.exp(-np.maximum(change, 0) / self.kT))
        self.states = np.where(accepted, new, self.states)


def sample(walkers: StateWalkers, moves: Moves, n: int, seed: int = 1) -> tuple[Array, Array, Array]:
    """States (n, n_places) and temperatures (n, n_places) after each of n steps and moves, and acceptances."""
    rng, states, temperatures, accepted = np.random.default_rng(seed), [], [], []
    for number in range(n):
        walkers.step()
        attempts = moves.move(walkers, number, rng)
        accepted += [(attempt.probability, attempt.accepted) for attempt in attempts]
        states.append(walkers.states.copy())
        temperatures.append(walkers.temperatures.copy())
    return np.array(states), np.array(temperatures), np.array(accepted)


def shares(states: Array, groups: int = 20) -> tuple[Array, Array]:
    """Share of each of the six states, and its standard error from blocks in time."""
    blocks = np.array_split(states, groups)
    counts = np.array([np.bincount(b.ravel(), minlength=6) / b.size for b in blocks])
    return counts.mean(axis=0), counts.std(axis=0, ddof=1) / np.sqrt(groups)


def test_every_kind_is_known() -> None:
    """Settings of each kind are read by their name, and make moves."""
    assert set(CASES) == set(TEMPERING_KINDS)
    for kind, settings in CASES.items():
        made = TypeAdapter(AnyTempering).validate_python({"kind": kind, **settings})
        assert isinstance(made, TEMPERING_KINDS[kind])
        moves = made.moves(TEMPERATURES, KELVIN, 10)
        walkers = StateWalkers(TEMPERATURES, BIASES, 1)
        attempts = moves.move(walkers, 0, np.random.default_rng(1))
        assert all(0 <= attempt.probability <= 1 for attempt in attempts)
        moves.restore(json.loads(json.dumps(moves.state())))


@pytest.mark.parametrize("pairs", ["neighbours", "all"])
def test_every_place_keeps_its_distribution(pairs: Literal["neighbours", "all"]) -> None:
    """Bias and temperature of both ends are in the criterion; acceptance is what is said of it."""
    moves = ExchangeSettings(pairs=pairs).moves(TEMPERATURES, KELVIN, 1)
    walkers = StateWalkers(TEMPERATURES, BIASES, 1)
    n = 20_000 if pairs == "neighbours" else 3000
    states, _, accepted = sample(walkers, moves, n)
    for place, (temperature, bias) in enumerate(zip(TEMPERATURES, BIASES, strict=True)):
        exact = softmax(-(ENERGIES + bias) / KELVIN.kT(temperature))
        share, error = shares(states[:, place])
        assert np.abs((share - exact) / np.maximum(error, 0.002)).max() < 4.5
    assert accepted[:, 1].mean() == pytest.approx(accepted[:, 0].mean(), abs=0.02)


def test_walkers_at_equal_temperatures_exchange_too() -> None:
    """Two walkers at each temperature: each finds a partner, and all of them visit all places."""
    temperatures = tuple(np.repeat(TEMPERATURES[:2], 2))
    moves = ExchangeSettings(pairs="neighbours").moves(temperatures, KELVIN, 1)
    walkers = StateWalkers(temperatures, np.zeros((4, 6)), 2)
    labels, seen = np.arange(4), np.zeros((4, 4))
    exchange = walkers.exchange

    def followed(order: NDArray[np.int64]) -> None:
        labels[:] = labels[order]
        exchange(order)

    walkers.exchange = followed  # type: ignore[method-assign]
    rng = np.random.default_rng(0)
    for number in range(500):
        walkers.step()
        assert len(moves.move(walkers, number, rng)) == 2
        seen[labels, np.arange(4)] += 1
    assert (seen > 50).all()


def test_visits_are_even_and_weights_are_free_energies() -> None:
    moves = ExpandedSettings(learning=0.5).moves(TEMPERATURES, KELVIN, 20_000)
    assert isinstance(moves, Visits)
    walkers = StateWalkers(TEMPERATURES[:1] * 4, np.repeat(BIASES[:1], 4, axis=0), 3)
    states, temperatures, _ = sample(walkers, moves, 20_000)
    betas = np.array([1 / KELVIN.kT(t) for t in TEMPERATURES])
    exact = -np.log(np.exp(-betas[:, None] * (ENERGIES + BIASES[0])).sum(axis=1))
    assert moves.weights is not None
    assert moves.weights - moves.weights[0] == pytest.approx(exact - exact[0], abs=0.05)
    late = slice(10_000, None)
    for temperature in TEMPERATURES:
        at = temperatures[late] == temperature
        assert at.mean() == pytest.approx(0.25, abs=0.02)
        share = np.bincount(states[late][at], minlength=6) / at.sum()
        assert share == pytest.approx(softmax(-(ENERGIES + BIASES[0]) / KELVIN.kT(temperature)), abs=0.015)


def test_wrong_weights_are_slow_and_not_wrong() -> None:
    """Weights of 2 kT too much for one temperature: its visits are e^2 times as many, its distribution is right."""
    moves = Visits(TEMPERATURES, KELVIN, 0)
    betas = np.array([1 / KELVIN.kT(t) for t in TEMPERATURES])
    moves.weights = -np.log(np.exp(-betas[:, None] * ENERGIES).sum(axis=1)) + np.array([0.0, 2.0, 0.0, 0.0])
    walkers = StateWalkers(TEMPERATURES, np.zeros((4, 6)), 4)
    states, temperatures, _ = sample(walkers, moves, 20_000)
    for temperature in TEMPERATURES:
        at = temperatures == temperature
        factor = np.exp(2.0) if temperature == TEMPERATURES[1] else 1.0
        assert at.mean() == pytest.approx(factor / (3 + np.exp(2.0)), rel=0.1)
        share = np.bincount(states[at], minlength=6) / at.sum()
        assert share == pytest.approx(softmax(-ENERGIES / KELVIN.kT(temperature)), abs=0.02)


def test_what_was_learned_goes_through_a_file() -> None:
    first, second = (ExpandedSettings().moves(TEMPERATURES, KELVIN, 100) for _ in range(2))
    walkers = StateWalkers(TEMPERATURES[:1], BIASES[:1], 5)
    for number in range(5):
        walkers.step()
        first.move(walkers, number, np.random.default_rng(number))
        second.restore(json.loads(json.dumps(first.state())))
        assert second.state() == first.state()


def test_expected_acceptance_is_that_of_normal_energies() -> None:
    """A harmonic bath: energies of 60 degrees of freedom at two temperatures."""
    kT, n = np.array([2.0, 2.5]), 60
    rng = np.random.default_rng(0)
    low, high = (rng.gamma(n / 2, t, 200_000) for t in kT)
    measured = np.exp(np.minimum(0.0, (1 / kT[0] - 1 / kT[1]) * (low - high))).mean()
    assert expected_acceptance(kT, [low.mean(), high.mean()]) == pytest.approx(measured, abs=0.02)
    assert temperatures_needed(kT, [low.mean(), high.mean()]) == 2
    assert temperatures_needed(np.array([2.0, 4.0]), n / 2 * np.array([2.0, 4.0])) > 2
