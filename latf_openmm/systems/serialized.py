"""A System that OpenMM has written as XML, with a topology."""

from pathlib import Path
from typing import ClassVar, Literal

import openmm
from pydantic import Field

from latf_openmm.errors import ConfigError
from latf_openmm.settings import InputFile
from latf_openmm.systems.molecule import Molecule, MoleculeSettings, nanometres, reading, structure


class SerializedSettings(MoleculeSettings):
    """A System as XML (`openmm.XmlSerializer`); names, bonds and start positions of a PDB or mmCIF file."""

    title: ClassVar[str] = "your serialised OpenMM System and a PDB or mmCIF file"
    system_file: ClassVar[str] = "system"

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
        return Molecule(pdb.topology, system, nanometres(pdb.positions))
