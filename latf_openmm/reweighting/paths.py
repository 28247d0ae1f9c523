"""Quantities along b = 1 / k_B T from values and slopes at simulated temperatures."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

Order = Literal["cubic", "linear"]
"""Path with the slopes, or straight between the values."""


def bracket(beta: float, betas: Array) -> tuple[int, float] | None:
    """Return the interval that `beta` is in, and how far it is in it, from 0 to 1; None at the ends and beyond.

    Parameters
    ----------
    betas
        Descending, shape (n,).
    """
    if len(betas) == 1 or beta >= betas[0] or beta <= betas[-1]:
        return None
    i = int(np.searchsorted(-betas, -beta, side="right")) - 1
    return i, float((beta - betas[i]) / (betas[i + 1] - betas[i]))


def hermite(t: float, first: Array, last: Array) -> Array:
    """Return the cubic with value zero at both ends of [0, 1] and these slopes there."""
    return np.asarray(first * (t**3 - 2 * t**2 + t) + last * (t**3 - t**2))


@dataclass(frozen=True)
class StatePath:
    """ln Z_b(c) over b of the cells of one state.

    Attributes
    ----------
    levels
        Temperatures with enough frames, indices into the simulated ones, shape (n,).
    betas
        1 / k_B T of them, descending, shape (n,).
    values
        ln Z at them, up to a function of the cell, shape (n, n_cells).
    slopes
        d ln Z / db at them, shape (n, n_cells).
    log_counts
        ln N_k - ln Z_k of the state: frames of each temperature, shape (n,).
    """

    levels: Indices
    betas: Array
    values: Array
    slopes: Array
    log_counts: Array

    def at(self, beta: float, order: Order = "cubic") -> Array:
        """Ln Z_b of each cell, up to the same function of the cell as `values`, shape (n_cells,).

        Between two temperatures the cubic with values and slopes, or the straight line; beyond the last one its value
        and slope, or the straight line on from the one before.
        """
        inside = bracket(beta, self.betas)
        if inside is None:
            end = 0 if beta >= self.betas[0] else len(self.betas) - 1
            return np.asarray(self.values[end] + (beta - self.betas[end]) * self._end_slope(end, order))
        i, t = inside
        h = self.betas[i + 1] - self.betas[i]
        rise = self.values[i + 1] - self.values[i]
        line = self.values[i] + t * rise
        if order == "linear":
            return np.asarray(line)
        return line + hermite(t, h * self.slopes[i] - rise, h * self.slopes[i + 1] - rise)

    def _end_slope(self, end: int, order: Order) -> Array:
        if order == "cubic" or len(self.betas) == 1:
            return np.asarray(self.slopes[end])
        other = 1 if end == 0 else end - 1
        rise = self.values[other] - self.values[end]
        return np.asarray(rise / (self.betas[other] - self.betas[end]))

    def shares(self, beta: float) -> Array:
        """a_k(b): part that frames of each temperature have in what is inside a cell, shape (n,); they sum to one."""
        part = np.zeros(len(self.betas))
        inside = bracket(beta, self.betas)
        if inside is None:
            part[0 if beta >= self.betas[0] else -1] = 1.0
        else:
            i, t = inside
            part[i], part[i + 1] = 1 - t, t
        return part


def energy_path(betas: Array, means: Array, variances: Array, beta: float) -> tuple[float, float]:
    """Mean and variance of the energy at `beta`, from those at simulated temperatures.

    <U> over T is the cubic with its values and slopes d<U>/dT = Var U / k_B T^2 at both ends, beyond the last
    temperature a straight line; the variance is what its slope says, kept between half the least and twice the largest
    heat capacity of the ends.

    Parameters
    ----------
    betas
        1 / k_B T, descending, shape (n,).
    means, variances
        Of the energy, shape (n,).
    """
    capacities = variances * betas**2  # of k_B
    thermal, kT = 1.0 / betas, 1.0 / beta
    inside = bracket(beta, betas)
    if inside is None:
        end = 0 if beta >= betas[0] else len(betas) - 1
        return float(means[end] + capacities[end] * (kT - thermal[end])), float(capacities[end] * kT**2)
    i = inside[0]
    h = thermal[i + 1] - thermal[i]
    t, rise = (kT - thermal[i]) / h, means[i + 1] - means[i]
    first, last = h * capacities[i] - rise, h * capacities[i + 1] - rise
    mean = means[i] + t * rise + hermite(t, first, last)
    slope = (rise + first * (3 * t**2 - 4 * t + 1) + last * (3 * t**2 - 2 * t)) / h
    ends = capacities[i : i + 2]
    return float(mean), float(np.clip(slope, 0.5 * ends.min(), 2.0 * ends.max()) * kT**2)
