"""Errors at the temperatures wanted, and what frames of any temperature are expected to bring them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latf_openmm.ensembles.ensemble import Estimate, StructureEnsemble
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.reweighting.free_energy import flow_populations
from latf_openmm.reweighting.reliability import FAIR_SAMPLES, MIN_MEASURED_SAMPLES
from latf_openmm.reweighting.weights import members_of_runs, systematic
from latf_openmm.run.strategies.base import Frames, RoundState
from latf_openmm.run.strategies.entries import Entries, along_temperature

Array = NDArray[np.float64]

_GRID = 16
"""Candidates between the lowest and the highest temperature."""
_SAMPLES = 20_000
"""Samples for the populations of the flow."""
_PRESENT = 0.02
"""Share from which a state matters at a temperature."""
_FEWEST = 1e-3
"""Effective samples that stand for none."""
_LEAST_ERROR = 1e-9
"""Error of a population that stands for none."""
LEAST_SPREAD = 1e-4
"""Least p (1 - p) of the share p of a state that is reckoned with."""


class Tolerances(Protocol):
    """Errors that are small enough."""

    @property
    def population_tolerance(self) -> float:
        """Standard error of a state's population."""

    @property
    def energy_tolerance(self) -> float:
        """Standard error of the mean potential energy [kT]."""


@dataclass(frozen=True)
class Target:
    """One temperature wanted: what is known there.

    Attributes
    ----------
    temperature, method, n_effective
        In the scale of the system; of its ensemble; effective samples there.
    populations, committee, energy
        With errors; errors by the committee of flows, shape (n_states,); mean energy [kT].
    population_tolerance, energy_tolerance
        Errors that are small enough.
    change
        How far the round moved the answer, over the tolerances.
    """

    temperature: float
    method: str
    n_effective: float
    populations: tuple[Estimate, ...]
    committee: Array
    energy: Estimate
    population_tolerance: float
    energy_tolerance: float
    change: float

    @cached_property
    def population_errors(self) -> Array:
        """Errors of populations, by the committee too where the flow speaks, shape (n_states,)."""
        errors = np.array([p.error for p in self.populations])
        # Where frames reach, they are what an ensemble is made of, whatever the flows say.
        return np.maximum(errors, self.committee) if self.method == "flow" else errors

    @property
    def error(self) -> float:
        """Error over tolerance: the largest of those of populations and of frames."""
        return max(float(self.population_errors.max()) / self.population_tolerance, self._error_of_frames)

    @property
    def _error_of_frames(self) -> float:
        """That of the energy, or of too few effective samples."""
        few = math.sqrt(FAIR_SAMPLES / max(self.n_effective, _FEWEST))
        return max(self.energy.error / self.energy_tolerance, few if self.n_effective < FAIR_SAMPLES else 0.0)

    def error_after(self, frames: float, for_populations: Array) -> float:
        """Error over tolerance that is expected after more frames.

        The square of each error falls with the number of independent frames. That of a population rests on
        p (1 - p) / error^2 of them now.

        Parameters
        ----------
        frames
            Independent frames that count at this temperature.
        for_populations
            Those that count for the share of each state, shape (n_states,).
        """
        n = max(self.n_effective, _FEWEST)
        errors = np.maximum(self.population_errors, _LEAST_ERROR)
        # What was hardly seen may have a share as large as its error.
        shares = np.maximum([p.value for p in self.populations], errors)
        seen = np.maximum(shares * (1 - shares), LEAST_SPREAD) / errors**2
        squares = (errors / self.population_tolerance) ** 2 * seen / (seen + for_populations)
        return math.sqrt(max(float(squares.max()), self._error_of_frames**2 * n / (n + frames)))

    def record(self) -> dict[str, Any]:
        """Return what is known, by name, for tables."""
        return {
            "temperature": self.temperature,
            "ensemble": self.method,
            "effective samples": self.n_effective,
            "largest error of a population": max(p.error for p in self.populations),
            "of the committee": float(self.committee.max()),
            "error of the energy (kT)": self.energy.error,
            "error over tolerance": self.error,
            "change over tolerance": self.change if math.isfinite(self.change) else None,
        }


class ErrorModel:
    """Errors measured at each temperature, and expected of frames of other temperatures.

    Parameters
    ----------
    round_state
        State of the run.
    settings
        Errors that are small enough.
    reweighter
        Of the same frames, if there is one already.
    """

    def __init__(
        self, round_state: RoundState, settings: Tolerances, reweighter: Reweighter | None = None
    ) -> None:
        self.s, self.settings = round_state, settings
        self.reweighter = round_state.reweighter if reweighter is None else reweighter
        assert self.reweighter.weighting is not None
        self.weighting = self.reweighter.weighting
        self.simulated = [float(t) for t in self.weighting.mbar.simulated]
        self.energy = round_state.pool.energies()
        # One temperature is asked for again and again: as a target, a candidate, and where walkers start.
        self.at = cache(self.reweighter.at)
        self._reached = cache(self.reweighter.reach)
        self._weights = cache(self.reweighter.weights)
        self.old: Reweighter | None = None
        if round_state.before:
            old = round_state.pool.first(round_state.before)
            self.old = Reweighter(round_state.trained, old, round_state.seed)

    # --- targets

    def target(self, temperature: float) -> Target:
        """Return the errors and changes at a temperature that is wanted."""
        ensemble = self.at(temperature)
        populations = tuple(ensemble.populations())
        kT = self.s.scale.kT(temperature)
        energy = ensemble.energy()
        energy = Estimate(energy.value / kT, energy.error / kT)
        _, committee = flow_populations(self.s.trained.model, temperature, _SAMPLES)
        n_effective = ensemble.n_effective if ensemble.method == "conditional" else self._reached(temperature)
        return Target(
            temperature,
            ensemble.method,
            n_effective,
            populations,
            committee,
            energy,
            self.settings.population_tolerance,
            self.settings.energy_tolerance,
            self._change(temperature, ensemble, kT),
        )

    def _change(self, temperature: float, ensemble: StructureEnsemble, kT: float) -> float:
        """Return how far the round's frames moved the answer, over the tolerances; infinite without an earlier one."""
        if self.old is None:
            return math.inf
        before = self.old.at(temperature)
        moved = max(
            abs(a.value - b.value) for a, b in zip(ensemble.populations(), before.populations(), strict=True)
        )
        heated = abs(ensemble.energy().value - before.energy().value) / kT
        return max(
            moved / self.settings.population_tolerance,
            heated / self.settings.energy_tolerance,
        )

    # --- temperatures

    def temperatures(self, rows: list[Target]) -> tuple[tuple[float, ...], list[dict[str, Any]]]:
        """Choose as many temperatures as the configuration has; and the table of candidates."""
        every = sorted({*self.s.configured, *self.s.targets, *self.simulated})
        grid = np.geomspace(every[0], every[-1], _GRID) if len(every) > 1 else np.array(every)
        candidates = sorted({*every, *(float(f"{t:.4g}") for t in grid)})
        gains = {
            c: np.array([self.new_frames(c) * self.share(c, row.temperature) for row in rows])
            for c in candidates
        }
        n = np.array([max(row.n_effective, _FEWEST) for row in rows])
        squares = np.array([row.error for row in rows]) ** 2
        added, chosen, order = np.zeros(len(rows)), list[float](), dict[float, int]()
        for _ in range(min(len(self.s.configured), len(candidates))):
            free = [c for c in candidates if c not in chosen]
            left = {c: float((squares * n / (n + added + gains[c])).sum()) for c in free}
            best = min(free, key=lambda c: left[c])
            chosen.append(best)
            order[best] = len(order) + 1
            added = added + gains[best]
        alone = {c: float((squares * n / (n + gains[c])).sum()) for c in candidates}
        table = [
            {
                "temperature": c,
                "effective samples a round": self.new_frames(c),
                "error expected": math.sqrt(alone[c] / len(rows)),
                "error now": math.sqrt(float(squares.sum()) / len(rows)),
                "chosen": order.get(c, 0),
            }
            for c in candidates
        ]
        return tuple(sorted(chosen)), table

    def new_frames(self, temperature: float, inside: bool = False) -> float:
        """Independent frames that a round at a temperature gives; those inside states with `inside`."""
        known = self._inside if inside else self._inefficiency
        at = np.array([1.0 / t for t in self.simulated])
        logs = np.array([math.log(known[t]) for t in self.simulated])
        order = np.argsort(at)
        g = math.exp(float(np.interp(1.0 / temperature, at[order], logs[order])))
        return self.s.walkers * self.s.frames / g

    @cached_property
    def _inefficiency(self) -> dict[float, float]:
        """Statistical inefficiency g at each simulated temperature: the geometric mean of its runs."""
        return self._mean_of_runs(self.reweighter.inefficiency)

    @cached_property
    def _inside(self) -> dict[float, float]:
        """The same inside metastable states."""
        return self._mean_of_runs(self.weighting.mbar.inefficiency)

    def _mean_of_runs(self, inefficiency: Array) -> dict[float, float]:
        logs: dict[float, list[float]] = {}
        for members in members_of_runs(self.s.pool.trajectories):
            first = members[0]
            g = float(inefficiency[self.s.pool.of_walker(first)][0])
            logs.setdefault(self.s.pool.trajectories[first].temperature, []).append(math.log(g))
        return {temperature: math.exp(float(np.mean(values))) for temperature, values in logs.items()}

    def share(self, start: float, target: float) -> float:
        """Share of frames at one temperature that count at another.

        Where frames reach both, measured with their weights: 1 / sum(w_target^2 / w_start). Else that of Gaussian
        energies, exp(-(d beta)^2 var U), or, where conditional energies are used, of collective variables.
        """
        if start == target:
            return 1.0
        if self._reached(start) > MIN_MEASURED_SAMPLES and self._reached(target) > MIN_MEASURED_SAMPLES:
            ratio = 2 * np.log(np.maximum(self._weights(target), 1e-300)) - np.log(
                np.maximum(self._weights(start), 1e-300)
            )
            return float(min(1.0, 1.0 / np.exp(ratio).sum()))
        beta = 1.0 / self.s.scale.kT(target) - 1.0 / self.s.scale.kT(start)
        gaussian = math.exp(-min(beta**2 * self._variance(start), 700.0))
        if not self.weighting.conditional_possible:
            return gaussian
        return max(gaussian, self.weighting.latent_share(start, target))

    def nearest(self, temperature: float) -> float:
        """Nearest simulated temperature, in ln T."""
        return min(self.simulated, key=lambda t: abs(math.log(t / temperature)))

    def _variance(self, temperature: float) -> float:
        """Variance of the potential energy: its heat capacity is that of the nearest simulated temperature."""
        nearest = self.nearest(temperature)
        weights = self._weights(nearest)
        variance = float(weights @ (self.energy - weights @ self.energy) ** 2)
        return variance * (temperature / nearest) ** 2

    # --- bias

    def visits(self, temperature: float) -> float:
        """Return how often a walker is expected to enter the state it enters least in a round, without bias.

        Of the states that have a share at some temperature wanted or simulated.
        """
        if not self._least:
            return 0.0
        return self.s.frames * float(along_temperature(self._least, temperature)[0])

    @cached_property
    def entries(self) -> Entries:
        """Entries of walkers into states."""
        basins = self.weighting.basins
        assert basins is not None
        return Entries(self.s.pool, basins.settle)

    @cached_property
    def _least(self) -> dict[float, Array]:
        """Entries a frame of unbiased walkers into the relevant state entered least, shape (1,), by temperature."""
        rates = self.entries.rates(biased=False, independent=False)
        return {t: rate[self.relevant].min(keepdims=True) for t, rate in rates.items()}

    @cached_property
    def relevant(self) -> NDArray[np.bool_]:
        """States that have a share at some temperature wanted or simulated, shape (n_states,)."""
        shares = [self.shares(t) for t in {*self.s.targets, *self.simulated}]
        present = np.max(shares, axis=0) > _PRESENT
        return np.asarray(present if present.any() else np.ones(self.s.n_states, bool))

    # --- starts

    def starts(self, chosen: tuple[float, ...], biased: tuple[float, ...]) -> dict[float, Frames]:
        """Frames to start from.

        Without a bias each state gets the walkers that it lacks at that temperature: as many as bring its frames, old
        and new, to its population there, as far as that is known. So walkers that never leave their state do not spoil
        the populations, and those that do have begun in equilibrium. Biased walkers start evenly over the states.
        Within a state frames are drawn by their weights.
        """
        rng = np.random.default_rng([self.s.seed, 13])
        states = self.s.pool.states
        order = np.argsort(states, kind="stable")
        starts = {}
        for temperature in chosen:
            wanted = self._even if temperature in biased else self._lacking(temperature)
            frame_weights = self.at(temperature).weights
            within = np.bincount(states, frame_weights, self.s.n_states)
            # A state without weight has frames all the same, and each is as good as another.
            frame_weights = np.where(within[states] > 0, frame_weights, 1.0)
            within = np.bincount(states, frame_weights, self.s.n_states)
            weights = (frame_weights * wanted[states] / within[states])[order]
            starts[temperature] = order[systematic(weights / weights.sum(), self.s.walkers, rng)]
        return starts

    def shares(self, temperature: float) -> Array:
        """Population of each state."""
        weights = self.at(temperature).weights
        return np.bincount(self.s.pool.states, weights, self.s.n_states).astype(np.float64)

    @cached_property
    def _even(self) -> Array:
        """The same for every state that was seen."""
        present = np.bincount(self.s.pool.states, minlength=self.s.n_states) > 0
        return np.asarray(present / present.sum())

    def _lacking(self, temperature: float) -> Array:
        """Shares of the next round's frames that bring those of unbiased walkers to the populations."""
        shares, n = self.shares(temperature), self._frames(temperature)
        new = self.s.walkers * self.s.frames
        lacking = np.maximum(shares * (n.sum() + new) - n, 0.0)
        return np.asarray(lacking / lacking.sum())

    def _frames(self, temperature: float) -> Array:
        """Frames in each state of unbiased walkers at a temperature."""
        n = np.zeros(self.s.n_states)
        for states in self._unbiased(temperature):
            n += np.bincount(states, minlength=self.s.n_states)
        return n

    def _unbiased(self, temperature: float) -> Iterator[NDArray[np.int64]]:
        """States of frames that follow on each other, of each unbiased walker at a temperature."""
        pool = self.s.pool
        for index, trajectory in enumerate(pool.trajectories):
            if trajectory.temperature == temperature and np.ptp(trajectory.log_weights) == 0:
                states = pool.states[pool.of_walker(index)]
                yield from (states[stretch] for stretch in trajectory.stretches)

    def state_rows(self, starts: dict[float, Frames], biased: tuple[float, ...]) -> list[dict[str, Any]]:
        """Frames, population and starts of each state at each temperature chosen."""
        states = self.s.pool.states
        rows = []
        for temperature, frames in starts.items():
            shares, n = self.shares(temperature), self._frames(temperature)
            begun = np.bincount(states[frames], minlength=self.s.n_states)
            rows += [
                {
                    "temperature": temperature,
                    "biased": temperature in biased,
                    "state": state,
                    "unbiased frames": int(n[state]),
                    "population": float(shares[state]),
                    "walkers that start in it": int(begun[state]),
                }
                for state in range(self.s.n_states)
            ]
        return rows
