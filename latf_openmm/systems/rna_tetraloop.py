"""The RNA hairpin GGCGCAAGCC with its GCAA tetraloop in implicit solvent."""

from typing import ClassVar, Literal

from pydantic import Field

from latf_openmm.systems.base import BuiltSystem, SystemSettings
from latf_openmm.systems.implicit import library_molecule
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
        return library_molecule("rna_tetraloop", "amber14/RNA.OL3.xml", self.hydrogen_mass, copies)
