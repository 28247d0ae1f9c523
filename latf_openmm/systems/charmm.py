"""CHARMM files: psf, coordinates and parameters."""

from typing import ClassVar, Literal

from openmm import app, unit
from pydantic import Field, field_validator

from latf_openmm.errors import ConfigError, first_line
from latf_openmm.settings import InputFile
from latf_openmm.systems.molecule import (
    ForceFieldOptions,
    Molecule,
    MoleculeSettings,
    existing,
    made,
    nanometres,
    reading,
)


class CharmmSettings(MoleculeSettings):
    """A psf file, positions of a crd or PDB file, and parameter files (rtf, prm, par, str)."""

    title: ClassVar[str] = "your CHARMM psf, crd or PDB, and parameters"
    system_file: ClassVar[str] = "topology"

    kind: Literal["charmm"] = "charmm"
    topology: InputFile = Field(description="psf file")
    coordinates: InputFile = Field(description="crd, cor or PDB file")
    parameters: list[InputFile] = Field(min_length=1, description="rtf, prm, par and str files")
    box: list[float] | None = Field(None, description="edges of the periodic box [nm]; none: not periodic")
    options: ForceFieldOptions = Field(ForceFieldOptions(), description="how the System is made")

    @field_validator("box")
    @classmethod
    def _three(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and (len(value) != 3 or min(value) <= 0):
            raise ValueError(f"expected three lengths above 0, got {value}")
        return value

    def read(self) -> Molecule:
        """Read all files with OpenMM's readers."""
        psf = reading("topology", self.topology, app.CharmmPsfFile)
        if self.box is not None:
            psf.setBox(*(edge * unit.nanometer for edge in self.box))
        pdb = self.coordinates.suffix.lower() == ".pdb"
        start = reading("coordinates", self.coordinates, app.PDBFile if pdb else app.CharmmCrdFile)
        names = [existing(f"parameters[{i}]", path) for i, path in enumerate(self.parameters)]
        try:
            parameters = app.CharmmParameterSet(*names)
        except Exception as error:
            raise ConfigError(f"system.parameters: {names} cannot be read ({first_line(error)})") from error
        system = made(
            lambda **options: psf.createSystem(parameters, **options),
            psf.topology,
            self.options,
            self.box is not None and self.options.method != "none",
            "parameters",
        )
        return Molecule(psf.topology, system, nanometres(start.positions))
