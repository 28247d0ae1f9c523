"""Gromacs files: top with gro."""

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


class GromacsSettings(MoleculeSettings):
    """Parameters of a top file and what it includes, positions and box of a gro file."""

    title: ClassVar[str] = "your Gromacs top and gro"
    system_file: ClassVar[str] = "topology"

    kind: Literal["gromacs"] = "gromacs"
    topology: InputFile = Field(description="top file")
    coordinates: InputFile = Field(description="gro file")
    include: InputFile | None = Field(
        None,
        description="folder of the force fields a top file includes; default: where Gromacs is installed",
    )
    options: ForceFieldOptions = Field(ForceFieldOptions(), description="how the System is made")

    def read(self) -> Molecule:
        """Read both files with OpenMM's readers."""
        start = reading("coordinates", self.coordinates, app.GromacsGroFile)
        box = box_of_files(start.getPeriodicBoxVectors(), "coordinates", self.coordinates)
        options = {} if self.include is None else {"includeDir": str(self.include)}
        top = reading("topology", self.topology, lambda name: app.GromacsTopFile(name, **options))
        files = str(self.coordinates)
        system = create_system(top.createSystem, top.topology, self.options, box, "topology", files)
        return Molecule(top.topology, system, nanometres(start.positions), box)
