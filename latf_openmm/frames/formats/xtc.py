"""XTC, the compressed format of GROMACS: positions to 0.001 nm, the vectors of the box."""

import mdtraj

from latf_openmm.frames.formats.base import TrajectoryFormat


class Xtc(TrajectoryFormat):
    """XTC."""

    kind = "xtc"

    def write(self, trajectory: mdtraj.Trajectory, name: str) -> None:
        """Write a trajectory."""
        trajectory.save_xtc(name)
