"""Structures with weights against harmonic oscillators, whose distribution is known at every temperature."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.ensembles import DIM, beyond, plenty, pool_of, trained, walk
from numpy.typing import NDArray

from latf_openmm.ensembles.ensemble import Estimate, StructureEnsemble, mixture
from latf_openmm.ensembles.files import describe, frames_table
from latf_openmm.ensembles.reweighter import Reweighter, ensemble_at
from latf_openmm.errors import ConfigError, DataError
from latf_openmm.frames.trajectory import FeatureTrajectory, WindowBias
from latf_openmm.units import REDUCED

Array = NDArray[np.float64]


@pytest.mark.parametrize("temperature", [1.0, 1.4, 2.0, 0.7, 2.6])
def test_reweighted_frames_have_the_energies_of_the_temperature(temperature: float) -> None:
    found = ensemble_at(trained(), plenty(), temperature)
    assert found.method == "reweighted"
    assert found.weights.sum() == pytest.approx(1.0)
    assert not found.warnings
    assert found.reliability == "good"
    for estimate, exact in (
        (found.energy(), 0.5 * DIM * temperature),
        (found.heat_capacity(), 0.5 * DIM),
        (found.populations()[1], beyond(temperature)),
    ):
        assert abs(estimate.value - exact) < 3.5 * estimate.error
        assert 0 < estimate.error < 0.15 * exact


@pytest.mark.parametrize("seeds", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_errors_cover_the_truth(seeds: int) -> None:
    """Over seeds, temperatures and observables; correlated frames, a biased run among them."""
    hits, errors = [], []
    for seed in range(seeds):
        pool = plenty(seed, 1500)
        for temperature in (1.0, 1.5, 2.4):
            found = ensemble_at(trained(), pool, temperature, "reweighted", seed)
            pairs = ((found.energy(), 0.5 * DIM * temperature), (found.populations()[1], beyond(temperature)))
            for estimate, exact in pairs:
                hits.append(abs(estimate.value - exact) < 2 * estimate.error)
                errors.append((estimate.value - exact) / estimate.error)
    assert 0.85 <= np.mean(hits) <= 1.0
    assert 0.5 < np.std(errors) < 1.5


def test_effective_sizes() -> None:
    pool = plenty(correlation=0.9)
    found = ensemble_at(trained(), pool, 1.5)
    assert found.ess == pytest.approx(1 / (found.weights**2).sum())
    # The statistical inefficiency of x is (1 + 0.9) / (1 - 0.9) = 19.
    assert found.ess / found.n_effective == pytest.approx(19.0, rel=0.3)
    assert found.largest_weight == found.weights.max() < 0.01


def test_the_flow_takes_over_where_frames_do_not_reach() -> None:
    # At T = 0.2 hardly any frame of T = 1 and 2 has weight; the flow knows x0 and x1, the frames the rest.
    pool, temperature = plenty(), 0.12
    found = ensemble_at(trained(), pool, temperature)
    assert (found.method, found.reliability) == ("flow", "poor")
    assert any("effective samples stand for T = 0.12" in text for text in found.warnings)
    assert any("no frames can be reweighted" in text for text in found.warnings)
    z = pool.z
    spread = found.expectation((z**2).sum(axis=1) / 2)
    assert spread.value == pytest.approx(temperature, rel=0.25)
    # What is inside a basin follows the energies: colder than the frames there, which had T = 1 or more.
    assert found.energy().value < 0.8
    alone = ensemble_at(trained(), pool, temperature, "reweighted")
    assert alone.n_effective < 100
    assert any("effective samples" in text for text in alone.warnings)


def test_both_levels_agree_where_both_are_right() -> None:
    pool = plenty()
    one, two = (ensemble_at(trained(), pool, 1.5, level) for level in ("reweighted", "flow"))
    assert (one.method, two.method) == ("reweighted", "flow")
    assert two.energy().value == pytest.approx(one.energy().value, rel=0.06)
    assert two.populations()[1].value == pytest.approx(one.populations()[1].value, abs=0.03)
    assert not any("the flow says" in text for text in two.warnings)
    assert (one.reliability, two.reliability) == ("good", "fair")


def test_levels_that_disagree_are_named() -> None:
    moved = trained()
    for flow in moved.model.flows:
        flow.whiten(torch.tensor([-2.0, 0.0]), torch.ones(2))  # type: ignore[operator]
    found = ensemble_at(moved, plenty(), 1.5, "flow")
    (text,) = (text for text in found.warnings if "the flow says" in text)  # of both states
    assert re.match(
        r"state (0: the flow says .*; likewise state 1|1: the flow says .*; likewise state 0)$", text
    )
    assert found.reliability == "poor"
    assert found.verdict == f"reliability poor: not to be relied on, since {text}"


def test_one_frame_with_most_of_the_weight_is_named() -> None:
    pool = plenty(n=60)
    found = ensemble_at(trained(), pool, 0.02, "reweighted")
    assert any("% of the weight" in text for text in found.warnings)


def test_no_energies() -> None:
    data = [replace(t, potential_energy=np.zeros(t.n_frames)) for t in plenty(n=500).trajectories]
    pool = pool_of(*data)
    with pytest.raises(ConfigError, match="reweighting needs the potential energies"):
        ensemble_at(trained(), pool, 1.5, "reweighted")
    found = ensemble_at(trained(), pool, 1.0)
    assert found.method == "flow"
    with pytest.raises(DataError, match="potential energies of the frames are not known"):
        found.energy()
    assert found.populations()[1].value == pytest.approx(beyond(1.0), abs=0.05)
    assert "mean_energy" not in describe(found)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_impossible_temperatures(temperature: float) -> None:
    with pytest.raises(ConfigError, match="temperature: must be above 0"):
        ensemble_at(trained(), plenty(n=100), temperature)


def test_unweighted_draws_stand_for_the_ensemble() -> None:
    found = ensemble_at(trained(), plenty(), 1.5)
    chosen = found.draw(5000, seed=3)
    energy = np.concatenate([t.potential_energy for t in found.pool.trajectories])
    assert energy[chosen].mean() == pytest.approx(found.energy().value, rel=0.03)
    counts = np.bincount(chosen, minlength=len(found.weights))
    assert np.abs(counts - 5000 * found.weights).max() < 1.0 + 1e-9  # systematic
    np.testing.assert_array_equal(chosen, found.draw(5000, seed=3))


def test_the_representative_of_a_state_is_in_it() -> None:
    found = ensemble_at(trained(), plenty(), 1.5)
    for state, frame in found.representatives().items():
        assert found.pool.states[frame] == state
    assert found.pool.z[found.representatives()[0]] == pytest.approx([-0.6, 0.0], abs=0.3)


def test_values_of_another_length() -> None:
    found = ensemble_at(trained(), plenty(n=100), 1.5, "reweighted")
    with pytest.raises(DataError, match=r"values of shape \(7,\) for a pool of 400 frames"):
        found.expectation(np.zeros(7))


def test_any_statistic() -> None:
    found = ensemble_at(trained(), plenty(), 1.5)
    ratio = found.estimate(lambda w: float(w[found.pool.states == 1].sum() / w[found.pool.states == 0].sum()))
    exact = beyond(1.5) / (1 - beyond(1.5))
    assert abs(ratio.value - exact) < 3.5 * ratio.error
    assert str(Estimate(0.12345, 0.0123)) == "0.123 ± 0.012"
    assert str(Estimate(0.3449, 1.7)) == "0.3 ± 1.7"


def test_the_table_holds_every_frame_with_weight() -> None:
    found = ensemble_at(trained(), plenty(n=300), 1.5)
    table = frames_table(found)
    assert table["weight"].sum() == pytest.approx(1.0)
    assert len(table) == (found.weights > 0).sum()
    row = table.iloc[700]
    assert row["walker"] == found.pool.owner[700]
    assert row["frame"] == found.pool.frame[700]


def test_reproducible() -> None:
    pool = plenty(n=300)
    one, two, other = (ensemble_at(trained(), pool, 0.1, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.weights, two.weights)
    assert not np.array_equal(one.weights, other.weights)
    assert isinstance(one, StructureEnsemble)


@pytest.mark.parametrize(("n", "reliabilities"), [(60, {"poor"}), (6000, {"good", "fair"})])
def test_one_trajectory_alone_is_named(n: int, reliabilities: set[str]) -> None:
    found = ensemble_at(trained(), pool_of(walk(1.0, n, 1, 0.0, 0.8)), 1.0)
    assert found.reliability in reliabilities
    assert any("all frames come from one trajectory" in text for text in found.warnings)


def test_what_was_never_seen_is_not_known_to_be_absent() -> None:
    found = ensemble_at(trained(), plenty(n=2000), 1.2)
    never = np.zeros(len(found.weights), dtype=bool)
    assert not found.seen(never)
    assert found.fraction(never) == Estimate(0.0, 1 / (found.n_effective + 4))
    assert found.fraction(~never).error == found.fraction(never).error
    assert found.expectation(never.astype(float)) == found.fraction(never)
    assert found.n_effective_in(never) == 0.0
    assert found.n_effective_in(~never) == pytest.approx(found.n_effective)
    assert np.isnan(found.free_energy_difference(~never, never).error)
    upper = found.pool.states == 1
    difference = found.free_energy_difference(~upper, upper)
    exact = -1.2 * np.log(beyond(1.2) / (1 - beyond(1.2)))
    assert abs(difference.value - exact) < 3.5 * difference.error


def test_a_state_without_frames_is_named() -> None:
    pool = replace(plenty(n=1000), n_states=3)
    found = ensemble_at(trained(), pool, 1.2)
    assert "nothing is known of state 2: no frame is there" in found.warnings
    several = ensemble_at(trained(), replace(pool, n_states=9), 1.2)
    assert "nothing is known of states 2, 3, 4 and 4 more: no frame is there" in several.warnings
    assert len(found.populations()) == 3
    assert found.populations()[2].error > 0


def test_correlated_frames_count_less_in_the_mixture() -> None:
    """A run of 19 times the statistical inefficiency has that much less to say."""
    slow, fast = (walk(t, 4000, 7, 0.0, c) for t, c in ((1.0, 0.9), (2.0, 0.0)))
    found = ensemble_at(trained(), pool_of(slow, fast), 1.4, "reweighted")
    from_slow = found.weights[:4000].sum()
    counted = ensemble_at(trained(), pool_of(slow, walk(2.0, 4000, 8, 0.0, 0.9)), 1.4, "reweighted")
    assert from_slow < 0.5 * counted.weights[:4000].sum()
    assert abs(found.energy().value - 0.5 * DIM * 1.4) < 3.5 * found.energy().error


def test_two_ensembles_together() -> None:
    pool = plenty(n=1500)
    one, other = (
        Reweighter(trained(), pool_of(*pool.trajectories[part]), seed=3).at(1.4, "reweighted")
        for part in (slice(0, 4), slice(0, 4))
    )
    both = mixture(one, other, 0.3)
    assert both.weights.sum() == pytest.approx(1.0)
    assert len(both.pool.z) == 2 * len(one.pool.z)
    # The same frames twice, from the same bootstrap samples: nothing is gained, and the errors say so.
    assert both.energy().value == pytest.approx(one.energy().value)
    assert both.energy().error == pytest.approx(one.energy().error, rel=1e-3)
    assert both.n_effective_in(np.ones(len(both.weights), bool)) > one.n_effective
    assert frames_table(both)["weight"].sum() == pytest.approx(1.0)


def test_effective_samples_of_windows_are_what_their_errors_say() -> None:
    """Windows whose frames are many and whose overlap is little."""
    rng, stiff, centres = np.random.default_rng(2), 8.0, np.arange(-2.0, 3.0)
    trajectories = []
    for k, centre in enumerate(centres):
        x = rng.normal(size=(300, 4))
        x[:, 0] = (stiff * centre + np.sqrt(1 + stiff) * x[:, 0]) / (1 + stiff)
        bias = 0.5 * stiff * (x[:, :1] - centres) ** 2
        trajectories.append(
            FeatureTrajectory(
                x.astype(np.float32),
                1.0,
                1.0,
                0.5 * (x**2).sum(axis=1),
                bias[:, k],
                run=f"run {k}",
                scale=REDUCED,
                windows=WindowBias("windows", k, bias),
            )
        )
    ensemble = Reweighter(trained(), pool_of(*trajectories)).at(1.0, "reweighted")
    population = ensemble.populations()[1]
    assert abs(population.value - beyond(1.0)) < 3 * population.error
    by_error = population.value * (1 - population.value) / population.error**2
    assert ensemble.n_effective <= by_error * (1 + 1e-9)
    assert ensemble.n_effective < 0.7 / float((ensemble.weights**2).sum())
