"""The frames of one imported trajectory, as they are known after reading and checks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latf_openmm.run.imported.columns import FrameColumns
from latf_openmm.run.imported.times import Timeline
from latf_openmm.run.imported.trajectories import ImportedTrajectory, ReadFile
from latf_openmm.sampling.energy_windows import EnergyWindows

Array = NDArray[np.float64]


@dataclass
class ImportedFrames:
    """Frames that are kept, with a value of each for everything that is known.

    Attributes
    ----------
    source
        What the user gave.
    files
        In the order of time.
    timeline
        Which frames are kept.
    columns
        Of the tables.
    energy
        Potential energy without bias [kJ/mol], shape (n_frames,); zero where it is not known.
    bias, offset
        Of the frames' own run [kJ/mol], shape (n_frames,).
    temperature
        In the scale of the system, shape (n_frames,).
    timestep
        Of the simulation [ps].
    pressure_volume
        pV at constant pressure [kJ/mol], shape (n_frames,); else None.
    volume
        Of the periodic box, where it is constant [nm^3]; else None.
    recorded
        Energies around the frames, where they were recorded more often and there was no bias; else None.
    """

    source: ImportedTrajectory
    files: list[ReadFile]
    timeline: Timeline
    columns: FrameColumns
    energy: Array
    bias: Array
    offset: Array
    temperature: Array
    timestep: float
    pressure_volume: Array | None = None
    volume: float | None = None
    recorded: EnergyWindows | None = None

    @property
    def n_frames(self) -> int:
        """Number of frames that are kept."""
        return len(self.timeline.kept)

    @property
    def biased(self) -> bool:
        """Return whether a bias acted that was not constant."""
        return bool(np.ptp(self.bias) > 1e-9 or self.source.bias or self.columns.runs)

    @property
    def adaptive(self) -> bool:
        """Return whether its bias grew while it was recorded."""
        return bool(np.ptp(self.offset) > 1e-9)

    def temperatures(self) -> list[float]:
        """Temperatures of the frames, ascending."""
        return [float(t) for t in np.unique(self.temperature)]

    def stretches(self) -> NDArray[np.int64]:
        """Return a number a frame that changes where frames do not follow on each other, or change temperature."""
        changed = np.concatenate([[0], np.cumsum(np.diff(self.temperature) != 0)])
        pairs = np.stack([self.timeline.stretch, changed])
        return np.concatenate([[0], np.cumsum((np.diff(pairs, axis=1) != 0).any(axis=0))]).astype(np.int64)
