"""The pictures of the page: files on disk, and what the page has to know of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.reference import Reference
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.plotting import Populations
from latf_openmm.report import figures as plots
from latf_openmm.report.comparison import Comparison
from latf_openmm.report.surfaces import Surface, free_energy_surfaces
from latf_openmm.reweighting.free_energy import Array, LatentGrid, flow_populations
from latf_openmm.reweighting.surface import FreeEnergySurface, flow_surface
from latf_openmm.run.folder import RunFolder
from latf_openmm.storage import atomic_file
from latf_openmm.units import TemperatureScale

_READABLE = 70
"""Pixels of the page that an inch of a figure takes at least; a narrower page scrolls the figure."""


@dataclass(frozen=True)
class Picture:
    """A figure in the folder of the page.

    Attributes
    ----------
    file
        Its name.
    least
        Width below which it can no longer be read [pixels].
    """

    file: str
    least: int


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def save_picture(figure: Figure, folder: Path, name: str) -> Picture:
    """Write a figure of the page."""
    save(figure, folder / f"{name}.png")
    return Picture(f"{name}.png", round(_READABLE * figure.get_size_inches()[0]))


def surfaces(
    flows: dict[float, Array],
    grid: LatentGrid,
    rows: Sequence[Comparison],
    references: dict[float, Reference],
    scale: TemperatureScale,
) -> Figure:
    """Free-energy surfaces with errors.

    Parameters
    ----------
    flows
        Probability of each cell under each member of the committee, by temperature.
    rows
        One for each temperature.
    """
    panels = []
    for row in rows:
        t, reference = row.temperature, references.get(row.temperature)
        drawn = None
        if reference is not None:
            p = reference.probability(grid)
            drawn = FreeEnergySurface(grid, scale.kT(t), p, np.full(p.shape, np.nan), scale)
        panels.append(
            Surface(
                f"{row.label} ({'simulated' if row.simulated else 'generated'})",
                flow_surface(flows[t], grid, t, scale),
                drawn,
                "" if row.jensen_shannon is None else f"JS {row.jensen_shannon:.3f}",
            )
        )
    return free_energy_surfaces(panels)


def populations(
    run: RunFolder,
    trained: TrainedModel,
    index: int,
    ensembles: Sequence[StructureEnsemble],
    references: dict[float, Reference],
) -> Figure:
    """State populations against temperature, from all sources that there are."""
    wanted = run.temperatures()
    scan = np.linspace(wanted[0], wanted[-1], 25) if len(wanted) > 1 else np.array(wanted)
    estimates = [flow_populations(trained.model, float(temperature), 10_000) for temperature in scan]
    values, errors = (np.array(column) for column in zip(*estimates, strict=True))
    flow = Populations(scan, values, errors, run.scale)
    frames = Populations.of_rows(run.round(index).summary().populations, run.scale)
    reference = None
    if references:
        chosen = sorted(references)
        reference = Populations(
            np.array(chosen),
            np.array([references[t].populations for t in chosen]),
            np.array([references[t].errors for t in chosen]),
            run.scale,
        )
    return plots.population_curves(flow, frames, Populations.of_ensembles(ensembles), reference)
