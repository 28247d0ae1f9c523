"""Weights corrected by forces: means that a canonical sample must have, whatever its noise.

Move a structure in directions a that neither stretch nor squeeze space: a particle along an axis, a part of a molecule
turned rigidly about a bond. With D_a the derivative along the move and F_a = -D_a U the force along it, any smooth
function phi has, at temperature T,

    < h >_T = 0,    h = sum_a (D_a D_a phi + F_a D_a phi / kT)                                  (integration by parts)

since h exp(-U/kT) is a divergence. h is the generator of a diffusion applied to phi, so that a combination of
functions with L phi = A - <A> (Poisson's equation) would leave no noise in the mean of A. Weights w become

    w' = w (1 + (phi - <phi> - gamma (h - <h>)) . mu),     (D + gamma C) mu = <h>,

with D = < sum_a D_a phi D_a phi^T > and C = < (h - <h>) (h - <h>)^T >. Without gamma it is Galerkin's solution of
Poisson's equation, which trusts forces and forgets how often frames are visited; with a large one it is the regression
on control variates of independent samples (Oates, Girolami and Chopin, 2017). In between, gamma stands for the time
between frames and for the noise of forces from all else that moves.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from latf_openmm.reweighting.cells import clusters
from latf_openmm.reweighting.replicates import Replicates

Array = NDArray[np.float64]

_FUNCTIONS = 40
"""Gaussians of slow variables."""
_WIDTH = 2.0
"""Their standard deviation, over the median distance to the next."""
_RIDGE = 1e-6
"""Added to the diagonal of the equations, which is one."""
_LOWEST = 0.05
"""Least factor on a weight; no weight may be negative."""
_NOISES = (0.1, 1.0, 10.0)
"""Values of gamma that are tried, over the ratio of the traces of D and C."""
_GAIN = 0.9
"""Mean ratio of variances after and before, above which nothing is corrected."""


@dataclass(frozen=True)
class Slopes:
    """Derivatives of slow variables along moves, summed over the moves, at every frame.

    Attributes
    ----------
    z
        Slow variables, shape (n_frames, dim).
    metric
        sum_a D_a z D_a z^T, shape (n_frames, dim, dim).
    curvature
        sum_a D_a D_a z, shape (n_frames, dim).
    work
        sum_a F_a D_a z, shape (n_frames, dim) [kJ/mol].
    """

    z: Array
    metric: Array
    curvature: Array
    work: Array


class Identities:
    """Gaussians of slow variables, and what their identities say at frames.

    Parameters
    ----------
    slopes
        Of the slow variables.
    centres
        Of the Gaussians, shape (n_functions, dim).
    width
        Standard deviation of all of them along each variable, shape (dim,).

    Attributes
    ----------
    values
        phi, shape (n_frames, n_functions).
    """

    def __init__(self, slopes: Slopes, centres: Array, width: Array) -> None:
        self.slopes = slopes
        off = (slopes.z[:, None] - centres) / width
        self.values: Array = np.exp(-0.5 * (off**2).sum(axis=2))
        self._gradients = -self.values[:, :, None] * off / width
        metric = slopes.metric / np.outer(width, width)
        bent = np.einsum("nka,nab,nkb->nk", off, metric, off, optimize=True)
        bent -= np.trace(metric, axis1=1, axis2=2)[:, None]
        self._curvature = self.values * bent + self._along(slopes.curvature)
        self._work = self._along(slopes.work)

    @classmethod
    def about_frames(cls, slopes: Slopes, seed: int = 0) -> "Identities":
        """Return Gaussians about clusters of frames, twice as wide as the distance to the next."""
        scale = slopes.z.std(axis=0) + 1e-12
        centres, _ = clusters(slopes.z / scale, _FUNCTIONS, seed)
        spacing = float(np.median(cKDTree(centres).query(centres, k=2)[0][:, 1]))
        return cls(slopes, centres * scale, _WIDTH * spacing * scale)

    def residuals(self, kT: float) -> Array:
        """Return h of every frame at a temperature, shape (n_frames, n_functions); its canonical mean is zero."""
        return np.asarray(self._curvature + self._work / kT)

    def stiffness(self, weights: Array) -> Array:
        """D of weights (n_frames,) that sum to one, shape (n_functions, n_functions)."""
        pulled = np.einsum("nka,nab->nkb", self._gradients, self.slopes.metric) * weights[:, None, None]
        return np.asarray(np.tensordot(pulled, self._gradients, axes=((0, 2), (0, 2))))

    def _along(self, vectors: Array) -> Array:
        return np.einsum("nka,na->nk", self._gradients, vectors)


class Correction:
    """Factors on weights that identities ask for, with the equations of all frames and any means.

    Parameters
    ----------
    weights
        At the temperature, summing to one, shape (n_frames,).
    kT
        Thermal energy [kJ/mol].
    noise
        gamma, over the ratio of the traces of D and C.
    """

    def __init__(self, identities: Identities, weights: Array, kT: float, noise: float) -> None:
        self.residuals = identities.residuals(kT)
        off = self.residuals - weights @ self.residuals
        stiffness, scatter = identities.stiffness(weights), (off * weights[:, None]).T @ off
        gamma = noise * np.trace(stiffness) / max(float(np.trace(scatter)), 1e-300)
        matrix = stiffness + gamma * scatter
        self._scale = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
        self._matrix = matrix / np.outer(self._scale, self._scale) + _RIDGE * np.eye(len(matrix))
        self.instruments: Array = identities.values - gamma * self.residuals

    def factors(self, residuals: Array, instruments: Array) -> Array:
        """Factors on the weights of all frames, shape (n_frames,), not below a twentieth.

        Parameters
        ----------
        residuals, instruments
            Weighted means of these columns, of all frames or of a bootstrap sample, shape (n_functions,).
        """
        pull = np.linalg.solve(self._matrix, residuals / self._scale) / self._scale
        return np.maximum(1.0 + (self.instruments - instruments) @ pull, _LOWEST)


def corrected(identities: Identities, replicates: Replicates, kT: float, columns: Array) -> Replicates:
    """Return weights and bootstrap samples as the identities correct them; as they are where that gains little.

    Parameters
    ----------
    replicates
        Weights at the temperature, and the factors on them in bootstrap samples.
    kT
        Thermal energy [kJ/mol].
    columns
        Numbers of every frame, of whose means the variances in bootstrap samples are compared, (n_frames, n_columns).
    """
    before = np.maximum(replicates.means(columns).var(axis=0), 1e-300)
    best, least = replicates, _GAIN
    for noise in _NOISES:
        trial = _with(Correction(identities, replicates.weights, kT, noise), replicates)
        score = float((trial.means(columns).var(axis=0) / before).mean())
        if score < least:
            best, least = trial, score
    return best


def _with(correction: Correction, replicates: Replicates) -> Replicates:
    """Weights and bootstrap samples with one correction."""
    weights, both = replicates.weights, (correction.residuals, correction.instruments)
    change = correction.factors(*(weights @ column for column in both))
    factors = np.empty_like(replicates.factors)
    means = [replicates.means(column) for column in both]
    for row, sample, *pair in zip(factors, replicates.factors, *means, strict=True):
        row[:] = sample * correction.factors(*pair) / change
    weights = weights * change
    return Replicates(factors, weights / weights.sum())
