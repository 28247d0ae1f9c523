"""Free-energy surfaces and differences of weighted frames, with standard errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.reweighting.free_energy import (
    LatentGrid,
    flow_probability,
    free_energy,
    free_energy_error,
)
from latf_openmm.reweighting.weighted import WeightedSample
from latf_openmm.units import KELVIN, SCALES, TemperatureScale

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
_SAMPLES = 20_000
"""Points that say where the density of a flow is."""


@dataclass(frozen=True)
class FreeEnergySurface:
    """A free-energy surface with errors.

    Attributes
    ----------
    grid
        Its cells.
    kT
        Thermal energy [kJ/mol].
    probability
        Of each cell; frames beyond the grid count, so the sum is one at most. Shape of the grid.
    errors
        Standard errors of -kT log(probability) [kJ/mol]; infinite where there is no frame, not a number where they are
        not known. No minimum is taken off, so a constant that is common to all cells is not part of them.
    scale
        Scale of the temperature, for the labels of figures.
    """

    grid: LatentGrid
    kT: float  # noqa: N815 - the field's own name
    probability: Array
    errors: Array
    scale: TemperatureScale = KELVIN

    @property
    def values(self) -> Array:
        """Free energies [kJ/mol], minimum at zero; infinite where there is no frame."""
        return free_energy(self.probability, self.kT)

    @classmethod
    def of_totals(
        cls,
        grid: LatentGrid,
        kT: float,
        totals: tuple[Array, Array],
        widening: float,
        scale: TemperatureScale = KELVIN,
    ) -> "FreeEnergySurface":
        """Return the surface of the weights of cells.

        Parameters
        ----------
        grid, kT, scale
            As the attributes.
        totals
            Weight of each cell of `cells_of` over all frames, shape (n_cells + 1,), and in bootstrap samples,
            shape (n_samples, n_cells + 1).
        widening
            Factor on standard deviations over bootstrap samples that makes them errors.

        Raises
        ------
        DataError
            If no frame is inside the grid.
        """
        shape = tuple(len(edges) - 1 for edges in grid.edges)
        probability, replicates = totals[0][:-1], totals[1][:, :-1]
        if not probability.any():
            raise DataError("no frame is inside the grid")
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(probability > 0, replicates.std(axis=0, ddof=1) / probability, np.inf)
        errors = kT * widening * relative
        return cls(grid, kT, probability.reshape(shape), errors.reshape(shape), scale)


def free_energy_surface(
    sample: WeightedSample, grid: LatentGrid, draws: int = 100, seed: int = 0
) -> FreeEnergySurface:
    """Free energies of the cells of a grid, by a weighted histogram.

    Parameters
    ----------
    grid
        Over the first one or two variables. Periodic ones are put into the period that begins where it does.
    draws, seed
        Bootstrap samples for the errors.

    Raises
    ------
    DataError
        If the grid has more axes than there are variables, or no frame is in it.
    """
    labels, n = cells_of(sample.z, grid, sample.periods)
    totals = sample.totals(labels, n + 1, draws, seed)
    return FreeEnergySurface.of_totals(grid, sample.kT, totals, sample.widening())


def flow_free_energy(
    trained: TrainedModel, temperature: float, grid: LatentGrid | None = None
) -> FreeEnergySurface:
    """F_T(z) = -kT log r_T(z) of a trained model, with the errors of its committee.

    Parameters
    ----------
    trained
        The model.
    temperature
        In its scale; simulated or not.
    grid
        Over the first one or two variables; default: where r_T(z) is.
    """
    if grid is None:
        z = trained.model.density(temperature).sample(_SAMPLES, torch.Generator().manual_seed(0))
        grid = LatentGrid.around(z.double().numpy())
    members = flow_probability(trained.model, temperature, grid, members=True)
    return flow_surface(members, grid, temperature, SCALES[trained.temperature_scale])


def flow_surface(
    members: Array, grid: LatentGrid, temperature: float, scale: TemperatureScale
) -> FreeEnergySurface:
    """Return the surface of the probability of each cell under each member of a committee, the first dimension.

    Errors are not a number where one flow alone knows none.
    """
    kT, mean = scale.kT(temperature), members.mean(axis=0)
    errors = kT * free_energy_error(members) if len(members) > 1 else np.full(mean.shape, np.nan)
    return FreeEnergySurface(grid, kT, mean, errors, scale)


def cells_of(z: Array, grid: LatentGrid, periods: Sequence[float]) -> tuple[Indices, int]:
    """Return the number of the cell each frame is in, as `LatentGrid.histogram` counts, and the number of cells.

    Frames outside the grid have the number of cells.

    Parameters
    ----------
    z
        Collective variables, shape (n_frames, n).
    periods
        Of the variables; 0: not periodic.

    Raises
    ------
    DataError
        If the grid has more axes than there are variables.
    """
    if len(grid.edges) > z.shape[1]:
        raise DataError(f"a grid of {len(grid.edges)} axes does not fit {z.shape[1]} collective variables")
    inside = np.ones(len(z), dtype=bool)
    number = np.zeros(len(z), dtype=np.int64)
    for axis, edges in enumerate(grid.edges):
        x = z[:, axis]
        if periods[axis] > 0:
            x = edges[0] + np.mod(x - edges[0], periods[axis])
        place = np.searchsorted(edges, x, side="right") - 1
        place[x == edges[-1]] = len(edges) - 2
        inside &= (place >= 0) & (place < len(edges) - 1)
        number = number * (len(edges) - 1) + place
    n = int(np.prod([len(edges) - 1 for edges in grid.edges]))
    return np.where(inside, number, n), n


@dataclass(frozen=True)
class FreeEnergyDifference:
    """F of one region minus F of another, with its standard error [kJ/mol]."""

    value: float
    error: float


def free_energy_difference(
    sample: WeightedSample,
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    draws: int = 100,
    seed: int = 0,
) -> FreeEnergyDifference:
    """F(second) - F(first) = -kT log(p(second) / p(first)).

    Parameters
    ----------
    first, second
        Which frames are in each region, for example ``sample.z[:, 0] < 0`` or ``states == 2``; (n_frames,).
    draws, seed
        Bootstrap samples for the error.

    Raises
    ------
    DataError
        If the regions share frames, or one has none.
    """
    if first.shape != (len(sample.z),) or second.shape != (len(sample.z),):
        raise DataError(f"regions of shapes {first.shape} and {second.shape} for {len(sample.z)} frames")
    if not (first.any() and second.any()):
        raise DataError("there is no frame in one of the regions")
    if (first & second).any():
        raise DataError("the regions share frames")
    labels = np.where(first, 0, np.where(second, 1, 2))
    estimate, replicates = sample.totals(labels, 3, draws, seed)
    if not (estimate[:2] > 0).all():
        raise DataError("the frames of one of the regions have no weight")
    value = -sample.kT * float(np.log(estimate[1] / estimate[0]))
    change = replicates[:, 1] / estimate[1] - replicates[:, 0] / estimate[0]
    return FreeEnergyDifference(value, sample.kT * sample.widening() * float(change.std(ddof=1)))
