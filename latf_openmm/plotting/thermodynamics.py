"""Observables against temperature: mean energy, heat capacity, and any other."""

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes

from latf_openmm.ensembles.curves import Curve, energy_curve
from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.plotting.axes import COLOURS, axes_or_new, legend
from latf_openmm.reweighting.reliability import MEANINGS
from latf_openmm.units import KELVIN, TemperatureScale

_MARKERS = {"reweighted": "o", "conditional": "^", "annealed": "D", "flow": "s"}
"""Of methods."""


def observable(
    curve: Curve,
    *,
    scale: TemperatureScale = KELVIN,
    simulated: Sequence[float] = (),
    show_legend: bool = True,
    colour: str = COLOURS[0],
    ax: Axes | None = None,
) -> Axes:
    """Draw an observable against temperature with a band of two standard errors.

    Markers tell the method; where a value is not to be relied on they are hollow.

    Parameters
    ----------
    curve
        As `latf_openmm.observe` returns them.
    scale
        Of the temperatures.
    simulated
        Temperatures of the simulations, drawn as dotted lines.
    show_legend
        Whether to draw one.
    colour
        Of all but the lines at simulated temperatures.
    ax
        Axes to draw into; default: a new figure.
    """
    ax, table = axes_or_new(ax), curve.table
    t, value, error = (table[name].to_numpy(dtype=float) for name in ("temperature", "value", "error"))
    ax.fill_between(t, value - 2 * error, value + 2 * error, color=colour, alpha=0.25, lw=0)
    ax.plot(t, value, color=colour, lw=1)
    for method, marker in _MARKERS.items():
        for poor in (False, True):
            rows = ((table["method"] == method) & ((table["reliability"] == "poor") == poor)).to_numpy()
            label = f"{method}, {MEANINGS['poor']}" if poor else method
            face = "white" if poor else colour
            if rows.any():
                ax.plot(t[rows], value[rows], marker, ms=5, mfc=face, mec=colour, ls="", label=label)
    for temperature in simulated:
        ax.axvline(temperature, color="0.6", lw=0.8, ls=":")
    ax.set(xlabel=scale.axis_label, ylabel=_label(curve, scale))
    legend(ax, show_legend)
    return ax


def mean_energy(
    ensembles: Sequence[StructureEnsemble],
    *,
    simulated: Sequence[float] = (),
    show_legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the mean potential energy of ensembles against temperature; see `observable`.

    Raises
    ------
    DataError
        If the energies of the frames are not known.
    """
    return _of_ensembles("energy", ensembles, simulated, show_legend, ax)


def heat_capacity(
    ensembles: Sequence[StructureEnsemble],
    *,
    simulated: Sequence[float] = (),
    show_legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the configurational heat capacity of ensembles against temperature; see `observable`.

    Raises
    ------
    DataError
        If the energies of the frames are not known.
    """
    return _of_ensembles("heat_capacity", ensembles, simulated, show_legend, ax)


def _of_ensembles(
    name: Literal["energy", "heat_capacity"],
    ensembles: Sequence[StructureEnsemble],
    simulated: Sequence[float],
    show_legend: bool,
    ax: Axes | None,
) -> Axes:
    ordered = sorted(ensembles, key=lambda ensemble: ensemble.temperature)
    curve, scale = energy_curve(name, ordered), ordered[0].scale
    return observable(curve, scale=scale, simulated=simulated, show_legend=show_legend, ax=ax)


def _label(curve: Curve, scale: TemperatureScale) -> str:
    """Label of the axis of values."""
    if curve.unit == "kJ/mol":
        return scale.energy_label(curve.title)
    unit = curve.unit.replace("k_B", "$k_B$")
    return f"{curve.title} [{unit}]" if unit else curve.title
