"""MBAR of which only crossings connect the metastable states.

A walker that never left the state it was put in is a sample of that state only. So each pair of a simulated
temperature k and a metastable state a is a thermodynamic state of its own, with free energy f_ka = f_k - ln p_ka,
whose frames are a sample of exp(-U / k_B T_k) inside a. The f_ka are those that maximise the sum of MBAR's likelihood
inside every state,

    sum_n w_n [ -ln sum_k N_ka exp(f_ka - U_n / k_B T_k) ] + sum_ka N_ka f_ka,     a the state of frame n,

and of the likelihood of the crossings of every run (`latf_openmm.reweighting.crossings`). Energies connect temperatures
inside a state, crossings connect states; where everything crosses often, it is MBAR. It is TRAM (Wu, Paul, Wehmeyer and
Noe, PNAS 2016) with rates between cores in place of a Markov model. The likelihood of crossings alone has its maximum
at a share of 1 for a state that was entered once and never left. So a few frames s_ka count as a sample of the states,

    sum_ka s_ka ln p_ka,     p_ka = exp(-f_ka) / sum_b exp(-f_kb),

fewer than would say as much as the crossings, so that these decide where walkers were put into states.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from latf_openmm.reweighting.crossings import log_likelihood
from latf_openmm.reweighting.shrinkage import certain_part

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_STEPS = 200
"""Newton's steps, at most."""
_TOLERANCE = 1e-9
"""Change of the objective, over the weight of all frames, where it has converged."""
OVERLAP = 0.3
"""Overlap (Bhattacharyya's) of the energies of neighbouring temperatures from which mean energies have no part."""
_LONGEST = 5.0
"""Largest change of a free energy in a step."""


@dataclass(frozen=True)
class Visits:
    """Times and crossings of one run.

    Attributes
    ----------
    level
        Index of its temperature.
    times, counts
        Weighted time in each state, and crossings from a to b.
    """

    level: int
    times: Array
    counts: Array


@dataclass(frozen=True)
class Links:
    """Differences of free energy between neighbouring temperatures inside states, known from mean energies.

    Attributes
    ----------
    differences, errors
        f_{k+1,a} - f_ka and its error, shape (n_temperatures - 1, n_states); infinite errors where not known.
    """

    differences: Array
    errors: Array


class LocalFrames:
    """Frames that the local free energies are solved from.

    Parameters
    ----------
    energy, level, state
        Potential energy, index of the temperature and state of each frame, shape (n_frames,).
    betas
        1 / k_B T of the temperatures.
    n_states
        Number of states.
    """

    def __init__(self, energy: Array, level: Indices, state: Indices, betas: Array, n_states: int) -> None:
        self.energy, self.level, self.state, self.betas, self.n_states = energy, level, state, betas, n_states
        self.rows = [np.flatnonzero(state == a) for a in range(n_states)]
        self.reduced = [energy[rows, None] * betas for rows in self.rows]

    def counts(self, weights: Array) -> Array:
        """Weight of the frames at each temperature in each state, shape (n_temperatures, n_states)."""
        flat = np.bincount(self.level * self.n_states + self.state, weights, len(self.betas) * self.n_states)
        return np.asarray(flat.reshape(len(self.betas), self.n_states))

    def start(self, weights: Array) -> Array:
        """Free energies by the trapezoidal rule from mean energies, to begin with."""
        counts = self.counts(weights)
        sums = self.counts(weights * self.energy)
        overall = sums.sum(axis=1) / np.maximum(counts.sum(axis=1), 1e-300)
        means = np.where(counts > 0, sums / np.maximum(counts, 1e-300), overall[:, None])
        steps = 0.5 * np.diff(self.betas)[:, None] * (means[1:] + means[:-1])
        return np.concatenate([np.zeros((1, self.n_states)), np.cumsum(steps, axis=0)])

    def solve(
        self,
        weights: Array,
        visits: Sequence[Visits],
        links: Links | None,
        start: Array | None = None,
        samples: Array | None = None,
    ) -> Array:
        """Return f_ka, shape (n_temperatures, n_states), zero for the first that has frames.

        Parameters
        ----------
        weights
            Of the frames, shape (n_frames,).
        start
            To begin with, of the same shape as the result.
        samples
            Frames s_ka that are a sample of the shares of states, of the same shape; None: none are.
        """
        counts = self.counts(weights)
        samples = np.zeros_like(counts) if samples is None else samples
        f = self.start(weights) if start is None else start.copy()
        total = float(weights.sum())
        value, slope, curvature = self._objective(f, weights, counts, visits, samples, links)
        for _ in range(_STEPS):
            step = (-np.linalg.pinv(curvature, rcond=1e-13, hermitian=True) @ slope).reshape(f.shape)
            step *= min(1.0, _LONGEST / max(np.abs(step).max(), 1e-300))
            gain = float(slope @ step.ravel())
            if gain < _TOLERANCE * total:
                break
            part = 1.0
            while True:
                trial = f + part * step
                after = self._objective(trial, weights, counts, visits, samples, links)
                if after[0] >= value + 1e-4 * part * gain or part < 1e-6:
                    break
                part *= 0.5
            f, (value, slope, curvature) = trial, after
        return np.asarray(f - f[counts > 0][0])

    def _objective(
        self,
        f: Array,
        weights: Array,
        counts: Array,
        visits: Sequence[Visits],
        samples: Array,
        links: Links | None,
    ) -> tuple[float, Array, Array]:
        """Value of the objective, its gradient and its second derivative, over all f_ka one after the other."""
        value, slope = float((counts * f).sum()), counts.copy()
        n_levels, n_states = f.shape
        bend = np.zeros((n_levels, n_states, n_levels, n_states))
        for a, (rows, reduced) in enumerate(zip(self.rows, self.reduced, strict=True)):
            levels = np.flatnonzero(counts[:, a] > 0)
            if len(levels) == 0:
                continue
            terms = np.log(counts[levels, a]) + f[levels, a] - reduced[:, levels]
            highest = terms.max(axis=1)
            shares = np.exp(terms - highest[:, None])
            total = shares.sum(axis=1)
            shares /= total[:, None]
            mixture = highest + np.log(total)
            weighted = shares * weights[rows, None]
            value -= float(weights[rows] @ mixture)
            taken = weighted.sum(axis=0)
            slope[levels, a] -= taken
            bend[levels[:, None], a, levels, a] -= np.diag(taken) - shares.T @ weighted
        for run in visits:
            k = run.level
            more, gradient, curvature = log_likelihood(f[k], run.times, run.counts)
            value, slope[k] = value + more, slope[k] + gradient
            bend[k, :, k, :] += curvature
        value += _add_samples(f, samples, slope, bend)
        if links is not None:
            value += _add_links(f, links, slope, bend)
        return value, slope.ravel(), bend.reshape(f.size, f.size)


def _add_samples(f: Array, samples: Array, slope: Array, bend: NDArray[np.float64]) -> float:
    """Add the gradient and the second derivative of the likelihood of samples of states; return its value.

    States without a sample at a temperature take no part there.
    """
    value = 0.0
    for k, drawn in enumerate(samples):
        present = np.flatnonzero(drawn > 0)
        if len(present) < 2:
            continue
        logs = -f[k, present]
        logs -= logsumexp(logs)
        shares, n = np.exp(logs), drawn[present].sum()
        value += float(drawn[present] @ logs)
        slope[k, present] += n * shares - drawn[present]
        bend[k, present[:, None], k, present] -= n * (np.diag(shares) - np.outer(shares, shares))
    return value


def _add_links(f: Array, links: Links, slope: Array, bend: NDArray[np.float64]) -> float:
    """Add the gradient and the second derivative of -(f_{k+1,a} - f_ka - d)^2 / 2 e^2; return its sum."""
    known = np.isfinite(links.errors)
    stiffness = np.where(known, 1.0 / np.where(known, links.errors, 1.0) ** 2, 0.0)
    off = np.where(known, np.diff(f, axis=0) - links.differences, 0.0)
    force = stiffness * off
    slope[1:] -= force
    slope[:-1] += force
    for k, a in zip(*np.nonzero(known), strict=True):
        s = stiffness[k, a]
        bend[k, a, k, a] -= s
        bend[k + 1, a, k + 1, a] -= s
        bend[k, a, k + 1, a] += s
        bend[k + 1, a, k, a] += s
    return float(-0.5 * (stiffness * off**2).sum())


def bhattacharyya(means: Array, variances: Array) -> Array:
    """Overlap of neighbouring normal distributions, the integral of sqrt(p q), shape (n - 1, ...).

    Parameters
    ----------
    means, variances
        Shape (n, ...).
    """
    spread = np.maximum(variances[1:] + variances[:-1], 1e-300)
    height = np.sqrt(2 * np.sqrt(variances[1:] * variances[:-1]) / spread)
    return np.asarray(height * np.exp(-0.25 * np.diff(means, axis=0) ** 2 / spread))


@dataclass(frozen=True)
class StateEnergies:
    """Energies of the frames in each state at each simulated temperature, each of shape (n_temperatures, n_states).

    Attributes
    ----------
    counts
        Weight of the frames: their effective number without bias.
    means, variances
        Of the energy; zero where there are no frames.
    scatters
        Variance of what the means are taken of: less than that of the energy where it is averaged around frames.
    """

    counts: Array
    means: Array
    variances: Array
    scatters: Array


def _with_common(scatters: Array, counts: Array) -> Array:
    """Variances with the mean one of all states as one frame more: that of a frame that was drawn twice is not zero."""
    total = counts.sum()
    common = float((counts * scatters).sum() / total) if total > 0 else 0.0
    return (counts * scatters + max(common, 1e-12)) / (counts + 1.0)


def energy_links(energies: StateEnergies, betas: Array) -> Links | None:
    """Return differences of free energy by mean energies where temperatures do not overlap; None where all do.

    f_{k+1,a} - f_ka = integral of <U>_a over b, by the trapezoidal rule and, as far as it is more than noise, by the
    difference of the variances at both ends. It has no part where the energies of neighbouring temperatures overlap.

    Parameters
    ----------
    energies
        In each state at each temperature.
    betas
        1 / k_B T of the temperatures.
    """
    means, known = energies.means, energies.counts > 1
    n, variances = np.where(known, energies.counts, 1.0), np.maximum(energies.variances, 1e-12)
    both = known[1:] & known[:-1]
    part = np.where(both, np.clip(1 - bhattacharyya(means, variances) / OVERLAP, 0.0, 1.0), 0.0)
    if not part.any():
        return None
    h = np.diff(betas)[:, None]
    line = 0.5 * h * (means[1:] + means[:-1])
    bend = h**2 / 12 * np.diff(variances, axis=0)
    noise = h**2 / 12 * np.sqrt(2 * variances[1:] ** 2 / n[1:] + 2 * variances[:-1] ** 2 / n[:-1])
    weight = np.where(both, n[1:] * n[:-1] / (n[1:] + n[:-1]), 0.0)
    common = (weight * bend).sum(axis=1, keepdims=True) / np.maximum(
        weight.sum(axis=1, keepdims=True), 1e-300
    )
    off = bend - common
    certain = certain_part(off, noise**2)
    scatters = _with_common(energies.scatters, np.where(known, energies.counts, 0.0)) / n
    noise_of_means = np.abs(h) / 2 * np.sqrt(scatters[1:] + scatters[:-1])
    errors = np.sqrt(noise_of_means**2 + (certain * noise) ** 2 + (0.5 * off) ** 2)
    errors = np.divide(errors, np.sqrt(part), out=np.full_like(errors, np.inf), where=part > 0)
    return Links(line + common + certain * off, errors)
