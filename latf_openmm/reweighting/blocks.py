"""Blocks of consecutive frames, and bootstrap samples of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from latf_openmm.frames.trajectory import FeatureTrajectory

BLOCK = 5.0
"""Length of a block, in statistical inefficiencies, at least."""
MIN_BLOCKS = 5
"""Blocks of a run that are made even if they are shorter."""


def number_of_blocks(n_effective: float, most: int) -> int:
    """Return into how many blocks a run is cut whose frames are `n_effective` statistical inefficiencies."""
    return int(np.clip(n_effective / BLOCK, MIN_BLOCKS, max(most, MIN_BLOCKS)))


def student_widening(m: Any) -> Any:
    """Factor on the standard deviation of `m` values after which twice it covers what two standard errors would.

    Student's t with m - 1 degrees of freedom.

    Parameters
    ----------
    m
        A number of 2 or more, or an array of them.
    """
    return stdtrit(np.asarray(m) - 1, ndtr(2.0)) / 2.0


def bootstrap_widening(groups: NDArray[np.int64]) -> float:
    """Factor on standard deviations over bootstrap samples of blocks that makes them errors.

    sqrt(m / (m - 1)) for the variance of m blocks, and Student's t with m - 1 degrees of freedom at two
    standard errors; root mean square over the groups, as if each had the same part in the variance. A group of
    one block, which nothing is known of, counts as one of two.

    Parameters
    ----------
    groups
        Group of each block; blocks are redrawn within theirs.
    """
    m = np.maximum(np.bincount(groups), 2)
    factors = np.sqrt(m / (m - 1)) * student_widening(m)
    return float(np.sqrt((factors**2).mean()))


def redrawn_blocks(groups: NDArray[np.int64], draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Number of times that each block is in bootstrap samples, shape (n_blocks, draws).

    Parameters
    ----------
    groups
        Group of each block, shape (n_blocks,); blocks are redrawn within theirs.
    """
    counts = np.empty((len(groups), draws), dtype=np.int64)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        counts[members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws).T
    return counts


class FrameBlocks:
    """All frames cut into blocks that are resampled as a whole.

    A walker is one block where a run has many walkers; where it has few, each is cut into several, so that
    every run and temperature has about `wanted` blocks. Blocks are what may be taken for independent.

    Parameters
    ----------
    trajectories
        Frames in this order.
    wanted
        Blocks of each run and temperature, at least (as far as there are frames).
    inefficiency
        Statistical inefficiency of the run of each frame, shape (n_frames,): blocks are at least five times as long,
        as far as five of a run and temperature are left; None: blocks of any length.
    """

    def __init__(
        self,
        trajectories: Sequence[FeatureTrajectory],
        wanted: int = 10,
        inefficiency: NDArray[np.float64] | None = None,
    ) -> None:
        walkers: dict[tuple[str, float], int] = {}
        independent: dict[tuple[str, float], float] = {}
        ends = np.cumsum([t.n_frames for t in trajectories])
        for t, end in zip(trajectories, ends, strict=True):
            key = (t.run, t.temperature)
            walkers[key] = walkers.get(key, 0) + 1
            g = 0.0 if inefficiency is None else float(inefficiency[end - 1])
            independent[key] = independent.get(key, 0.0) + (t.n_frames / g if g else np.inf)
        lengths: list[int] = []
        groups: list[int] = []
        numbers = {key: index for index, key in enumerate(walkers)}
        for t in trajectories:
            key = (t.run, t.temperature)
            most = min(wanted, number_of_blocks(independent[key], wanted))
            n = min(t.n_frames, max(1, -(-most // walkers[key])))
            lengths += [len(part) for part in np.array_split(np.arange(t.n_frames), n)]
            groups += [numbers[key]] * n
        self.lengths: NDArray[np.int64] = np.array(lengths)
        self.groups: NDArray[np.int64] = np.array(groups)

    def __len__(self) -> int:
        return len(self.lengths)

    def bootstrap(self, rng: np.random.Generator) -> NDArray[np.int16]:
        """Count how often each frame is in a sample of blocks redrawn within their groups, shape (n_frames,).

        At least one block is left out, so that there is something to test on.
        """
        if len(self) < 2:
            return self._spread(np.ones(len(self), dtype=np.int64))
        if np.bincount(self.groups).max() == 1:  # nothing to redraw within a group
            return self.hold_out(1.0 / len(self), rng)
        while True:
            counts = redrawn_blocks(self.groups, 1, rng)[:, 0]
            if (counts == 0).any():
                return self._spread(counts)

    def hold_out(self, fraction: float, rng: np.random.Generator) -> NDArray[np.int16]:
        """One for frames to train on, zero for a random `fraction` of the blocks, at least one; (n_frames,)."""
        counts = np.ones(len(self), dtype=np.int64)
        if len(self) > 1:
            n = min(len(self) - 1, max(1, round(fraction * len(self))))
            counts[rng.permutation(len(self))[:n]] = 0
        return self._spread(counts)

    def _spread(self, counts: NDArray[np.int64]) -> NDArray[np.int16]:
        return np.repeat(counts.astype(np.int16), self.lengths)


def redrawn_freedom(blocks: FrameBlocks, level: NDArray[np.int64], chosen: Sequence[int]) -> int:
    """Degrees of freedom of an error over bootstrap samples: of the chosen temperature with the fewest blocks.

    Parameters
    ----------
    blocks
        That are redrawn.
    level
        Index of the temperature of each frame, shape (n_frames,).
    chosen
        Indices of temperatures.
    """
    of_block = level[np.cumsum(blocks.lengths) - 1]
    freedom = []
    for k in chosen:
        members = np.bincount(blocks.groups[of_block == k])
        freedom.append(int(np.maximum(members[members > 0] - 1, 0).sum()))
    return max(1, min(freedom))
