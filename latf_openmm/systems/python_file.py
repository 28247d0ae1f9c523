"""A Python file with a function that makes the system; the only code a configuration can run."""

import importlib.util
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import openmm
from openmm import app, unit
from pydantic import Field

from latf_openmm.errors import ConfigError, first_line
from latf_openmm.periodic import default_box
from latf_openmm.settings import InputFile
from latf_openmm.systems.molecule import Molecule, MoleculeSettings, box_of_files, existing

_UNSET = 2.0 * np.eye(3)
"""Default box of a System whose box nobody has set [nm]."""


class PythonFileSettings(MoleculeSettings):
    """A function without arguments that returns (openmm.System, openmm.app.Topology, positions)."""

    title: ClassVar[str] = "your Python function that returns System, topology and positions"
    system_file: ClassVar[str] = "file"

    kind: Literal["python"] = "python"
    file: InputFile = Field(description="Python file; it is run")
    function: str = Field("make", description="function in it")

    def code(self) -> tuple[Path, ...]:
        """Return the file."""
        return (self.file,)

    def read(self) -> Molecule:
        """Run the file, call the function."""
        name = existing("file", self.file)
        spec = importlib.util.spec_from_file_location(self.file.stem, name)
        if spec is None or spec.loader is None:
            raise ConfigError(f"system.file: {self.file} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            function = getattr(module, self.function, None)
            if not callable(function):
                raise ConfigError(f"system.function: {self.file} has no function {self.function!r}")
            found = function()
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"system.file: {self.file} failed ({type(error).__name__}: {first_line(error)})"
            ) from error
        return self._molecule(found)

    def _molecule(self, found: Any) -> Molecule:
        fits = isinstance(found, tuple) and len(found) == 3
        if not (fits and isinstance(found[0], openmm.System) and isinstance(found[1], app.Topology)):
            raise ConfigError(
                f"system.function: {self.function} in {self.file} must return (openmm.System, openmm.app.Topology, "
                f"positions), got {type(found).__name__}"
            )
        system, topology, positions = found
        if unit.is_quantity(positions):
            positions = positions.value_in_unit(unit.nanometer)
        try:
            numbers = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"system.function: positions must have shape (n_atoms, 3) [nm] ({first_line(error)})"
            ) from error
        box = box_of_files(topology.getPeriodicBoxVectors(), "function", self.file)
        if box is not None and np.array_equal(default_box(system), _UNSET):
            system.setDefaultPeriodicBoxVectors(*box)
        return Molecule(topology, system, numbers, box)
