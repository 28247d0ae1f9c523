"""DCD, the format of CHARMM, NAMD and OpenMM: single precision, boxes as lengths and angles."""

from pathlib import Path

import mdtraj
from mdtraj.formats import DCDTrajectoryFile

from latf_openmm.frames.formats.base import TrajectoryFormat
from latf_openmm.frames.mdtraj_files import without_stdout

_TITLE = 100
"""Where the two lines of 80 characters are in a file."""


class Dcd(TrajectoryFormat):
    """DCD."""

    kind = "dcd"

    def write(self, trajectory: mdtraj.Trajectory, name: str) -> None:
        """Write a trajectory; MDTraj puts the time of writing into the title and does not see a full disk."""
        trajectory.save_dcd(name)
        with without_stdout(), DCDTrajectoryFile(name) as file:
            written = len(file)
        if written != trajectory.n_frames:
            raise OSError(f"{written} of {trajectory.n_frames} frames were")
        with Path(name).open("r+b") as title:
            title.seek(_TITLE)
            title.write(b"Created by latf-openmm".ljust(2 * 80, b"\0"))
