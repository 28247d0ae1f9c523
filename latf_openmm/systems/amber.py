"""Amber files: prmtop with inpcrd or rst7."""

from typing import ClassVar, Literal

from openmm import app
from pydantic import Field

from latf_openmm.settings import InputFile
from latf_openmm.systems.molecule import (
    ForceFieldOptions,
    Molecule,
    MoleculeSettings,
    box_of_files,
    create_system,
    nanometres,
    reading,
)


class AmberSettings(MoleculeSettings):
    """Parameters and topology of a prmtop file, positions and box of an inpcrd or rst7 file.

    Where that has no box, the prmtop's is taken.
    """

    title: ClassVar[str] = "your Amber prmtop and inpcrd or rst7"
    system_file: ClassVar[str] = "topology"

    kind: Literal["amber"] = "amber"
    topology: InputFile = Field(description="prmtop or parm7 file")
    coordinates: InputFile = Field(description="inpcrd, rst7 or restart file")
    options: ForceFieldOptions = Field(ForceFieldOptions(), description="how the System is made")

    def read(self) -> Molecule:
        """Read both files with OpenMM's readers; the coordinates' box counts before that of the topology."""
        start = reading("coordinates", self.coordinates, app.AmberInpcrdFile)
        top = reading("topology", self.topology, app.AmberPrmtopFile)
        box = box_of_files(start.boxVectors, "coordinates", self.coordinates)
        if box is None:
            box = box_of_files(top.topology.getPeriodicBoxVectors(), "topology", self.topology)
        files = f"{self.coordinates} and {self.topology}"
        system = create_system(top.createSystem, top.topology, self.options, box, "topology", files)
        return Molecule(top.topology, system, nanometres(start.positions), box)
