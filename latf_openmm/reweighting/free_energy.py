"""Free-energy surfaces on a grid of the latent space, from the flow or from weighted samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.model.latf import LatentDensity, LatentThermodynamicFlow
from latf_openmm.reweighting.blocks import redrawn_blocks, student_widening

Array = NDArray[np.float64]
_POINTS = 4
"""Points along each axis of a cell, of which the mean is taken."""


@dataclass(frozen=True)
class LatentGrid:
    """Cells of the first one or two collective variables.

    Attributes
    ----------
    edges
        Cell borders along each axis; the grid has one or two axes.
    """

    edges: tuple[Array, ...]

    @staticmethod
    def around(
        z: Array, points: int = 60, margin: float = 0.1, periods: Sequence[float] | None = None
    ) -> "LatentGrid":
        """Return the grid that covers points with a margin on each side, and all of a periodic variable.

        Parameters
        ----------
        z
            Collective variables, shape (n_frames, n), of which the first one or two are axes.
        points
            Cells along each axis.
        margin
            On each side of a variable that is not periodic, as a part of its range.
        periods
            Period of each variable, 0 where it has none (``cv.periods.tolist()``); such an axis goes from minus half a
            period to plus half a period. Default: none has.

        Raises
        ------
        DataError
            If there is not one period for each variable.
        """
        if periods is not None and len(periods) != z.shape[1]:
            raise DataError(f"periods: {len(periods)} for {z.shape[1]} collective variables")
        edges = []
        for axis in range(min(2, z.shape[1])):
            if periods is not None and periods[axis] > 0:
                edges.append(np.linspace(-0.5 * periods[axis], 0.5 * periods[axis], points + 1))
                continue
            low, high = np.quantile(z[:, axis], [0.0005, 0.9995])
            pad = margin * (high - low) + 1e-9
            edges.append(np.linspace(low - pad, high + pad, points + 1))
        return LatentGrid(tuple(edges))

    @property
    def centres(self) -> tuple[Array, ...]:
        """Cell centres along each axis."""
        return tuple(0.5 * (e[1:] + e[:-1]) for e in self.edges)

    @property
    def cell_volume(self) -> float:
        """Volume of one cell."""
        return float(np.prod([e[1] - e[0] for e in self.edges]))

    def histogram(self, z: Array, weights: Array | None = None) -> Array:
        """Probability of each cell from weighted samples (n, latent_dim); sums to at most one."""
        total = len(z) if weights is None else weights.sum()
        columns = [z[:, axis] for axis in range(len(self.edges))]
        counts = np.histogramdd(columns, bins=list(self.edges), weights=weights)[0]
        return np.asarray(counts / total)


def flow_probability(
    model: LatentThermodynamicFlow,
    temperature: float,
    grid: LatentGrid,
    samples: int = 200_000,
    members: bool = False,
) -> Array:
    """Probability of each cell under r_T(z), or under each member of the committee.

    With as many collective variables as grid axes it is the closed form, averaged over 4 points along each
    axis of a cell; with more it is the histogram of `samples` independent samples.

    Returns
    -------
    ndarray
        Shape of the grid, with `members` preceded by (n_members,).
    """
    density = model.density(temperature)
    if model.latent_dim > len(grid.edges):
        z = density.sample(samples, torch.Generator().manual_seed(0)).double().numpy()
        each = np.array([grid.histogram(z[i :: model.n_members]) for i in range(model.n_members)])
    else:
        each = _cell_averages(density, grid)
    return each if members else np.asarray(each.mean(axis=0))


def _cell_averages(density: LatentDensity, grid: LatentGrid) -> Array:
    offsets = (np.arange(_POINTS) + 0.5) / _POINTS - 0.5
    axes = [
        (c[:, None] + offsets * (e[1] - e[0])).ravel() for c, e in zip(grid.centres, grid.edges, strict=True)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    flat = torch.from_numpy(points.reshape(-1, len(axes))).float()
    with torch.no_grad():
        parts = [density.member_log_probs(part) for part in flat.split(16_384)]
    r = np.exp(torch.cat(parts, dim=1).double().numpy()).reshape(-1, *points.shape[:-1])
    for axis in range(1, len(axes) + 1):
        r = r.reshape(*r.shape[:axis], -1, _POINTS, *r.shape[axis + 1 :]).mean(axis=axis + 1)
    return np.asarray(r * grid.cell_volume)


def committee_error(members: Array) -> Array:
    """Error of the mean over a committee of bootstrap members, the first dimension; zero for one.

    Each member was trained on its own bootstrap sample, so their standard deviation is that of one estimate
    from data like these; the mean over a few members has a share of chance of its own, 1/M of the variance.
    The standard deviation of a few is itself uncertain, so it is widened by Student's t (M - 1 degrees of
    freedom): twice the error covers what two standard errors would.

    Examples
    --------
    >>> round(float(committee_error(np.array([1.0, 2.0, 3.0]))), 3)
    2.613
    """
    if len(members) < 2:
        return np.zeros(members.shape[1:])
    return np.asarray(committee_widening(len(members)) * members.std(axis=0, ddof=1))


def free_energy_error(members: Array) -> Array:
    """Error of -log p [kT] from the probability of each cell under each member of a committee, the first dimension.

    No minimum is taken off; infinite where a member has no probability.

    Examples
    --------
    >>> np.round(free_energy_error(np.array([[0.4, 0.0], [0.4, 0.2]])), 3).tolist()
    [0.0, inf]
    """
    known = (members > 0).all(axis=0)
    return np.where(known, committee_error(-np.log(np.where(known, members, 1.0))), np.inf)


def committee_widening(m: int) -> float:
    """Factor on the standard deviation over `m` members, two or more, that `committee_error` applies."""
    return float(student_widening(m) * np.sqrt(1 + 1 / m))


def flow_populations(model: LatentThermodynamicFlow, temperature: float, samples: int) -> tuple[Array, Array]:
    """State populations under r_T(z) and their standard errors, each of shape (n_states,).

    The errors are those of the committee, which hold the error of sampling `samples` points too.
    """
    z = model.density(temperature).sample(samples, torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = model.assign(z).numpy()
    return populations_of_members(states, model.n_members, model.n_states)


def populations_of_members(states: NDArray[np.int64], n_members: int, n_states: int) -> tuple[Array, Array]:
    """Populations and errors from states of samples that were drawn from the members in turn."""
    by_member = [states[i::n_members] for i in range(n_members)]
    shares = np.array([state_populations(s, np.ones(len(s)), n_states) for s in by_member])
    mean = shares.mean(axis=0)
    if n_members > 1:
        return mean, committee_error(shares)
    return mean, np.sqrt(mean * (1 - mean) / len(states))


def free_energy(probability: Array, kT: float) -> Array:
    """F = -kT log p, minimum at zero [kJ/mol]; infinite where p is zero."""
    with np.errstate(divide="ignore"):
        surface = -kT * np.log(probability)
    return np.asarray(surface - surface.min())


def jensen_shannon(p: Array, q: Array) -> float:
    """Jensen-Shannon divergence of two histograms, in nats; each is normalised first.

    Examples
    --------
    >>> jensen_shannon(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    0.0
    >>> round(jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])), 4)
    0.6931
    """
    p, q = p / p.sum(), q / q.sum()
    mixture = 0.5 * (p + q)

    def relative(a: Array) -> float:
        inside = a > 0
        return float((a[inside] * np.log(a[inside] / mixture[inside])).sum())

    return max(0.0, 0.5 * relative(p) + 0.5 * relative(q))


def free_energy_rmse(probability: Array, reference: Array, cutoff: float = 5.0) -> float:
    """RMS difference of two free energies in kT, where the reference is within `cutoff` kT of its minimum.

    Both are normalised probabilities, so no constant is fitted. Cells where `probability` is zero count
    as if they were at the smallest probability it has.
    """
    region = reference > reference.max() * np.exp(-cutoff)
    floor = probability[probability > 0].min()
    difference = np.log(np.maximum(probability[region], floor)) - np.log(reference[region])
    return float(np.sqrt((difference**2).mean()))


def state_populations(labels: NDArray[np.int64], weights: Array, n_states: int) -> Array:
    """Weighted fraction of samples in each state, shape (n_states,)."""
    return np.asarray(np.bincount(labels, weights, minlength=n_states) / weights.sum())


def bootstrap_populations(
    labels: Sequence[NDArray[np.int64]],
    weights: Sequence[Array],
    n_states: int,
    rng: np.random.Generator,
    blocks_each: int = 5,
    draws: int = 200,
) -> tuple[Array, Array]:
    """State populations and their standard errors by block bootstrap.

    Parameters
    ----------
    labels, weights
        One array for each walker; every walker is cut into `blocks_each` blocks, which are redrawn.

    Returns
    -------
    populations, errors
        Each of shape (n_states,).
    """
    blocks = np.array(
        [
            np.bincount(label, weight, minlength=n_states)
            for walker_labels, walker_weights in zip(labels, weights, strict=True)
            for label, weight in zip(
                np.array_split(walker_labels, blocks_each),
                np.array_split(walker_weights, blocks_each),
                strict=True,
            )
        ]
    )
    redrawn = redrawn_blocks(np.zeros(len(blocks), np.int64), draws, rng).T @ blocks
    redrawn = redrawn / np.maximum(redrawn.sum(axis=1, keepdims=True), 1e-300)
    total = blocks.sum(axis=0)
    return total / total.sum(), redrawn.std(axis=0, ddof=1)
