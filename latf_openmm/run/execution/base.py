"""What every kind of execution is: settings that give an executor for tasks, or None for this process."""

from abc import abstractmethod
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from latf_openmm.settings import Settings


@runtime_checkable
class Resumable(Protocol):
    """Argument of a task that goes on from what is complete when it is started again."""

    def n_complete(self) -> int:
        """Return how much of it is complete."""
        ...


class ExecutionSettings(Settings):
    """Settings of one kind of execution; subclasses add a literal ``kind`` and live in one file each."""

    kind: str

    @property
    @abstractmethod
    def is_local(self) -> bool:
        """Return whether tasks run on this machine, so that what they need can be looked for on it."""

    def shell_lines(self) -> tuple[str, ...]:
        """Return what of the settings becomes part of shell scripts; see ``docs/trust.md``."""
        return ()

    @abstractmethod
    def check(self) -> None:
        """Raise `ConfigError` where what this kind needs is not installed."""

    @abstractmethod
    def workers(self, folder: Path) -> AbstractContextManager[Executor | None]:
        """Return the workers, to be used as a context manager: they are there inside it and gone after it.

        Parameters
        ----------
        folder
            For logs and the like; made if missing.

        Raises
        ------
        BackendError
            On leaving, if workers were lost for good.
        """
