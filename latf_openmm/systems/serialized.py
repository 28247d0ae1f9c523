"""A System that OpenMM has written as XML, with a topology."""

import logging
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import openmm
from pydantic import Field

from latf_openmm.errors import ConfigError
from latf_openmm.periodic import default_box
from latf_openmm.settings import InputFile
from latf_openmm.systems.molecule import (
    Molecule,
    MoleculeSettings,
    box_of_files,
    nanometres,
    reading,
    structure,
)

log = logging.getLogger(__name__)
_SAME = 2e-3  # nm; what a PDB file rounds


class SerializedSettings(MoleculeSettings):
    """A System as XML (`openmm.XmlSerializer`); names, bonds, start positions and box of a PDB or mmCIF file.

    A file without a box leaves that of the XML.
    """

    title: ClassVar[str] = "your serialised OpenMM System and a PDB or mmCIF file"

    kind: Literal["serialized"] = "serialized"
    system: InputFile = Field(description="XML file of the System")
    structure: InputFile = Field(description="PDB or mmCIF file with the same atoms")

    def read(self) -> Molecule:
        """Read both files."""
        pdb = structure("structure", self.structure)
        system = reading(
            "system", self.system, lambda name: openmm.XmlSerializer.deserialize(Path(name).read_text())
        )
        if not isinstance(system, openmm.System):
            raise ConfigError(f"system.system: {self.system} is not a System but a {type(system).__name__}")
        box = box_of_files(pdb.topology.getPeriodicBoxVectors(), "structure", self.structure)
        if box is not None and system.usesPeriodicBoundaryConditions():
            if not np.allclose(default_box(system), box, atol=_SAME):
                log.info("%s: its box is taken, %s has another one", self.structure, self.system)
            system.setDefaultPeriodicBoxVectors(*box)
        return Molecule(pdb.topology, system, nanometres(pdb.positions), box)
