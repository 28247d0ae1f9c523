"""A System that OpenMM has written as XML, with a topology."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from latf_openmm.settings import InputFile
from latf_openmm.systems.molecule import Molecule, MoleculeSettings, existing, nanometres, structure
from latf_openmm.systems.trusted_xml import read_system


class SerializedSettings(MoleculeSettings):
    """A System as XML (`openmm.XmlSerializer`); names, bonds and start positions of a PDB or mmCIF file."""

    title: ClassVar[str] = "your serialised OpenMM System and a PDB or mmCIF file"
    system_file: ClassVar[str] = "system"

    kind: Literal["serialized"] = "serialized"
    system: InputFile = Field(description="XML file of the System")
    structure: InputFile = Field(description="PDB or mmCIF file with the same atoms")
    trust: bool = Field(
        False, description="whether code in the XML may run: forces of Python, TorchScript or PLUMED"
    )

    def code(self) -> tuple[Path, ...]:
        """Return the XML, where it is trusted."""
        return (self.system,) if self.trust else ()

    def read(self) -> Molecule:
        """Read both files."""
        pdb = structure("structure", self.structure)
        existing("system", self.system)
        system = read_system("system.system", self.system, self.trust)
        return Molecule(pdb.topology, system, nanometres(pdb.positions))
