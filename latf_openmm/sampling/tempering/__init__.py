"""Tempering: walkers that move among the temperatures of a stage; one file for each kind."""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from latf_openmm.sampling.tempering.base import Moves, TemperingSettings, Walkers
from latf_openmm.settings import family

TEMPERING_KINDS = family(TemperingSettings, __name__)  # type: ignore[type-abstract]

if TYPE_CHECKING:
    AnyTempering = TemperingSettings
else:
    AnyTempering = Annotated[Union[tuple(TEMPERING_KINDS.values())], Field(discriminator="kind")]  # noqa: UP007

__all__ = ["TEMPERING_KINDS", "AnyTempering", "Moves", "TemperingSettings", "Walkers"]
