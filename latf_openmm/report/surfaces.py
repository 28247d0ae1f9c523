"""Figures of free-energy surfaces."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from numpy.typing import NDArray

from latf_openmm.reweighting.free_energy import LatentGrid

Array = NDArray[np.float64]
_DEEPEST = 8.0
"""Free energy up to which surfaces are drawn [kT]."""


@dataclass(frozen=True)
class Surface:
    """One temperature of the free-energy figure.

    Attributes
    ----------
    label
        The temperature, and whether it was simulated.
    flow, reference
        Probability of each cell; the reference may be missing.
    note
        What to write about the comparison.
    error
        Standard error of -log p of the flow in each cell [kT]; missing where one flow alone knows none.
    """

    label: str
    flow: Array
    reference: Array | None
    note: str
    error: Array | None = None


def free_energy_surfaces(surfaces: Sequence[Surface], grid: LatentGrid) -> Figure:
    """F_T(z)/kT of the flow, its standard error, and the reference's F_T(z)/kT at each temperature."""
    if len(grid.edges) == 1:
        return _free_energy_lines(surfaces, grid)
    names = ["flow"]
    names += ["standard error"] if any(surface.error is not None for surface in surfaces) else []
    names += ["reference"] if any(surface.reference is not None for surface in surfaces) else []
    figure = Figure(figsize=(2.3 * len(surfaces) + 1.2, 2.35 * len(names) + 0.3), layout="constrained")
    axes = figure.subplots(len(names), len(surfaces), squeeze=False, sharex=True, sharey=True)
    top = _largest_error(surfaces)
    for column, surface in enumerate(surfaces):
        image = _panel(axes[0, column], surface.flow, grid)
        axes[0, column].set_title(f"{surface.label}\n{surface.note}", fontsize=9)
        axes[-1, column].set_xlabel("z0")
        for row, name in enumerate(names[1:], start=1):
            axis = axes[row, column]
            if name == "standard error" and surface.error is not None:
                errors = np.ma.masked_where(_free_energy(surface.flow) > _DEEPEST, surface.error)
                error_image = axis.pcolormesh(
                    *grid.edges, errors.T, vmin=0, vmax=top, cmap="YlOrRd", rasterized=True
                )
            elif name == "reference" and surface.reference is not None:
                _panel(axis, surface.reference, grid)
            else:
                axis.text(0.5, 0.5, f"no {name}", ha="center", transform=axis.transAxes)
    for row, (name, row_axes) in enumerate(zip(names, axes, strict=True)):
        row_axes[0].set_ylabel(f"{name}\nz1")
        if name == "standard error":
            figure.colorbar(error_image, ax=axes[row], label="error of F / kT", extend="max")
        else:
            figure.colorbar(image, ax=axes[row], label="F / kT")
    return figure


def _free_energy(probability: Array) -> Array:
    """F / kT, minimum at zero."""
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log(probability / probability.max()))


def _panel(axis: Axes, probability: Array, grid: LatentGrid) -> QuadMesh:
    shown = np.ma.masked_greater(_free_energy(probability).T, _DEEPEST)
    return axis.pcolormesh(*grid.edges, shown, vmin=0, vmax=_DEEPEST, cmap="viridis", rasterized=True)


def _largest_error(surfaces: Sequence[Surface]) -> float:
    """End of the colours of errors: most cells below 5 kT are within."""
    errors = [s.error[_free_energy(s.flow) < 5.0] for s in surfaces if s.error is not None]
    finite = np.concatenate([error[np.isfinite(error)] for error in errors]) if errors else np.empty(0)
    return float(np.clip(np.quantile(finite, 0.95), 0.2, 4.0)) if len(finite) else 1.0


def _free_energy_lines(surfaces: Sequence[Surface], grid: LatentGrid) -> Figure:
    figure = Figure(figsize=(2.5 * len(surfaces) + 0.5, 2.8), layout="constrained")
    axes = figure.subplots(1, len(surfaces), squeeze=False, sharex=True, sharey=True)
    for axis, surface in zip(axes[0], surfaces, strict=True):
        x, flow = grid.centres[0], _free_energy(surface.flow)
        if surface.error is not None:
            known = np.isfinite(surface.error)
            low, high = (flow[known] + sign * 2 * surface.error[known] for sign in (-1, 1))
            axis.fill_between(x[known], low, high, color="C1", alpha=0.25, lw=0)
        for name, p, style in (("reference", surface.reference, "k-"), ("flow", surface.flow, "C1--")):
            if p is not None:
                axis.plot(x, _free_energy(p), style, lw=1.2, label=name)
        axis.set(title=f"{surface.label}\n{surface.note}", xlabel="z0", ylim=(-0.3, _DEEPEST))
    axes[0, 0].set_ylabel("F / kT")
    axes[0, 0].legend(frameon=False)
    return figure
