"""The ladder of temperatures against harmonic oscillators, whose distribution is known at every temperature."""

import numpy as np
import pytest

from latf_openmm.data.ladder import TemperatureLadder, build_ladder
from latf_openmm.data.trajectory import FeatureTrajectory
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
    ladder = build_ladder(trajectories, 12, minimum, np.random.default_rng(0))
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
    ladder = build_ladder(data, 8, 0.05, np.random.default_rng(0))
    assert ladder is not None
    assert {1.0, 2.0} <= set(ladder.temperatures.tolist())


def test_unknown_energies_give_no_ladder() -> None:
    zero = np.zeros(10)
    data = [
        FeatureTrajectory(np.random.default_rng(0).random((10, 2)).astype(np.float32), 1.0, 1.0, zero, zero)
    ]
    assert build_ladder(data, 8, 0.05, np.random.default_rng(0)) is None


def test_draws_follow_the_weights_and_stay_among_the_frames() -> None:
    data = [oscillator(1.0, 5000, 1), oscillator(2.0, 5000, 2)]
    ladder = ladder_of(*data)
    energy = np.concatenate([t.potential_energy for t in data])
    frames = np.arange(0, 10_000, 2)
    index, temperatures = ladder.draw(frames, 120_000, np.random.default_rng(3))
    assert len(index) == len(temperatures)
    assert np.isin(index, frames).all()
    for temperature in (1.0, 2.0):
        drawn = energy[index[temperatures == temperature]]
        assert drawn.mean() == pytest.approx(0.5 * DIM * temperature, rel=0.06)
