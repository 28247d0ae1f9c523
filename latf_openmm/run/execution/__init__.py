"""Where simulations and trainings run: in processes of this machine, or on workers of a cluster; one file a kind."""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from latf_openmm.run.execution.base import ExecutionSettings
from latf_openmm.settings import family

EXECUTION_KINDS = family(ExecutionSettings, __name__)  # type: ignore[type-abstract]

if TYPE_CHECKING:
    AnyExecution = ExecutionSettings
else:
    AnyExecution = Annotated[Union[tuple(EXECUTION_KINDS.values())], Field(discriminator="kind")]  # noqa: UP007

__all__ = ["EXECUTION_KINDS", "AnyExecution", "ExecutionSettings"]
