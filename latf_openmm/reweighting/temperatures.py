"""Weights of all frames at any temperature, by MBAR over the simulated temperatures.

Every frame has its potential energy, so the frames of all temperatures together are a weighted canonical sample at any
temperature T the simulated ones overlap with:

    w_T(n) ~ w_n exp(-U_n / kT) / sum_k N_ka exp(f_ka - U_n / kT_k),     a the metastable state of frame n,

with w_n the weight that undoes the bias of frame n's own run, N_ka the effective number of frames at the simulated
temperature k in state a and f_ka the free energy of that part (`latf_openmm.reweighting.connected`). With one state
it is MBAR (Shirts and Chodera, 2008).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.averaging import AveragedEnergies
from latf_openmm.reweighting.connected import Links, LocalFrames, StateEnergies, Visits, energy_links
from latf_openmm.reweighting.crossings import (
    RunCrossings,
    find_crossings,
    independent_samples,
    known_shares,
    with_unseen,
)
from latf_openmm.reweighting.inefficiency import frames_of
from latf_openmm.reweighting.weights import canonical_weights, effective_sample_size
from latf_openmm.reweighting.windows import join_windows, window_groups

_MAX_FRAMES = 10_000
"""Frames that the free energies are solved from, at most."""
_MAX_TABLE = 1_000_000
"""Points of the table of the mixture, at most."""
_PART = 65_536
"""Frames whose numbers are in memory at a time."""
_SAMPLED = 0.1
"""Frames that count as a sample of the shares of states, over those that say as much of them as the crossings do."""
_NO_HEIGHT = -1e15
"""Logarithm of what a temperature without frames has in the mixture."""

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Counts = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Basins:
    """Collective variables and metastable states of all frames, walkers one after the other.

    Attributes
    ----------
    z
        Collective variables, shape (n_frames, dim).
    states
        Shape (n_frames,).
    n_states
        Number of states, those without frames too.
    settle
        Frames that a walker has to stay in a state for its crossing to count; the lag time of the states.
    """

    z: Array
    states: Indices
    n_states: int
    settle: int = 2


@dataclass(frozen=True)
class Resample:
    """Frames of one bootstrap sample.

    Attributes
    ----------
    multiplicity
        How often each frame is in the sample, shape (n_frames,).
    log_w
        Logarithm of the weight of each frame, shape (n_frames,); minus infinity where it is not in the sample.
    free_energies
        f_ka, shape (n_temperatures, n_states).
    """

    multiplicity: Counts
    log_w: Array
    free_energies: Array


class Reweighting:
    """Weights of all frames at any temperature.

    Parameters
    ----------
    trajectories
        Frames with known potential energies.
    inefficiency
        Statistical inefficiency g of each frame's run, shape (n_frames,): a frame counts as 1/g; None: as 1.
    basins
        States that only crossings connect; None: frames of every temperature are taken for an equilibrium sample.
    averaged
        What mean energies of states are taken of; None: the energies of the frames.

    Attributes
    ----------
    simulated
        Simulated temperatures, ascending, shape (n_temperatures,).
    free_energies
        f_ka, shape (n_temperatures, n_states).
    """

    def __init__(
        self,
        trajectories: Sequence[FeatureTrajectory],
        inefficiency: Array | None = None,
        basins: Basins | None = None,
        averaged: AveragedEnergies | None = None,
    ) -> None:
        energy = np.concatenate([t.potential_energy for t in trajectories])
        self.lowest = float(energy.min())
        self.energy = energy - self.lowest
        self.averaged = AveragedEnergies.of_frames(energy) if averaged is None else averaged
        self.boltzmann = trajectories[0].scale.boltzmann
        n = len(energy)
        self.inefficiency = np.ones(n) if inefficiency is None else inefficiency
        frames = frames_of(trajectories)
        parts = [self.inefficiency[rows] for rows in frames]
        weights = np.concatenate(canonical_weights(trajectories, parts))
        self.log_w = np.log(np.maximum(weights, 1e-300)) - np.log(self.inefficiency)
        self._windows = [
            (
                np.concatenate([np.arange(n)[frames[i]] for i in members]),
                join_windows([trajectories[i] for i in members], [parts[i] for i in members]),
            )
            for members in window_groups(trajectories)
        ]
        owner = np.concatenate([np.full(t.n_frames, t.temperature) for t in trajectories])
        self.simulated = np.unique(owner)
        self.betas = 1.0 / (self.boltzmann * self.simulated)
        self.level = np.searchsorted(self.simulated, owner)
        self.states = np.zeros(n, dtype=np.int64) if basins is None else basins.states
        self.n_states = 1 if basins is None else basins.n_states
        self._runs: list[RunCrossings] = []
        if basins is not None and self.n_states > 1:
            self._runs = find_crossings(trajectories, basins.states, self.n_states, basins.settle)
        few = np.linspace(0, n - 1, min(n, _MAX_FRAMES)).astype(np.int64)
        self._few = few
        self._local = LocalFrames(
            self.energy[few], self.level[few], self.states[few], self.betas, self.n_states
        )
        everything = np.ones(n, dtype=np.int64)
        self.free_energies = self._solve(self.log_w, everything, None, None)
        self.counts = self._counts(self.log_w)
        self.log_mixture = self._log_mixture(self.log_w, self.free_energies)

    def log_weights(self, temperature: float) -> Array:
        """Logarithm of each frame's weight at a temperature, up to a constant; shape (n_frames,)."""
        return np.asarray(self.log_w - self.energy / (self.boltzmann * temperature) - self.log_mixture)

    def sample_size(self, temperature: float) -> float:
        """Kish's effective sample size at a temperature."""
        return effective_sample_size(self.log_weights(temperature))

    def resample(self, multiplicity: Counts, rng: np.random.Generator) -> Resample:
        """Return a bootstrap sample with its own free energies.

        Parameters
        ----------
        multiplicity
            How often each frame is in the sample, shape (n_frames,).
        rng
            Draws the crossings that stand for those that were not seen.
        """
        with np.errstate(divide="ignore"):
            log_w = self.log_w + np.log(multiplicity)
        for rows, joined in self._windows:
            total = logsumexp(log_w[rows])
            log_w[rows] += joined.change(multiplicity[rows])
            log_w[rows] += total - logsumexp(log_w[rows])
        f = self._solve(log_w, multiplicity, rng, self.free_energies)
        return Resample(multiplicity, log_w, f)

    def without_crossings(
        self, level: int, sample: Resample | None = None, rng: np.random.Generator | None = None
    ) -> Array:
        """f_ka without the crossings at one temperature, shape (n_temperatures, n_states).

        The shares of the states there are then those that its energies and the other temperatures say.

        Parameters
        ----------
        level
            Index of the temperature.
        sample, rng
            A bootstrap sample, and what draws its unseen crossings; None: all frames.
        """
        if sample is None:
            everything = np.ones(len(self.energy), dtype=np.int64)
            return self._solve(self.log_w, everything, None, self.free_energies, level)
        return self._solve(sample.log_w, sample.multiplicity, rng, sample.free_energies, level)

    def factors(self, sample: Resample) -> Array:
        """Factor on the weight of each frame, at any temperature, that a bootstrap sample makes; shape (n_frames,).

        It is how often the frame is in the sample, times the mixture of all frames over that of the sample at the
        frame. Both mixtures depend on a frame's energy and state alone, and are taken from a table of them.
        """
        table = self._mixture_tables(sample.log_w, sample.free_energies)
        change = np.empty(len(self.energy))
        for state, (before, after) in enumerate(zip(self._own_tables, table, strict=True)):
            rows = self._of_state(state)
            change[rows] = np.interp(self.energy[rows], self._energies, before - after)
        return np.asarray(np.exp(sample.log_w - self.log_w + change))

    def shares(self) -> Array:
        """Share of each state at each simulated temperature, shape (n_temperatures, n_states); zero if never seen."""
        logs = np.where(self.counts > 0, -self.free_energies, -np.inf)
        return np.exp(logs - logsumexp(logs, axis=1, keepdims=True))

    def crossings(self) -> Array:
        """Independent crossings in and out of each state at each simulated temperature, (n_temperatures, n_states).

        Infinite where umbrella windows say the shares.
        """
        crossed = np.zeros((len(self.simulated), self.n_states))
        for run in self._runs:
            counted = np.full((self.n_states, self.n_states), np.inf) if run.joined else run.counted()
            crossed[np.searchsorted(self.simulated, run.temperature)] += counted.sum(axis=0) + counted.sum(
                axis=1
            )
        return crossed

    def energies_of_states(self, log_w: Array | None = None) -> StateEnergies:
        """Return the energies in each state at each simulated temperature.

        Parameters
        ----------
        log_w
            Of a bootstrap sample; None: of all frames.
        """
        weights = np.exp(self.log_w if log_w is None else log_w)
        energy = self.averaged.of_states - self.lowest
        counts, sums, squares = (self._sums(weights * energy**power) for power in range(3))
        inside = self._sums(weights * self.averaged.variances)
        n = np.maximum(counts, 1e-300)
        means = sums / n
        scatters = np.where(counts > 0, np.maximum(squares / n - means**2, 0.0), 0.0)  # rounding
        return StateEnergies(counts, means, scatters + inside / n, scatters)

    def held(self, log_w: Array) -> Array:
        """Share of the weight of the frames at each temperature that each state has, (n_temperatures, n_states)."""
        counts = self._counts(log_w)
        return np.asarray(counts / counts.sum(axis=1, keepdims=True))

    def _solve(
        self,
        log_w: Array,
        multiplicity: Counts,
        rng: np.random.Generator | None,
        start: Array | None,
        without: int | None = None,
    ) -> Array:
        """f_ka of frames with these weights; without the crossings at one temperature."""
        if len(self.simulated) == 1 and self.n_states == 1:
            return np.zeros((1, 1))
        weights = np.exp(log_w)
        few = weights[self._few] * (len(weights) / len(self._few))
        visits = [v for v in self._visits(weights, multiplicity, rng) if v.level != without]
        samples = np.zeros((len(self.simulated), self.n_states))
        for visit in visits:
            samples[visit.level] += _SAMPLED * independent_samples(visit.times, visit.counts)
        return self._local.solve(few, visits, self.links(log_w), start, samples)

    def _visits(self, weights: Array, multiplicity: Counts, rng: np.random.Generator | None) -> list[Visits]:
        """Times and crossings of the runs."""
        visits = []
        every = [run.times(weights) for run in self._runs]
        total = float(np.sum(every))
        for run, times in zip(self._runs, every, strict=True):
            counted = run.counted(multiplicity)
            if run.joined:
                counted = known_shares(times, weights[run.frames])
            level = int(np.searchsorted(self.simulated, run.temperature))
            visits.append(Visits(level, times, with_unseen(counted, times.sum() / total, rng)))
        return visits

    def links(self, log_w: Array | None = None) -> Links | None:
        """Differences of free energy from mean energies, where temperatures do not overlap; arguments as above."""
        return energy_links(self.energies_of_states(log_w), self.betas)

    def _counts(self, log_w: Array) -> Array:
        """N_ka, shape (n_temperatures, n_states)."""
        return self._sums(np.exp(log_w))

    def _sums(self, values: Array) -> Array:
        """Sums of values of frames at each temperature in each state, shape (n_temperatures, n_states)."""
        flat = self.level * self.n_states + self.states
        sums = np.bincount(flat, values, len(self.simulated) * self.n_states)
        return np.asarray(sums.reshape(-1, self.n_states), dtype=np.float64)

    def _log_mixture(self, log_w: Array, f: Array) -> Array:
        """Logarithm of sum_k N_ka exp(f_ka - u_k) at all frames."""
        heights = self._heights(log_w, f)
        result = np.empty(len(self.energy))
        for state in range(self.n_states):
            rows = self._of_state(state)
            result[rows] = self._mixture_at(self.energy[rows], heights[:, state])
        return result

    def _heights(self, log_w: Array, f: Array) -> Array:
        """Ln N_ka + f_ka, shape (n_temperatures, n_states)."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self._counts(log_w)) + f)

    def _mixture_tables(self, log_w: Array, f: Array) -> list[Array]:
        """Logarithm of the mixture of each state at each energy of the table."""
        heights = self._heights(log_w, f)
        return [self._mixture_at(self._energies, heights[:, state]) for state in range(self.n_states)]

    def _mixture_at(self, energy: Array, heights: Array) -> Array:
        """Logarithm of the mixture of one state at energies (n,), in parts: there is a number for each temperature."""
        parts = np.array_split(energy, max(1, len(energy) // _PART))
        heights = np.where(np.isfinite(heights), heights, _NO_HEIGHT)
        return np.concatenate([logsumexp(heights - part[:, None] * self.betas, axis=1) for part in parts])

    def _of_state(self, state: int) -> Any:
        """Frames of one state."""
        return slice(None) if self.n_states == 1 else self._rows[state]

    @cached_property
    def _rows(self) -> list[Indices]:
        return [np.flatnonzero(self.states == state) for state in range(self.n_states)]

    @cached_property
    def _energies(self) -> Array:
        """Energies of the table of mixtures, so close that a straight line between them errs by less than 1e-6."""
        spacing = np.sqrt(8e-6) / max(0.5 * float(np.ptp(self.betas)), 1e-9)
        top = float(self.energy.max())
        return np.linspace(0.0, top, int(np.clip(np.ceil(top / spacing), 2, _MAX_TABLE)))

    @cached_property
    def _own_tables(self) -> list[Array]:
        """The tables of all frames, which every sample is compared with."""
        return self._mixture_tables(self.log_w, self.free_energies)
