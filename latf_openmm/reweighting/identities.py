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

Array = NDArray[np.float64]

_RIDGE = 1e-6
"""Added to the diagonal of the equations, which is one."""


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

    def residuals(self, kT: float) -> Array:
        """Return h of every frame at a temperature, shape (n_frames, n_functions); its canonical mean is zero."""
        return np.asarray(self._curvature + self._work / kT)

    def stiffness(self, weights: Array) -> Array:
        """D of weights (n_frames,) that sum to one, shape (n_functions, n_functions)."""
        pulled = np.einsum("nka,nab->nkb", self._gradients, self.slopes.metric) * weights[:, None, None]
        return np.asarray(np.tensordot(pulled, self._gradients, axes=((0, 2), (0, 2))))

    def _along(self, vectors: Array) -> Array:
        return np.einsum("nka,na->nk", self._gradients, vectors)


def corrections(identities: Identities, weights: Array, kT: float, noises: Array) -> Array:
    """Factors on weights that the identities ask for, shape (n_noises, n_frames); their weighted mean is one.

    A frame that weighs much less than it should may get a negative factor.

    Parameters
    ----------
    weights
        At the temperature, summing to one, shape (n_frames,).
    kT
        Thermal energy [kJ/mol].
    noises
        gamma, over the ratio of the traces of D and C; shape (n_noises,).
    """
    h, phi = identities.residuals(kT), identities.values
    mean = weights @ h
    h, phi = h - mean, phi - weights @ phi
    stiffness, scatter = identities.stiffness(weights), (h * weights[:, None]).T @ h
    unit = np.trace(stiffness) / max(float(np.trace(scatter)), 1e-300)
    factors = np.empty((len(noises), len(weights)))
    for row, gamma in zip(factors, unit * noises, strict=True):
        matrix = stiffness + gamma * scatter
        scale = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
        matrix = matrix / np.outer(scale, scale) + _RIDGE * np.eye(len(scale))
        row[:] = 1.0 + (phi - gamma * h) @ (np.linalg.solve(matrix, mean / scale) / scale)
    return factors
