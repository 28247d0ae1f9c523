"""Curves of observables in a terminal."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from latf_openmm.reweighting.reliability import reliability_text

if TYPE_CHECKING:
    from latf_openmm.ensembles.curves import Curve
    from latf_openmm.units import TemperatureScale


def print_curve(console: Console, curve: "Curve", midpoint: float | None, scale: "TemperatureScale") -> None:
    """Print the table of an observable against temperature, its transition and its van 't Hoff fit."""
    unit = f" [{scale.unit_of(curve.unit)}]" if curve.unit else ""
    shown = Table(title=escape(curve.name))
    for column in (
        scale.axis_label,
        f"value{unit}",
        f"error{unit}",
        "method",
        "reliability",
        "effective samples",
    ):
        shown.add_column(escape(column))
    for t, value, error, method, reliability, n in curve.table.itertuples(index=False):
        shown.add_row(f"{t:g}", f"{value:.5g}", f"{error:.2g}", method, reliability, f"{n:.0f}")
    console.print(shown)
    transition = curve.transition(midpoint)
    if transition is not None:
        where = "maximum" if midpoint is None else f"crosses {midpoint:g}"
        near = curve.reliability_near(transition.value)
        text = f"{curve.name}: {where} at T = {transition}{scale.suffix}; {reliability_text(near)}"
        console.print(text, highlight=False, soft_wrap=True)
    elif midpoint is not None:
        low, high = curve.table["value"].min(), curve.table["value"].max()
        text = f"{curve.name}: does not cross --midpoint {midpoint:g}; its values are from {low:.5g} to {high:.5g}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    print_two_state(console, curve.name, curve, scale)


def print_two_state(console: Console, name: str, curve: "Curve", scale: "TemperatureScale") -> None:
    """Print the van 't Hoff fit of a share, or why there is none."""
    from latf_openmm.ensembles.two_state import two_state_text

    if said := two_state_text(curve, scale):
        console.print(f"{name}: {said}", highlight=False, markup=False, soft_wrap=True)
