"""Free-energy surfaces and differences of weighted frames, with standard errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.reweighting.free_energy import LatentGrid, free_energy
from latf_openmm.reweighting.weighted import WeightedSample

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


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
        Standard errors of -kT log(probability) [kJ/mol]; infinite where there is no frame. No minimum is
        taken off, so a constant that is common to all cells is not part of them.
    """

    grid: LatentGrid
    kT: float  # noqa: N815 - the field's own name
    probability: Array
    errors: Array

    @property
    def values(self) -> Array:
        """Free energies [kJ/mol], minimum at zero; infinite where there is no frame."""
        return free_energy(self.probability, self.kT)


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
    shape = tuple(len(edges) - 1 for edges in grid.edges)
    if len(shape) > sample.z.shape[1]:
        raise DataError(f"a grid of {len(shape)} axes does not fit {sample.z.shape[1]} collective variables")
    labels = _cells(sample.z, grid, sample.periods)
    n = int(np.prod(shape))
    if (labels == n).all():
        raise DataError("no frame is inside the grid")
    estimate, replicates = sample.totals(labels, n + 1, draws, seed)
    probability = estimate[:n]
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(probability > 0, replicates[:, :n].std(axis=0, ddof=1) / probability, np.inf)
    errors = sample.kT * sample.widening() * relative
    return FreeEnergySurface(grid, sample.kT, probability.reshape(shape), errors.reshape(shape))


def _cells(z: Array, grid: LatentGrid, periods: Sequence[float]) -> Indices:
    """Number of the cell each frame is in, as `LatentGrid.histogram` counts; those outside have the next number."""
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
    return np.where(inside, number, int(np.prod([len(edges) - 1 for edges in grid.edges])))


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
