"""Replicates: means without rows of weights are those with them; factors are those of frames solved again."""

import numpy as np
import pytest
from helpers.ensembles import plenty, walk
from hypothesis import given, strategies as st

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.blocks import FrameBlocks
from latf_openmm.reweighting.replicates import Replicates, Statistic
from latf_openmm.reweighting.temperatures import Reweighting
from latf_openmm.reweighting.weighting import Basins, TemperatureWeighting


def some(n: int, replicates: int, seed: int) -> Replicates:
    rng = np.random.default_rng(seed)
    weights = rng.random(n)
    return Replicates(
        rng.poisson(1.0, (replicates, n)).astype(np.float32) + np.float32(0.1), weights / weights.sum()
    )


@given(n=st.integers(2, 300), width=st.integers(1, 4), seed=st.integers(0, 1000))
def test_means_are_those_of_the_rows(n: int, width: int, seed: int) -> None:
    replicates, columns = some(n, 5, seed), np.random.default_rng(seed).normal(-1e5, 1.0, (n, width))
    rows = np.array(list(replicates.rows()))
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    np.testing.assert_allclose(replicates.means(columns), rows @ columns, rtol=1e-12)


def test_many_frames_go_in_parts() -> None:
    replicates = some(200_001, 3, 0)
    x = np.random.default_rng(1).normal(size=200_001)
    rows = np.array(list(replicates.rows()))
    np.testing.assert_allclose(replicates.of(Statistic.mean(x)), rows @ x, rtol=1e-10)
    variance = [row @ (x - row @ x) ** 2 for row in rows]
    np.testing.assert_allclose(replicates.of(Statistic.variance(x)), variance, rtol=1e-10)


def test_two_sets_together_keep_their_shares() -> None:
    one, other = some(50, 4, 1), some(70, 4, 2)
    both = one.mixture(other, 0.3)
    for row in both.rows():
        assert row[:50].sum() == pytest.approx(0.3, rel=1e-6)
    expected = [np.concatenate([0.3 * a, 0.7 * b]) for a, b in zip(one.rows(), other.rows(), strict=True)]
    np.testing.assert_allclose(np.array(list(both.rows())), expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.7, 3.0])
def test_factors_are_those_of_frames_solved_again(temperature: float) -> None:
    """The weights of a bootstrap sample, from its own mixture at every frame, at any temperature."""
    trajectories = [walk(t, 3000, i, 0.0, 0.8) for i, t in enumerate((0.8, 0.8, 1.0, 1.0, 2.0, 2.0))]
    reweighting = Reweighting(trajectories)
    sample = FrameBlocks(trajectories, 20).bootstrap(np.random.default_rng(3))
    with np.errstate(divide="ignore"):
        log_w = reweighting.log_w + np.log(sample)
    again = reweighting.resample(sample, np.random.default_rng(0))
    mixture = reweighting._log_mixture(log_w, again.free_energies)
    exact = np.exp(log_w - reweighting.energy / temperature - mixture)
    found = np.exp(reweighting.log_weights(temperature)) * reweighting.factors(again)
    np.testing.assert_allclose(found, exact, rtol=5e-6)


def test_ensembles_share_their_factors() -> None:
    from helpers.ensembles import trained

    from latf_openmm.ensembles.reweighter import Reweighter

    reweighter = Reweighter(trained(), plenty(), 1)
    assert reweighter.at(1.2).replicates.factors is reweighter.at(1.7).replicates.factors


def test_frames_far_from_equilibrium_do_not_make_errors_infinite() -> None:
    """Of starts that were minimised, a bootstrap sample can leave out all that a state has at a temperature."""
    for seed in range(3, 6):
        rng, trajectories = np.random.default_rng(seed), list[FeatureTrajectory]()
        for temperature in (300.0, 320.0):
            for run in ("000", "001"):
                x = rng.normal(size=(12, 1)).astype(np.float32)
                relaxing = -8000.0 * np.exp(-np.arange(12) / 2.0)
                energy = -7600.0 + 15.0 * (temperature - 300.0) + rng.normal(0, 60, 12) + relaxing
                name = f"{run}/T{temperature:g}"
                trajectories.append(FeatureTrajectory(x, temperature, 1.0, energy, np.zeros(12), run=name))
        z = np.concatenate([t.features for t in trajectories]).astype(np.float64)
        weighting = TemperatureWeighting(trajectories, Basins(z, (z[:, 0] > 1).astype(np.int64), 2))
        assert np.isfinite(weighting.factors).all()
        for temperature in (300.0, 320.0):
            assert np.isfinite(weighting.replicates(temperature, 1.0).means(z)).all()
