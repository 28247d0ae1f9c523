"""Statistical inefficiencies of the frames of each run."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.estimators import statistical_inefficiency
from latf_openmm.reweighting.weights import members_of_runs

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def run_inefficiencies(trajectories: Sequence[FeatureTrajectory], series: Array) -> Array:
    """Statistical inefficiency g of each frame's run, of the slowest variable, shape (n_frames,).

    Parameters
    ----------
    series
        Variables of all frames, walkers one after the other, shape (n_frames, dim).
    """
    g = np.ones(len(series))
    frames = frames_of(trajectories)
    for members in members_of_runs(trajectories):
        value = statistical_inefficiency([series[frames[i]] for i in members])
        for i in members:
            g[frames[i]] = value
    return g


def local_inefficiencies(
    trajectories: Sequence[FeatureTrajectory],
    z: Array,
    states: Indices,
    n_states: int,
    averaged: Array | None = None,
) -> Array:
    """Statistical inefficiency g of each frame's run inside its metastable state, shape (n_frames,).

    Of the departures of collective variables and energy from their means in the state: what crossings do is not in it.

    Parameters
    ----------
    averaged
        Energies averaged around the frames, shape (n_frames,), which forget more slowly; None: only those at frames.
    """
    energy = np.concatenate([t.potential_energy for t in trajectories])
    columns = [z, energy] if averaged is None else [z, energy, averaged]
    series = np.column_stack(columns).astype(np.float64)
    frames = frames_of(trajectories)
    for members in members_of_runs(trajectories):
        rows = np.concatenate([np.arange(frames[i].start, frames[i].stop) for i in members])
        counts = np.maximum(np.bincount(states[rows], minlength=n_states), 1)
        for column in series.T:
            sums = np.bincount(states[rows], column[rows], n_states)
            column[rows] -= (sums / counts)[states[rows]]
    return run_inefficiencies(trajectories, series)


def frames_of(trajectories: Sequence[FeatureTrajectory]) -> list[slice]:
    """Frames of each trajectory among all."""
    ends = np.cumsum([t.n_frames for t in trajectories])
    return [slice(int(end) - t.n_frames, int(end)) for t, end in zip(trajectories, ends, strict=True)]
