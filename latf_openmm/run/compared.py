"""Runs of the same system beside each other: differences from the first in units of their errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latf_openmm.ensembles.curves import Curve
from latf_openmm.ensembles.ensemble import Estimate
from latf_openmm.ensembles.observables import named_observable
from latf_openmm.errors import ConfigError
from latf_openmm.reweighting.reliability import MEANINGS
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.observed import ObservedCurves, observe
from latf_openmm.systems import system_differences
from latf_openmm.units import KELVIN, TemperatureScale

AGREE = 3.0
"""Standard errors of a difference up to which two runs agree: of ten temperatures one is rarely farther by chance."""
_WITHOUT_WORDS = ("", "fraction")
"""Units that are not written after a value."""


@dataclass(frozen=True)
class ComparedCurve:
    """One observable of two runs.

    Attributes
    ----------
    first, second
        Its curves.
    scale
        Of their temperatures.
    place
        Of the second run among those compared, counted from 0.
    systems_differ
        True where the second run is of another System, as of another force field.
    """

    first: Curve
    second: Curve
    scale: TemperatureScale = KELVIN
    place: int = 1
    systems_differ: bool = False

    @property
    def table(self) -> pd.DataFrame:
        """One row for each temperature.

        temperature, first, first_error, second, second_error, and difference_in_errors: first less second over the
        error of that difference.
        """
        first, second = self.first.table, self.second.table
        difference = first["value"] - second["value"]
        with np.errstate(divide="ignore", invalid="ignore"):
            errors: pd.Series[float] = difference / np.hypot(first["error"], second["error"])
        return pd.DataFrame(
            {
                "temperature": first["temperature"],
                "first": first["value"],
                "first_error": first["error"],
                "second": second["value"],
                "second_error": second["error"],
                "difference_in_errors": errors.where(difference != 0, 0.0),
            }
        )

    @property
    def agree(self) -> bool:
        """True where they differ by less than three errors at every temperature."""
        return bool((self.table["difference_in_errors"].abs() <= AGREE).all())

    @property
    def poor(self) -> list[float]:
        """Temperatures at which a value of either is not to be relied on, ascending."""
        either = (self.first.table["reliability"] == "poor") | (self.second.table["reliability"] == "poor")
        return [float(t) for t in self.first.table.loc[either, "temperature"]]

    @property
    def told(self) -> bool:
        """True where they differ, or values of at least half of the temperatures are to be relied on."""
        return not self.agree or 2 * len(self.poor) <= len(self.first.table)

    def text(self) -> str:
        """Say how far they are apart."""
        table = self.table
        off = table["difference_in_errors"].abs().fillna(np.inf).to_numpy()
        farthest = int(off.argmax())
        at, first, first_error, second, second_error, _ = (float(x) for x in table.to_numpy()[farthest])
        unit = self.scale.unit_of(self.first.unit)
        apart = (
            f"{self.scale.label(at)}: {Estimate(first, first_error)} and {Estimate(second, second_error)}"
            f"{f' {unit}' if unit not in _WITHOUT_WORDS else ''}"
        )
        if not self.told:
            return (
                f"{self.first.title}: cannot be told, since values are {MEANINGS['poor']} at {len(self.poor)} of "
                f"{len(table)} temperatures; they differ by at most {off[farthest]:.1f} errors, at {apart}"
            )
        return (
            f"{self.first.title}: {'agree' if self.agree else 'do not agree'}"
            f"{', of systems that differ' if self.systems_differ else ''}; within two errors at "
            f"{int((off <= 2).sum())} of {len(table)} temperatures, farthest apart at {apart}, "
            f"{off[farthest]:.1f} errors"
        ) + (f"; at {len(self.poor)} of them a value is {MEANINGS['poor']}" if self.poor else "")


@dataclass(frozen=True)
class Compared:
    """Observables of two or more runs against temperature.

    Attributes
    ----------
    first, second
        What was observed in each.
    more
        In further runs.
    system_warnings
        One text for each run but the first: in what its system differs from that of the first; empty where in nothing.
        No texts: the systems are the same.
    """

    first: ObservedCurves
    second: ObservedCurves
    more: tuple[ObservedCurves, ...] = ()
    system_warnings: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """All that a reader must know of the runs, before any agreement."""
        return tuple(text for text in self.system_warnings if text)

    @property
    def runs(self) -> tuple[ObservedCurves, ...]:
        """All runs, the one that the others are compared with first."""
        return (self.first, self.second, *self.more)

    @property
    def curves(self) -> list[ComparedCurve]:
        """One for each observable and each run but the first."""
        texts = dict(enumerate(self.system_warnings, 1))
        return [
            ComparedCurve(first, run.curves[i], self.first.scale, place, bool(texts.get(place)))
            for i, first in enumerate(self.first.curves)
            for place, run in enumerate(self.runs[1:], 1)
        ]

    @property
    def tables(self) -> list[pd.DataFrame]:
        """One for each observable: `ComparedCurve.table`.

        Runs after the second have the columns NAME, NAME_error and NAME_difference_in_errors; NAME is run_3, run_4, ...
        """
        tables = []
        for curve in self.curves:
            if curve.place == 1:
                tables.append(curve.table)
                continue
            name = f"run_{curve.place + 1}"
            columns = curve.table[["second", "second_error", "difference_in_errors"]]
            names = [name, f"{name}_error", f"{name}_difference_in_errors"]
            tables[-1] = tables[-1].join(columns.set_axis(names, axis=1))
        return tables

    @property
    def agree(self) -> bool:
        """True where all observables agree."""
        return all(curve.agree for curve in self.curves)

    @property
    def told(self) -> bool:
        """True where it can be told of every observable whether they agree."""
        return all(curve.told for curve in self.curves)

    @property
    def poor(self) -> list[float]:
        """Temperatures at which a value is not to be relied on, ascending."""
        return sorted({temperature for curve in self.curves for temperature in curve.poor})


def compare_runs(
    first: RunFolder,
    second: RunFolder,
    temperatures: Sequence[float],
    observables: Sequence[str],
    *,
    reference: Path | None = None,
    more: Sequence[RunFolder] = (),
    **options: Any,
) -> Compared:
    """Return observables of two or more runs of the same atoms at the same temperatures, each against the first.

    Systems may differ, as in their force fields: `Compared.warnings` says so.

    Runs from different starts that agree have forgotten their starts, as far as the observables tell; error bars of
    one run cannot show that.

    Parameters
    ----------
    first, second
        Runs with a complete round.
    temperatures, observables, options
        As for `latf_openmm.observe`.
    reference
        PDB file for RMSD and contacts, of all; None: where the first starts.
    more
        Further runs.

    Raises
    ------
    ConfigError
        If the atoms of the runs differ, or as `latf_openmm.observe`.
    DataError
        As `latf_openmm.observe`.
    """
    others = (second, *more)
    for run in others:
        _check_same(first, run)
    structure = first.reference_structure(reference)
    for name in observables:
        if named_observable(name, structure).n_states:
            raise ConfigError(
                f"--observable: {name}: states of different runs do not correspond; expected an observable without "
                "states, such as energy, rg or FILE.py:FUNCTION"
            )
    observed = [
        observe(run, temperatures, observables, reference=structure, **options) for run in (first, *others)
    ]
    warnings = tuple(_system_warning(first, run) for run in others)
    return Compared(observed[0], observed[1], tuple(observed[2:]), warnings)


def _system_warning(first: RunFolder, second: RunFolder) -> str:
    """Say in what the systems of two runs differ; empty where in nothing but their starts."""
    if not (keys := system_differences(first.config.system, second.config.system)):
        return ""
    return (
        f"{second.path}: its system is another than that of {first.path}, so equilibria may differ: "
        f"{'; '.join(keys)} (the first's value first)"
    )


def _check_same(first: RunFolder, second: RunFolder) -> None:
    """Raise `ConfigError` unless two runs are of the same atoms, with temperatures of the same scale."""
    atoms, others = ([str(atom) for atom in run.topology().atoms] for run in (first, second))
    if len(atoms) != len(others):
        raise ConfigError(
            f"{second.path}: has {len(others)} atoms, {first.path} has {len(atoms)}; expected the same system"
        )
    for atom, other in zip(atoms, others, strict=True):
        if atom != other:
            raise ConfigError(
                f"{second.path}: has atom {other} where {first.path} has {atom}; expected the same system"
            )
    if first.scale.name != second.scale.name:
        raise ConfigError(f"{second.path}: its temperatures are in another scale than those of {first.path}")
