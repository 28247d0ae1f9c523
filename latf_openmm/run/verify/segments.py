"""Checks of one segment: its table, its trajectories, and what the next segment starts from."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from latf_openmm.errors import DataError, first_line
from latf_openmm.frames.moves import MOVES
from latf_openmm.frames.walkers import FRAMES, read_trajectory
from latf_openmm.run.verify.findings import Findings
from latf_openmm.sampling.segments import BIAS_STATE, TEMPERING, read_checkpoint
from latf_openmm.sampling.tempering import AnyTempering
from latf_openmm.storage import damage
from latf_openmm.systems.trusted_xml import read_state

_WINDOWS = ("energy_recordings", "energy_mean", "energy_variance")
"""Columns of energies recorded around frames."""
_FINITE = ("potential_energy", "bias_energy", "bias_offset", "pressure_volume", *_WINDOWS)
"""Columns that have to be finite."""
_COLUMNS = ("walker", "frame", "step", "time_ps", "temperature", "potential_energy", "bias_energy")
"""Columns that every table of frames has."""


@dataclass(frozen=True)
class Segment:
    """Expected content of a segment.

    Attributes
    ----------
    folder
        The segment.
    walkers, suffix
        Of its trajectory files.
    temperatures
        Of each walker.
    frames
        Of each walker; None: as many as the table has.
    first
        Number of the first frame.
    interval, timestep
        Steps between frames, and their length [ps].
    members
        Walkers of a population that lie one after the other in one trajectory.
    others
        Files beside the table and the trajectories.
    imported
        Whether frames can be left out of its file, and times have gaps.
    ladder
        Temperatures that its walkers move among; empty: each keeps its own.
    recordings
        Energies recorded from a frame to the next; zero: none.
    tempering
        Moves between frames.
    """

    folder: Path
    walkers: range
    temperatures: tuple[float, ...]
    suffix: str
    frames: int | None
    interval: int
    timestep: float
    first: int = 0
    members: int = 1
    others: tuple[str, ...] = ()
    imported: bool = False
    ladder: tuple[float, ...] = ()
    recordings: int = 0
    tempering: AnyTempering | None = None

    @property
    def table(self) -> Path:
        """File of the table."""
        return self.folder / FRAMES

    def trajectory(self, walker: int) -> Path:
        """File of a walker's positions."""
        return self.folder / f"walker_{walker:03d}{self.suffix}"


def look_at_segment(segment: Segment, topology: mdtraj.Topology, findings: Findings) -> None:
    """Look at all files of one segment."""
    if findings.missing(segment.folder, "a complete segment"):
        return
    findings.counts["segments"] += 1
    counts = {
        walker: count
        for walker in segment.walkers
        if (count := _look_at_trajectory(segment.trajectory(walker), topology, findings)) is not None
    }
    table = (
        None
        if findings.missing(segment.table, "the table of the frames")
        else _read_frames(segment, findings)
    )
    if segment.frames is None and table is not None and len(table):
        first = int(table["frame"].min()) if segment.imported else 0
        segment = replace(segment, first=first, frames=int(table["frame"].max()) + 1 - first)
    if (
        table is not None
        and segment.frames is not None
        and (text := _wrong_rows(table, segment, segment.frames))
    ):
        findings.damage(segment.table, text)
    if segment.frames is not None:
        for walker, count in counts.items():
            if segment.imported and table is not None and "file_frame" in table:
                last = int(table["file_frame"].max())
                if last >= count:
                    findings.damage(
                        segment.trajectory(walker), f"{count} frames; expected {last + 1} or more"
                    )
            elif count != segment.frames:
                findings.damage(segment.trajectory(walker), f"{count} frames; expected {segment.frames}")
    for name in segment.others:
        if not findings.missing(segment.folder / name, "what the next segment starts from"):
            _look_at_restart(segment.folder / name, topology.n_atoms, findings)
    findings.hashes(segment.folder)


def _look_at_trajectory(path: Path, topology: mdtraj.Topology, findings: Findings) -> int | None:
    """Return the number of frames, None where they cannot be read."""
    if findings.missing(path, "the positions of a walker"):
        return None
    frames = 0
    try:
        for piece in read_trajectory(path, topology):
            bad = np.flatnonzero(~np.isfinite(piece.xyz).all(axis=(1, 2)))
            if len(bad):
                findings.damage(
                    path, f"positions of frame {frames + bad[0]} are not finite; expected numbers"
                )
            frames += piece.n_frames
    except DataError as error:
        findings.damage(path, str(error).removeprefix(f"{path}: "))
        return None
    findings.counts["frames"] += frames
    return frames


def _read_frames(segment: Segment, findings: Findings) -> pd.DataFrame | None:
    path = segment.table
    try:
        table = pd.read_parquet(path)
    except Exception as error:  # pyarrow has several
        findings.damage(path, f"cannot be read ({first_line(error)}); expected a table of frames")
        return None
    columns = (*_COLUMNS, *(_WINDOWS if segment.recordings else ()))
    if missing := [name for name in columns if name not in table]:
        findings.damage(path, f"columns {', '.join(missing)} are missing; expected {', '.join(columns)}")
        return None
    known = table["walker"].isin(segment.walkers)
    for temperature in segment.ladder or set(segment.temperatures):
        findings.frames[temperature] += int((known & (table["temperature"] == temperature)).sum())
    return table


def _wrong_rows(table: pd.DataFrame, segment: Segment, n_frames: int) -> str:
    """Return the first error in the rows of a table; empty where nothing is."""
    frame = segment.first + np.arange(n_frames)
    each = segment.first + np.arange(n_frames // segment.members)
    step = np.tile((each + 1) * segment.interval, segment.members)
    if segment.imported:  # gaps, and frames at another temperature
        given = table["step"].to_numpy(dtype=float)
        regular = (np.diff(given) > 0).all() and (np.mod(given, segment.interval) == 0).all()
        step = given if regular and len(given) == n_frames else step
    strangers = sorted(set(table["walker"]) - set(segment.walkers))
    if strangers:
        return f"rows of walker {strangers[0]}; expected walkers {_span(segment.walkers)}"
    for walker, temperature in zip(segment.walkers, segment.temperatures, strict=True):
        rows = table[table["walker"] == walker]
        if text := _gap(rows["frame"].to_numpy(), frame):
            return f"walker {walker}: {text}; expected frames {_span(frame)}, each once and in order"
        for name, expected in (("step", step), ("time_ps", step * segment.timestep)):
            off = np.flatnonzero(~np.isclose(rows[name].to_numpy(dtype=float), expected, rtol=1e-6))
            if len(off):
                place = f"walker {walker}, frame {frame[off[0]]}"
                return f"{place}: {name} is {rows[name].iloc[off[0]]:g}; expected {expected[off[0]]:g}"
        possible = segment.ladder or (temperature,)
        others = rows["temperature"][~rows["temperature"].isin(possible)]
        if len(others):
            asked = ", ".join(f"{t:g}" for t in possible)
            return f"temperature is {others.iloc[0]:g} in a row of walker {walker}; expected {asked}"
    latent = [name for name in map(str, table) if name.startswith("z") and name[1:].isdigit()]
    for name in [*(n for n in _FINITE if n in table), *latent]:
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float)
        if not np.isfinite(values).all():
            row = table.iloc[int(np.flatnonzero(~np.isfinite(values))[0])]
            place = f"walker {row['walker']:g}, frame {row['frame']:g}"
            return f"{place}: {name} is {row[name]}; expected a finite number"
    return _wrong_windows(table, segment)


def _wrong_windows(table: pd.DataFrame, segment: Segment) -> str:
    """Return the first error in energies recorded around frames; empty where nothing is, or nothing was recorded."""
    recordings, tempering = segment.recordings, segment.tempering
    if not recordings:
        return ""
    counts, frame = table["energy_recordings"], table["frame"]
    half = frame == frame.max()
    if tempering is not None:
        half |= (frame + 1).map(tempering.moves_before)
    expected = np.where(half, recordings // 2 + 1, recordings)
    off = np.flatnonzero((counts != expected) | (table["energy_variance"] < 0))
    if len(off) == 0:
        return ""
    row = table.iloc[int(off[0])]
    return (
        f"walker {row['walker']:g}, frame {row['frame']:g}: {row['energy_recordings']:g} energies recorded, "
        f"of variance {row['energy_variance']:g}; expected {expected[off[0]]}, of 0 or more"
    )


def _gap(numbers: NDArray[Any], expected: NDArray[np.int64]) -> str:
    """The first thing that is wrong with frame numbers; empty where nothing is."""
    values, counts = np.unique(numbers, return_counts=True)
    if (counts > 1).any():
        return f"frame {values[counts > 1][0]} is there {counts.max()} times"
    if len(lost := np.setdiff1d(expected, values)):
        return f"frame {lost[0]} is missing" + (f", and {len(lost) - 1} more" if len(lost) > 1 else "")
    if len(more := np.setdiff1d(values, expected)):
        return f"frame {more[0]} is there"
    off = np.flatnonzero(numbers != expected)
    return f"frame {numbers[off[0]]} is where {expected[off[0]]} should be" if len(off) else ""


def _look_at_restart(path: Path, n_atoms: int, findings: Findings) -> None:
    text = damage(path)
    if text:
        findings.damage(path, text)
    if text != "":  # not read unless it is what was written
        return
    try:
        if path.name == "checkpoint.bin":
            read_checkpoint(path)
        elif path.name == BIAS_STATE:
            torch.load(path, weights_only=True)["bias"]
        elif path.name == TEMPERING:
            json.loads(path.read_text(encoding="utf-8"))["replicas"]
        elif path.name == MOVES:
            pd.read_parquet(path)["accepted"]
        else:
            positions = read_state(path).getPositions(asNumpy=True)._value
            if len(positions) % n_atoms or not np.isfinite(positions).all():
                raise ValueError(
                    f"{len(positions)} positions, not all of them finite, or not of {n_atoms} atoms"
                )
    except Exception as error:  # each library has its own
        findings.damage(path, f"damaged ({first_line(error)}); expected what the next segment starts from")


def _span(numbers: range | NDArray[np.int64]) -> str:
    return f"{numbers[0]} to {numbers[-1]}"
