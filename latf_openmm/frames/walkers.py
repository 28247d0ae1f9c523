"""What a simulation stage left on disk: the frames of each walker, and their tables."""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latf_openmm.errors import DataError, first_line
from latf_openmm.frames.mdtraj_files import ascii_path, without_stdout
from latf_openmm.frames.trajectory import RecordedEnergies, WalkerPaths, WindowBias
from latf_openmm.periodic import normalise, standard_orientation
from latf_openmm.storage import MANIFEST, check_file, listed_files
from latf_openmm.units import temperature_name

CHUNK = 2000
"""Most frames of a trajectory that are in memory at a time."""
_ATOMS = 5_000_000
"""Most atoms of all these frames."""
_HDF5 = (".h5", ".hdf5")
"""File name endings of HDF5 trajectories."""
_WITH_VECTORS = (".xtc", ".trr")
"""Formats that keep the vectors of a box, which may be rotated; others keep lengths and angles."""

_MIN_ANGLE = 30.0
"""Of boxes [degrees]."""

FRAMES = "frames.parquet"
"""File of a segment with a row for each frame."""
WINDOW = "bias_of_run_"
"""Columns of a table with the bias of each run that is joined with others at its temperature [kJ/mol]."""


@dataclass(frozen=True)
class WalkerFrames:
    """Frames that one walker of a stage left: their files and their table.

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
    kept
        Frames of each file that belong to the walker, ascending; empty: all frames of all files.
    """

    run: str
    walker: int
    temperature: float
    table: pd.DataFrame
    files: tuple[Path, ...]
    kept: tuple[NDArray[np.int64], ...] = ()

    def log_weights(self, kT: float) -> NDArray[np.float64]:
        """Logarithms of the weights that undo the bias, (V - offset)/kT at each frame's own time; (n_frames,)."""
        bias = self.table["bias_energy"].to_numpy()
        if "bias_offset" in self.table:  # tables of earlier versions have static biases only
            bias = bias - self.table["bias_offset"].to_numpy()
        return np.asarray(bias / kT)

    def windows(self, kT: float) -> WindowBias | None:
        """Bias of each run that this one is joined with, at the frames; None where it is not joined with others."""
        names = [f"{WINDOW}{k}" for k in range(len(self.table.columns)) if f"{WINDOW}{k}" in self.table]
        if not names:
            return None
        group, _, run = self.run.rpartition("/run ")
        return WindowBias(group, int(run), self.table[names].to_numpy(dtype=np.float64) / kT)

    def energies(self) -> NDArray[np.float64]:
        """Potential energy of each frame without bias, at constant pressure U + pV, shape (n_frames,) [kJ/mol]."""
        energy = self.table["potential_energy"].to_numpy()
        return (
            energy + self.table["pressure_volume"].to_numpy() if "pressure_volume" in self.table else energy
        )

    def recorded_energies(self) -> RecordedEnergies | None:
        """Energies recorded around the frames; None where some frame has none."""
        names = ("energy_recordings", "energy_mean", "energy_variance")
        if not set(names) <= set(self.table):
            return None
        columns = [self.table[name].to_numpy(dtype=np.float64) for name in names]
        return RecordedEnergies(*columns) if np.isfinite(columns).all() else None

    def paths(self) -> WalkerPaths | None:
        """Which walkers the frames are of, where walkers move among temperatures."""
        if "replica" not in self.table:
            return None
        numbers = (self.table[name].to_numpy(np.int64) for name in ("replica", "frame"))
        return WalkerPaths(self.run.split("/")[0], *numbers)

    @property
    def breaks(self) -> tuple[int, ...]:
        """Frames that do not follow on the frame before them: of imported trajectories, and where walkers moved."""
        starts = np.zeros(max(0, len(self.table) - 1), dtype=bool)
        if "stretch" in self.table:
            starts |= np.diff(self.table["stretch"]) != 0
        if "replica" in self.table:
            starts |= (np.diff(self.table["replica"]) != 0) | (np.diff(self.table["frame"]) != 1)
        return tuple((np.flatnonzero(starts) + 1).tolist())

    def chunks(self, topology: mdtraj.Topology, frames: int = CHUNK) -> Iterator[mdtraj.Trajectory]:
        """Read the positions of all frames in order, at most `frames` at a time.

        Raises
        ------
        DataError
            If a file cannot be read or was changed, or does not have the frames of the table beside it.
        """
        counts = []
        for number, path in enumerate(self.files):
            counts.append(0)
            check_file(path)
            kept = self.kept[number] if self.kept else None
            for piece in _chosen(read_trajectory(path, topology, frames), kept):
                counts[-1] += piece.n_frames
                yield piece
        if sum(counts) != len(self.table):
            for path, count in zip(self.files, counts, strict=True):
                rows = int((read_table(path.with_name(FRAMES))["walker"] == self.walker).sum())
                if count != rows:
                    raise DataError(f"{path}: {count} frames, the table beside it has {rows}")

    def load(self, topology: mdtraj.Topology) -> mdtraj.Trajectory:
        """Read the positions of all frames."""
        parts = list(self.chunks(topology))
        return parts[0] if len(parts) == 1 else mdtraj.join(parts, check_topology=False)


def _chosen(
    pieces: Iterator[mdtraj.Trajectory], kept: NDArray[np.int64] | None
) -> Iterator[mdtraj.Trajectory]:
    """Pieces of a file with the frames `kept` alone; None: all."""
    first = 0
    for piece in pieces:
        if kept is None:
            yield piece
        else:
            frames = kept[(kept >= first) & (kept < first + piece.n_frames)] - first
            first += piece.n_frames
            if len(frames):
                yield piece.slice(frames, copy=False)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of a run.

    Raises
    ------
    DataError
        If it is not what was written, or cannot be read.
    """
    check_file(path)
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise DataError(f"{path}: the table cannot be read ({first_line(error)})") from error


def _trajectory(segment: Path, walker: int) -> Path:
    """Return the file with the positions of a walker, which its segment lists."""
    name = f"walker_{walker:03d}."
    listed = [segment / file for file in listed_files(segment / MANIFEST) if file.startswith(name)]
    if not listed:
        raise DataError(f"{segment}: the trajectory of walker {walker} is missing ({name}*)")
    if not listed[0].is_file():
        check_file(listed[0])
    return listed[0]


def read_trajectory(
    path: Path, topology: mdtraj.Topology, frames: int = CHUNK
) -> Iterator[mdtraj.Trajectory]:
    """Read a trajectory file in order, at most `frames` frames at a time.

    Boxes are those that the System sees, in reduced form, or None; molecules are whole (`latf_openmm.periodic`).

    Raises
    ------
    DataError
        If it cannot be read to its end, has other atoms than the topology, or its boxes are not those of the System.
    """
    frames, first = max(1, min(frames, _ATOMS // max(1, topology.n_atoms))), 0
    try:
        with ascii_path(path) as name:
            with without_stdout():
                file = _opened(Path(name), topology)
            with file:
                while (piece := _read(file, path, topology, frames)).n_frames > 0:
                    yield normalise(piece, str(path), first)
                    first += piece.n_frames
    except DataError:
        raise
    except Exception as error:
        reason = first_line(error)
        if "xyz must be shape" in reason:
            reason = f"it has other atoms than the topology, which has {topology.n_atoms}"
        raise DataError(f"{path}: the trajectory cannot be read ({reason})") from error


def _opened(path: Path, topology: mdtraj.Topology) -> Any:
    """Return MDTraj's reader of a file."""
    if path.suffix.lower() in _HDF5 and importlib.util.find_spec("tables") is None:
        raise DataError(f"{path}: MDTraj needs PyTables for HDF5: pip install tables")
    if path.suffix.lower() == ".mdcrd":  # text without the number of atoms
        return mdtraj.open(str(path), n_atoms=topology.n_atoms)
    return mdtraj.open(str(path))


def _read(file: Any, path: Path, topology: mdtraj.Topology, frames: int) -> mdtraj.Trajectory:
    """At most `frames` more frames of an open file, in the orientation in which MDTraj keeps boxes."""
    if path.suffix.lower() in _HDF5:
        return _read_hdf5(file, topology, frames)
    if path.suffix.lower() not in _WITH_VECTORS:
        piece = file.read_as_traj(topology, n_frames=frames)
        return _of_matrices(piece) if path.suffix.lower() == ".dcd" else piece
    xyz, time, _, vectors, *_ = file.read(frames)
    if len(xyz) == 0:
        return mdtraj.Trajectory(np.empty((0, topology.n_atoms, 3), np.float32), topology)
    boxes = None
    if vectors is not None:  # a file without a box
        xyz, boxes = standard_orientation(xyz, vectors)
    piece = mdtraj.Trajectory(xyz, topology, time)
    piece.unitcell_vectors = boxes
    return piece


def _of_matrices(piece: mdtraj.Trajectory) -> mdtraj.Trajectory:
    """Frames of a DCD file, in which CHARMM writes the box as a symmetric matrix where others write angles.

    Read as angles [degrees], its elements off the diagonal [Angstrom] are negative or too small.
    """
    lengths, angles = piece.unitcell_lengths, piece.unitcell_angles
    if angles is None or not ((angles < _MIN_ANGLE).any() or (angles > 180.0 - _MIN_ANGLE).any()):
        return piece
    a, b, c = lengths.T.astype(np.float64)
    yz, xz, xy = 0.1 * angles.T.astype(np.float64)
    matrices = np.moveaxis(np.array([[a, xy, xz], [xy, b, yz], [xz, yz, c]]), -1, 0)
    if not (np.linalg.eigvalsh(matrices) > 0).all():
        return piece
    xyz, boxes = standard_orientation(piece.xyz, matrices)
    result = mdtraj.Trajectory(xyz, piece.topology, piece.time)
    result.unitcell_vectors = boxes
    return result


def _read_hdf5(file: Any, topology: mdtraj.Topology, frames: int) -> mdtraj.Trajectory:
    """Read the next frames of a file that has a topology of its own."""
    if file.tell() >= len(file):
        return mdtraj.Trajectory(np.empty((0, topology.n_atoms, 3), np.float32), topology)
    piece = file.read_as_traj(n_frames=frames)
    elements = [[atom.element for atom in each.atoms] for each in (piece.topology, topology)]
    if len(elements[0]) == len(elements[1]) and elements[0] != elements[1]:
        atom = next(i for i, pair in enumerate(zip(*elements, strict=True)) if pair[0] != pair[1])
        raise ValueError(
            f"its atom {atom} is {piece.topology.atom(atom)}, expected {topology.atom(atom)}: another order of atoms"
        )
    result = mdtraj.Trajectory(piece.xyz, topology, piece.time)
    result.unitcell_lengths, result.unitcell_angles = piece.unitcell_lengths, piece.unitcell_angles
    return result


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
        tables = [read_table(segment / FRAMES) for segment in segments]
        numbers = sorted({int(number) for table in tables for number in table["walker"].unique()})
        walkers += [walker for number in numbers for walker in _walkers(folder, segments, tables, number)]
    if not walkers:
        raise DataError(f"{folder}: no complete segment of a simulation here")
    return walkers


def _walkers(
    folder: Path, segments: Sequence[Path], tables: Sequence[pd.DataFrame], number: int
) -> Iterator[WalkerFrames]:
    """Frames of one walker of a stage, by its number: one for each temperature at which it was."""
    parts = [table[table["walker"] == number] for table in tables]
    rows = pd.concat(parts).reset_index(drop=True)
    files = tuple(_trajectory(segment, number) for segment in segments)
    temperatures = rows["temperature"].unique()
    for temperature in sorted(map(float, temperatures)):
        run = f"{folder.parent.name}/{temperature_name(temperature)}"
        if "run" in rows:  # imported: runs at one temperature can have biases of their own
            run = f"{run}/{rows['run'].iloc[0]}"
        kept: tuple[NDArray[np.int64], ...] = ()
        if "file_frame" in rows:
            kept = tuple(part["file_frame"].to_numpy(np.int64) for part in parts)
        elif len(temperatures) > 1:
            kept = tuple(np.flatnonzero(part["temperature"] == temperature) for part in parts)
        at = rows[rows["temperature"] == temperature].reset_index(drop=True)
        yield WalkerFrames(run, number, temperature, at, files, kept)
