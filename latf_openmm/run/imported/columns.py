"""What the columns of a trajectory's tables say of its frames."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.reweighting.estimators import statistical_inefficiency
from latf_openmm.run.imported.recordings import recorded_energies
from latf_openmm.run.imported.rows import KnownEnergies, RowFinder
from latf_openmm.run.imported.tables import Table
from latf_openmm.run.imported.times import Timeline
from latf_openmm.run.imported.trajectories import ImportedTrajectory
from latf_openmm.sampling.energy_windows import EnergyWindows
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
_HOTTER = 0.05
"""Relative difference of the mean kinetic temperature from which it is an error, if it is certain."""
_CERTAIN = 5.0
"""Standard errors of the mean from which a difference is certain."""


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
    recorded
        Potential energies around the frames, at constant pressure U + pV; None: the tables have one a frame.
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
    recorded: EnergyWindows | None = None


def frame_columns(
    trajectory: ImportedTrajectory,
    tables: Sequence[Table],
    frames: Timeline,
    n_frames: int,
    simulation: SimulationSettings,
    known: Callable[[], KnownEnergies] | None = None,
    pressure: float | None = None,
) -> tuple[FrameColumns, Timeline]:
    """Find the rows of a trajectory's frames in its tables.

    Parameters
    ----------
    tables
        What `joined_tables` read.
    n_frames
        Of all files.
    known
        Computes energies of a few frames, by which rows are found where their times do not say; None: there is no
        System to do it with.
    pressure
        Of the simulation, where it was constant [kJ/mol/nm^3].

    Returns
    -------
    FrameColumns
        Of the frames that have a row in all tables.
    Timeline
        These frames.

    Raises
    ------
    DataError
        If a table does not have the frames, or has a column that must not be ignored.
    """
    result = FrameColumns()
    find = RowFinder(frames, n_frames, trajectory.name, simulation, known)
    places = [find(table) for table in tables]
    present = np.logical_and.reduce([np.ones(len(frames.kept), bool), *(rows.present for rows in places)])
    if not present.all():
        log.warning(
            "%s: %d frames, at the ends, have no row in %s and are left out",
            *(trajectory.name, int((~present).sum()), ", ".join(str(table.path) for table in tables)),
        )
    for table, rows in zip(tables, places, strict=True):
        times = None if frames.ignored else find.times(table)
        result.recorded = result.recorded or recorded_energies(
            table, rows, present, pressure, times, find.spacing
        )
        chosen = rows.rows(present)
        _take(result, table.only(chosen), chosen)
    if result.total and result.energy is not None and result.bias is not None:
        result.energy = result.energy - result.bias  # the program's potential energy holds it
    if tables and result.energy is None and not any(table.format == "plumed" for table in tables):
        names = [name for table in tables for name in table.columns]
        raise DataError(
            f"--table: {trajectory.tables[0]}: the column potential_energy is missing; it has {', '.join(names)}"
        )
    return result, frames.only(present)


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
    _take_temperature(result, columns)
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


def _take_temperature(result: FrameColumns, columns: dict[str, Array]) -> None:
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


def check_kinetic(trajectory: ImportedTrajectory, kinetic: Array, temperature: Array) -> None:
    """Raise `DataError` where velocities are of another temperature than the one given.

    Parameters
    ----------
    kinetic
        Temperatures of the velocities, shape (n_frames,); those that are not finite are left out.
    temperature
        Stated, of the same frames and in the same scale, shape (n_frames,).
    """
    finite = np.isfinite(kinetic)
    off = (kinetic - temperature)[finite]
    if len(off) < 2:
        return
    error = float(np.std(off, ddof=1)) * np.sqrt(statistical_inefficiency([off[:, None]]) / len(off))
    wanted = float(temperature[finite].mean())
    if abs(off.mean()) > max(_HOTTER * wanted, _CERTAIN * error):
        source = "--temperature" if trajectory.temperature is not None else "its column of the thermostat"
        raise DataError(
            f"--table: {', '.join(map(str, trajectory.tables))}: the temperature of the velocities is "
            f"{wanted + off.mean():.4g} ± {error:.2g} on average, {source} says {wanted:.4g} for {trajectory.name}; "
            f"expected the same within {_HOTTER:.0%}: give the temperature of the simulation, or a table "
            "without that column"
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
