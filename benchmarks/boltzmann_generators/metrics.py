"""Metrics of papers on Boltzmann generators, written from their definitions; all take weighted samples.

* Divergence of the Ramachandran plot: forward Kullback-Leibler divergence of histograms with 100 x 100 cells, 1e-10
  added to both densities (TA-BG, `evaluation/metrics.py`; boltzkit, `histogram_comparison.py`; after FAB, arXiv
  2208.01893).
* Torus-W2: 2-Wasserstein distance of (phi, psi) with the periodic distance, of equally many samples, by exact
  assignment (boltzkit, `wasserstein.py`).
* Energy-W2: 2-Wasserstein distance of U/kT.
* Difference of free energy between phi in [0, 2] rad and elsewhere [kT] (boltzkit, `torsion_marginals.py`).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

from latf_openmm.reweighting.weights import systematic

Array = NDArray[np.float64]
BINS = 100
"""Cells along each angle."""
FLOOR = 1e-10
"""What is added to densities [1/rad^2]."""
PHI_RANGE = (0.0, 2.0)
"""Of the region whose free energy is compared [rad]."""
WIDTHS = (0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Standard deviations of the kernel that are tried, in cells."""
_CELL = 2 * np.pi / BINS
_EDGES = np.linspace(-np.pi, np.pi, BINS + 1)


def ramachandran(angles: NDArray[np.floating], weights: Array | None = None) -> Array:
    """Density of (phi, psi), shape (BINS, BINS) [1/rad^2].

    Parameters
    ----------
    angles
        Shape (n, 2) [rad], of any period.
    weights
        Shape (n,); None: equal ones.
    """
    inside = np.remainder(np.asarray(angles, np.float64) + np.pi, 2 * np.pi) - np.pi
    counts = np.histogram2d(inside[:, 0], inside[:, 1], [_EDGES, _EDGES], weights=weights)[0]
    return np.asarray(counts / (counts.sum() * _CELL**2))


def forward_divergence(reference: Array, density: Array) -> float:
    """Kullback-Leibler divergence of densities on the cells of `ramachandran`, in nats."""
    ratio = np.log(reference + FLOOR) - np.log(density + FLOOR)
    return float((reference * ratio).sum() * _CELL**2)


def smoothed(density: Array, width: float) -> Array:
    """Density after a periodic Gaussian kernel of so many cells."""
    return density if width == 0 else np.asarray(gaussian_filter(density, width, mode="wrap"))


def fitting_width(angles: NDArray[np.floating], weights: Array, folds: NDArray[np.integer]) -> float:
    """Width of the kernel that makes frames most likely that were left out, one of `WIDTHS` [cells].

    Parameters
    ----------
    angles
        Shape (n, 2) [rad].
    weights
        Shape (n,).
    folds
        Part that each frame belongs to, shape (n,); frames that are correlated belong to one.
    """
    names = np.unique(folds)
    parts = [ramachandran(angles[folds == k], weights[folds == k]) for k in names]
    shares = np.array([weights[folds == k].sum() for k in names])
    likelihood = dict.fromkeys(WIDTHS, 0.0)
    for k, part in enumerate(parts):
        others = shares * (np.arange(len(names)) != k)
        rest = np.tensordot(others / others.sum(), np.array(parts), axes=1)
        for width in WIDTHS:
            likelihood[width] += shares[k] * float((part * np.log(smoothed(rest, width) + FLOOR)).sum())
    return max(WIDTHS, key=lambda width: likelihood[width])


def resampled(weights: Array, n: int, seed: int) -> NDArray[np.int64]:
    """Indices of frames with equal weights, in random order, shape (n,)."""
    rng = np.random.default_rng(seed)
    return rng.permutation(systematic(weights / weights.sum(), n, rng))


def torus_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """2-Wasserstein distance of equally many angles, shape (n, k) [rad], on the torus [rad]."""
    apart = np.abs(np.remainder(a[:, None] - b[None] + np.pi, 2 * np.pi) - np.pi)
    cost = (apart.astype(np.float64) ** 2).sum(-1)
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


def energy_distance(
    a: NDArray[np.floating], weights_a: Array, b: NDArray[np.floating], weights_b: Array
) -> float:
    """2-Wasserstein distance of two weighted sets of numbers, by their quantiles."""
    first, second = np.argsort(a), np.argsort(b)
    below = [np.cumsum(w[o]) / w.sum() for w, o in ((weights_a, first), (weights_b, second))]
    levels = np.sort(np.concatenate(below))
    middle = 0.5 * (levels + np.concatenate([[0.0], levels[:-1]]))
    at = [np.minimum(np.searchsorted(share, middle), len(share) - 1) for share in below]
    difference = a[first][at[0]] - b[second][at[1]]
    return float(np.sqrt((difference**2 * np.diff(levels, prepend=0.0)).sum()))


def free_energy_difference(phi: NDArray[np.floating], weights: Array) -> float:
    """Free energy of phi in `PHI_RANGE` less that of all else [kT]."""
    inside = weights[(phi >= PHI_RANGE[0]) & (phi <= PHI_RANGE[1])].sum() / weights.sum()
    with np.errstate(divide="ignore"):
        return float(np.log1p(-inside) - np.log(inside))
