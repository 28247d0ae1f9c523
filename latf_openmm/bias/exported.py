"""A bias that was exported: into any System, with OpenMM, NumPy and LLVM alone, without torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from latf_openmm.bias.compiled.computation import compiled_force
from latf_openmm.bias.compiled.program import Program
from latf_openmm.bias.compiled.program_file import from_bytes, state_rows
from latf_openmm.bias.placement import with_bias
from latf_openmm.errors import DataError, ModelError
from latf_openmm.force_groups import BIAS_NAME
from latf_openmm.storage import MANIFEST, check_folder

PROGRAM, STATE, FACTS = "bias.program", "state.npy", "bias.json"
"""Files of the folder: the operations and their constants; the state of the bias; what it is."""
FORMAT = 1
"""Of the folder."""


class ExportedBias:
    """A bias from a folder, as it was when it was exported.

    Attributes
    ----------
    facts
        What it is: ``bias``, ``temperature`` (and ``temperature_scale``), ``units``, ``atoms``, ``periodic``, ...
    """

    def __init__(
        self, program: Program, state: NDArray[np.float64], facts: dict[str, Any], name: str
    ) -> None:
        self._program = program
        self._state = state
        self._name = name
        self.facts = facts

    @property
    def n_atoms(self) -> int:
        """Atoms of one copy of the system."""
        return self._program.n_atoms

    def add_to(
        self,
        system: openmm.System,
        *,
        topology: Any = None,
        n_copies: int = 1,
        group: int | None = None,
        name: str = BIAS_NAME,
    ) -> openmm.System:
        """Return a copy of a System with the bias as one force.

        Parameters
        ----------
        system
            Not changed.
        topology
            OpenMM's, to compare names of atoms with those of the export; None: they are not compared.
        n_copies
            Independent copies that `system` holds, one after the other.
        group
            Force group of the bias; None: the highest that no force is in.
        name
            Of the force.

        Raises
        ------
        ModelError
            If the System, or its topology, is not the one that the bias was made for.
        ConfigError
            If the group is not free, or the System has a force of that name.
        """
        if system.getNumParticles() != n_copies * self.n_atoms:
            raise ModelError(
                f"{self._name}: made for {self.n_atoms} atoms x {n_copies} copies, the System has "
                f"{system.getNumParticles()} particles"
            )
        periodic = bool(system.usesPeriodicBoundaryConditions())
        if periodic != self.facts["periodic"]:
            said = ("a System with a box", "a System without a box")
            wanted, given = said if self.facts["periodic"] else said[::-1]
            raise ModelError(f"{self._name}: made for {wanted}, this is {given}; export it for that System")
        if topology is not None:
            self._check_names([atom.name for atom in topology.atoms()], n_copies)
        force = compiled_force(self._program, n_copies, self._state, periodic)
        force.setName(name)
        return with_bias(system, force, group)

    def _check_names(self, names: Sequence[str], n_copies: int) -> None:
        expected = [label.rpartition("-")[2] for label in self.facts["atoms"]] * n_copies
        for index, (given, wanted) in enumerate(zip(names, expected, strict=False)):
            if given != wanted:
                raise ModelError(
                    f"{self._name}: atom {index} is {given}, the bias was made for {wanted} there"
                )


def load_exported_bias(folder: Path | str) -> ExportedBias:
    """Read a bias that `export_bias` or ``latf-openmm export --bias`` wrote. No code in it is run.

    Raises
    ------
    DataError
        If a file is missing or was changed, or the folder holds something else.
    """
    path = Path(folder)
    if not (path / MANIFEST).is_file():
        raise DataError(f"{path}: no exported bias; expected a folder with {PROGRAM} and {MANIFEST}")
    check_folder(path)
    try:
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
        state = np.load(path / STATE, allow_pickle=False)
        version = facts["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no exported bias ({type(error).__name__}: {error})") from error
    if version != FORMAT:
        raise DataError(f"{path / FACTS}: format {version}, this version reads {FORMAT}; export it again")
    program = from_bytes((path / PROGRAM).read_bytes(), str(path / PROGRAM))
    state_rows(program, state)
    return ExportedBias(program, state, facts, str(path))
