"""Amber files: prmtop with inpcrd or rst7."""

from typing import ClassVar, Literal

from openmm import app
from pydantic import Field

from latf_openmm.settings import InputFile
from latf_openmm.systems.molecule import (
    ForceFieldOptions,
    Molecule,
    MoleculeSettings,
    made,
    nanometres,
    reading,
)


class AmberSettings(MoleculeSettings):
    """Parameters and topology of a prmtop file, positions and box of an inpcrd or rst7 file."""

    title: ClassVar[str] = "your Amber prmtop and inpcrd or rst7"
    system_file: ClassVar[str] = "topology"

    kind: Literal["amber"] = "amber"
    topology: InputFile = Field(description="prmtop or parm7 file")
    coordinates: InputFile = Field(description="inpcrd, rst7 or restart file")
    options: ForceFieldOptions = Field(ForceFieldOptions(), description="how the System is made")

    def read(self) -> Molecule:
        """Read both files with OpenMM's readers."""
        start = reading("coordinates", self.coordinates, app.AmberInpcrdFile)
        box = start.boxVectors
        top = reading(
            "topology", self.topology, lambda name: app.AmberPrmtopFile(name, periodicBoxVectors=box)
        )
        system = made(
            top.createSystem,
            top.topology,
            self.options,
            box is not None and self.options.method != "none",
            "topology",
        )
        if box is not None:
            system.setDefaultPeriodicBoxVectors(*box)
        return Molecule(top.topology, system, nanometres(start.positions))
