"""What a simulation stage left on disk: the frames of each walker, and their tables."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mdtraj
import numpy as np
import pandas as pd
from mdtraj.formats import DCDTrajectoryFile
from numpy.typing import NDArray

from latf_openmm.errors import DataError, first_line
from latf_openmm.storage import check_file, checked_record, listed_files
from latf_openmm.units import temperature_name

_DCD_TITLE = 100
"""Where the two lines of 80 characters are in a DCD file."""

CHUNK = 2000
"""Frames of a trajectory that are in memory at a time."""


@dataclass(frozen=True)
class WalkerFrames:
    """What one walker of a stage left: where its frames are, and their table.

    Attributes
    ----------
    run
        Name of the stage and temperature, the same for walkers that share bias and temperature.
    walker, temperature
        Its number, and its temperature.
    table
        One row for each frame: step, time_ps, potential_energy, bias_energy, bias_offset, z0, ...
    files
        Trajectory files, in order.
    """

    run: str
    walker: int
    temperature: float
    table: pd.DataFrame
    files: tuple[Path, ...]

    def log_weights(self, kT: float) -> NDArray[np.float64]:
        """Logarithms of the weights that undo the bias, (V - offset)/kT at each frame's own time; (n_frames,)."""
        bias = self.table["bias_energy"].to_numpy()
        if "bias_offset" in self.table:  # tables of earlier versions have static biases only
            bias = bias - self.table["bias_offset"].to_numpy()
        return np.asarray(bias / kT)

    def chunks(self, topology: mdtraj.Topology, frames: int = CHUNK) -> Iterator[mdtraj.Trajectory]:
        """Read the positions of all frames in order, at most `frames` at a time.

        Raises
        ------
        DataError
            If a file cannot be read or was changed, or does not have the frames of the table beside it.
        """
        counts = []
        for path in self.files:
            counts.append(0)
            check_file(path)
            for piece in read_trajectory(path, topology, frames):
                counts[-1] += piece.n_frames
                yield piece
        if sum(counts) != len(self.table):
            for path, count in zip(self.files, counts, strict=True):
                rows = int((_read_table(path.parent)["walker"] == self.walker).sum())
                if count != rows:
                    raise DataError(f"{path}: {count} frames, the table beside it has {rows}")

    def load(self, topology: mdtraj.Topology) -> mdtraj.Trajectory:
        """Read the positions of all frames."""
        parts = list(self.chunks(topology))
        return parts[0] if len(parts) == 1 else mdtraj.join(parts, check_topology=False)


def _read_table(segment: Path) -> pd.DataFrame:
    path = segment / "frames.parquet"
    check_file(path)
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise DataError(f"{path}: the table cannot be read ({error})") from error


def _trajectory(segment: Path, walker: int) -> Path:
    found = sorted(segment.glob(f"walker_{walker:03d}.*"))
    if not found:
        raise DataError(f"{segment}: the trajectory of walker {walker} is missing (walker_{walker:03d}.*)")
    return found[0]


def read_trajectory(
    path: Path, topology: mdtraj.Topology, frames: int = CHUNK
) -> Iterator[mdtraj.Trajectory]:
    """Read a trajectory file in order, at most `frames` frames at a time.

    Raises
    ------
    DataError
        If it cannot be read to its end, or has other atoms than the topology.
    """
    try:
        with ascii_path(path) as name:
            with _without_stdout():
                file = mdtraj.open(name)
            with file:
                while (piece := file.read_as_traj(topology, n_frames=frames)).n_frames:
                    yield piece
    except Exception as error:
        reason = first_line(error)
        if "xyz must be shape" in reason:
            reason = f"it has other atoms than the topology, which has {topology.n_atoms}"
        raise DataError(f"{path}: the trajectory cannot be read ({reason})") from error


def write_trajectory(trajectory: mdtraj.Trajectory, path: Path, kind: str = "") -> None:
    """Write a trajectory; the same frames are always the same bytes.

    Parameters
    ----------
    kind
        Format, such as "dcd"; default: that of the file's name.

    Raises
    ------
    DataError
        If it cannot be written whole.
    """
    kind = kind or path.suffix.removeprefix(".")
    try:
        with ascii_path(path) as name:
            getattr(trajectory, f"save_{kind}")(name)
            if kind == "dcd" and (written := _frames_in(name)) != trajectory.n_frames:  # MDTraj does not look
                raise OSError(f"{written} of {trajectory.n_frames} frames were")
    except Exception as error:  # MDTraj has several, and fails as it names them
        raise DataError(f"{path}: cannot be written ({first_line(error)}); is the disk full?") from error
    if kind == "dcd":
        with path.open("r+b") as file:  # MDTraj puts the time of writing there
            file.seek(_DCD_TITLE)
            file.write(b"Created by latf-openmm".ljust(2 * 80, b"\0"))


def _frames_in(name: str) -> int:
    with _without_stdout(), DCDTrajectoryFile(name) as file:
        return len(file)


@contextmanager
def ascii_path(path: Path) -> Iterator[str]:
    """Yield a name for a file that MDTraj's C code can open: it takes ASCII only."""
    if str(path).isascii():
        yield str(path)
        return
    with TemporaryDirectory(prefix="latf_") as folder:
        link = Path(folder) / f"file{path.suffix}"
        link.symlink_to(path.absolute())
        yield str(link)


@contextmanager
def _without_stdout() -> Iterator[None]:
    """Silence the remarks MDTraj's DCD reader prints from C for every file."""
    sys.stdout.flush()
    keep = os.dup(1)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(keep, 1)
        os.close(keep)


def check_segments(record: Path, stage: Path) -> None:
    """Raise `DataError` where the segments of a stage are not those that the record of what it belongs to lists."""
    checked_record(record)
    listed = {
        (record.parent / name).parent
        for name in listed_files(record)
        if (record.parent / name).parent.name.startswith("segment_")
    }
    present = {path for path in stage.glob("T*/segment_*") if path.suffix == ""}
    for path in sorted(listed - present):
        raise DataError(f"{path}: missing; expected a complete segment, which {record} lists")
    for path in sorted(present - listed):
        raise DataError(f"{path}: not expected; {record} does not list it")


def read_stage(folder: Path) -> list[WalkerFrames]:
    """Return the walkers of a stage, with the tables of their complete segments.

    Raises
    ------
    DataError
        If the folder holds no complete segment, or a file of one is missing or damaged.
    """
    walkers = []
    for group in sorted(path for path in folder.glob("T*") if path.is_dir()):
        segments = sorted(path for path in group.glob("segment_*") if path.suffix == "")
        if not segments:
            continue
        table = pd.concat([_read_table(segment) for segment in segments])
        for walker, rows in table.groupby("walker", sort=True):
            number = int(str(walker))
            files = [_trajectory(segment, number) for segment in segments]
            temperature = float(rows["temperature"].iloc[0])
            walkers.append(
                WalkerFrames(
                    f"{folder.parent.name}/{temperature_name(temperature)}",
                    number,
                    temperature,
                    rows.reset_index(drop=True),
                    tuple(files),
                )
            )
    if not walkers:
        raise DataError(f"{folder}: no complete segment of a simulation here")
    return walkers
