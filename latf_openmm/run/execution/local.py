"""Everything on this machine, without an engine."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

from latf_openmm.run.execution.base import ExecutionSettings


class LocalSettings(ExecutionSettings):
    """Training in this process, groups of walkers in `simulation.processes` processes."""

    kind: Literal["local"] = "local"

    @property
    def is_local(self) -> bool:
        """Tasks run on this machine."""
        return True

    def check(self) -> None:
        """Nothing is needed."""

    def workers(self, folder: Path) -> AbstractContextManager[None]:
        """No executor."""
        return nullcontext()
