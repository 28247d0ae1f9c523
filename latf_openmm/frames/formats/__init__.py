"""Formats in which trajectories are written; one file for each."""

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import mdtraj

from latf_openmm.errors import DataError, first_line
from latf_openmm.frames.formats.base import TrajectoryFormat
from latf_openmm.frames.mdtraj_files import ascii_path

for _info in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_info.name}")

FORMATS = {cls.kind: cls() for cls in sorted(TrajectoryFormat.__subclasses__(), key=lambda cls: cls.kind)}
"""All formats by their names."""

if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal[tuple(FORMATS)]


def write_trajectory(trajectory: mdtraj.Trajectory, path: Path, kind: str = "") -> None:
    """Write a trajectory; the same frames are always the same bytes.

    Parameters
    ----------
    kind
        Format, such as "dcd"; default: that of the file's name.

    Raises
    ------
    DataError
        If it cannot be written completely.
    """
    kind = kind or path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise DataError(f"{path}: there is no format {kind!r}; expected one of {', '.join(FORMATS)}")
    try:
        with ascii_path(path) as name:
            FORMATS[kind].write(trajectory, name)
    except Exception as error:  # MDTraj has several, and fails as it names them
        raise DataError(f"{path}: cannot be written ({first_line(error)}); is the disk full?") from error


__all__ = ["FORMATS", "FormatName", "TrajectoryFormat", "write_trajectory"]
