"""A ladder of temperatures the frames can be reweighted to, by MBAR over the simulated temperatures.

Every frame has its potential energy, so the frames of all temperatures together are a weighted canonical
sample at any temperature T the simulated ones overlap with:

    w_T(n) ~ w_n exp(-U_n / kT) / sum_k N_k exp(f_k - U_n / kT_k)

with w_n the weight that undoes the bias of frame n's own run, N_k the effective number of frames at the
simulated temperature k and f_k its reduced free energy (Shirts and Chodera, 2008). The effective sample
size at T says how far that can be trusted; temperatures where it is too small are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from latf_openmm.errors import DataError
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.estimators import mixture_shares, redrawn_free_energies, reduced_free_energies
from latf_openmm.reweighting.reliability import MIN_LADDER_SAMPLES
from latf_openmm.reweighting.weights import canonical_weights, effective_sample_size, normalised_weights
from latf_openmm.reweighting.windows import join_windows, window_groups

_STRETCH = 2.5
"""Factor beyond the simulated temperatures that rungs reach, at most."""
_HALVINGS = 12
"""Steps of the bisection for the end of the ladder."""
_MAX_MBAR_FRAMES = 4000
"""Frames of a simulated temperature that f_k is solved from, at most."""
_MAX_BOOTSTRAP_FRAMES = 10_000
"""Frames that f_k is solved from in bootstrap samples, at most."""
_NOTHING = 1e-12
"""Share of a simulated temperature whose frames weigh nothing, so that its logarithm exists."""

_MAX_TABLE = 1_000_000
"""Points of the table of the mixture, at most."""
_PART = 65_536
"""Frames whose numbers are in memory at a time."""

Counts = NDArray[np.integer[Any]]


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
        self, multiplicity: Counts, n: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Draw frames by weight times multiplicity, the same number at each temperature.

        Parameters
        ----------
        multiplicity
            How often each frame is in the sample drawn from, for example in a bootstrap sample; (n_frames,).

        Returns
        -------
        indices, temperatures
            `n` of each, in random order; temperatures where no frame has any weight are left out.
        """
        indices, temperatures = [], []
        each = -(-n // len(self.temperatures))
        for temperature, weights in zip(self.temperatures, self.weights, strict=True):
            cumulative = np.cumsum((weights * multiplicity).astype(np.float64))
            if cumulative[-1] <= 0:
                continue
            places = np.searchsorted(cumulative, rng.random(each) * cumulative[-1], side="right")
            indices.append(np.minimum(places, len(cumulative) - 1))
            temperatures.append(np.full(each, temperature))
        if not indices:
            raise DataError("all frames have zero weight at every temperature of the ladder")
        index, at = np.concatenate(indices), np.concatenate(temperatures)
        order = rng.permutation(len(index))
        order = order[:n] if len(order) >= n else rng.choice(order, n)
        return index[order], at[order]


def own_temperatures(trajectories: Sequence[FeatureTrajectory]) -> TemperatureLadder:
    """Return the ladder of the simulated temperatures alone: every frame counts at its own, as in the paper."""
    weights = np.concatenate(canonical_weights(trajectories))
    owner = np.concatenate([np.full(t.n_frames, t.temperature) for t in trajectories])
    simulated = np.unique(owner)
    rows = np.where(owner == simulated[:, None], weights, 0.0)
    sizes = [effective_sample_size(np.log(np.maximum(weights[owner == t], 1e-300))) for t in simulated]
    shares = rows / rows.sum(axis=1, keepdims=True)
    return TemperatureLadder(simulated, shares.astype(np.float32), np.array(sizes))


class Reweighting:
    """Weights of all frames at any temperature.

    Parameters
    ----------
    trajectories
        Frames with known potential energies.
    rng
        Redraws the frames that the reduced free energies f_k are solved from.
    inefficiency
        Statistical inefficiency g of each frame's run, shape (n_frames,): a frame counts as 1/g; None: as 1.
    """

    def __init__(
        self,
        trajectories: Sequence[FeatureTrajectory],
        rng: np.random.Generator,
        inefficiency: NDArray[np.float64] | None = None,
    ) -> None:
        energy = np.concatenate([t.potential_energy for t in trajectories])
        self.energy = energy - energy.min()
        self.boltzmann = trajectories[0].scale.boltzmann
        self.inefficiency = np.ones(len(self.energy)) if inefficiency is None else inefficiency
        ends = np.cumsum([t.n_frames for t in trajectories])
        parts = np.split(self.inefficiency, ends[:-1])
        self.log_w = np.log(np.maximum(np.concatenate(canonical_weights(trajectories, parts)), 1e-300))
        self.log_w -= np.log(self.inefficiency)
        frames = np.split(np.arange(len(self.energy)), ends[:-1])
        self._windows = [
            (
                np.concatenate([frames[i] for i in members]),
                join_windows([trajectories[i] for i in members], [parts[i] for i in members]),
            )
            for members in window_groups(trajectories)
        ]
        self.owner = np.concatenate([np.full(t.n_frames, t.temperature) for t in trajectories])
        self.simulated = np.unique(self.owner)
        self._few = np.linspace(0, len(self.energy) - 1, min(len(self.energy), _MAX_BOOTSTRAP_FRAMES)).astype(
            int
        )
        self.free_energies = self._reduced_free_energies(rng)
        # pymbar takes no weights; with them, on the frames that a bootstrap redraws, so that it holds all noise.
        self.free_energies = self._solve(self.log_w[self._few])
        self.log_mixture = self._log_mixture(self.log_w, self.free_energies, slice(None))

    def log_weights(self, temperature: float) -> NDArray[np.float64]:
        """Logarithm of each frame's weight at a temperature, up to a constant; shape (n_frames,)."""
        return np.asarray(self.log_w - self.energy / (self.boltzmann * temperature) - self.log_mixture)

    def sample_size(self, temperature: float) -> float:
        """Kish's effective sample size at a temperature."""
        return effective_sample_size(self.log_weights(temperature))

    def solved_again(self, multiplicity: Counts) -> NDArray[np.float64]:
        """f_k in a bootstrap sample, shape (n_temperatures,).

        Parameters
        ----------
        multiplicity
            How often each frame is in the sample, shape (n_frames,).
        """
        return self._solve(self._redrawn(multiplicity)[self._few])

    def factors(self, multiplicity: Counts) -> NDArray[np.float64]:
        """Factor on the weight of each frame, at any temperature, that a bootstrap sample makes; shape (n_frames,).

        It is how often the frame is in the sample, times the mixture of all frames over that of the sample at the
        frame. Both mixtures depend on a frame's energy alone, and are taken from a table of it. Runs that are joined
        by MBAR are joined again.

        Parameters
        ----------
        multiplicity
            How often each frame is in the sample, shape (n_frames,).
        """
        log_w = self._redrawn(multiplicity)
        change = self._own_table - self._mixture_table(log_w, self._solve(log_w[self._few]))
        return np.asarray(np.exp(log_w - self.log_w + np.interp(self.energy, self._energies, change)))

    def _redrawn(self, multiplicity: Counts) -> NDArray[np.float64]:
        """Logarithm of each frame's weight in a bootstrap sample, `log_w` of all frames, shape (n_frames,)."""
        with np.errstate(divide="ignore"):
            log_w = self.log_w + np.log(multiplicity)
        for rows, joined in self._windows:
            total = logsumexp(log_w[rows])
            log_w[rows] += joined.change(multiplicity[rows])
            log_w[rows] += total - logsumexp(log_w[rows])
        return log_w

    @cached_property
    def _energies(self) -> NDArray[np.float64]:
        """Energies of the table of mixtures, so close that a straight line between them errs by less than 1e-6."""
        betas = 1.0 / (self.boltzmann * self.simulated)
        spacing = np.sqrt(8e-6) / max(0.5 * float(np.ptp(betas)), 1e-9)
        top = float(self.energy.max())
        return np.linspace(0.0, top, int(np.clip(np.ceil(top / spacing), 2, _MAX_TABLE)))

    @cached_property
    def _own_table(self) -> NDArray[np.float64]:
        """The table of all frames, which every sample is compared with."""
        return self._mixture_table(self.log_w, self.free_energies)

    def _mixture_table(self, log_w: NDArray[np.float64], f: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logarithm of the mixture of frames with these weights at each energy of the table."""
        return self._mixture_at(self._energies, self._log_counts(log_w, self.owner), f)

    def _log_mixture(
        self, log_w: NDArray[np.float64], f: NDArray[np.float64], rows: Any
    ) -> NDArray[np.float64]:
        """Logarithm of sum_k N_k exp(f_k - u_k) at the frames `rows`, which `log_w` has the weights of."""
        return self._mixture_at(self.energy[rows], self._log_counts(log_w, self.owner[rows]), f)

    def _log_counts(self, log_w: NDArray[np.float64], owner: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logarithm of N_k, the weight of the frames at each simulated temperature."""
        return np.array([logsumexp(log_w[owner == t]) for t in self.simulated])

    def _mixture_at(
        self, energy: NDArray[np.float64], counts: NDArray[np.float64], f: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Logarithm of the mixture at energies (n,), in parts: there is a number for each temperature."""
        parts = np.array_split(energy, max(1, len(energy) // _PART))
        betas, heights = 1.0 / (self.boltzmann * self.simulated), np.maximum(counts, -700.0) + f
        return np.concatenate([logsumexp(heights - part[:, None] * betas, axis=1) for part in parts])

    def _solve(self, log_w: NDArray[np.float64]) -> NDArray[np.float64]:
        """f_k of the few frames with these weights, from those that are known."""
        if len(self.simulated) == 1:
            return self.free_energies.copy()
        few = self._few
        shift = self.log_w[few].max()
        before, after = np.exp(self.log_w[few] - shift), np.exp(log_w - shift)
        states = np.searchsorted(self.simulated, self.owner[few])
        counts, redrawn = (np.bincount(states, w, minlength=len(self.simulated)) for w in (before, after))
        least = _NOTHING * counts.sum()
        counts = np.maximum(counts, least)
        reduced = self.energy[few, None] / (self.boltzmann * self.simulated)
        shares = mixture_shares(reduced, self.free_energies, counts)[0]
        growth = np.maximum(redrawn, least) / counts
        change = redrawn_free_energies(shares, counts, after[:, None], growth[:, None], before)[:, 0]
        f = self.free_energies + change
        return np.asarray(f - f[0])

    def _reduced_free_energies(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """f_k, from unweighted frames redrawn at each simulated temperature."""
        if len(self.simulated) == 1:
            return np.zeros(1)
        members = [np.flatnonzero(self.owner == temperature) for temperature in self.simulated]
        g = np.array([self.inefficiency[frames].mean() for frames in members])
        n_effective = np.array([effective_sample_size(self.log_w[frames]) for frames in members]) / g
        # As many as there are, in the proportions of effective samples.
        counts = n_effective * min(g.min(), _MAX_MBAR_FRAMES / n_effective.max())
        drawn = [
            rng.choice(frames, int(max(50, count)), p=normalised_weights(self.log_w[frames]))
            for frames, count in zip(members, counts, strict=True)
        ]
        u_kn = self.energy[np.concatenate(drawn)] / (self.boltzmann * self.simulated[:, None])
        return reduced_free_energies(u_kn, [len(part) for part in drawn])


def energies_known(trajectories: Sequence[FeatureTrajectory]) -> bool:
    """Return whether every trajectory has potential energies; a constant stands for unknown."""
    return all(np.ptp(t.potential_energy) > 0 for t in trajectories)


def build_ladder(
    trajectories: Sequence[FeatureTrajectory], rungs: int, minimum: float, rng: np.random.Generator
) -> TemperatureLadder | None:
    """Return the ladder around the simulated temperatures, or None where energies are not known.

    Parameters
    ----------
    rungs
        Temperatures tried, evenly in ln T over the range the frames reach: from the lowest simulated one down
        and from the highest up, as far as the effective sample size allows and at most by a factor of 2.5.
        The simulated ones are always kept.
    minimum
        Least effective sample size of a rung, as a fraction of the smallest one of the simulated temperatures;
        but never below 50.
    """
    if not energies_known(trajectories):
        return None
    reweighting = Reweighting(trajectories, rng)
    simulated = reweighting.simulated
    enough = max(MIN_LADDER_SAMPLES, minimum * min(reweighting.sample_size(t) for t in simulated))
    low = _reach(reweighting, simulated[0], simulated[0] / _STRETCH, enough)
    high = _reach(reweighting, simulated[-1], simulated[-1] * _STRETCH, enough)
    tried = np.union1d(np.geomspace(low, high, rungs), simulated) if high > low else simulated
    sizes = np.array([reweighting.sample_size(t) for t in tried])
    keep = np.isin(tried, simulated) | (sizes >= enough)
    weights = np.empty((int(keep.sum()), len(reweighting.energy)), np.float32)
    for row, temperature in zip(weights, tried[keep], strict=True):
        row[:] = normalised_weights(reweighting.log_weights(temperature))
    return TemperatureLadder(tried[keep], weights, sizes[keep])


def _reach(reweighting: Reweighting, start: float, furthest: float, enough: float) -> float:
    """The temperature furthest from `start`, towards `furthest`, where frames are still enough; by bisection."""
    if reweighting.sample_size(furthest) >= enough:
        return furthest
    inside, outside = np.log(start), np.log(furthest)
    for _ in range(_HALVINGS):
        middle = 0.5 * (inside + outside)
        if reweighting.sample_size(float(np.exp(middle))) >= enough:
            inside = middle
        else:
            outside = middle
    return float(np.exp(inside))
