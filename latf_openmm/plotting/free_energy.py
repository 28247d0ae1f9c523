"""Free energies of collective variables: surfaces, their errors, and profiles along one variable."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.plotting.axes import COLOURS, axes_or_new, legend
from latf_openmm.reweighting.surface import FreeEnergySurface

Array = NDArray[np.float64]

HIGHEST = 8.0
"""Free energy up to which surfaces are drawn [kT]."""
ERROR_LEVELS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Bounds of the colours of errors [kT], the same in every figure; from the fourth on F says little."""


def free_energy_surface(
    surface: FreeEnergySurface,
    *,
    in_kt: bool = False,
    highest: float | None = None,
    names: Sequence[str] = ("z0", "z1"),
    colour_bar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a free-energy surface of two variables, minimum at zero.

    Parameters
    ----------
    surface
        Over two variables.
    in_kt
        Whether energies are in kT; else in kJ/mol, or in reduced units.
    highest
        End of the colours, beyond which nothing is drawn, in the unit drawn; default: 8 kT.
    names
        Of the variables, with their units.
    colour_bar
        Whether to draw one.
    ax
        Axes to draw into; default: a new figure.

    Raises
    ------
    DataError
        If the surface is over one variable.
    """
    energies, top = _values(surface, 2, in_kt), _highest(surface, in_kt, highest)
    ax = axes_or_new(ax)
    shown = np.ma.masked_greater(energies.T, top)
    image = ax.pcolormesh(*surface.grid.edges, shown, vmin=0, vmax=top, cmap="viridis", rasterized=True)
    ax.set(xlabel=names[0], ylabel=names[1])
    if colour_bar:
        ax.figure.colorbar(image, ax=ax, label=energy_label(surface, "F", in_kt))
    return ax


def free_energy_error(
    surface: FreeEnergySurface,
    *,
    in_kt: bool = False,
    highest: float | None = None,
    names: Sequence[str] = ("z0", "z1"),
    colour_bar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the standard errors of a free-energy surface of two variables, in bands that are the same in every figure.

    They end at 0.1, 0.3, 1, 3 and 10 kT; errors differ by so much from cell to cell that even steps show some of them.

    Parameters
    ----------
    surface, in_kt, names, colour_bar, ax
        As for `free_energy_surface`.
    highest
        Free energy beyond which nothing is drawn, in the unit drawn; default: 8 kT.

    Raises
    ------
    DataError
        If the surface is over one variable.
    """
    energies, top = _values(surface, 2, in_kt), _highest(surface, in_kt, highest)
    ax, unit = axes_or_new(ax), surface.kT if in_kt else 1.0
    errors = np.ma.masked_where(energies > top, surface.errors / unit)
    levels = np.array(ERROR_LEVELS) * surface.kT / unit
    bands = BoundaryNorm(levels, colormaps["YlOrRd"].N, extend="max")
    image = ax.pcolormesh(*surface.grid.edges, errors.T, norm=bands, cmap="YlOrRd", rasterized=True)
    ax.set(xlabel=names[0], ylabel=names[1])
    if colour_bar:
        error_colours(image, ax, energy_label(surface, "error of F", in_kt))
    return ax


def free_energy_profile(
    surface: FreeEnergySurface,
    *,
    in_kt: bool = False,
    highest: float | None = None,
    name: str = "z0",
    label: str | None = None,
    style: str = "-",
    colour: str = COLOURS[0],
    ax: Axes | None = None,
) -> Axes:
    """Draw a free energy along one variable, minimum at zero, with a band of two standard errors.

    Parameters
    ----------
    surface
        Over one variable.
    in_kt, ax
        As for `free_energy_surface`.
    highest
        End of the axis of energies, in the unit drawn; default: 8 kT.
    name
        Of the variable, with its unit.
    label, style, colour
        Of the line; without a label there is no legend.

    Raises
    ------
    DataError
        If the surface is over two variables.
    """
    energies, top = _values(surface, 1, in_kt), _highest(surface, in_kt, highest)
    ax, x = axes_or_new(ax), surface.grid.centres[0]
    errors = surface.errors / (surface.kT if in_kt else 1.0)
    known = np.isfinite(errors) & np.isfinite(energies)
    if known.any():
        twice, middle = (np.where(known, values, np.nan) for values in (2 * errors, energies))
        ax.fill_between(x, middle - twice, middle + twice, color=colour, alpha=0.25, lw=0)
    ax.plot(x, energies, style, color=colour, lw=1.2, label=label)
    ax.set(xlabel=name, ylabel=energy_label(surface, "F", in_kt), ylim=(-0.0375 * top, top))
    legend(ax, label is not None)
    return ax


def error_colours(image: ScalarMappable, ax: Axes | Sequence[Axes], label: str) -> None:
    """Draw the colour bar of errors beside one or several axes."""
    first = ax if isinstance(ax, Axes) else ax[0]
    first.figure.colorbar(image, ax=ax, label=label, format="%.2g")


def energy_label(surface: FreeEnergySurface, name: str, in_kt: bool) -> str:
    """Label of an axis of energies."""
    return f"{name} / kT" if in_kt else surface.scale.energy_label(name)


def _values(surface: FreeEnergySurface, n_axes: int, in_kt: bool) -> Array:
    """Free energies in the unit drawn, once the number of variables is right."""
    if len(surface.grid.edges) != n_axes:
        other = "free_energy_profile" if n_axes == 2 else "free_energy_surface"
        n = len(surface.grid.edges)
        raise DataError(
            f"the surface is over {n} {'variable' if n == 1 else 'variables'}, expected {n_axes}; use plotting.{other}"
        )
    return surface.values / (surface.kT if in_kt else 1.0)


def _highest(surface: FreeEnergySurface, in_kt: bool, highest: float | None) -> float:
    """End of the energies in the unit drawn."""
    return HIGHEST * (1.0 if in_kt else surface.kT) if highest is None else highest
