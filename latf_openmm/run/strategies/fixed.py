"""The same temperatures in every round."""

from typing import Literal

from latf_openmm.run.strategies.base import Decision, Situation, StrategySettings, plain


class FixedSettings(StrategySettings):
    """The configuration's temperatures in every round, starts evenly over the states, the bias everywhere."""

    kind: Literal["fixed"] = "fixed"

    def decide(self, situation: Situation) -> Decision:
        """Return the same temperatures again."""
        return plain(situation, situation.configured, "the temperatures are fixed")
