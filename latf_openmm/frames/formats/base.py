"""Interface of the formats in which trajectories are written."""

from abc import ABC, abstractmethod
from typing import ClassVar

import mdtraj


class TrajectoryFormat(ABC):
    """One format; subclasses are found by their `kind`.

    Attributes
    ----------
    kind
        Name by which it is asked for, and the ending of file names.
    """

    kind: ClassVar[str]

    @abstractmethod
    def write(self, trajectory: mdtraj.Trajectory, name: str) -> None:
        """Write a trajectory with its boxes; the same frames are always the same bytes.

        Parameters
        ----------
        trajectory
            All frames of the file [nm].
        name
            Of the file, in ASCII.

        Raises
        ------
        Exception
            If not everything was written; it becomes a `DataError`.
        """
