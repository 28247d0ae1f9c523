"""The RNA hairpin GGCGCAAGCC with its GCAA tetraloop in implicit solvent."""

from typing import ClassVar, Literal

import numpy as np
from openmm import app, unit
from pydantic import Field

from latf_openmm.errors import ConfigError
from latf_openmm.systems.base import BuiltSystem, SystemSettings
from latf_openmm.systems.implicit import add_native_obc2
from latf_openmm.systems.library import library_folder
from latf_openmm.units import KELVIN, TemperatureScale


class RnaTetraloopSettings(SystemSettings):
    """RNA.OL3 with native OBC2 implicit solvent, 325 atoms, charge -9, bonds to hydrogen constrained."""

    title: ClassVar[str] = "RNA hairpin GGCGCAAGCC, OL3, native OBC2 implicit solvent"
    platform: ClassVar[str] = "CPU"

    kind: Literal["rna_tetraloop"] = "rna_tetraloop"
    hydrogen_mass: float = Field(3.0, ge=1.0, le=4.0, description="mass of hydrogen atoms [amu]")

    @property
    def scale(self) -> TemperatureScale:
        """Kelvin."""
        return KELVIN

    def build(self, copies: int = 1) -> BuiltSystem:
        """One molecule, folded."""
        if copies != 1:
            raise ConfigError("rna_tetraloop is built one copy a System")
        pdb = app.PDBFile(str(library_folder("rna_tetraloop") / "rna_tetraloop.pdb"))
        system = app.ForceField("amber14/RNA.OL3.xml").createSystem(
            pdb.topology,
            nonbondedMethod=app.NoCutoff,
            constraints=app.HBonds,
            hydrogenMass=self.hydrogen_mass * unit.amu,
        )
        add_native_obc2(system, pdb.topology)
        positions = np.array(pdb.positions.value_in_unit(unit.nanometer))[None]
        return BuiltSystem("rna_tetraloop", pdb.topology, system, positions, KELVIN)
