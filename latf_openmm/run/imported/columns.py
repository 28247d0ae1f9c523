"""What the columns of a trajectory's tables say of its frames."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.run.imported.tables import Table, joined_tables
from latf_openmm.run.imported.times import Timeline
from latf_openmm.run.imported.trajectories import ImportedTrajectory
from latf_openmm.sampling.stage import SimulationSettings

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

_QUIET = {
    *("step", "time", "frame", "walker", "speed", "density", "kinetic_energy", "total_energy", "progress"),
    *("time_remaining", "elapsed_time", "pressure_volume", "kinetic_temperature", "volume", "pressure"),
    *(
        "timestep_limit",
        "timestep",
        "potential_energy",
        "bias_energy",
        "bias_offset",
        "temperature",
        "conserved_en.",
    ),
}
"""Columns that are never reported as unknown, lower case."""
_FEW = 0.2
"""Different temperatures as a share of the frames up to which they are those of a thermostat."""
_BLOCKS = 10
"""Blocks for the error of the mean kinetic temperature."""
_HOTTER = 0.15
"""Relative difference of the kinetic temperature that is an error."""


@dataclass
class FrameColumns:
    """Columns with one value for each frame that is kept.

    Attributes
    ----------
    energy
        Potential energy [kJ/mol]; None: not in the tables.
    bias, offset
        Of the frame's own run [kJ/mol].
    total
        Whether `energy` holds the bias, by the definition of the program that wrote it.
    runs
        Bias of other runs, by the name or number of the run [kJ/mol].
    temperature
        Of the thermostat, in the scale of the system; None: not in the tables.
    volume
        [nm^3].
    others
        Columns without a meaning of their own, for example collective variables.
    periods
        Of those that are periodic.
    """

    energy: Array | None = None
    bias: Array | None = None
    offset: Array | None = None
    total: bool = False
    runs: dict[str, Array] = field(default_factory=dict)
    temperature: Array | None = None
    kinetic: Array | None = None
    volume: Array | None = None
    others: dict[str, Array] = field(default_factory=dict)
    periods: dict[str, float] = field(default_factory=dict)


def frame_columns(
    trajectory: ImportedTrajectory,
    frames: Timeline,
    n_frames: int,
    simulation: SimulationSettings,
    checked: bool,
) -> FrameColumns:
    """Read the tables of a trajectory and find the rows of its frames.

    Parameters
    ----------
    n_frames
        Of all files.
    checked
        Whether energies are recomputed later, so that a wrong guess of rows is noticed.

    Raises
    ------
    DataError
        If a table cannot be read, does not have the frames, or has a column that must not be ignored.
    """
    result = FrameColumns()
    for table in joined_tables(trajectory.tables):
        rows = _rows(table, frames, n_frames, trajectory.name, simulation, checked)
        _take(result, table.only(rows), rows)
    if result.total and result.energy is not None and result.bias is not None:
        result.energy = result.energy - result.bias  # the program's potential energy holds it
    tables = joined_tables(trajectory.tables)
    if tables and result.energy is None and not any(table.format == "plumed" for table in tables):
        names = [name for table in tables for name in table.columns]
        raise DataError(
            f"--table: {trajectory.tables[0]}: the column potential_energy is missing; it has {', '.join(names)}"
        )
    return result


def _rows(
    table: Table,
    frames: Timeline,
    n_frames: int,
    name: str,
    simulation: SimulationSettings,
    checked: bool,
) -> NDArray[np.int64]:
    """Row of the table for each frame that is kept."""
    times, spacing = _times(table, simulation), simulation.timestep * simulation.frame_interval
    checked = checked and "potential_energy" in table.columns
    if table.n_rows == n_frames:
        if times is not None and frames.times is not None:
            _check_same_times(table, times[frames.kept], frames.times, spacing, name, checked)
        elif times is not None and not frames.ignored:
            _check_spacing(table, times, spacing, name)
        return frames.kept
    if times is None:
        raise DataError(
            f"--table: {table.path}: {table.n_rows} rows, {name} has {n_frames} frames (a column "
            f"time or step would say "
            "which rows are the frames')"
        )
    wanted = frames.times if frames.times is not None else np.asarray((frames.kept + 1) * spacing, np.float64)
    if frames.times is None and not checked:
        raise DataError(
            f"--table: {table.path}: {table.n_rows} rows, {name} has {n_frames} frames and no "
            f"times to find rows by"
        )
    rows = _nearest_rows(times, wanted, 0.05 * spacing)
    tolerance = 0.05 * spacing + 4 * np.finfo(np.float32).eps * np.abs(wanted)
    lost = np.flatnonzero(np.abs(times[rows] - wanted) > tolerance)
    if len(lost):
        raise DataError(
            f"--table: {table.path}: {table.n_rows} rows, {name} has {n_frames} frames; no row for frame "
            f"{frames.kept[lost[0]]}, at {wanted[lost[0]]:.6g} ps (its times are {times.min():.6g} "
            f"to {times.max():.6g} ps)"
        )
    return rows


def _nearest_rows(times: Array, wanted: Array, tolerance: float) -> NDArray[np.int64]:
    """Rows whose times are nearest to those wanted; the last of rows of one time, as after a restart."""
    order = np.argsort(times, kind="stable")
    ascending = times[order]
    before = np.clip(np.searchsorted(ascending, wanted + tolerance, "right") - 1, 0, None)
    after = np.clip(before + 1, None, len(times) - 1)
    after = np.searchsorted(ascending, ascending[after], "right") - 1
    nearer = np.abs(ascending[after] - wanted) < np.abs(ascending[before] - wanted)
    return np.asarray(order[np.where(nearer, after, before)], dtype=np.int64)


def _times(table: Table, simulation: SimulationSettings) -> Array | None:
    """Times of the rows [ps]; None where a table has none."""
    if "time" in table.columns:
        return table.columns["time"]
    step = table.columns.get("step")
    if step is None or not np.isfinite(step).all() or (np.diff(np.unique(step)) <= 1).any():
        return None  # numbers of rows, not of integration steps
    return step * simulation.timestep


def _check_spacing(table: Table, times: Array, spacing: float, name: str) -> None:
    """Raise `DataError` where rows are not as far apart as frames of a file without times are."""
    apart = float(np.median(np.diff(times)))
    if abs(apart - spacing) > 0.05 * spacing + 4 * np.finfo(np.float32).eps * float(np.abs(times).max()):
        raise DataError(
            f"--table: {table.path}: its rows are {apart:.4g} ps apart, the frames of {name} {spacing:.4g} ps "
            "(simulation.timestep * frame_interval); expected a row for each frame, in order (--ignore-times: its "
            "times are wrong)"
        )


def _check_same_times(
    table: Table, rows: Array, frames: Array, spacing: float, name: str, checked: bool
) -> None:
    """Raise `DataError` where rows are of other times than frames; a constant is for energies to check."""
    off = rows - frames
    tolerance = 0.05 * spacing + 4 * np.finfo(np.float32).eps * float(np.abs(frames).max())
    wrong = np.flatnonzero(np.abs(off - np.median(off)) > tolerance)
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"--table: {table.path}: row {row} is of {rows[row]:.6g} ps, the frame of {name} of "
            f"{frames[row]:.6g} ps; "
            "expected a row for each frame, in order"
        )
    if abs(float(np.median(off))) <= tolerance:
        return
    if not checked:
        raise DataError(
            f"--table: {table.path}: its times are {float(np.median(off)):.4g} ps later than those of {name}, and it "
            "has no energies that would say whether its rows are the frames' (--ignore-times: they are, in order)"
        )
    log.warning(
        "--table: %s: its times are %.4g ps later than those of %s; rows are taken in order",
        table.path,
        float(np.median(off)),
        name,
    )


def _take(result: FrameColumns, table: Table, rows: NDArray[np.int64]) -> None:
    """Add the columns of a table."""
    columns = dict(table.columns)
    numbers = {name: _finite(table, name, rows) for name in columns if _needed(name)}
    result.energy = _one_of(table, "potential_energy", result.energy, numbers)
    bias, offset = numbers.get("bias_energy"), numbers.get("bias_offset")
    if table.format == "plumed" or any(name.endswith(".bias") for name in columns):
        bias, offset = _plumed_bias(table, numbers, bias, offset)
    if bias is not None and result.bias is not None:
        raise DataError(f"--table: {table.path}: bias energies are in two tables of one trajectory")
    result.bias = bias if bias is not None else result.bias
    result.offset = offset if offset is not None else result.offset
    result.total = result.total or table.total
    result.runs |= {
        name.removeprefix("bias_energy_"): numbers[name]
        for name in columns
        if name.startswith("bias_energy_")
    }
    result.volume = columns.get("volume", result.volume)
    _take_temperature(result, table, columns)
    result.periods |= table.periods
    unknown = [name for name in columns if name.lower() not in _QUIET and not _needed(name)]
    result.others |= {
        n: columns[n] for n in unknown if np.isfinite(columns[n]).all() and np.ptp(columns[n]) > 0
    }
    refused = [name for name in unknown if re.search(r"bias|restraint|umbrella|rest\.", name, re.I)]
    if refused:
        raise DataError(
            f"--table: {table.path}: the column {refused[0]!r} would be ignored; a bias that acted "
            f"on the frames is called "
            "bias_energy [kJ/mol], one of several runs bias_energy_RUN; rename it, or leave it out"
        )
    unknown = [name for name in unknown if not re.fullmatch(r"z\d+|latent\d+|copy", name)]
    if unknown:
        log.warning(
            "--table: %s: columns without a meaning here, at most for what a bias acts on: %s",
            table.path,
            ", ".join(unknown),
        )


def _needed(name: str) -> bool:
    known = ("potential_energy", "bias_energy", "bias_offset")
    return name in known or name.startswith("bias_energy_") or name.endswith((".bias", ".rct", ".rbias"))


def _finite(table: Table, name: str, rows: NDArray[np.int64]) -> Array:
    values = table.columns[name]
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise DataError(f"--table: {table.path}: {name} is not a number in row {rows[wrong[0]]}")
    return values


def _one_of(table: Table, name: str, before: Array | None, numbers: dict[str, Array]) -> Array | None:
    if before is not None and name in numbers:
        raise DataError(f"--table: {table.path}: {name} is in two tables of one trajectory")
    return numbers.get(name, before)


def _plumed_bias(
    table: Table, numbers: dict[str, Array], bias: Array | None, offset: Array | None
) -> tuple[Array | None, Array | None]:
    """Sum of the biases that PLUMED recorded, and of their offsets c(t)."""
    labels = [name.removesuffix(".bias") for name in numbers if name.endswith(".bias")]
    if not labels:
        return bias, offset
    if bias is not None:
        raise DataError(f"--table: {table.path}: bias_energy and {labels[0]}.bias; expected one of them")
    total = np.zeros(len(numbers[f"{labels[0]}.bias"]))
    shift = np.zeros_like(total)
    for label in labels:
        total = total + numbers[f"{label}.bias"]
        shift = shift + _plumed_offset(table, numbers, label)
    log.warning("--table: %s: bias energy: the sum of %s", table.path, ", ".join(f"{n}.bias" for n in labels))
    return total, shift


def _plumed_offset(table: Table, numbers: dict[str, Array], label: str) -> Array | float:
    """Offset c(t) of one bias of PLUMED; that of OPES is none, although a column is called so."""
    moving = [n for n in table.columns if re.fullmatch(re.escape(label) + r"\.\w+_(cntr|kappa|work)", n)]
    if any(np.ptp(table.columns[name]) > 0 for name in moving):
        raise DataError(
            f"--table: {table.path}: {label} is a restraint that moves ({moving[0]}): its frames are not in "
            "equilibrium, expected a bias that stays or grows (metadynamics, OPES)"
        )
    if "opes" in label.lower() or any(f"{label}.{name}" in table.columns for name in ("zed", "neff", "nker")):
        return 0.0
    bias = numbers[f"{label}.bias"]
    if f"{label}.rct" in numbers:
        return numbers[f"{label}.rct"]
    if f"{label}.rbias" in numbers:
        return bias - numbers[f"{label}.rbias"]
    if "metad" in label.lower() or _grew(bias):
        log.warning(
            "--table: %s: %s.bias has no %s.rct beside it: frames are weighted as if the bias had not grown; "
            "CALC_RCT of PLUMED writes it",
            table.path,
            label,
            label,
        )
    return 0.0


def _grew(bias: Array) -> bool:
    """Return whether a bias looks like one that began at zero and was built up."""
    fifth = max(1, len(bias) // 5)
    return bool(abs(bias[0]) < 1e-9 and bias[-fifth:].min() > bias[:fifth].max() > 0)


def _take_temperature(result: FrameColumns, table: Table, columns: dict[str, Array]) -> None:
    """A column of few values is that of the thermostat, one of many that of the velocities."""
    kinetic = columns.get("kinetic_temperature")
    temperature = columns.get("temperature")
    if temperature is not None and np.isfinite(temperature).all():
        if len(np.unique(temperature)) <= max(1, _FEW * len(temperature)):
            result.temperature = temperature
        else:
            kinetic = temperature
    if kinetic is not None:
        result.kinetic = kinetic


def check_kinetic(name: str, kinetic: Array, temperature: Array) -> None:
    """Raise `DataError` where velocities are of another temperature than the one given."""
    values = kinetic[np.isfinite(kinetic)]
    if len(values) < 2:
        return
    mean, wanted = float(values.mean()), float(temperature.mean())
    blocks = [part.mean() for part in np.array_split(values, min(_BLOCKS, len(values)))]
    error = float(np.std(blocks, ddof=1)) / np.sqrt(len(blocks))
    if abs(mean - wanted) > _HOTTER * wanted + 5 * error:
        raise DataError(
            f"{name}: the table's temperatures of the velocities are {mean:.4g} on average, expected {wanted:.4g} as "
            "--temperature says"
        )


def check_volumes(name: str, table: Array, boxes: Array) -> None:
    """Raise `DataError` where the table's volumes are not those of the frames' boxes."""
    off = np.abs(table / boxes - 1.0)
    if float(np.median(off)) > 1e-3:
        frame = int(off.argmax())
        raise DataError(
            f"{name}: the table's volume is {table[frame]:.5g} nm^3 where the box of frame {frame} has "
            f"{boxes[frame]:.5g} nm^3; its rows are not those of the frames, or of another unit"
        )


def known_columns(columns: Sequence[FrameColumns]) -> list[str]:
    """Names of columns that all tables have and nothing else uses."""
    shared = set.intersection(*(set(c.others) for c in columns)) if columns else set()
    return sorted(shared)
