"""Differently biased runs at one temperature, joined by MBAR (Shirts and Chodera, 2008).

With V_k the bias of run k, g_n the statistical inefficiency of the run of frame n and N_k the frames of run k over
theirs, a frame stands for the unbiased ensemble at that temperature with the weight

    w_n ~ 1 / sum_k N_k exp(f_k - V_k(n) / kT).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.estimators import (
    connected_states,
    mixture_shares,
    redrawn_free_energies,
    reduced_free_energies,
)
from latf_openmm.reweighting.reliability import MIN_OVERLAP

_MAX_FRAMES = 10_000
"""Frames that f_k is solved from, at most (50 of each run all the same)."""
_CHUNK = 2_000_000  # numbers of a matrix at a time

Array = NDArray[np.float64]


class JoinedWindows:
    """Weights of the frames of several runs with static biases at one temperature.

    Parameters
    ----------
    reduced
        V_k / k_B T of each run at each frame, shape (n_frames, n_runs).
    run
        Run of each frame, shape (n_frames,); every run has frames.
    inefficiency
        Statistical inefficiency g of each frame's run, shape (n_frames,).

    Attributes
    ----------
    log_weights
        Logarithm of each frame's weight, up to a constant, shape (n_frames,).
    overlap
        O_ij, the probability that a frame of run i could be taken for one of run j, shape (n_runs, n_runs).
    """

    def __init__(self, reduced: Array, run: NDArray[np.int64], inefficiency: Array) -> None:
        self.reduced, self.run = reduced, run
        self.counts = np.asarray(np.bincount(run, 1.0 / inefficiency), dtype=np.float64)
        self._chosen = self._choose()
        self._chosen_counts = np.bincount(run[self._chosen])
        chosen = reduced[self._chosen]
        self.free_energies = reduced_free_energies(chosen.T.copy(), self._chosen_counts)
        self._shares = mixture_shares(chosen, self.free_energies, self._chosen_counts)[0]
        self.overlap = self._shares.T @ self._shares / self._chosen_counts[:, None]
        self.log_weights = -self._log_mixture(self.free_energies, self.counts)

    def connected(self, least: float = MIN_OVERLAP) -> NDArray[np.int64]:
        """Return a number for each run, the same where runs overlap, directly or by others between them."""
        return connected_states(self.overlap, least)

    def change(self, multiplicity: NDArray[np.integer]) -> Array:
        """Change of `log_weights` in a bootstrap sample, f_k solved again, shape (n_frames,).

        Parameters
        ----------
        multiplicity
            How often each frame is in the sample, shape (n_frames,).
        """
        times = multiplicity.astype(np.float64)
        growth = np.bincount(self.run, times) / np.bincount(self.run)
        times = times[self._chosen]
        grown = np.bincount(self.run[self._chosen], times) / self._chosen_counts
        shift = redrawn_free_energies(
            self._shares, self._chosen_counts, times[:, None], np.maximum(grown, 1e-12)[:, None]
        )
        counts = self.counts * np.maximum(growth, 1e-12)
        log_mixture = self._log_mixture(self.free_energies + shift[:, 0], np.asarray(counts, np.float64))
        return np.asarray(-self.log_weights - log_mixture)

    def _log_mixture(self, free_energies: Array, counts: Array) -> Array:
        """Logarithm of the mixture at all frames, in pieces."""
        pieces = np.array_split(self.reduced, max(1, self.reduced.size // _CHUNK))
        return np.concatenate([mixture_shares(piece, free_energies, counts)[1] for piece in pieces])

    def _choose(self) -> NDArray[np.int64]:
        """Frames that the reduced free energies are solved from: evenly of each run, run after run."""
        n_runs = self.reduced.shape[1]
        chosen = []
        for run in range(n_runs):
            frames = np.flatnonzero(self.run == run)
            n = min(len(frames), max(50, _MAX_FRAMES // n_runs))
            chosen.append(frames[np.linspace(0, len(frames) - 1, n).round().astype(np.int64)])
        return np.concatenate(chosen)


def window_groups(trajectories: Sequence[FeatureTrajectory]) -> list[list[int]]:
    """Indices of the trajectories of each group of runs that are joined."""
    groups: dict[str, list[int]] = {}
    for index, trajectory in enumerate(trajectories):
        if trajectory.windows is not None:
            groups.setdefault(trajectory.windows.group, []).append(index)
    return list(groups.values())


def join_windows(
    trajectories: Sequence[FeatureTrajectory], inefficiency: Sequence[Array] | None = None
) -> JoinedWindows:
    """Return the weights of trajectories of one group, one after the other.

    Runs that none of the trajectories belongs to are left out.

    Parameters
    ----------
    inefficiency
        Statistical inefficiency of each frame's run, for each trajectory; None: 1.
    """
    windows = [t.windows for t in trajectories if t.windows is not None]
    present, run = np.unique(
        np.concatenate([np.full(len(w.reduced), w.index) for w in windows]), return_inverse=True
    )
    reduced = np.concatenate([w.reduced for w in windows])[:, present]
    g = np.ones(len(run)) if inefficiency is None else np.concatenate(list(inefficiency))
    return JoinedWindows(reduced, run.astype(np.int64), g)
