"""A ladder of temperatures the frames can be reweighted to, by MBAR over the simulated temperatures.

Every frame has its potential energy, so the frames of all temperatures together are a weighted canonical
sample at any temperature T the simulated ones overlap with:

    w_T(n) ~ w_n exp(-U_n / kT) / sum_k N_k exp(f_k - U_n / kT_k)

with w_n the weight that undoes the bias of frame n's own run, N_k the effective number of frames at the
simulated temperature k and f_k its reduced free energy (Shirts and Chodera, 2008). The effective sample
size at T says how far that can be trusted; temperatures where it is too small are left out.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from latf_openmm.data.trajectory import FeatureTrajectory
from latf_openmm.data.weights import canonical_weights, effective_sample_size, normalised_weights
from latf_openmm.errors import DataError

_STRETCH = 1.6
_MOST_FOR_MBAR = 4000


@dataclass(frozen=True)
class TemperatureLadder:
    """Temperatures, and the weights of all frames at each.

    Attributes
    ----------
    temperatures
        Ascending, shape (n_rungs,).
    weights
        Each row sums to one, shape (n_rungs, n_frames).
    sample_sizes
        Effective sample size at each temperature, shape (n_rungs,).
    """

    temperatures: NDArray[np.float64]
    weights: NDArray[np.float32]
    sample_sizes: NDArray[np.float64]

    def draw(
        self, frames: NDArray[np.int64], n: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Draw frames among `frames` by weight, the same number at each temperature.

        Returns
        -------
        indices, temperatures
            About `n` of each, in random order.
        """
        each = max(1, n // len(self.temperatures))
        indices, temperatures = [], []
        for temperature, weights in zip(self.temperatures, self.weights, strict=True):
            cumulative = np.cumsum(weights[frames], dtype=np.float64)
            if cumulative[-1] <= 0:
                continue
            places = np.searchsorted(cumulative, rng.random(each) * cumulative[-1], side="right")
            indices.append(frames[np.minimum(places, len(frames) - 1)])
            temperatures.append(np.full(each, temperature))
        if not indices:
            raise DataError("all frames have zero weight at every temperature of the ladder")
        order = rng.permutation(each * len(indices))
        return np.concatenate(indices)[order], np.concatenate(temperatures)[order]


def build_ladder(
    trajectories: Sequence[FeatureTrajectory], rungs: int, minimum: float, rng: np.random.Generator
) -> TemperatureLadder | None:
    """Return the ladder around the simulated temperatures, or None where energies are not known.

    Parameters
    ----------
    rungs
        Temperatures tried, evenly in ln T from 1.6 times below the lowest simulated one to 1.6 times above
        the highest; the simulated ones are always kept.
    minimum
        Least effective sample size of a rung, as a fraction of the smallest one of the simulated temperatures.
    """
    energy = np.concatenate([t.potential_energy for t in trajectories])
    if any(np.ptp(t.potential_energy) == 0 for t in trajectories):
        return None
    energy = energy - energy.min()
    boltzmann = trajectories[0].scale.boltzmann
    log_w = np.log(np.maximum(np.concatenate(canonical_weights(trajectories)), 1e-300))
    owner = np.concatenate([np.full(t.n_frames, t.temperature) for t in trajectories])
    simulated = np.unique(owner)
    log_mixture = _log_mixture(energy, log_w, owner, simulated, boltzmann, rng)
    low, high = simulated[0] / _STRETCH, simulated[-1] * _STRETCH
    tried = np.union1d(np.geomspace(low, high, rungs), simulated)
    logs = [log_w - energy / (boltzmann * t) - log_mixture for t in tried]
    sizes = np.array([effective_sample_size(log) for log in logs])
    here = np.isin(tried, simulated)
    keep = here | (sizes >= max(50.0, minimum * sizes[here].min()))
    weights = [
        normalised_weights(log).astype(np.float32) for log, kept in zip(logs, keep, strict=True) if kept
    ]
    return TemperatureLadder(tried[keep], np.array(weights), sizes[keep])


def _log_mixture(
    energy: NDArray[np.float64],
    log_w: NDArray[np.float64],
    owner: NDArray[np.float64],
    simulated: NDArray[np.float64],
    boltzmann: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Log of sum_k N_k exp(f_k - U_n / kT_k) of every frame, shape (n_frames,)."""
    counts = np.array([np.exp(logsumexp(log_w[owner == t])) for t in simulated])
    offsets = _reduced_free_energies(energy, log_w, owner, simulated, boltzmann, rng)
    terms = np.log(counts) + offsets - energy[:, None] / (boltzmann * simulated)
    return np.asarray(logsumexp(terms, axis=1))


def _reduced_free_energies(
    energy: NDArray[np.float64],
    log_w: NDArray[np.float64],
    owner: NDArray[np.float64],
    simulated: NDArray[np.float64],
    boltzmann: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """f_k by pymbar, from unweighted frames redrawn at each simulated temperature."""
    if len(simulated) == 1:
        return np.zeros(1)
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # it warns about a missing JAX when imported
    from pymbar import MBAR

    drawn = []
    for temperature in simulated:
        mine = np.flatnonzero(owner == temperature)
        weights = normalised_weights(log_w[mine])
        n = int(min(_MOST_FOR_MBAR, max(50.0, effective_sample_size(log_w[mine]))))
        drawn.append(rng.choice(mine, n, p=weights))
    u_kn = energy[np.concatenate(drawn)] / (boltzmann * simulated[:, None])
    return np.asarray(MBAR(u_kn, [len(part) for part in drawn]).f_k)
