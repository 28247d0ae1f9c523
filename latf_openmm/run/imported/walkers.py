"""The first round of a run made of imported trajectories, as it is on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latf_openmm.frames.walkers import FRAMES, WINDOW
from latf_openmm.run.config import RunConfig, dump_config
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.imported.frames import ImportedFrames
from latf_openmm.run.imported.runs import RunsAtTemperature
from latf_openmm.run.rounds import IMPORTED
from latf_openmm.run.schema import add_record, start_record
from latf_openmm.storage import CONFIG, atomic_folder, write_json, write_manifest, write_text
from latf_openmm.systems import system_files
from latf_openmm.units import temperature_name


def write_imported(
    config: RunConfig, frames: Sequence[ImportedFrames], runs: Sequence[RunsAtTemperature], path: Path
) -> None:
    """Write the folder of the run: a walker for each trajectory and temperature, with links to its files."""
    with atomic_folder(path, manifest=False) as temporary:
        folder = RunFolder(temporary, config).round(0).simulation
        numbers: dict[str, int] = {}
        walkers: dict[int, list[dict[str, Any]]] = {}
        for at in runs:
            for index, rows in at.rows.items():
                label = temperature_name(at.temperature)
                number = numbers[label] = numbers.get(label, -1) + 1
                group = folder / f"{label}_w{number:03d}"
                files = _write_walker(group, number, frames[index], at, index, rows)
                walkers.setdefault(index, []).append(
                    {
                        "folder": group.name,
                        "walker": number,
                        "temperature": at.temperature,
                        "files": files,
                    }
                )
        record = [_record(trajectory, walkers[index]) for index, trajectory in enumerate(frames)]
        write_json(folder / IMPORTED, record)
        start_record(temporary, dump_config(config), system_files(config.system))
        add_record(temporary, folder / IMPORTED)
        write_text(temporary / CONFIG, dump_config(config))


def _record(trajectory: ImportedFrames, walkers: list[dict[str, Any]]) -> dict[str, Any]:
    """Files given for a trajectory, and the walkers made of them."""
    source = trajectory.source
    return {
        "paths": [str(file.path.resolve()) for file in trajectory.files],
        "temperature": source.temperature,
        "tables": [str(path.resolve()) for path in source.tables],
        "run": source.run,
        "bias": source.bias,
        "frames": sum(file.n_frames for file in trajectory.files),
        "kept": trajectory.n_frames,
        "walkers": walkers,
    }


def _write_walker(
    group: Path,
    number: int,
    trajectory: ImportedFrames,
    at: RunsAtTemperature,
    index: int,
    rows: NDArray[np.int64],
) -> list[int]:
    """Write the segments of one walker, one for each file with frames of it; return numbers of these files."""
    table = _table(trajectory, at, index, rows, number)
    starts = np.cumsum([0, *(file.n_frames for file in trajectory.files)])
    file_of = np.searchsorted(starts, trajectory.timeline.kept[rows], side="right") - 1
    chosen = np.unique(file_of)
    complete = len(rows) == starts[-1]
    for segment_number, file_number in enumerate(chosen):
        file = trajectory.files[file_number]
        segment = group / f"segment_{segment_number:04d}"
        segment.mkdir(parents=True)
        (segment / f"walker_{number:03d}{file.path.suffix.lower()}").symlink_to(file.path.resolve())
        part = table[file_of == file_number].copy()
        if not complete:
            part["file_frame"] = trajectory.timeline.kept[rows][file_of == file_number] - starts[file_number]
        part.to_parquet(segment / FRAMES, index=False)
        write_manifest(segment)
    return [int(number) for number in chosen]


def _table(
    trajectory: ImportedFrames, at: RunsAtTemperature, index: int, rows: NDArray[np.int64], number: int
) -> pd.DataFrame:
    """One row for each frame, as a stage writes it."""
    step = trajectory.timeline.step[rows]
    stretch = trajectory.stretches()[rows]
    table = pd.DataFrame(
        {
            "walker": number,
            "frame": np.arange(len(rows)),
            "step": step,
            "time_ps": step * trajectory.timestep,
            "temperature": at.temperature,
            "potential_energy": trajectory.energy[rows],
            "bias_energy": trajectory.bias[rows],
            "bias_offset": trajectory.offset[rows],
        }
    )
    if trajectory.pressure_volume is not None:
        table["pressure_volume"] = trajectory.pressure_volume[rows]
    if trajectory.recorded is not None:
        table = table.assign(**{n: values[rows] for n, values in trajectory.recorded.columns().items()})
    if stretch[0] != stretch[-1]:
        table["stretch"] = stretch
    if len(at.runs) > 1:
        table["run"] = f"run {at.run_of(index)}"
    if at.bias:
        for run in range(len(at.runs)):
            table[f"{WINDOW}{run}"] = at.bias[index][:, run]
    return table
