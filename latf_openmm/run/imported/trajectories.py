"""What a user gives, and one reading of the files: frames, times, volumes, a few frames for the checks."""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mdtraj
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from latf_openmm.errors import ConfigError, DataError
from latf_openmm.frames.walkers import read_trajectory
from latf_openmm.progress import bar
from latf_openmm.run.imported.atoms import explain_atoms
from latf_openmm.run.imported.complete import check_frames, check_netcdf, check_number

Array = NDArray[np.float64]
Evaluate = Callable[[mdtraj.Trajectory], Array]

FORMATS = (".dcd", ".xtc", ".trr", ".nc", ".netcdf", ".ncdf", ".h5", ".hdf5", ".mdcrd")
"""File name ends of trajectories."""
_TIMED = (".xtc", ".trr", ".nc", ".netcdf", ".ncdf", ".h5", ".hdf5")
"""Those of formats whose frames have times."""
_MAX_SAMPLES = 20
"""Frames of a file kept for checks, at most."""
_AKMA = 0.04888821
"""Unit of time in DCD headers [ps]."""


@dataclass(frozen=True)
class ImportedTrajectory:
    """One trajectory: of one walker of one run.

    Parameters
    ----------
    path
        File with all atoms of the system, a frame every `simulation.frame_interval` steps; or several, which continue
        each other.
    temperature
        In the scale of the system; None: the column `temperature` of the table has that of each frame.
    table
        File with a row for each frame, or more rows, of which those of the frames are found; or several. The column
        `potential_energy` is without bias, `bias_energy` and `bias_offset` where it was biased [kJ/mol]. None: energies
        are computed from the positions, and there was no bias.
    run
        Name of the run; trajectories of one run at one temperature share one bias. None: each biased one is a run.
    bias
        Bias of its run at any frame: ``FILE.py:FUNCTION``, a function of an MDTraj trajectory that returns
        energies (n_frames,) [kJ/mol]; or a YAML file with harmonic restraints of columns of the table. None: by the
        tables, or found from the frames.
    """

    path: Path | tuple[Path, ...]
    temperature: float | None = None
    table: Path | tuple[Path, ...] | None = None
    run: str | None = None
    bias: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Files of the positions."""
        return (self.path,) if isinstance(self.path, Path) else tuple(self.path)

    @property
    def tables(self) -> tuple[Path, ...]:
        """Files of the tables."""
        if self.table is None:
            return ()
        return (self.table,) if isinstance(self.table, Path) else tuple(self.table)

    @property
    def name(self) -> str:
        """Name for messages."""
        files = self.files
        return str(files[0]) if len(files) == 1 else f"{files[0]} to {files[-1].name}"


@dataclass
class ReadFile:
    """Content of a file that was read once.

    Attributes
    ----------
    times
        Of the frames [ps], shape (n_frames,); None where the file has none.
    volumes
        Of the boxes [nm^3], shape (n_frames,); None where there are none.
    energies
        Of all frames [kJ/mol], shape (n_frames,); None where they were not asked for.
    samples
        A few frames, evenly over the file, and their numbers.
    """

    path: Path
    n_frames: int = 0
    times: Array | None = None
    volumes: Array | None = None
    energies: Array | None = None
    sample_frames: list[int] = field(default_factory=list)
    samples: list[mdtraj.Trajectory] = field(default_factory=list)


def split_paths(text: str) -> tuple[Path, ...]:
    """Return the files that an argument names: one, several with commas between them, or a quoted pattern.

    A pattern's files are in the order of the numbers in their names.
    """
    if Path(text).exists():
        return (Path(text),)
    paths: list[Path] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        pattern = Path(part)
        matches = [str(path) for path in pattern.parent.glob(pattern.name)] if set(part) & set("*?[") else []
        paths += map(Path, sorted(matches, key=_natural) or [part])
    return tuple(paths) or (Path(text),)


def given_trajectories(
    trajectories: Sequence[str],
    temperatures: Sequence[float] | None = None,
    tables: Sequence[str] | None = None,
    runs: Sequence[str] | None = None,
    biases: Sequence[str] | None = None,
) -> list[ImportedTrajectory]:
    """Put together what a command line gives: one of each for each trajectory, or one bias for all.

    Raises
    ------
    ConfigError
        If numbers do not fit.
    """
    n = len(trajectories)
    biases = list(biases) * n if biases and len(biases) == 1 else biases
    options = {"--temperature": temperatures, "--table": tables, "--run": runs, "--bias": biases}
    for name, values in options.items():
        if values and len(values) != n:
            raise ConfigError(f"{name}: {len(values)} given for {n} --trajectory")
    return [
        ImportedTrajectory(
            split_paths(path),
            temperatures[i] if temperatures else None,
            split_paths(tables[i]) if tables else None,
            runs[i] if runs else None,
            biases[i] if biases else None,
        )
        for i, path in enumerate(trajectories)
    ]


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def check_given(trajectories: Sequence[ImportedTrajectory]) -> None:
    """Raise `ConfigError` where files are missing, or of another kind."""
    if not trajectories:
        raise ConfigError("--trajectory: there are none")
    for trajectory in trajectories:
        for path in trajectory.files:
            if not path.is_file():
                raise ConfigError(f"--trajectory: {path}: no such file")
            if path.suffix.lower() not in FORMATS:
                raise ConfigError(
                    f"--trajectory: {path}: expected a file {', '.join(FORMATS)}, got {path.suffix!r}"
                )
        for path in trajectory.tables:
            if not path.is_file():
                raise ConfigError(f"--table: {path}: no such file")


def read_file(
    path: Path, topology: mdtraj.Topology, evaluate: Evaluate | None, progress: Progress | None
) -> ReadFile:
    """Read a file once.

    Parameters
    ----------
    evaluate
        Energies of frames; None where they are not needed.

    Raises
    ------
    DataError
        If it cannot be read, is cut off, has other atoms, or a position is not a number.
    """
    check_frames(path)
    check_netcdf(path)
    result, stride = ReadFile(path), 1
    times: list[Array] = []
    volumes: list[Array] = []
    energies: list[Array] = []
    with bar(progress, f"read {path.name}", 1) as advance:
        for piece in _pieces(path, topology):
            if not np.isfinite(piece.xyz.sum()) and not np.isfinite(piece.xyz).all():  # the sum is faster
                raise DataError(
                    f"{path}: positions are not finite before frame {result.n_frames + piece.n_frames}"
                )
            stride = _take_samples(result, piece, stride)
            times.append(np.asarray(piece.time, dtype=np.float64))
            if piece.unitcell_lengths is not None:
                volumes.append(_volumes(piece.unitcell_lengths, piece.unitcell_angles))
            if evaluate is not None:
                energies.append(evaluate(piece))
            result.n_frames += piece.n_frames
            advance(0, f"{result.n_frames} frames")
    check_number(path, result.n_frames)
    if result.n_frames:
        result.times = _times(path, np.concatenate(times))
        result.volumes = np.concatenate(volumes) if volumes else None
        result.energies = np.concatenate(energies) if energies else None
    return result


def _pieces(path: Path, topology: mdtraj.Topology) -> Iterator[mdtraj.Trajectory]:
    try:
        yield from read_trajectory(path, topology)
    except DataError as error:
        raise DataError(explain_atoms(path, topology) or str(error)) from error


def _take_samples(result: ReadFile, piece: mdtraj.Trajectory, stride: int) -> int:
    """Keep every `stride`-th frame; where they become many, every second of them."""
    first = result.n_frames
    for frame in range(-(-first // stride) * stride, first + piece.n_frames, stride):
        if frame % stride == 0:  # it can have grown
            result.sample_frames.append(frame)
            result.samples.append(_copied(piece, frame - first))
        if len(result.samples) > _MAX_SAMPLES:
            del result.samples[1::2], result.sample_frames[1::2]
            stride *= 2
    return stride


def _copied(piece: mdtraj.Trajectory, frame: int) -> mdtraj.Trajectory:
    """One frame that holds no others in memory; the topology is shared."""
    sample = mdtraj.Trajectory(piece.xyz[frame : frame + 1].copy(), piece.topology)
    if piece.unitcell_lengths is not None:
        sample.unitcell_lengths = piece.unitcell_lengths[frame : frame + 1]
        sample.unitcell_angles = piece.unitcell_angles[frame : frame + 1]
    return sample


def _volumes(lengths: NDArray[np.floating], angles: NDArray[np.floating]) -> Array:
    """Volumes of boxes with these edges [nm] and angles [degrees], shapes (n_frames, 3)."""
    c = np.cos(np.deg2rad(angles.astype(np.float64)))
    root = np.sqrt(1 - (c**2).sum(axis=1) + 2 * c.prod(axis=1))
    return np.asarray(lengths.astype(np.float64).prod(axis=1) * root)


def _times(path: Path, times: Array) -> Array | None:
    """Times of the frames; None where the file says nothing of them."""
    if path.suffix.lower() in _TIMED:
        return times if len(times) > 1 and np.ptp(times) > 0 else None
    header = dcd_header(path) if path.suffix.lower() == ".dcd" else None
    if header is None or not header.openmm:
        return None
    return np.asarray(header.start + header.spacing * np.arange(len(times)), dtype=np.float64)


@dataclass(frozen=True)
class DcdHeader:
    """Times in the header of a DCD file [ps]; `openmm`: OpenMM wrote it, and they are right."""

    start: float
    spacing: float
    openmm: bool


def dcd_header(path: Path) -> DcdHeader | None:
    """Read the times of a DCD file; None where they are the defaults of a writer that knows none."""
    with path.open("rb") as file:
        data = file.read(180)
    if len(data) < 180 or data[4:8] != b"CORD":
        return None
    for order in "<>":
        first, interval = struct.unpack(f"{order}2i", data[12:20])
        (step,) = struct.unpack(f"{order}f", data[44:48])
        if struct.unpack(f"{order}i", data[:4])[0] == 84:
            break
    else:
        return None
    if not (interval > 0 and 1e-6 < step < 1e3) or (interval == 1 and step == 1.0):
        return None
    step *= _AKMA
    return DcdHeader(first * step, interval * step, b"OpenMM" in data[92:180])
