"""A Python file with a function that makes the system; the only code a configuration can run."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import isfunction
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import numpy as np
import openmm
from openmm import app, unit
from pydantic import Field

from latf_openmm.errors import ConfigError, first_line
from latf_openmm.periodic import default_box
from latf_openmm.settings import InputFile
from latf_openmm.systems.modules_beside import modules_beside
from latf_openmm.systems.molecule import Molecule, MoleculeSettings, box_of_files, existing, warn_of_droplet

_PREFIX = "latf_openmm_system_"
"""Of the names of the files' modules, which so hide no other."""
_UNSET = 2.0 * np.eye(3)
"""Default box of a System whose box nobody has set [nm]."""


@contextmanager
def _as_a_script(module: ModuleType, folder: Path) -> Iterator[None]:
    """Let a file that runs find its own module, and those beside it, which another file's must not be taken for."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        new = set(sys.modules) - before
        beside = {name for name in new if _lies_in(sys.modules[name], folder)} | {module.__name__}
        for name in new:
            if name.partition(".")[0] in beside:
                del sys.modules[name]


def _lies_in(module: ModuleType | None, folder: Path) -> bool:
    """Return whether a module is a file, or a package, in the folder itself."""
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    path = Path(file).resolve()
    return (path.parent.parent if path.name == "__init__.py" else path.parent) == folder


class PythonFileSettings(MoleculeSettings):
    """A function without arguments that returns (openmm.System, openmm.app.Topology, positions)."""

    title: ClassVar[str] = "your Python function that returns System, topology and positions"
    system_file: ClassVar[str] = "file"

    kind: Literal["python"] = "python"
    file: InputFile = Field(description="Python file; it is run")
    function: str = Field("make", description="function in it")

    def code(self) -> tuple[Path, ...]:
        """Return the file, and the modules beside it that it imports."""
        return (self.file, *modules_beside(self.file))

    def read(self) -> Molecule:
        """Run the file, call the function."""
        name = existing("file", self.file)
        spec = importlib.util.spec_from_file_location(f"{_PREFIX}{self.file.stem}", name)
        if spec is None or spec.loader is None:
            raise ConfigError(f"system.file: {self.file} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        try:
            with _as_a_script(module, self.file.resolve().parent):
                spec.loader.exec_module(module)
                function = getattr(module, self.function, None)
                if not callable(function):
                    others = [
                        n
                        for n, f in vars(module).items()
                        if isfunction(f) and f.__module__ == module.__name__
                    ]
                    has = f"; it has {', '.join(others)}" if others else ""
                    raise ConfigError(f"system.function: {self.file} has no function {self.function!r}{has}")
                returned = function()
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"system.file: {self.file} failed ({type(error).__name__}: {first_line(error)})"
            ) from error
        return self._molecule(returned)

    def _molecule(self, returned: Any) -> Molecule:
        fits = isinstance(returned, tuple) and len(returned) == 3
        if not (fits and isinstance(returned[0], openmm.System) and isinstance(returned[1], app.Topology)):
            raise ConfigError(
                f"system.function: {self.function} in {self.file} must return (openmm.System, openmm.app.Topology, "
                f"positions), got {type(returned).__name__}"
            )
        system, topology, positions = returned
        try:
            numbers = np.asarray(_numbers(positions), dtype=np.float64).reshape(-1, 3)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"system.function: positions must have shape (n_atoms, 3) [nm] ({first_line(error)})"
            ) from error
        box = box_of_files(topology.getPeriodicBoxVectors(), "function", self.file)
        if box is not None and np.array_equal(default_box(system), _UNSET):
            system.setDefaultPeriodicBoxVectors(*box)
        warn_of_droplet(system, topology, self.source)
        return Molecule(topology, system, numbers, box)


def _numbers(positions: Any) -> Any:
    """Positions without units [nm]; each atom's may have its own."""
    if unit.is_quantity(positions):
        return positions.value_in_unit(unit.nanometer)
    if isinstance(positions, (list, tuple)) or (
        isinstance(positions, np.ndarray) and positions.dtype.kind == "O"
    ):
        return [_numbers(part) for part in positions]
    return positions
