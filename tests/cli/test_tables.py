"""Tables on the screen say the units of their columns."""

import pandas as pd
import pytest
from rich.console import Console

from latf_openmm.cli.curves import print_curve
from latf_openmm.ensembles.curves import Curve
from latf_openmm.units import KELVIN, REDUCED, TemperatureScale


@pytest.mark.parametrize(
    ("scale", "unit", "heads"),
    [
        (KELVIN, "kJ/mol", ("T [K]", "value [kJ/mol]", "error [kJ/mol]", "method")),
        (REDUCED, "kJ/mol", ("T (reduced)", "value [reduced]", "error [reduced]", "method")),
        (KELVIN, "", ("T [K]", "value", "error", "method")),
    ],
)
def test_columns_of_observables_have_units(
    scale: TemperatureScale, unit: str, heads: tuple[str, ...]
) -> None:
    rows = [
        (300.0 + 10 * i, value, 0.1, "reweighted", "good", 50.0) for i, value in enumerate((1.0, 3.0, 2.0))
    ]
    columns = ["temperature", "value", "error", "method", "reliability", "effective_samples"]
    console = Console(record=True, width=200, quiet=False)
    print_curve(console, Curve("energy", unit, pd.DataFrame(rows, columns=columns), None), None, scale)
    head = console.export_text().splitlines()[2]
    assert tuple(cell.strip() for cell in head.strip("┃ ").split("┃"))[:4] == heads


def test_a_midpoint_that_is_not_crossed_is_said() -> None:
    rows = [(300.0 + 10 * i, value, 0.1, "reweighted", "good", 50.0) for i, value in enumerate((1.0, 3.0))]
    columns = ["temperature", "value", "error", "method", "reliability", "effective_samples"]
    curve = Curve("energy", "kJ/mol", pd.DataFrame(rows, columns=columns), None)
    console = Console(record=True, width=200, quiet=False)
    print_curve(console, curve, 0.5, KELVIN)
    text = console.export_text()
    assert "energy: does not cross --midpoint 0.5; its values are from 1 to 3" in text
    for midpoint in (2.0, None):
        print_curve(console, curve, midpoint, KELVIN)
        assert "does not cross" not in console.export_text()
