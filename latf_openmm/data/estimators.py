"""What pymbar estimates: reduced free energies and statistical inefficiencies."""

import importlib
import logging
from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def reduced_free_energies(reduced: Array, counts: ArrayLike) -> Array:
    """Return f_k by MBAR (Shirts and Chodera, 2008), shape (n_states,); the first is zero.

    Parameters
    ----------
    reduced
        Reduced energy of each frame in each state, shape (n_states, n_frames); frames of the first state first.
    counts
        Frames of each state, shape (n_states,).
    """
    if len(reduced) == 1:
        return np.zeros(1)
    return np.asarray(_pymbar().MBAR(reduced, counts).f_k)


def statistical_inefficiency(walkers: Sequence[Array], periods: Sequence[float] | None = None) -> float:
    """Return g = 1 + 2 tau of the slowest variable, by pymbar (Chodera et al., 2007); at least 1.

    Parameters
    ----------
    walkers
        Collective variables of each walker, shape (n_frames, dim).
    periods
        Period of each variable, 0 where it has none; of periodic ones the sine and cosine are looked at.
    """
    timeseries = _pymbar().timeseries
    slowest = 1.0
    for axis in range(walkers[0].shape[1]):
        period = 0.0 if periods is None else periods[axis]
        columns = [[z[:, axis] for z in walkers]]
        if period > 0:
            columns = [[turn(2 * np.pi / period * x) for x in columns[0]] for turn in (np.sin, np.cos)]
        for column in columns:
            if np.ptp(np.concatenate(column)) > 0:
                slowest = max(slowest, float(timeseries.statistical_inefficiency_multiple(column)))
    return slowest


def _pymbar() -> ModuleType:
    """The library, without its warning about a missing JAX."""
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    return importlib.import_module("pymbar")
