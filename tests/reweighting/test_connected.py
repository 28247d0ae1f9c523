"""Crossings and MBAR that only crossings connect, against rates, pymbar and quadrature."""

from dataclasses import replace

import numpy as np
import pymbar
import pytest
from numpy.typing import NDArray

from benchmarks.gap.two_basins import right_share, walkers
from latf_openmm.frames.trajectory import FeatureTrajectory, WalkerPaths
from latf_openmm.reweighting.connected import LocalFrames, StateEnergies, Visits, energy_links
from latf_openmm.reweighting.crossings import (
    find_crossings,
    independent_samples,
    known_shares,
    log_likelihood,
    with_unseen,
)
from latf_openmm.reweighting.temperatures import Basins, Reweighting
from latf_openmm.reweighting.weights import normalised_weights
from latf_openmm.units import REDUCED


def labelled(labels: list[int], breaks: tuple[int, ...] = ()) -> FeatureTrajectory:
    n = len(labels)
    return FeatureTrajectory(
        np.array(labels, np.float32)[:, None], 1.0, 1.0, np.arange(n, dtype=float), np.zeros(n), breaks=breaks
    )


def counted(*walks: list[int], n_states: int = 2) -> np.ndarray:
    states = np.concatenate([np.array(walk) for walk in walks])
    (run,) = find_crossings([labelled(walk) for walk in walks], states, n_states)
    return run.settled.counted(None)


def test_crossings_are_settled_ones() -> None:
    """A frame beyond the boundary and back is no crossing; one of two frames is."""
    walk = [0, 0, 0, 1, 0, 0, 1, 1, 1, 0, 1, 1, 2, 2, 0, 0]
    np.testing.assert_array_equal(counted(walk, n_states=3), [[0, 1, 0], [0, 0, 1], [1, 0, 0]])


def test_walkers_and_stretches_do_not_cross_into_each_other() -> None:
    assert counted([0, 0, 0], [1, 1, 1]).sum() == 0
    walk = labelled([0, 0, 0, 1, 1, 1], breaks=(3,))
    (run,) = find_crossings([walk], np.array([0, 0, 0, 1, 1, 1]), 2)
    assert run.counted().sum() == 0


def exchanging(n_frames: int, seed: int) -> tuple[list[FeatureTrajectory], NDArray[np.int64], np.ndarray]:
    """Two states, U = 0 and 2, at kT = 1 and 3; pairs of walkers begin in the first and exchange every two frames."""
    rng, kT, u = np.random.default_rng(seed), np.array([1.0, 3.0]), np.array([0.0, 2.0])
    state, walker = np.zeros((40, 2), dtype=int), np.tile(np.arange(2), (40, 1)) + 2 * np.arange(40)[:, None]
    states, walkers = np.empty((n_frames, 40, 2), dtype=int), np.empty((n_frames, 40, 2), dtype=int)
    for frame in range(n_frames):
        if frame % 2 == 0 and frame:
            gain = (1 / kT[0] - 1 / kT[1]) * (u[state[:, 0]] - u[state[:, 1]])
            swap = rng.random(40) < np.exp(np.minimum(gain, 0.0))
            state[swap], walker[swap] = state[swap][:, ::-1], walker[swap][:, ::-1]
        rate = np.array([0.004, 0.1]) * np.exp(-np.where(state == 0, u[1] / kT, 0.0))
        state = np.where(rng.random((40, 2)) < rate, 1 - state, state)
        states[frame], walkers[frame] = state, walker
    trajectories = [
        FeatureTrajectory(
            states[:, pair, place, None].astype(np.float32),
            float(kT[place]),
            1.0,
            u[states[:, pair, place]],
            np.zeros(n_frames),
            run=f"T{place}",
            breaks=tuple((np.flatnonzero(np.diff(walkers[:, pair, place])) + 1).tolist()),
            paths=WalkerPaths("000", walkers[:, pair, place], np.arange(n_frames)),
        )
        for place in (0, 1)
        for pair in range(40)
    ]
    labels = np.concatenate([t.features[:, 0].astype(np.int64) for t in trajectories])
    return trajectories, labels, np.exp(-2.0 / kT)


@pytest.mark.parametrize("settle", [1, 4])
def test_walkers_that_move_are_followed_through_all_temperatures(settle: int) -> None:
    """Rates say the odds of the states, though all walkers begin in one of them, and moves are no crossings."""
    trajectories, labels, odds = exchanging(400, 1)
    runs = find_crossings(trajectories, labels, 2, settle)
    alone = find_crossings([replace(t, paths=None) for t in trajectories], labels, 2, settle)
    for run, cut, exact in zip(runs, alone, odds, strict=True):
        counts = run.settled.counted(None)
        assert counts.sum() > 2 * cut.settled.counted(None).sum() or settle == 1
        rates = counts / run.times(np.ones(len(labels)))[:, None]
        error = np.sqrt(1 / counts[0, 1] + 1 / counts[1, 0])
        assert abs(np.log(rates[0, 1] / rates[1, 0] / exact)) < 3.5 * error


def test_recrossing_a_boundary_says_nothing() -> None:
    """Half of the walkers sit left, half right; all flicker over the boundary."""
    rng = np.random.default_rng(0)
    walks = [np.where(rng.random(400) < 0.1, 1 - side, side).tolist() for side in [0, 1] * 5]
    states = np.concatenate(walks)
    (run,) = find_crossings([labelled(walk) for walk in walks], states, 2, settle=5)
    assert run.passing.counted(None).sum() > 500
    assert run.counted().sum() < 10


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_sparse_frames_count_although_no_visit_lasts(share: float) -> None:
    """Independent frames: as many crossings as say what so many frames say, within a factor of two."""
    rng = np.random.default_rng(1)
    walks = [(rng.random(1000) < share).astype(int).tolist() for _ in range(5)]
    (run,) = find_crossings([labelled(walk) for walk in walks], np.concatenate(walks), 2)
    best = 4 * 5000 * share * (1 - share)
    assert best / 4 < run.counted().sum() <= 1.05 * best


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_crossings_give_the_share_wherever_walkers_start(start: float) -> None:
    """Two states with known rates; many short walks from one state."""
    rng = np.random.default_rng(2)
    rates = (0.002, 0.006)  # p of state 1 is 1/4
    walks = np.empty((400, 300), dtype=np.int64)
    state = np.full(400, int(start))
    for frame in range(300):
        leaves = rng.random(400) < np.where(state == 0, *rates)
        state = np.where(leaves, 1 - state, state)
        walks[:, frame] = state
    trajectories = [labelled(walk.tolist()) for walk in walks]
    (run,) = find_crossings(trajectories, walks.ravel(), 2)
    settled, times = run.settled.counted(None), run.times(np.ones(walks.size))
    odds = times[1] * settled[0, 1] / (times[0] * settled[1, 0])
    assert abs(walks.mean() - 0.25) > 0.08
    # Settled crossings leave out visits of one frame, alike in both directions up to 1 - rate.
    assert np.log(odds) == pytest.approx(
        np.log(1 / 3), abs=2 * np.sqrt(1 / settled[0, 1] + 1 / settled[1, 0])
    )


def test_the_likelihood_has_its_maximum_at_the_rates_and_its_derivatives_are_right() -> None:
    times, counts = np.array([10.0, 30.0, 5.0]), np.array([[0, 4.0, 1.0], [7.0, 0, 2.0], [1.5, 3.0, 0]])
    rng = np.random.default_rng(0)
    f = rng.normal(size=3)
    value, slope, curvature = log_likelihood(f, times, counts)
    h = 1e-5
    for i, step in enumerate(h * np.eye(3)):
        up, down = log_likelihood(f + step, times, counts), log_likelihood(f - step, times, counts)
        assert (up[0] - down[0]) / (2 * h) == pytest.approx(slope[i], rel=1e-6)
        np.testing.assert_allclose((up[1] - down[1]) / (2 * h), curvature[i], rtol=1e-6)
    assert np.linalg.eigvalsh(curvature).max() < 1e-9
    assert log_likelihood(f + 3.0, times, counts)[0] == pytest.approx(value)
    two = np.array([[0, 4.0], [7.0, 0]])
    odds = 7 * 10 / (4 * 30)  # p_0 / p_1 = k_10 / k_01
    best = np.array([-np.log(odds), 0.0])
    np.testing.assert_allclose(log_likelihood(best, times[:2], two)[1], 0.0, atol=1e-12)


def test_unseen_crossings_have_the_same_mean_in_samples() -> None:
    rng = np.random.default_rng(0)
    drawn = np.mean([with_unseen(np.zeros((3, 3)), rng=rng) for _ in range(4000)], axis=0)
    np.testing.assert_allclose(drawn, with_unseen(np.zeros((3, 3))), atol=0.02)


def test_shares_that_are_known_have_the_information_of_the_frames() -> None:
    times = np.array([30.0, 70.0])
    counts = known_shares(times, np.ones(100))
    f = -np.log(times / 100)
    _, slope, curvature = log_likelihood(f, times, counts)
    np.testing.assert_allclose(slope, 0.0, atol=1e-12)
    assert -curvature[0, 0] == pytest.approx(100 * 0.3 * 0.7)


def test_samples_say_as_much_as_the_crossings_they_are_made_of() -> None:
    times = np.array([20.0, 50.0, 30.0, 0.0])
    drawn = independent_samples(times, known_shares(times, np.ones(100)))
    np.testing.assert_allclose(drawn[:2] / drawn[2], times[:2] / times[2])
    assert drawn.sum() == pytest.approx(100.0)
    counts = np.array([[0.0, 8.0, 0.0, 0.0], [8.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0] * 4])
    assert independent_samples(times, counts).sum() == pytest.approx(1 / (4 * 0.3 * 0.7))
    assert independent_samples(times[[0, 3]], counts[:2, :2]).sum() == 0


def test_derivatives_of_all_likelihoods_together() -> None:
    rng = np.random.default_rng(2)
    level, state = rng.integers(2, size=(2, 60))
    local = LocalFrames(rng.gamma(2.0, size=60), level, state, np.array([1.0, 0.6]), 2)
    visits = [Visits(k, rng.random(2) + 1, np.array([[0.0, 3.0], [1.0, 0.0]])) for k in (0, 1)]
    samples = np.array([[3.0, 1.5], [0.5, 2.0]])
    weights, f, h = rng.random(60), rng.normal(size=(2, 2)), 1e-5
    counts = local.counts(weights)
    _, slope, bend = local._objective(f, weights, counts, visits, samples, None)
    for i, step in enumerate(h * np.eye(4).reshape(4, 2, 2)):
        up, down = (local._objective(x, weights, counts, visits, samples, None) for x in (f + step, f - step))
        assert (up[0] - down[0]) / (2 * h) == pytest.approx(slope[i], rel=1e-6, abs=1e-8)
        np.testing.assert_allclose((up[1] - down[1]) / (2 * h), bend[i], rtol=1e-5, atol=1e-8)


def rarely_visited(seed: int) -> tuple[list[FeatureTrajectory], Basins]:
    """Four runs of two short walkers in three states; the last one, of share 1/9, is entered once or twice or never."""
    rng = np.random.default_rng(seed)
    rates = np.array([[0, 0.05, 0], [0.05, 0, 0.004], [0, 0.016, 0]])
    chance = np.cumsum(rates + np.diag(1 - rates.sum(axis=1)), axis=1)
    walks = np.empty((8, 300), dtype=np.int64)
    for walk in walks:
        state = int(rng.integers(2))
        for i in range(300):
            walk[i] = state = int(np.searchsorted(chance[state], rng.random()))
    trajectories = [
        FeatureTrajectory(
            walk[:, None].astype(np.float32), 1.0, 1.0, rng.random(300), np.zeros(300), f"{i // 2}"
        )
        for i, walk in enumerate(walks)
    ]
    return trajectories, Basins(walks.reshape(-1, 1).astype(float), walks.ravel(), 3)


def test_a_state_that_was_entered_and_never_left_has_not_most_of_the_share() -> None:
    """Crossings alone would give it up to three times the share of its frames."""
    off: dict[str, list[float]] = {"frames": [], "connected": []}
    for seed in range(60):
        trajectories, basins = rarely_visited(seed)
        weights = normalised_weights(Reweighting(trajectories, None, basins).log_weights(1.0))
        inside = basins.states == 2
        off["frames"].append(float(inside.mean()) - 1 / 9)
        off["connected"].append(float(weights @ inside) - 1 / 9)
    frames, connected = (float(np.sqrt(np.mean(np.square(values)))) for values in off.values())
    assert connected < 1.15 * frames
    assert abs(np.mean(off["connected"])) < abs(np.mean(off["frames"]))  # walkers begin in the other states


def test_one_state_is_mbar() -> None:
    rng = np.random.default_rng(0)
    betas, sizes = np.array([1.0, 0.8, 0.5]), [400, 300, 500]
    energy = np.concatenate([rng.gamma(3.0, 1 / b, n) for b, n in zip(betas, sizes, strict=True)])
    level = np.repeat(np.arange(3), sizes)
    local = LocalFrames(energy, level, np.zeros(1200, dtype=np.int64), betas, 1)
    f = local.solve(np.ones(1200), [], None)
    np.testing.assert_allclose(f[:, 0], pymbar.MBAR(energy * betas[:, None], sizes).f_k, atol=1e-6)


def test_states_that_never_cross_keep_their_crossings_shares_and_their_energies() -> None:
    """Cold frames in one state only: its share there follows from the hot ones."""
    rng = np.random.default_rng(1)
    n, betas = 60_000, np.array([1.0, 0.5])
    # State 1 lies 1 higher and is wider: Z_a = g_a exp(-b E_a) / b^2 of U = E_a + gamma(2).
    level = np.repeat([0, 1, 1], n)
    state = np.repeat([0, 0, 1], n)
    energy = rng.gamma(2.0, 1 / betas[level]) + state
    times, counts = np.array([1.0, 3.0]), np.array([[0, 5e4], [5e4, 0]])
    local = LocalFrames(energy, level, state, betas, 2)
    f = local.solve(np.ones(3 * n), [Visits(1, times, counts)], None)
    weights = np.exp(-energy * 1.0)
    mixture = np.zeros(3 * n)
    for k in range(2):
        mixture += local.counts(np.ones(3 * n))[k, state] * np.exp(f[k, state] - betas[k] * energy)
    share = (weights / mixture)[state == 1].sum() / (weights / mixture).sum()
    odds = 3.0 * np.exp(-0.5)  # of state 1 at the lower temperature, from that at the higher
    assert share == pytest.approx(odds / (1 + odds), abs=0.01)


def test_links_are_integrals_of_mean_energies() -> None:
    """Of Gaussian energies f is quadratic in b, which the trapezoid with its end correction has exactly."""
    betas = np.array([1.0, 0.5])
    variances = np.full((2, 2), 400.0)
    means = 1000.0 - betas[:, None] * variances + np.array([0.0, 3.0])
    n = np.full((2, 2), 1e6)
    links = energy_links(StateEnergies(n, means, variances, variances), betas)
    assert links is not None
    exact = np.diff(
        betas[:, None] * (1000 + np.array([0.0, 3.0])) - betas[:, None] ** 2 * variances / 2, axis=0
    )
    np.testing.assert_allclose(links.differences, exact, rtol=1e-9)
    near = 1.0 + 0.001 * np.arange(2)[::-1]
    assert energy_links(StateEnergies(n, means, variances, variances), near) is not None
    assert energy_links(StateEnergies(n, *(np.ones((2, 2)),) * 3), near) is None  # energies overlap


def test_a_frame_that_was_drawn_twice_has_no_exact_energy() -> None:
    """In a bootstrap sample a state may be one frame, several times: its mean energy is not known exactly."""
    n = np.array([[400.0, 3.0], [400.0, 3.0]])
    means, variances = np.array([[-50.0, -20.0], [20.0, 50.0]]), np.array([[4.0, 0.0], [4.0, 0.0]])
    links = energy_links(StateEnergies(n, means, variances, variances), np.array([1.0, 0.5]))
    assert links is not None
    assert np.all(links.errors[0, 1] > 5 * links.errors[0, 0] > 0)
    plenty = energy_links(
        StateEnergies(n[:, :1], means[:, :1], variances[:, :1], variances[:, :1]), np.array([1.0, 0.5])
    )
    assert plenty is not None
    assert links.errors[0, 0] == pytest.approx(plenty.errors[0, 0], rel=0.05)


@pytest.mark.parametrize(("barrier", "right"), [(4.0, 0.5), (7.0, 1.0), (10.0, 1.0), (10.0, 0.0)])
def test_shares_where_walkers_cross_rarely(barrier: float, right: float) -> None:
    """At the temperatures simulated and between: better than MBAR where few cross, the same where many do."""
    off: dict[str, list[float]] = {"mbar": [], "connected": []}
    for seed in range(4):
        trajectories, basins = walkers((1.0, 2.0), barrier, right, seed=seed)
        for name, given in (("mbar", None), ("connected", basins)):
            weighted = Reweighting(trajectories, np.full(len(basins.z), 5.0), given)
            for temperature in (1.0, 1.4, 2.0):
                share = normalised_weights(weighted.log_weights(temperature)) @ basins.states
                off[name].append(share - right_share(temperature, barrier))
    plain, connected = (float(np.sqrt(np.mean(np.square(values)))) for values in off.values())
    assert connected < 0.1
    assert connected < (1.3 if barrier < 5 else 0.7) * plain


def test_a_single_temperature_needs_its_crossings_alone() -> None:
    trajectories, basins = walkers((1.5,), 4.0, 0.5, seed=3)
    weighted = Reweighting(trajectories, None, basins)
    share = float(normalised_weights(weighted.log_weights(1.5)) @ basins.states)
    assert share == pytest.approx(right_share(1.5, 4.0), abs=0.05)
    assert weighted.shares()[0, 1] == pytest.approx(share, abs=1e-3)


def test_states_without_frames_have_no_share() -> None:
    trajectories, basins = walkers((1.0, 2.0), 4.0, 0.5, frames=200, seed=1)
    more = Basins(basins.z, basins.states, 4)
    weighted = Reweighting(trajectories, None, more)
    np.testing.assert_array_equal(weighted.shares()[:, 2:], 0.0)
    same = Reweighting(trajectories, None, basins)
    a, b = (normalised_weights(w.log_weights(1.3)) @ basins.states for w in (weighted, same))
    assert a == pytest.approx(b, abs=1e-3)


def test_mbar_over_many_temperatures_of_a_large_system() -> None:
    temperatures, n, rng = np.geomspace(0.2, 0.7, 42), 5000, np.random.default_rng(0)
    trajectories = [
        FeatureTrajectory(
            np.zeros((50, 1), np.float32),
            float(t),
            1.0,
            0.5 * t * rng.chisquare(n, 50),
            np.zeros(50),
            run=f"{t:g}",
            scale=REDUCED,
        )
        for t in temperatures
    ]
    mbar = Reweighting(trajectories)
    assert np.ptp(mbar.free_energies) > 1000
    for t in (0.25, 0.6):
        weights = normalised_weights(mbar.log_weights(t))
        assert weights @ mbar.energy + mbar.lowest == pytest.approx(n * t / 2, rel=0.01)
        assert 1 / (weights**2).sum() > 50


def test_equal_energies_have_no_negative_variance() -> None:
    """Weights of a bias leave rounding in sums of squares, and its root would be no number."""
    rng = np.random.default_rng(0)
    made = [
        FeatureTrajectory(
            np.zeros((60, 1), np.float32),
            kT,
            1.0,
            np.where(np.arange(60) < 20, 123.4, rng.normal(size=60)),
            rng.normal(size=60),
            run=f"T{kT}",
            scale=REDUCED,
        )
        for kT in (1.0, 1.2)
        for _ in range(5)
    ]
    states = np.tile((np.arange(60) < 20).astype(np.int64), 10)
    reweighting = Reweighting(made, None, Basins(np.zeros((600, 1)), states, 2))
    for seed in range(20):
        log_w = np.log(np.random.default_rng(seed).random(600))
        assert (reweighting.energies_of_states(log_w).scatters >= 0).all()
