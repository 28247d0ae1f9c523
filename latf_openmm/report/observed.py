"""Files of observables against temperature."""

from pathlib import Path

from matplotlib.figure import Figure

from latf_openmm.ensembles.curves import Curve
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


def write_compared(compared: Compared, names: tuple[str, str], folder: Path) -> None:
    """Write a table for each observable of two runs, ``NAME.csv``, and a figure of all, ``observables.png``."""
    check_output(folder, folder=True)
    for curve in compared.curves:
        write_text(folder / f"{_stem(curve.first)}.csv", curve.table.to_csv(index=False))
    pairs = [(curve.first, curve.second) for curve in compared.curves]
    _write(compared_curves(pairs, compared.first.scale, names), folder)


def _stem(curve: Curve) -> str:
    return curve.name.rpartition("/")[2].replace(":", "_").replace(".py", "")


def _write(figure: Figure, folder: Path) -> None:
    with atomic_file(folder / "observables.png") as temporary:
        figure.savefig(temporary, dpi=130, format="png")
