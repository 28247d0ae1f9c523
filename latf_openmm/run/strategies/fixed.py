"""The same temperatures in every round."""

from typing import Literal

from latf_openmm.run.strategies.base import Decision, RoundState, StrategySettings, default_decision


class FixedSettings(StrategySettings):
    """The configuration's temperatures in every round, starts evenly over the states, the bias everywhere."""

    kind: Literal["fixed"] = "fixed"

    def decide(self, round_state: RoundState) -> Decision:
        """Return the same temperatures again."""
        return default_decision(round_state, round_state.configured, "the temperatures are fixed")
