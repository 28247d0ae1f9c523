"""Energies averaged around frames: less noise, no bias, and refused where collective variables move too fast."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.slow_wells import energy, mean_energy, recorded_walkers

from latf_openmm.errors import DataError
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.averaging import AveragedEnergies, averaged_energies
from latf_openmm.reweighting.temperatures import Basins
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.units import REDUCED

BARRIER, RECORDINGS = 4.0, 20
AT = (1.0, 2.0)
Sample = tuple[list[FeatureTrajectory], Basins]


@pytest.fixture(scope="module")
def slow() -> list[Sample]:
    return [recorded_walkers(AT, BARRIER, 0.015, frames=600, seed=seed) for seed in range(6)]


def plain(trajectories: list[FeatureTrajectory]) -> list[FeatureTrajectory]:
    return [replace(t, recorded=None) for t in trajectories]


def averaged(sample: Sample) -> AveragedEnergies:
    trajectories, basins = sample
    return averaged_energies(trajectories, basins.z, basins.states, basins.n_states)


def slope(sample: Sample, values: np.ndarray, barrier: float = BARRIER) -> tuple[float, float]:
    """Slope of energies against U(x) inside the left well at the lower temperature, with its error."""
    trajectories, basins = sample
    rows = (np.concatenate([np.full(t.n_frames, t.temperature) for t in trajectories]) == AT[0]) & (
        basins.states == 0
    )
    u = energy(basins.z[rows, 0], barrier)
    u, y = u - u.mean(), values[rows] - values[rows].mean()
    value = float(u @ y / (u @ u))
    return value, float(np.std(y - value * u) / np.sqrt(u @ u))


def test_conditional_energies_of_a_slow_coordinate_have_less_noise_and_no_bias(slow: list[Sample]) -> None:
    """The bath is new at each of 20 recordings: errors fall by the root of 20; a twentieth of the slope may be lost."""
    before, after = [], []
    for sample in slow:
        result = averaged(sample)
        assert not result.refused
        energies = np.concatenate([t.potential_energy for t in sample[0]])
        before.append(slope(sample, energies))
        after.append(slope(sample, result.in_cells))
    (first, first_error), (value, error) = (
        (np.mean([v for v, _ in s]), np.sqrt(np.sum([e**2 for _, e in s])) / len(s)) for s in (before, after)
    )
    assert first_error / error == pytest.approx(np.sqrt(RECORDINGS), rel=0.1)
    assert first == pytest.approx(1.0, abs=4 * first_error)
    assert value == pytest.approx(0.975, abs=0.025 + 4 * error)
    assert error < 0.1


def test_energies_of_states_are_those_of_the_wells_with_a_quarter_of_the_noise(slow: list[Sample]) -> None:
    exact = [mean_energy(t, BARRIER, 0.0, 3.0) - mean_energy(t, BARRIER, -3.0, 0.0) for t in AT]
    off: dict[str, list[np.ndarray]] = {"frames": [], "averaged": []}
    for trajectories, basins in slow:
        for name, given in (("frames", plain(trajectories)), ("averaged", trajectories)):
            weighting = TemperatureWeighting(given, basins)
            energies = weighting.mbar.energies_of_states()
            off[name].append(np.diff(energies.means, axis=1)[:, 0] - exact)
            # The variance of the energy is that of all recordings: 500 kT^2 of the bath, and a little.
            assert energies.variances / np.square(AT)[:, None] == pytest.approx(500.0, rel=0.15)
            links = weighting.mbar.links()
            assert links is not None
            assert (links.errors.max() < 0.6) == (name == "averaged")
            np.testing.assert_allclose(weighting.conditional.state_means, energies.means)
    spreads = {name: np.sqrt(np.mean(np.square(values))) for name, values in off.items()}
    assert spreads["averaged"] < 0.4 * spreads["frames"]
    assert np.abs(np.mean(off["averaged"], axis=0)).max() < 0.2


def test_mbar_has_the_energies_of_the_frames(slow: list[Sample]) -> None:
    trajectories, basins = slow[0]
    weighting = TemperatureWeighting(trajectories, basins)
    energies = np.concatenate([t.potential_energy for t in trajectories])
    np.testing.assert_allclose(weighting.mbar.energy + weighting.mbar.lowest, energies)
    np.testing.assert_array_equal(
        weighting.energies(AT[0], 1.0), weighting.mbar.energy + weighting.mbar.lowest
    )


def test_mean_energies_between_temperatures_are_those_of_the_bath(slow: list[Sample]) -> None:
    weighting = TemperatureWeighting(*slow[1])
    for temperature in (1.2, 1.4, 1.7):
        mean = float(weighting.conditional_weights(temperature) @ weighting.energies(temperature, 0.0))
        assert mean == pytest.approx(500 * temperature, rel=0.01)


def test_a_fast_coordinate_is_averaged_over_its_states_only() -> None:
    """Inside a well z forgets between frames; the slope against U(x) would be far too small."""
    sample = recorded_walkers(AT, 12.0, 0.1, frames=500, bath=100)
    result = averaged(sample)
    assert set(result.refused) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert all("collective variables keep" in text for text in result.refused.values())
    energies = np.concatenate([t.potential_energy for t in sample[0]])
    means = np.concatenate([t.recorded.means for t in sample[0] if t.recorded is not None])
    np.testing.assert_array_equal(result.in_cells, energies)
    np.testing.assert_array_equal(result.of_states, means)
    assert slope(sample, means, 12.0)[0] < 0.5
    value, error = slope(sample, result.in_cells, 12.0)
    assert value == pytest.approx(1.0, abs=4 * error)


def test_states_that_walkers_leave_between_frames_are_not_averaged() -> None:
    sample = recorded_walkers(AT, 1.0, 0.5, frames=500, bath=100)
    result = averaged(sample)
    assert all("walkers stay in it" in text for text in result.refused.values()) and len(result.refused) == 4
    energies = np.concatenate([t.potential_energy for t in sample[0]])
    np.testing.assert_array_equal(result.of_states, energies)
    assert not result.variances.any()


def test_it_is_said_where_recordings_are_in_vain(slow: list[Sample]) -> None:
    (text,) = TemperatureWeighting(*recorded_walkers(AT, 12.0, 0.1, frames=500, bath=100)).not_averaged(
        REDUCED
    )
    assert text.startswith("energies recorded between frames have no part along z in 4 of 4 states")
    assert "such as state 0 at T = 1: collective variables keep" in text
    trajectories, basins = slow[0]
    assert TemperatureWeighting(trajectories, basins).not_averaged(REDUCED) == []
    assert TemperatureWeighting(plain(trajectories), basins).not_averaged(REDUCED) == []


def test_two_wells_in_one_state_do_not_hide_that_each_is_fast() -> None:
    """The distance between the wells correlates in time, what is inside each does not."""
    trajectories, basins = recorded_walkers(AT, 12.0, 0.1, frames=500, bath=100)
    joined = Basins(basins.z, np.zeros(len(basins.z), dtype=np.int64), 1)
    assert set(averaged((trajectories, joined)).refused) == {(0, 0), (1, 0)}


def test_energies_that_disagree_are_refused(slow: list[Sample]) -> None:
    """Recordings of something else: shifted, or changing with z."""
    trajectories, basins = slow[0]
    shifted, sloped = [], []
    for t in trajectories:
        assert t.recorded is not None
        shifted.append(replace(t, recorded=replace(t.recorded, means=t.recorded.means + 20.0)))
        more = t.recorded.means + 60.0 * np.where(
            t.features[:, 0] > 0, t.features[:, 0] - 1, t.features[:, 0] + 1
        )
        sloped.append(replace(t, recorded=replace(t.recorded, means=more)))
    refused = averaged((shifted, basins)).refused
    assert len(refused) == 4 and all("above those at the frames" in text for text in refused.values())
    refused = averaged((sloped, basins)).refused
    assert refused and all("at the frames" in text for text in refused.values())


def test_unbiased_energies_are_hardly_ever_refused() -> None:
    """Each of 4 states and temperatures is tested twice at a chance of 0.001."""
    refused = 0
    for seed in range(20):
        trajectories, basins = recorded_walkers(
            AT, BARRIER, 0.02, n_walkers=4, frames=200, bath=100, seed=100 + seed
        )
        texts = averaged((trajectories, basins)).refused.values()
        refused += sum("at the frames" in text for text in texts)
    assert refused <= 2


def test_frames_without_recordings_have_their_energies(slow: list[Sample]) -> None:
    trajectories, basins = slow[0]
    some = [*plain(trajectories[:3]), *trajectories[3:]]
    result, n = averaged((some, basins)), sum(t.n_frames for t in some[:3])
    energies = np.concatenate([t.potential_energy for t in some])
    np.testing.assert_array_equal(result.of_states[:n], energies[:n])
    assert not np.array_equal(result.of_states[n:], energies[n:])
    nothing = averaged((plain(trajectories), basins))
    np.testing.assert_array_equal(
        nothing.in_cells, np.concatenate([t.potential_energy for t in trajectories])
    )


def test_recordings_have_the_shape_of_the_frames(slow: list[Sample]) -> None:
    first = slow[0][0][0]
    assert first.recorded is not None
    with pytest.raises(DataError, match="recorded energies must be 600 finite numbers"):
        replace(first, recorded=replace(first.recorded, means=first.recorded.means[1:]))
