"""Strategies: what happens in the next round, decided from what was measured; one file for each kind."""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from latf_openmm.run.strategies.base import Decision, RoundState, StrategySettings
from latf_openmm.settings import family

STRATEGY_KINDS = family(StrategySettings, __name__)  # type: ignore[type-abstract]

if TYPE_CHECKING:
    AnyStrategy = StrategySettings
else:
    AnyStrategy = Annotated[Union[tuple(STRATEGY_KINDS.values())], Field(discriminator="kind")]  # noqa: UP007

__all__ = ["STRATEGY_KINDS", "AnyStrategy", "Decision", "RoundState", "StrategySettings"]
