"""CHARMM files: psf, coordinates and parameters."""

from typing import Any, ClassVar, Literal

import numpy as np
from openmm import app, unit
from pydantic import Field, field_validator

from latf_openmm.errors import ConfigError, first_line
from latf_openmm.periodic import cell_vectors, edges_and_angles, reduced_box
from latf_openmm.settings import InputFile
from latf_openmm.systems.molecule import (
    Array,
    ForceFieldOptions,
    Molecule,
    MoleculeSettings,
    box_of_files,
    create_system,
    existing,
    nanometres,
    reading,
    structure,
)

_FEW_ATOMS, _WIDER = 100, 5.0
"""Number of atoms above which a box is checked; ratio of its edges to the extent of the atoms that is too large."""


class CharmmSettings(MoleculeSettings):
    """A psf file, positions of a crd or PDB file, and parameter files (rtf, prm, par, str)."""

    title: ClassVar[str] = "your CHARMM psf, crd or PDB, and parameters"
    system_file: ClassVar[str] = "topology"

    kind: Literal["charmm"] = "charmm"
    topology: InputFile = Field(description="psf file")
    coordinates: InputFile = Field(description="crd, cor or PDB file")
    parameters: list[InputFile] = Field(min_length=1, description="rtf, prm, par and str files")
    box: list[float] | None = Field(
        None,
        description="periodic box: three edges [nm], then, if it is not rectangular, three angles [degrees]; "
        "none: that of the PDB file with coordinates, if there is one",
    )
    options: ForceFieldOptions = Field(ForceFieldOptions(), description="how the System is made")

    @field_validator("box")
    @classmethod
    def _three(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and (len(value) not in (3, 6) or min(value) <= 0):
            raise ValueError(f"expected three lengths above 0, and three angles or none, got {value}")
        return value

    def read(self) -> Molecule:
        """Read all files with OpenMM's readers."""
        psf = reading("topology", self.topology, app.CharmmPsfFile)
        pdb = self.coordinates.suffix.lower() == ".pdb"
        if pdb:
            start = structure("coordinates", self.coordinates)
        else:
            start = reading("coordinates", self.coordinates, app.CharmmCrdFile)
        box = self._box(start.topology.getPeriodicBoxVectors() if pdb else None)
        if self.box is not None:
            self._check_extent(nanometres(start.positions))
        if box is not None:  # this sets a box of the psf, too, which its System is made with
            (lengths,), (angles,) = edges_and_angles(box[None])
            psf.setBox(*(lengths * unit.nanometer), *(angles * unit.degree))
        names = [existing(f"parameters[{i}]", path) for i, path in enumerate(self.parameters)]
        try:
            parameters = app.CharmmParameterSet(*names)
        except Exception as error:
            raise ConfigError(f"system.parameters: {names} cannot be read ({first_line(error)})") from error
        files = (
            f"{self.coordinates} and system.box"
            if pdb
            else "system.box (nor can it be in a crd file; it can in a PDB file)"
        )
        system = create_system(
            lambda **options: psf.createSystem(parameters, **options),
            psf.topology,
            self.options,
            box,
            "parameters",
            files,
        )
        return Molecule(psf.topology, system, nanometres(start.positions), box)

    def _check_extent(self, positions: Array) -> None:
        """Raise `ConfigError` where the box of the configuration is much wider than the positions."""
        edges, extent = np.array((self.box or [])[:3]), np.ptp(positions, axis=0)
        if len(positions) > _FEW_ATOMS and (edges > _WIDER * extent).all():
            spans = " x ".join(f"{span:.3g}" for span in extent)
            raise ConfigError(
                f"system.box: {' x '.join(f'{edge:g}' for edge in edges)} nm, and the positions span {spans} nm (is "
                "it in Angstrom?); expected edges in nm"
            )

    def _box(self, in_coordinates: Any) -> Array | None:
        if self.box is None:
            return box_of_files(in_coordinates, "coordinates", self.coordinates)
        edges, angles = np.array([self.box[:3]]), np.array([self.box[3:] or [90.0] * 3])
        return reduced_box(cell_vectors(edges, angles)[0])
