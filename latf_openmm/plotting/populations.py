"""Populations of metastable states against temperature."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.plotting.axes import axes_or_new, legend, state_colour
from latf_openmm.run.records import Populations as PopulationsRow
from latf_openmm.units import KELVIN, TemperatureScale

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Populations:
    """State populations against temperature from one source.

    Attributes
    ----------
    temperatures
        Ascending, shape (n_temperatures,).
    values, errors
        Populations and their standard errors, shape (n_temperatures, n_states).
    scale
        Of the temperatures.
    """

    temperatures: Array
    values: Array
    errors: Array
    scale: TemperatureScale = KELVIN

    @classmethod
    def of_ensembles(cls, ensembles: Iterable[StructureEnsemble]) -> "Populations":
        """Populations of ensembles of one system, one for each temperature."""
        ordered = sorted(ensembles, key=lambda ensemble: ensemble.temperature)
        shares = [ensemble.populations() for ensemble in ordered]
        return cls(
            np.array([ensemble.temperature for ensemble in ordered]),
            np.array([[share.value for share in row] for row in shares]),
            np.array([[share.error for share in row] for row in shares]),
            ordered[0].scale,
        )

    @classmethod
    def of_rows(cls, rows: Iterable[PopulationsRow], scale: TemperatureScale) -> "Populations":
        """Populations of the frames at simulated temperatures, as the record of a round has them."""
        ordered = sorted(rows, key=lambda row: row.temperature)
        return cls(
            np.array([row.temperature for row in ordered]),
            np.array([row.populations for row in ordered]),
            np.array([row.errors for row in ordered]),
            scale,
        )


def populations(
    source: Populations | Sequence[StructureEnsemble],
    *,
    states: Sequence[int] | None = None,
    style: Literal["points", "band"] = "points",
    marker: str = "o",
    filled: bool = True,
    line: bool = True,
    colour: str | None = None,
    label: str | None = None,
    show_legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw populations of states against temperature; bars or bands of two standard errors, which end at 0 and 1.

    Parameters
    ----------
    source
        Ensembles of one system at several temperatures, or `Populations`.
    states
        Which of them; default: all.
    style
        Points with bars, or a line with a band.
    marker, filled, line
        Of points; whether a thin line joins them.
    colour
        Default: that of each state.
    label
        For the legend; default: the number of each state.
    show_legend
        Whether to draw one.
    ax
        Axes to draw into; default: a new figure.
    """
    table = source if isinstance(source, Populations) else Populations.of_ensembles(source)
    ax = axes_or_new(ax)
    for state in range(table.values.shape[1]) if states is None else states:
        tint = state_colour(state) if colour is None else colour
        name = f"state {state}" if label is None else label
        if style == "band":
            _band(ax, table, state, tint, name)
        else:
            value, (low, high) = table.values[:, state], _ends(table, state)
            ax.errorbar(
                table.temperatures,
                value,
                [value - low, high - value],
                fmt=f"{marker}-" if line else marker,
                ms=4,
                color=tint,
                mfc=tint if filled else "white",
                lw=1,
                capsize=2,
                label=name,
            )
    ax.set(xlabel=table.scale.axis_label, ylabel="population")
    ax.set_ylim(bottom=0, auto=None)  # what is drawn next may reach higher
    legend(ax, show_legend)
    return ax


def _band(ax: Axes, table: Populations, state: int, colour: str, label: str) -> None:
    """Line of one state, with a band."""
    ax.plot(table.temperatures, table.values[:, state], color=colour, label=label)
    low, high = _ends(table, state)
    ax.fill_between(table.temperatures, low, high, color=colour, alpha=0.25, lw=0)


def _ends(table: Populations, state: int) -> tuple[Array, Array]:
    """Lower and upper ends of two standard errors, between 0 and 1, each (n_temperatures,).

    Rounded sums of weights may be a little above 1, so the value itself is never outside.
    """
    value, twice = table.values[:, state], 2 * table.errors[:, state]
    low, high = np.maximum(value - twice, 0.0), np.minimum(value + twice, 1.0)
    return np.minimum(low, value), np.maximum(high, value)
