"""Bias potentials: torch modules from z to an energy in kJ/mol; one file for each kind."""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from latf_openmm.bias.potentials.base import Bias, BiasContext, BiasSettings
from latf_openmm.settings import family

BIAS_KINDS = family(BiasSettings, __name__)  # type: ignore[type-abstract]

if TYPE_CHECKING:
    AnyBias = BiasSettings
else:
    AnyBias = Annotated[Union[tuple(BIAS_KINDS.values())], Field(discriminator="kind")]  # noqa: UP007

__all__ = ["BIAS_KINDS", "AnyBias", "Bias", "BiasContext", "BiasSettings"]
