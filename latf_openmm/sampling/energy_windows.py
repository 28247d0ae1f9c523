"""Potential energies recorded more often than frames: their mean and variance around each frame."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latf_openmm.sampling.dynamics import DynamicsSettings

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EnergyWindows:
    """Potential energies around frames, without bias; at constant pressure U + pV.

    Attributes
    ----------
    counts
        Recordings around each frame, shape (n_frames,).
    means, variances
        Of them, shape (n_frames, n_copies) [kJ/mol], [kJ^2/mol^2].
    """

    counts: NDArray[np.int64]
    means: Array
    variances: Array

    def columns(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """Columns of a segment's table, walkers one after the other."""
        return {
            "energy_recordings": np.tile(self.counts, self.means.shape[1]),
            "energy_mean": self.means.T.ravel(),
            "energy_variance": self.variances.T.ravel(),
        }


class EnergyRecorder:
    """Steps from frame to frame and records potential energies on the way.

    Of the k recordings between frames, the last of which is at a frame, k // 2 + 1 belong to the frame that follows and
    the others to the one before, so windows reach half-way to the neighbours and every recording has a part in one.
    Those before the middle to the frame before a segment are left out: no segment needs another one. So are those
    before the middle after a move, which are of another walker, or at another temperature, than the frame before.

    Parameters
    ----------
    dynamics
        Steps between frames and between recordings; without the latter nothing is recorded.
    energies
        U + pV of each walker now, without bias, shape (n_copies,) [kJ/mol]; with several copies in a Context each
        recording evaluates every one.
    """

    def __init__(self, dynamics: DynamicsSettings, energies: Callable[[], Array]) -> None:
        self.energies = energies
        self.interval = dynamics.energy_interval or dynamics.frame_interval
        self.recordings = dynamics.frame_interval // self.interval
        self.records = dynamics.energy_interval is not None
        self._begun = False
        self._window: list[Array] = []
        self._closed: list[tuple[int, Array, Array]] = []

    def advance(self, step: Callable[[int], None], slower: int, moved: bool = False) -> None:
        """Go to the next frame.

        Parameters
        ----------
        step
            Takes so many steps.
        slower
            Steps in place of one.
        moved
            Whether walkers have moved since the last frame.
        """
        if moved:
            self._close()
            self._begun = False
        for number in range(self.recordings):
            if number == (self.recordings - 1) // 2:
                self._close()
            step(self.interval * slower)
            if self.records:
                self._window.append(self.energies())

    def windows(self) -> EnergyWindows | None:
        """Return what was recorded around all frames; None where nothing was to be."""
        if not self.records:
            return None
        self._close()
        counts, means, variances = (np.array(part) for part in zip(*self._closed, strict=True))
        return EnergyWindows(counts, means, variances)

    def _close(self) -> None:
        """End the window of a frame; the first one ends what is before the first frame's."""
        if self._begun and self._window:
            values = np.array(self._window)
            self._closed.append((len(values), values.mean(axis=0), values.var(axis=0)))
        self._begun, self._window = True, []
