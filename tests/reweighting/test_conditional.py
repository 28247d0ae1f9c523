"""Conditional energies, against the wells' exact shares with a bath that takes all overlap away."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.gap.two_basins import right_share, walkers
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.cells import make_cells
from latf_openmm.reweighting.consistency import EnergyStep, certificate
from latf_openmm.reweighting.paths import StatePath, bracket, energy_path
from latf_openmm.reweighting.temperatures import Basins
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.units import KELVIN, REDUCED

BATH = 2000
BARRIER = 4.0


@pytest.fixture(scope="module")
def plain() -> TemperatureWeighting:
    return TemperatureWeighting(*walkers((1.0, 2.0), BARRIER, 0.3, n_walkers=20, frames=1500, seed=5))


@pytest.fixture(scope="module")
def bathed() -> TemperatureWeighting:
    return TemperatureWeighting(
        *walkers((1.0, 2.0), BARRIER, 0.3, n_walkers=20, frames=1500, bath=BATH, seed=5)
    )


def share_of(weighting: TemperatureWeighting, temperature: float) -> tuple[float, float]:
    """Share of the right basin, with its error."""
    assert weighting.basins is not None
    right = (weighting.basins.states == 1).astype(float)
    replicates = weighting.replicates(temperature, weighting.mbar_share(temperature))
    spread = replicates.means(right[:, None])[:, 0].std(ddof=1)
    return float(replicates.weights @ right), float(weighting.widening * spread)


@pytest.mark.parametrize("temperature", [0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.4])
def test_shares_without_overlap_are_the_exact_ones(bathed: TemperatureWeighting, temperature: float) -> None:
    if temperature not in (1.0, 2.0):
        assert bathed.reach(temperature) < 30
        assert bathed.mbar_share(temperature) < 0.5
    share, error = share_of(bathed, temperature)
    exact = right_share(temperature, BARRIER)
    assert abs(share - exact) < 3 * error
    assert 0.002 < error < 0.04
    assert bathed.claims(temperature)


@pytest.mark.parametrize("temperature", [1.2, 1.4, 1.7])
def test_with_overlap_conditional_energies_say_what_mbar_says(
    plain: TemperatureWeighting, temperature: float
) -> None:
    assert plain.mbar_share(temperature) == 1.0
    assert plain.basins is not None
    right = plain.basins.states == 1
    x = plain.basins.z[:, 0]
    for column, most in ((right, 0.015), (x, 0.03), (x**2, 0.03)):
        a, b = (w @ column for w in (plain.mbar_weights(temperature), plain.conditional_weights(temperature)))
        assert a == pytest.approx(b, abs=most)


def test_what_is_inside_a_basin_changes_too(
    bathed: TemperatureWeighting, plain: TemperatureWeighting
) -> None:
    """Mean square distance from the middle of the left basin, where only frames of other temperatures are."""
    assert bathed.basins is not None and plain.basins is not None
    for temperature in (1.4, 2.3):
        values = []
        for weighting, weights in (
            (bathed, bathed.weights(temperature)),
            (plain, plain.mbar_weights(temperature)),
        ):
            assert weighting.basins is not None
            left = weighting.basins.states == 0
            x = weighting.basins.z[left, 0]
            values.append(float(weights[left] @ (x + 1) ** 2 / weights[left].sum()))
        assert values[0] == pytest.approx(values[1], rel=0.1)


def test_weights_at_a_simulated_temperature_are_of_its_frames(bathed: TemperatureWeighting) -> None:
    weights = bathed.conditional_weights(2.0)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[bathed.mbar.level == 1].sum() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.9, 1.2, 1.5, 2.0, 2.3])
def test_energies_go_over_to_those_of_the_neighbours(
    bathed: TemperatureWeighting, temperature: float
) -> None:
    """<U> and Var U of the bath are N T / 2 and N T^2 / 2; the wells add a little."""
    weights = bathed.weights(temperature)
    energies = bathed.energies(temperature, bathed.mbar_share(temperature))
    mean = float(weights @ energies)
    assert mean == pytest.approx(0.5 * BATH * temperature, rel=0.005)
    capacity = float(weights @ (energies - mean) ** 2) / temperature**2
    assert capacity == pytest.approx(0.5 * BATH, rel=0.05)


@pytest.mark.parametrize("q", [0.2, 0.5, 0.8])
def test_mean_and_variance_of_both_kinds_of_weights(bathed: TemperatureWeighting, q: float) -> None:
    """Frames of far temperatures count by conditional energies only: their own energies have no part there.

    So the mean, and the variance inside states, are those of both kinds, each with its own energies and weights.
    """
    at = 1.4
    weights = q * bathed.mbar_weights(at), (1 - q) * bathed.conditional_weights(at)
    kinds = bathed.mbar.energy + bathed.mbar.lowest, bathed.energies(at, 0.0)
    both, states = bathed.energies(at, q), bathed.mbar.states
    for state in range(bathed.mbar.n_states):
        inside = states == state
        total = sum(w[inside].sum() for w in weights)
        mean = sum(w[inside] @ u[inside] for w, u in zip(weights, kinds, strict=True)) / total
        square = sum(w[inside] @ (u[inside] - mean) ** 2 for w, u in zip(weights, kinds, strict=True)) / total
        shares = (weights[0] + weights[1])[inside] / total
        assert shares @ both[inside] == pytest.approx(mean)
        assert shares @ (both[inside] - mean) ** 2 == pytest.approx(square)


def test_nothing_jumps_where_conditional_energies_take_over() -> None:
    """A small bath: partial overlap between the temperatures."""
    weighting = TemperatureWeighting(
        *walkers((1.0, 2.0), BARRIER, 0.3, n_walkers=20, frames=800, bath=150, seed=2)
    )
    at = np.geomspace(1.0, 2.0, 101)
    parts = np.array([weighting.mbar_share(t) for t in at])
    assert parts[0] == parts[-1] == 1.0
    assert ((parts > 0.05) & (parts < 0.95)).sum() > 3
    assert weighting.basins is not None
    shares = np.array([weighting.weights(t) @ (weighting.basins.states == 1) for t in at])
    assert np.abs(np.diff(shares)).max() < 0.01
    assert np.abs(shares - [right_share(t, BARRIER) for t in at]).max() < 0.05
    for t in at[::10]:  # nor do energies, which are those of 150 oscillators and a little
        weights, energies = weighting.weights(t), weighting.energies(t, weighting.mbar_share(t))
        mean = float(weights @ energies)
        assert mean == pytest.approx(0.5 * 150 * t, rel=0.02)
        assert float(weights @ (energies - mean) ** 2) / t**2 == pytest.approx(0.5 * 150, rel=0.15)


def test_three_temperatures_and_a_state_that_the_cold_one_lacks() -> None:
    """Cold walkers never cross: their share follows from energies and from those that do."""
    weighting = TemperatureWeighting(
        *walkers((1.0, 1.6, 2.4), 9.0, 0.0, n_walkers=16, frames=1500, bath=BATH, seed=3)
    )
    assert weighting.mbar.counts[0, 1] < 0.1 * weighting.mbar.counts[0, 0]
    for temperature in (1.0, 1.3, 2.0):
        q = 0.0
        weights = weighting.replicates(temperature, q)
        assert weighting.basins is not None
        right = (weighting.basins.states == 1).astype(float)
        error = weighting.widening * weights.means(right[:, None])[:, 0].std(ddof=1)
        exact = right_share(temperature, 9.0)
        assert abs(weights.weights @ right - exact) < max(3 * error, 0.03)


def independent(
    position: NDArray[np.float64], energies: NDArray[np.float64], temperature: float, walker: int
) -> FeatureTrajectory:
    """Independent frames with one descriptor."""
    return FeatureTrajectory(
        position[:, None].astype(np.float32),
        temperature,
        1.0,
        energies,
        np.zeros(len(position)),
        run=f"T{temperature:g}",
        name=f"{temperature:g} {walker}",
        scale=REDUCED,
    )


def cold_state(temperatures: tuple[float, ...], seed: int) -> TemperatureWeighting:
    """Independent frames of two states, 9 apart in energy, even at T = 1; the lower one has few frames at T = 2.5."""
    rng, trajectories = np.random.default_rng(seed), []
    for temperature in temperatures:
        for walker in range(4):
            lower = rng.random(250) < cold_share(temperature)
            energies = np.where(lower, 0.0, 9.0) + 0.5 * temperature * rng.chisquare(BATH, 250)
            position = np.where(lower, -1.0, 1.0) + rng.normal(0, 0.1, 250)
            trajectories.append(independent(position, energies, temperature, walker))
    z = np.concatenate([t.features for t in trajectories]).astype(np.float64)
    return TemperatureWeighting(trajectories, Basins(z, (z[:, 0] > 0).astype(np.int64), 2))


def cold_share(temperature: float) -> float:
    """Exact share of the lower state of `cold_state`."""
    return float(1 / (1 + np.exp(9.0 - 9.0 / temperature)))


@pytest.mark.parametrize("temperature", [0.85, 0.92, 1.1, 1.3, 1.7])
def test_a_state_of_the_cold_temperature_alone_has_the_slope_of_its_energy(temperature: float) -> None:
    """It has no straight line to another temperature, and neither have others that it could be likened to."""
    off = []
    for seed in range(6):
        weighting = cold_state((1.0, 2.5), seed)
        assert weighting.basins is not None
        assert weighting.mbar_share(temperature) < 0.5
        replicates = weighting.replicates(temperature, 0.0)
        lower = (weighting.basins.states == 0).astype(float)
        error = weighting.widening * replicates.means(lower[:, None])[:, 0].std(ddof=1)
        off.append((replicates.weights @ lower - cold_share(temperature), error))
        assert abs(off[-1][0]) < 4 * error
    assert abs(np.mean([value for value, _ in off])) < 0.06


def test_bootstrap_samples_may_lack_states() -> None:
    """Nine states of about twelve frames each: in some samples hardly any has the ten that are needed."""
    for seed in range(9):
        rng, trajectories, states = np.random.default_rng(seed), [], []
        for walker, temperature in enumerate((1.0, 1.0, 2.0, 2.0)):
            state = rng.choice(9, size=55)
            position = 2.0 * state + rng.normal(0, 0.3, 55)
            energies = 0.5 * temperature * rng.chisquare(BATH, 55) + state
            trajectories.append(independent(position, energies, temperature, walker))
            states.append(state)
        z = np.concatenate([t.features for t in trajectories]).astype(np.float64)
        weighting = TemperatureWeighting(trajectories, Basins(z, np.concatenate(states), 9))
        spreads = weighting.replicates(1.4, 0.0).means(z).std(axis=0)
        assert np.isfinite(spreads).all()
        assert (spreads > 0).all()


def test_far_temperatures_are_not_claimed(bathed: TemperatureWeighting) -> None:
    assert bathed.claims(3.0)
    assert not bathed.claims(6.0)
    assert not bathed.claims(0.5)


def test_frames_of_one_temperature_have_no_conditional_energies() -> None:
    weighting = TemperatureWeighting(*walkers((1.0,), BARRIER, 0.5, frames=300))
    assert not weighting.conditional_possible
    assert weighting.mbar_share(3.0) == 1.0


# Paths


def test_brackets() -> None:
    betas = np.array([1.0, 0.5, 0.25])
    assert bracket(0.75, betas) == (0, 0.5)
    assert bracket(0.5, betas) == (1, 0.0)
    assert bracket(1.0, betas) is None and bracket(0.25, betas) is None and bracket(2.0, betas) is None


def test_a_path_has_its_values_and_slopes() -> None:
    betas = np.array([1.0, 0.6, 0.2])
    cubic = np.array([[0.3, -2.0, 1.0, 0.5]])  # one cell

    def value(b: np.ndarray) -> np.ndarray:
        return np.polyval(cubic[0], b)

    slopes = np.polyval(np.polyder(cubic[0]), betas)[:, None]
    path = StatePath(np.arange(3), betas, value(betas)[:, None], slopes, np.zeros(3))
    for b in (1.0, 0.9, 0.6, 0.3, 0.2):
        assert path.at(b)[0] == pytest.approx(value(np.array(b)))
    assert path.at(0.1)[0] == pytest.approx(value(np.array(0.2)) - 0.1 * slopes[-1, 0])
    assert path.at(0.8, "linear")[0] == pytest.approx(value(betas[:2]).mean())
    np.testing.assert_allclose(path.shares(0.7), [0.25, 0.75, 0.0])
    np.testing.assert_allclose(path.shares(3.0), [1.0, 0.0, 0.0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3, 2.0, 4.0])
def test_the_energy_of_oscillators_is_exact(temperature: float) -> None:
    thermal = np.array([1.0, 2.0])
    mean, variance = energy_path(1 / thermal, 50 * thermal, 50 * thermal**2, 1 / temperature)
    assert mean == pytest.approx(50 * temperature)
    assert variance == pytest.approx(50 * temperature**2)


def test_cells_lie_in_one_state_and_hold_all_frames() -> None:
    rng = np.random.default_rng(0)
    z, states = rng.normal(size=(5000, 2)), rng.integers(0, 3, 5000)
    cells = make_cells(z, states, 4, 0)
    np.testing.assert_array_equal(cells.state[cells.of_frame], states)
    assert set(cells.of_frame.tolist()) == set(range(cells.n))
    assert len(cells.states[3].cells) == 0
    level = rng.integers(0, 2, 5000)
    sums = cells.sums(level, 2, np.ones(5000))
    assert sums.sum() == 5000
    assert sums[1].sum() == (level == 1).sum()


# Certificate


def test_well_sampled_temperatures_are_consistent(
    plain: TemperatureWeighting, bathed: TemperatureWeighting
) -> None:
    for weighting in (plain, bathed):
        found = certificate(weighting)
        assert found.texts(REDUCED) == []
        assert len(found.shares) == 4
        for share in found.shares:
            exact = right_share(share.temperature, BARRIER)
            exact = exact if share.state == 1 else 1 - exact
            assert abs(share.expected - exact) < 4 * share.expected_error + 0.01


@pytest.mark.parametrize(("right", "bath"), [(0.0, 0), (1.0, 0), (1.0, 300)])
def test_a_temperature_whose_walkers_never_left_is_named(right: float, bath: int) -> None:
    weighting = TemperatureWeighting(
        *walkers((1.0, 2.0), 10.0, right, n_walkers=20, frames=1000, bath=bath, seed=4)
    )
    texts = certificate(weighting).texts(REDUCED)
    (text,) = (text for text in texts if "not sampled in proportion at T = 1" in text)
    assert text.startswith("state 1 at T = 1 holds") or text.endswith("; likewise state 1 at T = 1")
    assert not any("at T = 2 holds" in text for text in texts)


def test_energies_in_kilocalories_are_seen() -> None:
    trajectories, basins = walkers((1.0, 2.0), BARRIER, 0.3, frames=500, bath=200)

    wrong = [replace(t, potential_energy=t.potential_energy / 4.184) for t in trajectories]
    (step,) = certificate(TemperatureWeighting(wrong, basins)).energies
    assert step.off and "kcal/mol" in step.text(REDUCED)
    assert EnergyStep((300.0, 400.0), 4.2).text(KELVIN).startswith("mean energies at 300 K and 400 K")
    (right,) = certificate(TemperatureWeighting(trajectories, basins)).energies
    assert right.ratio == pytest.approx(1.0, abs=0.1)


def test_rare_crossings_are_named_where_nothing_contradicts() -> None:
    """Both temperatures hardly cross: no share can be said, and the text says on what it rests."""
    found = certificate(TemperatureWeighting(*walkers((1.0, 1.2), 12.0, 0.5, n_walkers=10, frames=500)))
    assert [share.temperature for share in found.rare] == [1.0, 1.2]
    assert not found.wrong
    (text,) = found.texts(REDUCED)  # of both
    assert text.endswith("; likewise state 1 at T = 1.2") or text.endswith("; likewise state 0 at T = 1.2")
    assert text.startswith("at T = 1 only") and "comes from energies and the other temperatures" in text
