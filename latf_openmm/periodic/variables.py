"""Periodic variables, as angles: differences between nearest images, and means."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def nearest_difference(difference: Array, period: float) -> Array:
    """Return differences of a variable between nearest images, within half a period of zero.

    Parameters
    ----------
    difference
        Of any shape, in the unit of the variable.
    period
        After which values repeat; 0: the variable is not periodic, and differences stay.

    Examples
    --------
    >>> nearest_difference(np.array([-10.0, -350.0, 0.0]), 360.0)
    array([-10.,  10.,   0.])
    >>> nearest_difference(np.array([-350.0]), 0.0)
    array([-350.])
    """
    return np.asarray(difference - period * np.round(difference / period)) if period > 0 else difference


def periodic_mean(values: Array, period: float) -> float:
    """Return the mean of a variable; the direction of the mean vector, where it is periodic.

    Parameters
    ----------
    values
        Shape (n,), in the unit of the variable.
    period
        After which values repeat; 0: the variable is not periodic.

    Examples
    --------
    >>> f"{abs(periodic_mean(np.array([170.0, -170.0]), 360.0)):.6g}", periodic_mean(np.array([1.0, 2.0]), 0.0)
    ('180', 1.5)
    """
    if period <= 0:
        return float(values.mean())
    turns = np.exp(2j * np.pi * values / period).mean()
    return float(np.angle(turns)) * period / (2 * np.pi)
