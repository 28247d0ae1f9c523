"""Trajectories that a user has already, as the first round of a run.

They stay where they are (the run links to them) and are read in pieces. Afterwards everything works as for a run of
our own: train, generate, observe, report, and further rounds that are biased along what was learned from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pandas as pd
from numpy.typing import NDArray
from openmm import unit
from rich.progress import Progress

from latf_openmm.config import RunConfig, check, check_possible, dump_config
from latf_openmm.data.walkers import read_trajectory
from latf_openmm.errors import ConfigError, DataError, first_line
from latf_openmm.md.walker_group import find_platform
from latf_openmm.periodic import boxes_of
from latf_openmm.progress import bar
from latf_openmm.run_folder import CONFIG, RunFolder
from latf_openmm.schema import start_record
from latf_openmm.storage import check_output, whole_folder, write_json, write_manifest, write_text
from latf_openmm.units import check_temperature
from latf_openmm.workflow import IMPORTED, run_loop

Array = NDArray[np.float64]
_FORMATS = (".dcd", ".xtc", ".trr", ".nc")
_FEWEST = 10


@dataclass(frozen=True)
class OwnTrajectory:
    """One continuous trajectory at one temperature.

    Parameters
    ----------
    path
        DCD, XTC, TRR or NetCDF file with all atoms of the system, a frame every `simulation.frame_interval` steps.
    temperature
        In the scale of the system.
    table
        CSV or Parquet file with one row for each frame: `potential_energy` (without the bias) and, where it was
        biased, `bias_energy` and `bias_offset` [kJ/mol]. None: energies are computed from the positions, and there was
        no bias.
    """

    path: Path
    temperature: float
    table: Path | None = None


def import_run(
    config: RunConfig, trajectories: Sequence[OwnTrajectory], path: Path, progress: Progress | None = None
) -> RunFolder:
    """Make a run whose first round are these trajectories; train and generate as after any round.

    Parameters
    ----------
    config
        Its system has the trajectories' atoms; the loop goes on from it.
    path
        Folder of the run; must not exist.

    Raises
    ------
    ConfigError
        If the folder is there, a file is missing, or a temperature is not positive.
    DataError
        If a trajectory or table cannot be read, or does not fit the system.
    """
    check(config)
    check_output(path, folder=True, new="a run is never overwritten")
    _check(config, trajectories)
    topology = RunFolder(path, config).topology()
    tables = [_table(config, one, topology, progress) for one in trajectories]
    with whole_folder(path, manifest=False) as temporary:
        folder = RunFolder(temporary, config).round(0).simulation
        numbers: dict[float, int] = {}
        for one, table in zip(trajectories, tables, strict=True):
            number = numbers[one.temperature] = numbers.get(one.temperature, -1) + 1
            segment = folder / f"T{one.temperature:g}_w{number:03d}" / "segment_0000"
            segment.mkdir(parents=True)
            (segment / f"walker_{number:03d}{one.path.suffix.lower()}").symlink_to(one.path.resolve())
            table.insert(0, "walker", number)
            table.to_parquet(segment / "frames.parquet", index=False)
            write_manifest(segment)
        record = [{"path": str(t.path.resolve()), "temperature": t.temperature} for t in trajectories]
        write_json(folder / IMPORTED, record)
        start_record(temporary)
        write_text(temporary / CONFIG, dump_config(config))
    return run_loop(
        config.model_copy(update={"loop": config.loop.model_copy(update={"rounds": 1})}), path, progress
    )


def _check(config: RunConfig, trajectories: Sequence[OwnTrajectory]) -> None:
    if not trajectories:
        raise ConfigError("--trajectory: there are none")
    for one in trajectories:
        if not one.path.is_file():
            raise ConfigError(f"--trajectory: {one.path}: no such file")
        if one.path.suffix.lower() not in _FORMATS:
            raise ConfigError(
                f"--trajectory: {one.path}: expected a file {', '.join(_FORMATS)}, got {one.path.suffix!r}"
            )
        check_temperature("--temperature", one.temperature)
        check_possible("--temperature", one.temperature, config.system.scale)
        if one.table is not None and not one.table.is_file():
            raise ConfigError(f"--table: {one.table}: no such file")


def _table(
    config: RunConfig, one: OwnTrajectory, topology: mdtraj.Topology, progress: Progress | None
) -> pd.DataFrame:
    """One row for each frame, as a stage writes it."""
    energies, n_frames = [], 0
    context = _context(config) if one.table is None else None
    with bar(progress, f"read {one.path.name}", 1) as advance:
        for piece in read_trajectory(one.path, topology):
            n_frames += piece.n_frames
            if not np.isfinite(piece.xyz).all():
                raise DataError(f"{one.path}: positions are not finite before frame {n_frames}")
            if context is not None:
                energies.append(_energies(context, piece))
            advance(0, f"{n_frames} frames")
    if n_frames < _FEWEST:
        raise DataError(f"{one.path}: {n_frames} frames; expected {_FEWEST} or more")
    simulation = config.simulation
    step = (np.arange(n_frames) + 1) * simulation.frame_interval
    columns = {
        "frame": np.arange(n_frames),
        "step": step,
        "time_ps": step * simulation.timestep,
        "temperature": np.full(n_frames, one.temperature),
    }
    if one.table is None:
        own = {"potential_energy": np.concatenate(energies)}
    else:
        own = _read_table(one.table, n_frames, one.path)
    zero = np.zeros(n_frames)
    return pd.DataFrame({**columns, "bias_energy": zero, "bias_offset": zero, **own})


def _read_table(path: Path, n_frames: int, trajectory: Path) -> dict[str, Array]:
    try:
        table = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_csv(path)
    except Exception as error:
        raise DataError(f"--table: {path} cannot be read ({first_line(error)})") from error
    if "potential_energy" not in table:
        raise DataError(
            f"--table: {path}: the column potential_energy is missing; it has {', '.join(table.columns)}"
        )
    if len(table) != n_frames:
        raise DataError(f"--table: {path}: {len(table)} rows, {trajectory} has {n_frames} frames")
    found = {}
    for name in ("potential_energy", "bias_energy", "bias_offset"):
        if name in table:
            values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
            if not np.isfinite(values).all():
                row = int(np.flatnonzero(~np.isfinite(values))[0])
                raise DataError(f"--table: {path}: {name} is not a number in row {row}")
            found[name] = values
    return found


def _context(config: RunConfig) -> openmm.Context:
    platform = find_platform(config.simulation.platform or config.system.platform)
    return openmm.Context(config.system.build(1).system, openmm.VerletIntegrator(0.001), platform)


def _energies(context: openmm.Context, piece: mdtraj.Trajectory) -> Array:
    found = np.empty(piece.n_frames)
    boxes = boxes_of(piece)
    for i, xyz in enumerate(piece.xyz):
        if boxes is not None:
            context.setPeriodicBoxVectors(*boxes[i])
        context.setPositions(xyz.astype(np.float64))
        energy = context.getState(energy=True).getPotentialEnergy()
        found[i] = energy.value_in_unit(unit.kilojoule_per_mole)
    return found
