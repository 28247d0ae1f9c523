"""Lag-time pairs of frames, with a block-wise split that no pair and no trajectory crosses."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.frames.trajectory import FeatureTrajectory, check_same_features, joined_features
from latf_openmm.reweighting.weights import training_weights


@dataclass(frozen=True)
class LaggedPairs:
    """Frames of all trajectories one after the other, and index pairs (t, t + lag) into them.

    Attributes
    ----------
    features
        Shape (n_frames, n_features).
    temperatures
        Temperature of each frame, shape (n_frames,).
    weights
        Statistical weight of each frame, mean one, shape (n_frames,).
    train, held_out
        Indices of the first frames of the pairs of each part; the second is `lag` later.
    lag
        Lag in frames.
    """

    features: NDArray[np.float32]
    temperatures: NDArray[np.float64]
    weights: NDArray[np.float64]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    lag: int


def make_pairs(
    trajectories: Sequence[FeatureTrajectory],
    lag: int,
    held_out_fraction: float,
    blocks_per_trajectory: int,
    rng: np.random.Generator,
) -> LaggedPairs:
    """Cut every trajectory into blocks, hold out whole blocks, and pair frames within blocks.

    A pair never crosses a block, so held-out frames are no neighbours of training frames beyond a
    block's edge, and never crosses a trajectory or a break in one.

    Raises
    ------
    DataError
        If no trajectory is long enough for one pair in a block.
    """
    check_same_features(trajectories)
    train: list[NDArray[np.int64]] = []
    held: list[NDArray[np.int64]] = []
    offset = 0
    blocks: list[NDArray[np.int64]] = []
    for trajectory in trajectories:
        for stretch in trajectory.stretches:
            length = stretch.stop - stretch.start
            n_blocks = max(1, min(blocks_per_trajectory, length // (5 * lag)))
            edges = np.linspace(stretch.start, stretch.stop, n_blocks + 1).astype(int) + offset
            pairs = [np.arange(a, max(a, b - lag)) for a, b in pairwise(edges)]
            blocks += [block for block in pairs if len(block)]
        offset += trajectory.n_frames
    if len(blocks) < 2:
        raise DataError(
            f"lag {lag} leaves {len(blocks)} blocks of pairs in {len(trajectories)} trajectories of "
            f"{max(t.n_frames for t in trajectories)} frames or fewer; at least 2 are needed"
        )
    n_held = min(len(blocks) - 1, max(1, round(held_out_fraction * len(blocks))))
    chosen = set(rng.permutation(len(blocks))[:n_held].tolist())
    for index, block in enumerate(blocks):
        (held if index in chosen else train).append(block)
    weights = np.concatenate(training_weights(trajectories))
    for part, name in ((train, "training"), (held, "held-out")):
        if not weights[np.concatenate(part)].sum() > 0:
            raise DataError(f"all {name} frames have zero weight: the bias leaves too few effective frames")
    return LaggedPairs(
        features=joined_features(trajectories),
        temperatures=np.concatenate([np.full(t.n_frames, t.temperature) for t in trajectories]),
        weights=weights,
        train=np.concatenate(train),
        held_out=np.concatenate(held),
        lag=lag,
    )
