"""The ladder of temperatures against harmonic oscillators, whose distribution is known at every temperature."""

import numpy as np
import pytest
from scipy import stats

from latf_openmm.errors import DataError
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.ladder import TemperatureLadder, build_ladder, own_temperatures
from latf_openmm.reweighting.temperatures import Reweighting
from latf_openmm.reweighting.weights import effective_sample_size, normalised_weights
from latf_openmm.units import REDUCED

DIM = 4


def oscillator(
    temperature: float, n: int, seed: int, stiffening: float = 0.0, run: str = "a"
) -> FeatureTrajectory:
    """Independent samples of U = |x|^2 / 2 at T, under a bias V = stiffening |x|^2 / 2."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.0, np.sqrt(temperature / (1.0 + stiffening)), (n, DIM))
    energy = 0.5 * (x**2).sum(axis=1)
    return FeatureTrajectory(
        x.astype(np.float32),
        temperature,
        1.0,
        energy,
        stiffening * energy / temperature,
        run=run,
        scale=REDUCED,
    )


def ladder_of(*trajectories: FeatureTrajectory, minimum: float = 0.05) -> TemperatureLadder:
    ladder = build_ladder(trajectories, 12, minimum)
    assert ladder is not None
    return ladder


@pytest.mark.parametrize("stiffening", [0.0, -0.3, 0.5])
def test_mean_energy_is_exact_at_every_rung(stiffening: float) -> None:
    """<U> = d T / 2, also from biased runs and at temperatures between and beyond."""
    data = [
        oscillator(1.0, 20_000, 1),
        oscillator(2.0, 20_000, 2),
        oscillator(1.0, 20_000, 3, stiffening, run="biased"),
    ]
    ladder = ladder_of(*data)
    energy = np.concatenate([t.potential_energy for t in data])
    assert ladder.temperatures[0] < 1.0 < 2.0 < ladder.temperatures[-1]
    for temperature, weights, size in zip(
        ladder.temperatures, ladder.weights, ladder.sample_sizes, strict=True
    ):
        expected = 0.5 * DIM * temperature
        error = np.sqrt(0.5 * DIM) * temperature / np.sqrt(size)
        # MBAR's own offset between the two temperatures adds about one percent.
        assert abs(weights @ energy - expected) < 4 * error + 0.01 * expected
        assert weights.sum() == pytest.approx(1.0, abs=1e-4)


def test_far_temperatures_are_left_out() -> None:
    data = [oscillator(1.0, 200, 1), oscillator(1.1, 200, 2)]
    near = ladder_of(*data, minimum=0.9)
    assert set(near.temperatures) >= {1.0, 1.1}
    assert len(near.temperatures) < len(ladder_of(*data).temperatures) or near.temperatures[-1] < 1.76
    assert (near.sample_sizes >= 0.9 * near.sample_sizes[np.isin(near.temperatures, [1.0, 1.1])].min()).all()


def test_simulated_temperatures_are_kept_without_overlap() -> None:
    rng = np.random.default_rng(0)
    data = []
    for temperature, centre in ((1.0, 0.0), (2.0, 500.0)):
        energy = centre + rng.normal(size=300)
        zero = np.zeros(300)
        data.append(
            FeatureTrajectory(
                energy[:, None].astype(np.float32), temperature, 1.0, energy, zero, scale=REDUCED
            )
        )
    ladder = build_ladder(data, 8, 0.05)
    assert ladder is not None
    assert {1.0, 2.0} <= set(ladder.temperatures.tolist())


def test_unknown_energies_give_no_ladder() -> None:
    zero = np.zeros(10)
    data = [
        FeatureTrajectory(np.random.default_rng(0).random((10, 2)).astype(np.float32), 1.0, 1.0, zero, zero)
    ]
    assert build_ladder(data, 8, 0.05) is None


def test_draws_follow_the_weights_and_stay_among_the_frames() -> None:
    data = [oscillator(1.0, 5000, 1), oscillator(2.0, 5000, 2)]
    ladder = ladder_of(*data)
    energy = np.concatenate([t.potential_energy for t in data])
    multiplicity = np.zeros(10_000, dtype=np.int64)
    multiplicity[::2] = 1
    index, temperatures = ladder.draw(multiplicity, 120_000, np.random.default_rng(3))
    assert len(index) == len(temperatures) == 120_000
    assert (index % 2 == 0).all()
    for temperature in (1.0, 2.0):
        drawn = energy[index[temperatures == temperature]]
        assert drawn.mean() == pytest.approx(0.5 * DIM * temperature, rel=0.06)


def small_ladder() -> TemperatureLadder:
    weights = np.array([[0.1, 0.2, 0.3, 0.4, 0.0], [0.0, 0.0, 0.0, 0.5, 0.5]], np.float32)
    return TemperatureLadder(np.array([1.0, 2.0]), weights, np.array([3.0, 2.0]))


def test_draws_follow_weights_times_multiplicities() -> None:
    ladder, multiplicity, n = small_ladder(), np.array([3, 0, 1, 2, 1]), 40_000
    index, temperatures = ladder.draw(multiplicity, n, np.random.default_rng(0))
    for row, temperature in enumerate(ladder.temperatures):
        shares = ladder.weights[row].astype(np.float64) * multiplicity
        counted = np.bincount(index[temperatures == temperature], minlength=5)
        assert counted.sum() == n // 2
        assert (counted[shares == 0] == 0).all()
        here = shares > 0
        expected = shares[here] / shares.sum() * counted.sum()
        assert stats.chisquare(counted[here], expected).pvalue > 1e-4
    # In random order: the first half has both temperatures alike.
    assert (temperatures[: n // 2] == 1.0).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_temperatures_without_a_frame_left_are_left_out(n: int) -> None:
    index, temperatures = small_ladder().draw(np.array([1, 1, 0, 0, 0]), n, np.random.default_rng(0))
    assert len(index) == len(temperatures) == n
    assert set(temperatures.tolist()) == {1.0}
    assert set(index.tolist()) <= {0, 1}


def test_nothing_left_to_draw_is_one_clear_error() -> None:
    with pytest.raises(DataError, match="zero weight at every temperature of the ladder"):
        small_ladder().draw(np.zeros(5, dtype=np.int64), 10, np.random.default_rng(0))


# Weights at any temperature, and at the frames' own


@pytest.mark.parametrize(
    ("simulated", "temperature"),
    [((1.0,), t) for t in (0.8, 1.0, 1.2)] + [((1.0, 2.0), t) for t in (0.8, 1.0, 1.4, 2.0, 2.3)],
)
def test_reweighted_energies_have_the_oscillators_mean_and_variance(
    simulated: tuple[float, ...], temperature: float
) -> None:
    """<U> = d T / 2 and <U^2> - <U>^2 = d T^2 / 2 at temperatures that no ladder names."""
    data = [oscillator(t, 40_000, 10 + int(t)) for t in simulated]
    data.append(oscillator(simulated[0], 40_000, 3, 0.4, run="biased"))
    reweighting = Reweighting(data)
    energy = np.concatenate([t.potential_energy for t in data])
    weights = normalised_weights(reweighting.log_weights(temperature))
    size = reweighting.sample_size(temperature)
    assert 500 < size <= len(energy)
    mean = float(weights @ energy)
    exact = 0.5 * DIM * temperature
    assert abs(mean - exact) < 4 * np.sqrt(0.5 * DIM / size) * temperature + 0.01 * exact
    variance = float(weights @ (energy - mean) ** 2)
    assert variance == pytest.approx(0.5 * DIM * temperature**2, rel=0.03 + 12 / np.sqrt(size))


def test_own_temperatures_are_the_simulated_ones_with_unbiased_weights() -> None:
    data = [
        oscillator(2.0, 5000, 1),
        oscillator(1.0, 5000, 2),
        oscillator(1.0, 20_000, 3, 0.5, run="biased"),
    ]
    ladder = own_temperatures(data)
    assert ladder.temperatures.tolist() == [1.0, 2.0]
    np.testing.assert_allclose(ladder.weights.sum(axis=1), 1.0, atol=1e-4)
    cold, warm = ladder.weights
    assert (cold[:5000] == 0).all()
    assert (warm[5000:] == 0).all()
    assert np.ptp(warm[:5000]) == 0
    energy = np.concatenate([t.potential_energy for t in data])
    for temperature, weights, size in zip(
        ladder.temperatures, ladder.weights, ladder.sample_sizes, strict=True
    ):
        exact = 0.5 * DIM * temperature
        assert weights @ energy == pytest.approx(exact, abs=4 * np.sqrt(0.5 * DIM / size) * temperature)
    # Runs at one temperature count by their effective sample sizes; there, bias and all, they add up.
    biased = effective_sample_size(data[2].log_weights)
    assert cold[5000:10_000].sum() == pytest.approx(5000 / (5000 + biased), rel=1e-3)
    assert ladder.sample_sizes.tolist() == pytest.approx([5000 + biased, 5000], rel=1e-6)


def test_own_temperatures_need_no_energies() -> None:
    zero = np.zeros(10)
    data = [
        FeatureTrajectory(np.zeros((10, 1), np.float32), temperature, 1.0, zero, zero)
        for temperature in (2.0, 1.0, 2.0)
    ]
    ladder = own_temperatures(data)
    np.testing.assert_allclose(ladder.weights[0], np.repeat([0.0, 0.1, 0.0], 10), rtol=1e-6)
    np.testing.assert_allclose(ladder.weights[1], np.repeat([0.05, 0.0, 0.05], 10), rtol=1e-6)
