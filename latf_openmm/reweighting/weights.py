"""Statistical weights of frames, their effective sample size, and how runs are put on one scale."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.windows import join_windows, window_groups


def normalised_weights(log_weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights that sum to one, from their logarithms.

    Examples
    --------
    >>> normalised_weights(np.log([1.0, 3.0]))
    array([0.25, 0.75])
    """
    return np.asarray(np.exp(log_weights - logsumexp(log_weights)))


def effective_sample_size(log_weights: NDArray[np.float64]) -> float:
    """Kish's effective sample size, (sum w)^2 / sum w^2; correlation in time is not considered.

    Examples
    --------
    >>> round(effective_sample_size(np.zeros(10)), 9)
    10.0
    """
    return float(np.exp(2 * logsumexp(log_weights) - logsumexp(2 * np.asarray(log_weights))))


def members_of_runs(trajectories: Sequence[FeatureTrajectory]) -> list[list[int]]:
    """Indices of the walkers of each run: those with one bias at one temperature."""
    runs: dict[tuple[str, float], list[int]] = {}
    for index, trajectory in enumerate(trajectories):
        runs.setdefault((trajectory.run, trajectory.temperature), []).append(index)
    return list(runs.values())


def canonical_weights(
    trajectories: Sequence[FeatureTrajectory], inefficiency: Sequence[NDArray[np.float64]] | None = None
) -> list[NDArray[np.float64]]:
    """Weights that turn each run into a canonical sample at its own temperature.

    Within a run (one bias at one temperature, any number of walkers) w is proportional to
    exp(V_bias / k_B T); the weights of a run sum to its effective sample size, so that runs at one
    temperature can be put together. Runs whose biases are known at each other's frames (`WindowBias`) are joined by
    MBAR first, and count as one.

    Parameters
    ----------
    inefficiency
        Statistical inefficiency of each frame's run, for each trajectory, for runs that are joined; None: 1.
    """
    weights: list[NDArray[np.float64]] = [np.empty(0)] * len(trajectories)
    for members in members_of_runs(trajectories):
        if trajectories[members[0]].windows is None:
            log_weights = np.concatenate([trajectories[i].log_weights for i in members])
            _distribute(log_weights, members, weights, trajectories)
    for members in window_groups(trajectories):
        chosen = None if inefficiency is None else [inefficiency[i] for i in members]
        joined = join_windows([trajectories[i] for i in members], chosen)
        _distribute(joined.log_weights, members, weights, trajectories)
    return weights


def _distribute(
    log_weights: NDArray[np.float64],
    members: Sequence[int],
    weights: list[NDArray[np.float64]],
    trajectories: Sequence[FeatureTrajectory],
) -> None:
    """Scale weights so that they sum to their effective sample size, and give each member its part."""
    scaled = np.exp(log_weights + np.log(effective_sample_size(log_weights)) - logsumexp(log_weights))
    ends = np.cumsum([trajectories[i].n_frames for i in members])
    for index, part in zip(members, np.split(scaled, ends[:-1]), strict=True):
        weights[index] = part


def training_weights(trajectories: Sequence[FeatureTrajectory]) -> list[NDArray[np.float64]]:
    """Canonical weights, scaled so that every temperature has the same total and the mean is one."""
    weights = canonical_weights(trajectories)
    totals: dict[float, float] = {}
    for trajectory, w in zip(trajectories, weights, strict=True):
        totals[trajectory.temperature] = totals.get(trajectory.temperature, 0.0) + float(w.sum())
    n_frames = sum(trajectory.n_frames for trajectory in trajectories)
    return [
        w * n_frames / (len(totals) * totals[trajectory.temperature])
        for trajectory, w in zip(trajectories, weights, strict=True)
    ]


def systematic(weights: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return `n` indices drawn by weights (they sum to one), each as often as its weight says, within one."""
    places = (np.arange(n) + rng.random()) / n
    return np.minimum(np.searchsorted(np.cumsum(weights), places), len(weights) - 1).astype(np.int64)
