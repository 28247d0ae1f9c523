"""Files of observables against temperature."""

from pathlib import Path

from latf_openmm.report.figures import observable_curves
from latf_openmm.run.observed import ObservedCurves
from latf_openmm.storage import atomic_file, check_output, write_text


def write_observed(observed: ObservedCurves, folder: Path) -> None:
    """Write a table for each observable, ``NAME.csv``, and a figure of all, ``observables.png``."""
    check_output(folder, folder=True)
    for curve in observed.curves:
        stem = curve.name.rpartition("/")[2].replace(":", "_").replace(".py", "")
        write_text(folder / f"{stem}.csv", curve.table.to_csv(index=False))
    figure = observable_curves(observed.curves, observed.scale, observed.simulated)
    with atomic_file(folder / "observables.png") as temporary:
        figure.savefig(temporary, dpi=130, format="png")
