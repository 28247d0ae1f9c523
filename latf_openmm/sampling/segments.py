"""Frames of one segment: their energies and collective variables, their table, and the files of the segment."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pandas as pd
import torch
from numpy.typing import NDArray
from openmm import unit

from latf_openmm.bias.updater import BiasUpdater
from latf_openmm.frames.formats import write_trajectory
from latf_openmm.frames.walkers import FRAMES
from latf_openmm.sampling.dynamics import GroupTask
from latf_openmm.sampling.energy_windows import EnergyWindows
from latf_openmm.storage import atomic_folder

BIAS_STATE = "bias.pt"
"""File of a segment with the state of an adaptive bias at its end."""
TEMPERING = "tempering.json"
"""File of the first group of a set that says where tempering goes on after a segment."""


@dataclass(frozen=True)
class SegmentFrames:
    """Frames of a segment.

    Attributes
    ----------
    positions
        Shape (n_frames, n_copies, n_atoms, 3) [nm].
    boxes
        Shape (n_frames, 3, 3) [nm], or None.
    energies
        Potential energy without bias, shape (n_frames, n_copies) [kJ/mol].
    kinetic
        Kinetic temperature, shape (n_frames, n_copies) [K].
    temperatures, kelvin
        Of the thermostat, in the scale of the system and in K, shape (n_frames, n_copies).
    replicas
        Number of the walker in each place, shape (n_frames, n_copies); None where walkers do not change places.
    windows
        Energies recorded around frames, or None.
    z
        Collective variables, shape (n_frames, n_copies, dim), or None without a bias.
    bias, offsets
        Bias energy and its offset at the time of the frame, shape (n_frames, n_copies) [kJ/mol].
    """

    positions: NDArray[np.float64]
    boxes: NDArray[np.float64] | None
    energies: NDArray[np.float64]
    kinetic: NDArray[np.float64]
    temperatures: NDArray[np.float64]
    kelvin: NDArray[np.float64]
    replicas: NDArray[np.int64] | None = None
    windows: EnergyWindows | None = None
    z: NDArray[np.float64] | None = None
    bias: NDArray[np.float64] | None = None
    offsets: NDArray[np.float64] | None = None


@torch.no_grad()
def evaluate(
    cv: torch.nn.Module,
    bias: torch.nn.Module,
    positions: NDArray[np.float64],
    boxes: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Collective variables (n_frames, n_copies, dim) and static bias energies (n_frames, n_copies) [kJ/mol]."""
    n_frames, n_copies = positions.shape[:2]
    z, energy = [], []
    for copy in range(n_copies):
        for rows in np.array_split(np.arange(n_frames), max(1, n_frames // 4096)):
            box = torch.empty(0) if boxes is None else torch.from_numpy(boxes[rows])
            z.append(cv(torch.from_numpy(positions[rows, copy]), box))
            energy.append(bias(z[-1]))
    variables = torch.cat(z).reshape(n_copies, n_frames, -1).transpose(0, 1)
    return variables.numpy(), torch.cat(energy).reshape(n_copies, n_frames).T.numpy()


def copy_energies(context: openmm.Context, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Potential energy of each frame and copy, shape (n_frames, n_copies) [kJ/mol]."""
    energies = np.empty(positions.shape[:2])
    for index in np.ndindex(*energies.shape):
        context.setPositions(positions[index])
        energy = context.getState(energy=True).getPotentialEnergy()
        energies[index] = energy.value_in_unit(unit.kilojoule_per_mole)
    return energies


def segment_table(
    task: GroupTask,
    index: int,
    frames: SegmentFrames,
    pressure: float | None,
    steps: tuple[int, int],
    restarts: int,
) -> pd.DataFrame:
    """Return one row for each walker and frame, walkers one after the other.

    Parameters
    ----------
    task, index
        The group, and the number of its segment.
    frames
        Frames of the segment.
    pressure
        Of a barostat [kJ/mol/nm^3], or None.
    steps
        Steps in place of one in this segment, and from now on at least.
    restarts
        Restarts without a checkpoint so far.
    """
    n_frames, n_copies = frames.energies.shape
    dynamics, (slower, coolest) = task.dynamics, steps
    frame = np.arange(n_frames) + index * dynamics.segment_frames
    step = (frame + 1) * dynamics.frame_interval
    columns: dict[str, Any] = {
        "walker": np.repeat(task.first_walker + np.arange(n_copies), n_frames),
        "frame": np.tile(frame, n_copies),
        "step": np.tile(step, n_copies),
        "time_ps": np.tile(step * dynamics.timestep, n_copies),
        "temperature": frames.temperatures.T.ravel(),
        "kinetic_temperature": (frames.kinetic * frames.temperatures / frames.kelvin).T.ravel(),
        "timestep": np.full(n_frames * n_copies, dynamics.timestep / slower),
        "timestep_limit": np.full(n_frames * n_copies, dynamics.timestep / coolest),
        "restarts": np.full(n_frames * n_copies, restarts),
        "potential_energy": frames.energies.T.ravel(),
        "bias_energy": np.zeros(n_frames * n_copies),
        "bias_offset": np.zeros(n_frames * n_copies),
    }
    if frames.replicas is not None:
        columns["replica"] = frames.replicas.T.ravel()
    if pressure is not None and frames.boxes is not None:
        volume = np.linalg.det(frames.boxes)
        columns["pressure_volume"] = np.tile(pressure * volume, n_copies)
    if frames.windows is not None:
        columns |= frames.windows.columns()
    if frames.z is not None and frames.bias is not None and frames.offsets is not None:
        columns["bias_energy"] = frames.bias.T.ravel()
        columns["bias_offset"] = frames.offsets.T.ravel()
        columns |= {f"z{i}": frames.z[:, :, i].T.ravel() for i in range(frames.z.shape[2])}
    return pd.DataFrame(columns)


def write_segment(
    task: GroupTask,
    index: int,
    frames: SegmentFrames,
    table: pd.DataFrame,
    topology: mdtraj.Topology,
    context: openmm.Context,
    updater: BiasUpdater | None,
    more: Callable[[Path], None],
) -> None:
    """Write the folder of a segment, with the state of the Context and of an adaptive bias after it; then `more`."""
    with atomic_folder(task.segment(index)) as temporary:
        table.to_parquet(temporary / FRAMES, index=False)
        for copy in range(frames.positions.shape[1]):
            trajectory = mdtraj.Trajectory(frames.positions[:, copy], topology)
            if frames.boxes is not None:
                trajectory.unitcell_vectors = frames.boxes
            walker = task.first_walker + copy
            write_trajectory(trajectory, temporary / f"walker_{walker:03d}.{task.dynamics.trajectory}")
        _write_checkpoint(temporary / "checkpoint.bin", context.createCheckpoint())
        state = context.getState(positions=True, velocities=True, parameters=True)
        (temporary / "state.xml").write_text(openmm.XmlSerializer.serialize(state), encoding="utf-8")
        if updater is not None:
            updater.save(temporary / BIAS_STATE)
        more(temporary)


def _write_checkpoint(path: Path, data: bytes) -> None:
    """Write a checkpoint after its checksum: OpenMM loads a damaged one without an error."""
    path.write_bytes(zlib.crc32(data).to_bytes(4, "big") + data)


def read_checkpoint(path: Path) -> bytes:
    """Read what `_write_checkpoint` wrote; `OSError` if the file is missing or damaged."""
    content = path.read_bytes()
    if zlib.crc32(content[4:]) != int.from_bytes(content[:4], "big"):
        raise OSError(f"{path.name} is damaged")
    return content[4:]
