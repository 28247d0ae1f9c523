"""Metastable states in a chemist's terms: population, lifetime, and what structures in each look like."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latf_openmm.ensembles.ensemble import Estimate, StructureEnsemble
from latf_openmm.ensembles.pool import Pool

Array = NDArray[np.float64]


def lifetimes(pool: Pool, temperature: float, lag: int) -> list[Estimate]:
    """Return the lifetime [ps] of each state in unbiased runs at a temperature.

    -lag / ln p with p the probability to be in the same state one lag later, whatever happened between, counted over
    all pairs of frames; the error is that of a share of so many independent lags. Not a number where no unbiased
    walker visited the state or none ever left it.

    Parameters
    ----------
    lag
        In frames: the one the states were found with.
    """
    stayed, visits = np.zeros(pool.n_states), np.zeros(pool.n_states)
    interval = 0.0
    for index, (walker, trajectory) in enumerate(zip(pool.walkers, pool.trajectories, strict=True)):
        if not np.isclose(walker.temperature, temperature) or np.ptp(trajectory.log_weights) > 0:
            continue
        states = pool.states[pool.of_walker(index)]
        interval = trajectory.frame_interval
        for stretch in trajectory.stretches:
            before, after = states[stretch][:-lag], states[stretch][lag:]
            visits += np.bincount(before, minlength=pool.n_states)
            stayed += np.bincount(before[before == after], minlength=pool.n_states)
    estimates = []
    for n, same in zip(visits, stayed, strict=True):
        p = same / n if n else 0.0
        if not 0 < p < 1:
            estimates.append(Estimate(float("nan"), float("nan")))
            continue
        spread = np.sqrt(p * (1 - p) / max(1.0, n / lag))
        estimates.append(
            Estimate(
                float(-lag * interval / np.log(p)), float(lag * interval * spread / (p * np.log(p) ** 2))
            )
        )
    return estimates


def state_table(
    ensemble: StructureEnsemble, pool: Pool, lag: int, observables: Mapping[str, Array]
) -> pd.DataFrame:
    """Return one row for each state.

    Parameters
    ----------
    ensemble
        Frames with weights at the temperature.
    pool
        All simulated frames, for the lifetimes.
    lag
        In frames.
    observables
        Values of every frame of the ensemble, by name; their weighted mean and standard deviation inside the state
        are given.

    Returns
    -------
    DataFrame
        state, population, error, effective_samples, lifetime_ps, lifetime_error, and NAME, NAME_spread.
    """
    times = lifetimes(pool, ensemble.temperature, lag)
    rows = []
    for state, population in enumerate(ensemble.populations()):
        members = ensemble.pool.states == state
        row: dict[str, float] = {
            "state": state,
            "population": population.value,
            "error": population.error,
            "effective_samples": ensemble.n_effective_in(members),
            "lifetime_ps": times[state].value,
            "lifetime_error": times[state].error,
        }
        total = float(ensemble.weights[members].sum())
        for name, values in observables.items():
            mean = spread = float("nan")
            if total > 0:
                weights = ensemble.weights[members] / total
                mean = float(weights @ values[members])
                spread = float(np.sqrt(weights @ (values[members] - mean) ** 2))
            row |= {name: mean, f"{name}_spread": spread}
        rows.append(row)
    return pd.DataFrame(rows)
