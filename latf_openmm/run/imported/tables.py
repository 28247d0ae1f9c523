"""Tables as programs write them: columns of numbers, with names and units in one form.

CSV and Parquet, OpenMM's StateDataReporter, PLUMED's COLVAR, Gromacs' XVG, Amber's mdout.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latf_openmm.errors import DataError, first_line
from latf_openmm.units import ELECTRONVOLT, KILOCALORIE

Array = NDArray[np.float64]
Format = Literal["plain", "openmm", "plumed", "gromacs", "amber"]

_ENERGY = {
    "kj/mol": 1.0,
    "kj/mole": 1.0,
    "kcal/mol": KILOCALORIE,
    "kcal/mole": KILOCALORIE,
    "j/mol": 1e-3,
    "ev": ELECTRONVOLT,
}
"""Units of energy [kJ/mol]."""
_TIME = {"ps": 1.0, "fs": 1e-3, "ns": 1e3, "us": 1e6}
"""Units of time [ps]."""
_OTHER = {"nm^3": 1.0, "a^3": 1e-3, "k": 1.0, "nm": 1.0, "kelvin": 1.0}
"""Units of volume [nm^3], length [nm] and temperature [K]."""
_SUFFIXES = {"kcal_mol": "kcal/mol", "kj_mol": "kj/mol", "kcal": "kcal/mol", "ns": "ns", "fs": "fs"}
"""Ends of column names that stand for a unit."""
_SUFFIXED = ("potential_energy", "bias_energy", "time")
"""Columns whose names can end with a unit."""
_KNOWN = {
    *(
        "potential_energy",
        "kinetic_energy",
        "total_energy",
        "bias_energy",
        "bias_offset",
        "temperature",
        "step",
    ),
    *("time", "volume", "density", "enthalpy", "kinetic_temperature", "bias", "speed", "frame"),
}
"""Names that columns have in this package."""
_AMBER = {
    "NSTEP": ("step", 1.0),
    "TIME(PS)": ("time", 1.0),
    "TEMP(K)": ("kinetic_temperature", 1.0),
    "EPtot": ("potential_energy", KILOCALORIE),
    "RESTRAINT": ("bias_energy", KILOCALORIE),
    "VOLUME": ("volume", 1e-3),
    "Etot": ("total_energy", KILOCALORIE),
    "EKtot": ("kinetic_energy", KILOCALORIE),
}
"""Columns of Amber's output: name, and factor to kJ/mol, ps, nm^3 and K."""


@dataclass
class Table:
    """Columns of one file.

    Attributes
    ----------
    columns
        Values by name, in kJ/mol, ps, nm and K where the name or the program says a unit, each of shape (n_rows,).
    periods
        Of columns that are periodic, where the file says so.
    total
        Whether `potential_energy` holds the bias, as the program defines it.
    """

    path: Path
    format: Format
    columns: dict[str, Array]
    periods: dict[str, float] = field(default_factory=dict)
    total: bool = False

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()), ()))

    def only(self, rows: NDArray[np.int64]) -> "Table":
        """Return the table with some of its rows."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Table(self.path, self.format, columns, self.periods, self.total)


def read_table(path: Path) -> Table:
    """Read a table in any of the formats.

    Raises
    ------
    DataError
        If it cannot be read, or a unit is not known.
    """
    if path.suffix.lower() == ".edr":
        raise DataError(
            f"--table: {path}: Gromacs' binary energies; write them with: gmx energy -o energy.xvg"
        )
    try:
        if path.suffix.lower() == ".parquet":
            return _from_frame(path, pd.read_parquet(path), "plain")
        text = path.read_text(encoding="utf-8", errors="replace")
        return _parse(path, text)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"--table: {path} cannot be read ({first_line(error)})") from error


def _parse(path: Path, text: str) -> Table:
    start = text[:20_000]
    if start.startswith("#! FIELDS"):
        return _plumed(path, text)
    if re.search(r"^@\s+s\d+ legend", start, re.M) or path.suffix.lower() == ".xvg":
        return _gromacs(path, text)
    if re.search(r"NSTEP\s*=.*TIME\(PS\)\s*=", text):
        return _amber(path, text)
    header, _, rest = text.partition("\n")
    separator = max((",", ";", "\t"), key=header.count)
    if separator not in header and len(rest.partition("\n")[0].split()) > 1:
        separator = r"\s+"
    openmm = header.startswith('#"')
    frame = pd.read_csv(
        io.StringIO(text.removeprefix("#")),
        sep=separator,
        skipinitialspace=True,
    )
    return _from_frame(path, frame, "openmm" if openmm else "plain")


def _from_frame(path: Path, frame: pd.DataFrame, kind: Format) -> Table:
    columns: dict[str, Array] = {}
    for label in map(str, frame.columns):
        name, factor = _named(path, label)
        if name in columns:
            raise DataError(f"--table: {path}: the column {name} is there twice")
        numbers = pd.to_numeric(frame[label], errors="coerce")
        columns[name] = numbers.to_numpy(dtype=np.float64, na_value=np.nan) * factor
    if kind == "openmm" and "temperature" in columns:  # of the velocities
        columns["kinetic_temperature"] = columns.pop("temperature")
    return Table(path, kind, columns)


def _named(path: Path, label: str) -> tuple[str, float]:
    """Name and factor of a column: `Potential Energy (kJ/mole)` is potential_energy."""
    text = label.strip().strip('#" ')
    with_unit = re.fullmatch(r"(.*?)\s*[(\[]([^()\[\]]+)[)\]]", text)
    name = re.sub(r"[^\w.]+", "_", (with_unit.group(1) if with_unit else text).strip()).strip("_")
    unit = with_unit.group(2) if with_unit else ""
    if not with_unit and (base := next((b for b in _SUFFIXED if name.lower().startswith(f"{b}_")), None)):
        suffix = name.lower().removeprefix(f"{base}_")
        if suffix in _SUFFIXES:
            name, unit = base, _SUFFIXES[suffix]
    lowered = name.lower()
    aliases = {
        "box_volume": "volume",
        "time_ps": "time",
        "potential": "potential_energy",
        "epot": "potential_energy",
    }
    name = aliases.get(lowered, lowered if lowered in _KNOWN else name)
    return name, _factor(path, name, unit)


def _factor(path: Path, name: str, unit: str) -> float:
    key = unit.strip().lower().replace(" ", "").replace("å", "a").replace("angstrom", "a")
    key = (
        key.replace("kilojoules/mole", "kj/mol").replace("kilocalories/mole", "kcal/mol").replace("µs", "us")
    )
    known = {**_ENERGY, **_TIME, **_OTHER}
    if key in known:
        return known[key]
    if key and (name.endswith("energy") or name in ("time", "bias_offset", "volume")):
        raise DataError(
            f"--table: {path}: {name}: unit {unit!r} is not known; expected one of {', '.join(known)}"
        )
    return 1.0


def _plumed(path: Path, text: str) -> Table:
    fields: list[str] | None = None
    limits: dict[str, dict[str, float]] = {}
    for line in re.findall(r"^#!.*$", text, re.M):
        words = line.split()
        if words[1] == "FIELDS":
            if fields is not None and words[2:] != fields:
                raise DataError(
                    f"--table: {path}: its columns change: {' '.join(fields)}, then {' '.join(words[2:])}"
                )
            fields = words[2:]
        elif words[1] == "SET" and words[2].startswith(("min_", "max_")):
            limits.setdefault(words[2][4:], {})[words[2][:3]] = _number(words[3])
    numbers = np.loadtxt(io.StringIO(text), comments="#", ndmin=2)
    if fields is None or numbers.shape[1] != len(fields):
        raise DataError(
            f"--table: {path}: {numbers.shape[1]} columns, expected {len(fields or [])} as its FIELDS say"
        )
    columns = dict(zip(fields, numbers.T.astype(np.float64), strict=True))
    for energy in ("ene", "energy"):
        if energy in columns and "potential_energy" not in columns:
            columns["potential_energy"] = columns.pop(energy)
    periods = {n: v["max"] - v["min"] for n, v in limits.items() if len(v) == 2 and n in columns}
    return Table(path, "plumed", columns, periods)


def _number(text: str) -> float:
    """A limit in PLUMED's words: -pi, 2*pi, pi/2, 1.5."""
    value = -1.0 if text.startswith("-") else 1.0
    for operator, part in re.findall(r"([*/]?)((?:[^*/])+)", text.lstrip("+-")):
        number = math.pi if part == "pi" else float(part)
        value = value / number if operator == "/" else value * number
    return value


def _gromacs(path: Path, text: str) -> Table:
    legends = re.findall(r'^@\s+s(\d+)\s+legend\s+"(.*)"', text, re.M)
    unit = re.search(r'^@\s+xaxis\s+label\s+"Time \((\w+)\)"', text, re.M)
    numbers = np.loadtxt(io.StringIO(text), comments=["#", "@", "&"], ndmin=2).astype(np.float64)
    columns = {"time": numbers[:, 0] * _factor(path, "time", unit.group(1) if unit else "ps")}
    for index, legend in legends:
        name, _ = _named(path, legend)
        columns["kinetic_temperature" if name == "temperature" else name] = numbers[:, int(index) + 1]
    table = Table(path, "gromacs", columns)
    if "COM_Pull_En." in columns:  # a part of Gromacs' potential energy
        columns["bias_energy"], table.total = columns.pop("COM_Pull_En."), True
    return table


def _amber(path: Path, text: str) -> Table:
    records = re.split(r"(?=^[ \t]*NSTEP\s*=)", text, flags=re.M)
    rows: list[dict[str, float]] = []
    for before, record in pairwise(records):
        if re.search(r"A V E R A G E S|F L U C T U A T I O N S", before):
            continue  # of all records so far
        pairs = re.findall(r"([A-Za-z][\w-]*(?:\(\w+\))?)\s*=\s*(-?[\d.]+|\*+)", record.split("-----")[0])
        row = {
            _AMBER[name][0]: _AMBER[name][1] * _value(path, value) for name, value in pairs if name in _AMBER
        }
        rows.append(row)
    columns = {name: np.array([row.get(name, np.nan) for row in rows]) for name, _ in _AMBER.values()}
    columns = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    if "bias_energy" in columns and not np.nan_to_num(columns["bias_energy"]).any():
        del columns["bias_energy"]
    return Table(path, "amber", columns, total="bias_energy" in columns)


def _value(path: Path, text: str) -> float:
    if text.startswith("*"):
        raise DataError(f"--table: {path}: a number is too large for its field (****)")
    return float(text)


def joined_tables(paths: Sequence[Path]) -> list[Table]:
    """Read tables of one trajectory; those with the same columns continue each other."""
    tables: list[Table] = []
    for path in paths:
        table = read_table(path)
        before = next((t for t in tables if list(t.columns) == list(table.columns)), None)
        if before is None:
            tables.append(table)
        else:
            for name, values in table.columns.items():
                before.columns[name] = np.concatenate([before.columns[name], values])
    return tables
