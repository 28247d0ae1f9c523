"""Temperatures, starts and bias by what is known least at the temperatures wanted, and when it is known well enough."""

from typing import Literal

import numpy as np
from pydantic import Field

from latf_openmm.reweighting.consistency import Certificate
from latf_openmm.run.strategies.base import Decision, RoundState, StrategySettings, default_decision
from latf_openmm.run.strategies.error_model import ErrorModel
from latf_openmm.run.strategies.reasons import bias_text, next_text


class ActiveSettings(StrategySettings):
    """Simulate where the errors at the temperatures wanted are expected to fall most."""

    kind: Literal["active"] = "active"
    population_tolerance: float = Field(
        0.02, gt=0, lt=1, description="standard error of a state's population that is small enough"
    )
    energy_tolerance: float = Field(
        0.1, gt=0, description="standard error of the mean potential energy that is small enough [kT]"
    )
    visits: float = Field(
        5.0,
        ge=0,
        description="walkers expected to enter some state less often than this in a round are biased",
    )
    stop: bool = Field(True, description="whether to stop when errors and changes are within the tolerances")

    def decide(self, round_state: RoundState) -> Decision:
        """Plan the next round from errors at the targets and how far frames of each temperature carry.

        The error e of a target is the largest of: the error of a state's population over its tolerance, and by the
        committee of flows where the flow speaks; that of the mean energy over its tolerance; sqrt(30 / n) where fewer
        than 30 effective samples n reach it. A round at temperature c gives m = walkers x frames / g effective
        samples, of which the share o(c, target) counts at a target, so that e^2 falls to e^2 n / (n + m o).
        Temperatures are chosen one after the other, each for the largest fall of the sum over targets; all cost the
        same. Where walkers move among temperatures, these are the configured ones, which they are to move between.
        """
        if round_state.reweighter.weighting is None:
            return default_decision(
                round_state,
                round_state.configured,
                "potential energies are not known, so the configured temperatures stay",
            )
        known = ErrorModel(round_state, self)
        rows = [known.target(t) for t in round_state.targets]
        chosen, falls = known.temperatures(rows)
        test = round_state.reweighter.certificate
        stuck, biased = self._biased(known, chosen, test)
        starts = known.starts(chosen, biased)
        settled = all(row.error <= 1 and row.change <= 1 for row in rows)
        worst = max(rows, key=lambda row: row.error)
        reasons = [
            next_text(round_state, worst.temperature, worst.error, chosen),
            bias_text(round_state, chosen, biased, stuck),
        ]
        reasons += test.reasons(round_state.scale)
        if settled:
            reasons.append("errors and changes at all temperatures wanted are within the tolerances")
        return Decision(
            chosen,
            biased,
            starts,
            settled and self.stop,
            tuple(reasons),
            {
                "targets": [row.record() for row in rows],
                "candidates": falls,
                "states": known.state_rows(starts, biased),
            },
        )

    def _biased(
        self, known: ErrorModel, chosen: tuple[float, ...], test: Certificate
    ) -> tuple[dict[float, float], tuple[float, ...]]:
        """Return entries expected into the rarest state, and the temperatures whose walkers feel the bias.

        A walker that moves among temperatures is at each for an equal part of its frames, and takes the bias along.
        """
        stuck = {t: known.visits(t) for t in chosen}
        if known.s.moving:
            stuck = dict.fromkeys(chosen, float(np.mean(list(stuck.values()))))
        if not known.s.can_bias:
            return stuck, ()
        biased = tuple(t for t in chosen if stuck[t] < self.visits or known.nearest(t) in test.temperatures)
        return stuck, chosen if known.s.moving and biased else biased
