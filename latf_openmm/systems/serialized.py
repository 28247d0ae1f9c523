"""A System that OpenMM has written as XML, with a topology."""

import logging
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from latf_openmm.periodic import default_box
from latf_openmm.settings import InputFile
from latf_openmm.systems.molecule import (
    Molecule,
    MoleculeSettings,
    box_of_files,
    existing,
    nanometres,
    structure,
    warn_of_droplet,
)
from latf_openmm.systems.trusted_xml import read_system

log = logging.getLogger(__name__)
_SAME = 2e-3  # nm; what a PDB file rounds


class SerializedSettings(MoleculeSettings):
    """A System as XML (`openmm.XmlSerializer`); names, bonds, start positions and box of a PDB or mmCIF file.

    A file without a box leaves that of the XML.
    """

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
        box = box_of_files(pdb.topology.getPeriodicBoxVectors(), "structure", self.structure)
        if box is not None and system.usesPeriodicBoundaryConditions():
            if not np.allclose(default_box(system), box, atol=_SAME):
                log.info("%s: its box is taken, %s has another one", self.structure, self.system)
            system.setDefaultPeriodicBoxVectors(*box)
        warn_of_droplet(system, pdb.topology, self.source)
        return Molecule(pdb.topology, system, nanometres(pdb.positions), box)
