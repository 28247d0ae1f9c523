"""Figures of free-energy surfaces."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from latf_openmm import plotting
from latf_openmm.plotting.free_energy import error_colours
from latf_openmm.reweighting.surface import FreeEnergySurface


@dataclass(frozen=True)
class Surface:
    """One temperature of the free-energy figure.

    Attributes
    ----------
    label
        The temperature, and whether it was simulated.
    flow, reference
        Free energies; the reference may be missing.
    note
        What to write about the comparison.
    """

    label: str
    flow: FreeEnergySurface
    reference: FreeEnergySurface | None
    note: str

    @property
    def has_errors(self) -> bool:
        """True where errors of the flow are known; one flow alone knows none."""
        return not np.isnan(self.flow.errors).all()


def free_energy_surfaces(surfaces: Sequence[Surface]) -> Figure:
    """F_T(z)/kT of the flow, its standard error, and the reference's F_T(z)/kT at each temperature."""
    if len(surfaces[0].flow.grid.edges) == 1:
        return _free_energy_lines(surfaces)
    names = ["flow"]
    names += ["standard error"] if any(surface.has_errors for surface in surfaces) else []
    names += ["reference"] if any(surface.reference is not None for surface in surfaces) else []
    figure = Figure(figsize=(2.3 * len(surfaces) + 1.2, 2.35 * len(names) + 0.3), layout="constrained")
    axes = figure.subplots(len(names), len(surfaces), squeeze=False, sharex=True, sharey=True)
    for column, surface in enumerate(surfaces):
        for name, axis in zip(names, axes[:, column], strict=True):
            _panel(axis, surface, name)
        axes[0, column].set_title(f"{surface.label}\n{surface.note}", fontsize=9)
        axes[-1, column].set_xlabel("z0")
    for name, row in zip(names, axes, strict=True):
        row[0].set_ylabel(f"{name}\nz1")
        image = next(axis.collections[0] for axis in row if axis.collections)
        if name == "standard error":
            error_colours(image, list(row), "error of F / kT")
        else:
            figure.colorbar(image, ax=row, label="F / kT")
    return figure


def _panel(axis: Axes, surface: Surface, name: str) -> None:
    """Draw one surface without labels, or say that there is none."""
    if name == "standard error" and surface.has_errors:
        plotting.free_energy_error(surface.flow, in_kt=True, colour_bar=False, ax=axis)
    elif name == "flow":
        plotting.free_energy_surface(surface.flow, in_kt=True, colour_bar=False, ax=axis)
    elif name == "reference" and surface.reference is not None:
        plotting.free_energy_surface(surface.reference, in_kt=True, colour_bar=False, ax=axis)
    else:
        axis.text(0.5, 0.5, f"no {name}", ha="center", transform=axis.transAxes)
    axis.set(xlabel="", ylabel="")


def _free_energy_lines(surfaces: Sequence[Surface]) -> Figure:
    figure = Figure(figsize=(2.5 * len(surfaces) + 0.5, 2.8), layout="constrained")
    axes = figure.subplots(1, len(surfaces), squeeze=False, sharex=True, sharey=True)[0]
    for axis, surface in zip(axes, surfaces, strict=True):
        if surface.reference is not None:
            _line(axis, surface.reference, "reference", "-", "black")
        _line(axis, surface.flow, "flow", "--", "C1")
        axis.set_title(f"{surface.label}\n{surface.note}")
        if axis is not axes[0]:
            axis.set_ylabel("")
    axes[0].legend(frameon=False)
    return figure


def _line(axis: Axes, surface: FreeEnergySurface, label: str, style: str, colour: str) -> None:
    plotting.free_energy_profile(surface, in_kt=True, label=label, style=style, colour=colour, ax=axis)
    legend = axis.get_legend()
    if legend is not None:
        legend.remove()
