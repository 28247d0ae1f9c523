"""Chignolin CLN025 (YYDPETGTWY) in implicit solvent."""

from typing import ClassVar, Literal

from pydantic import Field

from latf_openmm.systems.base import BuiltSystem, SystemSettings
from latf_openmm.systems.implicit import library_molecule
from latf_openmm.units import KELVIN, TemperatureScale


class ChignolinSettings(SystemSettings):
    """ff14SB with OpenMM's native OBC2 implicit solvent, 166 atoms, charge -2, bonds to hydrogen constrained."""

    title: ClassVar[str] = "Chignolin CLN025, ff14SB, native OBC2 implicit solvent"
    platform: ClassVar[str] = "CPU"

    kind: Literal["chignolin"] = "chignolin"
    hydrogen_mass: float = Field(3.0, ge=1.0, le=4.0, description="mass of hydrogen atoms [amu]")

    @property
    def scale(self) -> TemperatureScale:
        """Kelvin."""
        return KELVIN

    def build(self, copies: int = 1) -> BuiltSystem:
        """One molecule, folded."""
        return library_molecule("chignolin", "amber14/protein.ff14SB.xml", self.hydrogen_mass, copies)
