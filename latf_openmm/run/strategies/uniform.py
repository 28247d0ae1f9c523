"""Temperatures spread evenly, shifted from round to round."""

from typing import Literal

import numpy as np

from latf_openmm.run.strategies.base import Decision, RoundState, StrategySettings, default_decision

_GOLDEN = 0.6180339887498949
"""Golden ratio less one; its multiples spread evenly over [0, 1)."""


class UniformSettings(StrategySettings):
    """Temperatures evenly in ln T over the simulated and requested range, shifted by the golden ratio each round."""

    kind: Literal["uniform"] = "uniform"

    def decide(self, round_state: RoundState) -> Decision:
        """Return evenly spread temperatures."""
        n = len(round_state.configured)
        every = (*round_state.configured, *round_state.targets)
        low, high = np.log(min(every)), np.log(max(every))
        rounds = len({walker.run.split("/")[0] for walker in round_state.pool.walkers})
        places = (np.arange(n) + (rounds * _GOLDEN) % 1.0) / n
        chosen = tuple(float(f"{t:.6g}") for t in np.exp(low + (high - low) * places))
        return default_decision(round_state, chosen, "temperatures are spread evenly over the range wanted")
