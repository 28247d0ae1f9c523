"""Ways to simulate a round where walkers can move among temperatures, and the error expected after each.

All cost as many force evaluations: they have as many walkers, at as many temperatures. What is expected of one:

* Frames. A round gives walkers x frames / g of them at a temperature, of which a share counts at a target, as where
  temperatures are chosen; those of biased walkers count by the effective sample size of their weights.
* Populations. K entries into a state with the share p, and as many exits, say as much of it as K / (2 p (1 - p))
  independent frames (`latf_openmm.reweighting.crossings`), however many frames there are, and no more than there are
  independent ones inside states.
* Moves bring the entries at all other temperatures to each, but not more than walkers make round trips: after one a
  walker has come from elsewhere, and is one more independent frame. Entries count no more often than they happened.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latf_openmm.frames.moves import paths_of_stages, round_trips
from latf_openmm.reweighting.weights import effective_sample_size, members_of_runs
from latf_openmm.run.strategies.entries import UNSEEN, along_temperature
from latf_openmm.run.strategies.error_model import LEAST_SPREAD, ErrorModel, Target
from latf_openmm.sampling.tempering.base import expected_acceptance, moves_of_a_round_trip

Array = NDArray[np.float64]

_EFFICIENCY = 0.3
"""Effective samples of a biased frame where none was simulated yet."""


@dataclass(frozen=True)
class Plan:
    """One way to simulate the next round.

    Attributes
    ----------
    temperatures, biased
        Where to simulate, and those of them with the bias.
    moving
        Whether walkers move among them.
    chosen
        Whether the temperatures are chosen by the errors at the targets; otherwise they are those configured.
    """

    temperatures: tuple[float, ...]
    biased: tuple[float, ...]
    moving: bool
    chosen: bool = False

    @property
    def name(self) -> str:
        """The plan in a few words."""
        where = "the temperatures chosen" if self.chosen else "all temperatures"
        verb = "move among" if self.moving else "stay at"
        return f"walkers {verb} {where}{' with the bias' if self.biased else ''}"


@dataclass(frozen=True)
class Outlook:
    """Expectations of one plan.

    Attributes
    ----------
    plan
        The plan.
    error
        Root mean square over the targets of their error over tolerance.
    entries
        Independent entries of a walker into the state that is entered least, the mean over the temperatures.
    trips
        Round trips of a walker from the lowest to the highest temperature; zero where walkers stay.
    """

    plan: Plan
    error: float
    entries: float
    trips: float

    def record(self, chosen: bool) -> dict[str, Any]:
        """Return what is expected, by name, for tables."""
        return {
            "plan": self.plan.name,
            "temperatures": ", ".join(f"{t:g}" for t in self.plan.temperatures),
            "biased": ", ".join(f"{t:g}" for t in self.plan.biased) or "none",
            "entries of a walker into its rarest state": self.entries,
            "round trips of a walker": self.trips if self.plan.moving else None,
            "error expected": self.error,
            "chosen": chosen,
        }


def outlooks(
    known: ErrorModel, rows: Sequence[Target], stay: Plan, visits: float
) -> tuple[Outlook, list[Outlook]]:
    """Return the plan that is expected to leave the smallest error, and all of them.

    Walkers stay at temperatures chosen, as far as they are stuck with the bias, or all without it; or at the configured
    ones without it; or they move among these, without the bias or with it.

    Parameters
    ----------
    known, rows
        What is known, and the errors at the targets.
    stay
        The plan of walkers that stay at temperatures chosen, with the bias of those that are stuck.
    visits
        Entries of a biased walker into each state in a round, where none was simulated yet; more where it has more
        without the bias.
    """
    ladder = tuple(sorted(known.s.configured))
    plans = [stay]
    if stay.biased:
        plans.append(replace(stay, biased=()))
    plans += [Plan(ladder, (), moving=moving) for moving in (False, True)]
    if known.s.can_bias:
        plans.append(Plan(ladder, ladder, moving=True))
    expected = _Expected(known, visits)
    every = [expected.outlook(plan, rows) for plan in plans]
    return min(every, key=lambda outlook: outlook.error), every


class _Expected:
    """Expectations of plans, from what was measured."""

    def __init__(self, known: ErrorModel, visits: float) -> None:
        self.known, self.s, self.visits = known, known.s, visits

    def outlook(self, plan: Plan, rows: Sequence[Target]) -> Outlook:
        """Return what is expected of a plan."""
        trips = self._trips(biased=bool(plan.biased)) if plan.moving else 0.0
        rates = {t: self._rates(t, t in plan.biased) for t in plan.temperatures}
        entries = {t: self.s.walkers * self.s.frames * rate for t, rate in rates.items()}
        frames = {t: self.known.new_frames(t) * self._efficiency(t in plan.biased) for t in entries}
        for_populations = {t: self._for_populations(t, entries, plan, trips) for t in entries}
        squares = []
        for row in rows:
            shares = {t: self.known.share(t, row.temperature) for t in entries}
            most = sum(entries.values()) / (2 * self._spread(row.temperature))
            carried = np.sum([for_populations[t] * shares[t] for t in entries], axis=0)
            added = sum(frames[t] * shares[t] for t in entries)
            squares.append(row.error_after(added, np.minimum(carried, most)) ** 2)
        least = [float(rate[self.known.relevant].min()) for rate in rates.values()]
        return Outlook(plan, math.sqrt(float(np.mean(squares))), self.s.frames * float(np.mean(least)), trips)

    def _for_populations(
        self, temperature: float, entries: Mapping[float, Array], plan: Plan, trips: float
    ) -> Array:
        """Independent frames of a temperature that count for the share of each state, shape (n_states,).

        Parameters
        ----------
        entries
            Of all walkers into each state, at each temperature.
        trips
            Round trips of a walker.
        """
        worth = 1 / (2 * self._spread(temperature))
        known = entries[temperature] * worth
        if plan.moving:
            others = np.sum([entries[t] for t in entries if t != temperature], axis=0)
            known = known + np.minimum(others * worth, trips * self.s.walkers * len(entries))
        inside = self.known.new_frames(temperature, inside=True)
        return np.minimum(known, inside * self._efficiency(temperature in plan.biased))

    def _spread(self, temperature: float) -> Array:
        """Variance p (1 - p) of being in each state, shape (n_states,)."""
        shares = self.known.shares(temperature)
        return np.maximum(shares * (1 - shares), LEAST_SPREAD)

    def _rates(self, temperature: float, biased: bool) -> Array:
        """Independent entries a frame into each state, shape (n_states,)."""
        rates = self.known.entries.rates(biased=biased, independent=True)
        if rates:
            # With a bias they hardly follow 1/T, and often few temperatures close to each other had one.
            end = min(max(temperature, min(rates)), max(rates)) if biased else temperature
            return along_temperature(rates, end)
        if biased:
            return np.maximum(self._rates(temperature, biased=False), self.visits / self.s.frames)
        return np.full(self.s.n_states, UNSEEN / self.s.frames)  # nobody knows

    def _efficiency(self, biased: bool) -> float:
        """Effective samples of a frame by the weights of a bias: the mean of biased runs."""
        return self._measured_efficiency if biased else 1.0

    @cached_property
    def _measured_efficiency(self) -> float:
        parts = []
        for members in members_of_runs(self.s.pool.trajectories):
            logs = np.concatenate([self.s.pool.trajectories[i].log_weights for i in members])
            if np.ptp(logs) > 0:
                parts.append(effective_sample_size(logs) / len(logs))
        return float(np.mean(parts)) if parts else _EFFICIENCY

    # --- round trips

    def _trips(self, biased: bool) -> float:
        """Round trips of a walker in a round: measured with such a bias, else otherwise, else by the energies."""
        measured = {felt: self._measured_trips(felt) for felt in (biased, not biased)}
        known = [value for value in measured.values() if value is not None]
        return self.s.frames * (known[0] if known else self._trips_by_energies())

    def _measured_trips(self, biased: bool) -> float | None:
        """Round trips a frame and walker between the configured temperatures; None where no walkers moved so."""
        felt = {
            t.paths.stage
            for t in self.s.pool.trajectories
            if t.paths is not None and np.ptp(t.log_weights) > 0
        }
        trips, frames = 0, 0
        for stage, paths in paths_of_stages(self.s.pool.trajectories).items():
            visited = {t for path in paths.values() for t in np.unique(path).tolist()}
            if (stage in felt) == biased and visited <= set(self.s.configured):
                trips += round_trips(paths, self.s.configured)
                frames += sum(len(path) for path in paths.values())
        return max(trips, UNSEEN) / frames if frames else None

    def _trips_by_energies(self) -> float:
        """Round trips a frame and walker with the acceptances that mean energies say."""
        assert self.s.tempering is not None
        ladder = sorted(self.s.configured)
        energies = [self.known.at(t).energy().value for t in ladder]
        kT = [self.s.scale.kT(t) for t in ladder]
        pairs = (slice(i, i + 2) for i in range(len(ladder) - 1))
        acceptances = [expected_acceptance(kT[pair], energies[pair]) for pair in pairs]
        return 1.0 / (moves_of_a_round_trip(acceptances) * self.s.tempering.interval)
