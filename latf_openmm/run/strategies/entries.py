"""Entries of walkers into metastable states: counted at the temperatures simulated, expected at others."""

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from latf_openmm.ensembles.pool import Pool
from latf_openmm.reweighting.crossings import find_crossings

Array = NDArray[np.float64]

UNSEEN = 0.5
"""Events that stand for none in all frames: nothing seen in n frames is less often than once in them."""


class Entries:
    """Entries a frame into each state, counted in all walkers; those that moved are followed through all temperatures.

    Parameters
    ----------
    pool
        All frames.
    settle
        Frames that a walker stays in a state where its crossing is for good.
    """

    def __init__(self, pool: Pool, settle: int) -> None:
        logs = np.concatenate([trajectory.log_weights for trajectory in pool.trajectories])
        self._runs = [
            (run, bool(np.ptp(logs[run.frames]) > 0))
            for run in find_crossings(pool.trajectories, pool.states, pool.n_states, settle)
        ]
        self.rates = cache(self._rates)

    def _rates(self, biased: bool, independent: bool) -> Mapping[float, Array]:
        """Entries a frame into each state, shape (n_states,), by temperature.

        Parameters
        ----------
        biased
            In the walkers that felt a bias, or in the others.
        independent
            As many as count for the shares of the states; else every entry that is seen.
        """
        counts: dict[float, Array] = {}
        frames: dict[float, int] = {}
        for run, felt in self._runs:
            if felt != biased:
                continue
            crossed = run.counted() if independent else run.passing.counted(None)
            counts[run.temperature] = counts.get(run.temperature, 0.0) + crossed.sum(axis=0)
            frames[run.temperature] = frames.get(run.temperature, 0) + len(run.frames)
        return {t: np.maximum(counts[t], UNSEEN) / frames[t] for t in sorted(counts)}


def along_temperature(rates: Mapping[float, Array], temperature: float) -> Array:
    """Rates at a temperature, at most one a frame.

    Between and beyond the temperatures known by a straight line of the logarithm in 1/T.

    Parameters
    ----------
    rates
        Shape (n,), by temperature; one or more.
    """
    known = sorted(rates, reverse=True)
    at, logs = np.array([1.0 / t for t in known]), np.log([rates[t] for t in known])
    x = 1.0 / temperature
    if len(at) == 1 or at[0] <= x <= at[-1]:
        log = np.array([np.interp(x, at, column) for column in logs.T])
    else:
        end = 0 if x < at[0] else -1
        log = logs[end] + np.polyfit(at, logs, 1)[0] * (x - at[end])
    return np.asarray(np.exp(np.minimum(log, 0.0)))
