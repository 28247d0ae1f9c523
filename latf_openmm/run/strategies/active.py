"""Temperatures, moves, starts and bias by what is known least where it is wanted, and when it is known well enough."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from latf_openmm.run.strategies.base import Decision, RoundState, StrategySettings, default_decision
from latf_openmm.run.strategies.error_model import ErrorModel, Target
from latf_openmm.run.strategies.plans import Plan, outlooks
from latf_openmm.run.strategies.reasons import bias_text, next_text, plan_text


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
        same. Where walkers can move among the configured temperatures, staying at those chosen is compared with staying
        at the configured ones and with moving, with and without the bias (`latf_openmm.run.strategies.plans`).
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
        plan = Plan(chosen, self._biased(known, chosen), moving=False, chosen=True)
        if round_state.tempering is None:
            return self._decision(known, rows, plan, {"candidates": falls})
        best, every = outlooks(known, rows, plan, self.visits)
        plans = [outlook.record(outlook is best) for outlook in every]
        why = plan_text(round_state.scale, best, every, {t: known.visits(t) for t in chosen})
        return self._decision(known, rows, best.plan, {"plans": plans, "candidates": falls}, (why,))

    def _decision(
        self,
        known: ErrorModel,
        rows: Sequence[Target],
        plan: Plan,
        tables: dict[str, list[dict[str, Any]]],
        why: tuple[str, ...] = (),
    ) -> Decision:
        """Return a plan with its starts, its reasons and the numbers behind it."""
        test = known.reweighter.certificate
        starts = known.starts(plan.temperatures, plan.biased)
        settled = all(row.error <= 1 and row.change <= 1 for row in rows)
        worst = max(rows, key=lambda row: row.error)
        visits = {t: known.visits(t) for t in plan.temperatures}
        reasons = [
            next_text(known.s.scale, worst, plan),
            *why,
            bias_text(known.s, plan, visits),
            *test.reasons(known.s.scale),
        ]
        if settled:
            reasons.append("errors and changes at all temperatures wanted are within the tolerances")
        return Decision(
            plan.temperatures,
            plan.biased,
            starts,
            settled and self.stop,
            tuple(reasons),
            {
                "targets": [row.record() for row in rows],
                **tables,
                "states": known.state_rows(starts, plan.biased),
            },
            plan.moving,
        )

    def _biased(self, known: ErrorModel, chosen: tuple[float, ...]) -> tuple[float, ...]:
        """Return the temperatures whose walkers feel the bias, where walkers stay."""
        if not known.s.can_bias:
            return ()
        wrong = known.reweighter.certificate.temperatures
        return tuple(t for t in chosen if known.visits(t) < self.visits or known.nearest(t) in wrong)
