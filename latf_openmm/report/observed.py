"""Files of observables against temperature."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from latf_openmm.ensembles.curves import Curve
from latf_openmm.errors import ConfigError
from latf_openmm.report.figures import compared_curves, observable_curves
from latf_openmm.run.compared import Compared
from latf_openmm.run.observed import ObservedCurves
from latf_openmm.storage import atomic_file, check_output, write_text

FIGURE = "observables.png"
"""The figure of all observables; it is written first, so that a folder with tables has it."""


def check_unwritten(folder: Path) -> None:
    """Raise `ConfigError` where a folder cannot be written, or has tables of observables, which would mix with others.

    Commands call it before any work.
    """
    check_output(folder, folder=True)
    check_output(folder / FIGURE, folder=False, new="tables are never overwritten; expected a new folder")


def write_observed(observed: ObservedCurves, folder: Path) -> None:
    """Write a table for each observable, ``NAME.csv``, and a figure of all, ``observables.png``.

    Raises
    ------
    ConfigError
        If the folder cannot be written or has tables of observables.
    """
    check_unwritten(folder)
    _write(observable_curves(observed.curves, observed.scale, observed.simulated), folder)
    for curve in observed.curves:
        write_text(folder / f"{_stem(curve)}.csv", curve.table.to_csv(index=False))


def write_compared(compared: Compared, names: Sequence[str], folder: Path) -> None:
    """Write a table for each observable of several runs, ``NAME.csv``, and a figure of all, ``observables.png``.

    Raises
    ------
    ConfigError
        If there is not one name for each run, or the folder cannot be written or has tables of observables.
    """
    if len(names) != len(compared.runs):
        raise ConfigError(f"names: {len(names)} for {len(compared.runs)} runs; expected one for each")
    check_unwritten(folder)
    panels = list(zip(*(run.curves for run in compared.runs), strict=True))
    _write(compared_curves(panels, compared.first.scale, names), folder)
    for curve, table in zip(compared.first.curves, compared.tables, strict=True):
        write_text(folder / f"{_stem(curve)}.csv", table.to_csv(index=False))


def _stem(curve: Curve) -> str:
    return curve.name.rpartition("/")[2].replace(":", "_").replace(".py", "")


def _write(figure: Figure, folder: Path) -> None:
    with atomic_file(folder / FIGURE) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
