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


def write_observed(observed: ObservedCurves, folder: Path) -> None:
    """Write a table for each observable, ``NAME.csv``, and a figure of all, ``observables.png``."""
    check_output(folder, folder=True)
    for curve in observed.curves:
        write_text(folder / f"{_stem(curve)}.csv", curve.table.to_csv(index=False))
    _write(observable_curves(observed.curves, observed.scale, observed.simulated), folder)


def write_compared(compared: Compared, names: Sequence[str], folder: Path) -> None:
    """Write a table for each observable of several runs, ``NAME.csv``, and a figure of all, ``observables.png``.

    Raises
    ------
    ConfigError
        If there is not one name for each run, or the folder cannot be written.
    """
    if len(names) != len(compared.runs):
        raise ConfigError(f"names: {len(names)} for {len(compared.runs)} runs; expected one for each")
    check_output(folder, folder=True)
    for curve, table in zip(compared.first.curves, compared.tables, strict=True):
        write_text(folder / f"{_stem(curve)}.csv", table.to_csv(index=False))
    panels = list(zip(*(run.curves for run in compared.runs), strict=True))
    _write(compared_curves(panels, compared.first.scale, names), folder)


def _stem(curve: Curve) -> str:
    return curve.name.rpartition("/")[2].replace(":", "_").replace(".py", "")


def _write(figure: Figure, folder: Path) -> None:
    with atomic_file(folder / "observables.png") as temporary:
        figure.savefig(temporary, dpi=130, format="png")
