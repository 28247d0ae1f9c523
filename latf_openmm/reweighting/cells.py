"""Cells of collective-variable space, and smooth functions over them.

Frames enter what is fitted by their sums over cells alone, so a bootstrap sample of a million frames costs no more than
one of a thousand. Every cell lies in one metastable state. Functions inside a state are sums of Gaussians about
landmarks among the cells; they are penalised, so that they go to a constant where there are few frames, and never
grow outside.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_FRAMES_A_CELL = 40
"""Frames that a cell has on average, at least."""
_MOST = 1200
"""Cells, at most."""
_LANDMARKS = 40
"""Gaussians in a state, at most."""
_CELLS_A_LANDMARK = 4
"""Cells for each of them, at least."""
_WIDTH = 1.5
"""Standard deviation of a Gaussian, in distances of neighbouring landmarks."""
_FITTED = 100_000
"""Frames that cells are placed by, at most."""


@dataclass(frozen=True)
class StateCells:
    """The cells of one state.

    Attributes
    ----------
    cells
        Their numbers, shape (n,).
    basis
        Gaussians at their centres, shape (n, n_landmarks).
    """

    cells: Indices
    basis: Array


@dataclass(frozen=True)
class Cells:
    """Cells of collective-variable space.

    Attributes
    ----------
    of_frame
        Cell of each frame, shape (n_frames,).
    state
        State of each cell, shape (n_cells,).
    states
        Cells and Gaussians of each state.
    """

    of_frame: Indices
    state: Indices
    states: tuple[StateCells, ...]

    @property
    def n(self) -> int:
        """Number of cells."""
        return len(self.state)

    def sums(self, level: Indices, n_levels: int, values: Array) -> Array:
        """Sums of values of frames at each temperature in each cell, shape (n_levels, n_cells)."""
        flat = np.bincount(level * self.n + self.of_frame, values, n_levels * self.n)
        return np.asarray(flat.reshape(n_levels, self.n), dtype=np.float64)


def make_cells(z: Array, states: Indices, n_states: int, seed: int) -> Cells:
    """Return cells with about the same number of frames in each.

    Parameters
    ----------
    z
        Collective variables, shape (n_frames, dim).
    states
        Of each frame, shape (n_frames,).
    """
    scaled = z / (z.std(axis=0) + 1e-12)
    of_frame = np.empty(len(z), dtype=np.int64)
    kinds, state_of, first = [], [], 0
    most = min(_MOST, max(n_states, len(z) // _FRAMES_A_CELL))
    for state in range(n_states):
        rows = np.flatnonzero(states == state)
        n = int(np.clip(round(most * np.sqrt(len(rows) / len(z)) / np.sqrt(n_states)), 1, max(1, len(rows))))
        if len(rows) == 0:
            kinds.append(StateCells(np.empty(0, dtype=np.int64), np.empty((0, 0))))
            continue
        centres, assigned = clusters(scaled[rows], n, seed)
        of_frame[rows] = first + assigned
        kinds.append(StateCells(first + np.arange(len(centres)), _gaussians(centres, seed)))
        state_of.append(np.full(len(centres), state))
        first += len(centres)
    return Cells(of_frame, np.concatenate(state_of), tuple(kinds))


def clusters(points: Array, n: int, seed: int) -> tuple[Array, Indices]:
    """Centres of `n` clusters or fewer, and the cluster of each point."""
    from sklearn.cluster import MiniBatchKMeans  # half a second, and few commands need it

    few = points[:: max(1, len(points) // _FITTED)]
    clusters = MiniBatchKMeans(n, random_state=seed, n_init=1, batch_size=4096, max_iter=20).fit(few)
    nearest = cKDTree(clusters.cluster_centers_).query(points)[1]
    used, assigned = np.unique(nearest, return_inverse=True)
    return clusters.cluster_centers_[used].astype(np.float64), assigned.astype(np.int64)


def _gaussians(centres: Array, seed: int) -> Array:
    """Gaussians about landmarks among the centres, shape (n_cells, n_landmarks); none where cells are few."""
    n = min(_LANDMARKS, len(centres) // _CELLS_A_LANDMARK)
    if n < 2:
        return np.empty((len(centres), 0))
    landmarks, _ = clusters(centres, n, seed)
    width = _WIDTH * float(np.median(cKDTree(landmarks).query(landmarks, k=2)[0][:, 1]))
    squares = ((centres[:, None] - landmarks) ** 2).sum(axis=2)
    return np.asarray(np.exp(-0.5 * squares / width**2))
