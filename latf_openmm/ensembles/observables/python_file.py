"""A function in a Python file of a user."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mdtraj
from numpy.typing import ArrayLike

from latf_openmm.ensembles.observables.base import StructureObservable
from latf_openmm.errors import ConfigError


class PythonFunction(StructureObservable):
    """A function of an MDTraj trajectory with all atoms and the box: one number a frame.

    Raises
    ------
    ConfigError
        If there is no such file or function, or the file fails.
    """

    kind = "python_file"
    of_solute = False

    def __init__(self, name: str, reference: mdtraj.Trajectory) -> None:
        super().__init__(name, reference)
        path, _, function = name.rpartition(":")
        self._function = function_of_file(Path(path), function, "--observable")

    @classmethod
    def form(cls) -> str:
        """Name with what has to follow it."""
        return "FILE.py:FUNCTION"

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Return whether a name asks for a function of a file."""
        return name.rpartition(":")[0].endswith(".py")

    def compute(self, trajectory: mdtraj.Trajectory) -> ArrayLike:
        """Return the value in each frame, shape (n_frames,)."""
        values: ArrayLike = self._function(trajectory)
        return values


def function_of_file(path: Path, name: str, option: str) -> Callable[[mdtraj.Trajectory], Any]:
    """Run a Python file and return a function of it.

    Parameters
    ----------
    option
        That the file was given for, for messages.

    Raises
    ------
    ConfigError
        If there is no such file or function, or the file fails.
    """
    if not path.is_file():
        raise ConfigError(f"{option}: {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{option}: {path} cannot be run ({type(error).__name__}: {error})") from error
    function: Callable[[mdtraj.Trajectory], Any] | None = getattr(module, name, None)
    if function is None or not callable(function):
        raise ConfigError(f"{option}: {path} has no function {name!r}")
    return function
