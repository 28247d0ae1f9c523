"""Alanine dipeptide (ACE-ALA-NME) in implicit solvent."""

from typing import ClassVar, Literal

from pydantic import Field

from latf_openmm.systems.base import BuiltSystem, SystemSettings
from latf_openmm.systems.implicit import library_molecule
from latf_openmm.units import KELVIN, TemperatureScale


class AlanineDipeptideSettings(SystemSettings):
    """ff14SB with OpenMM's native OBC2 implicit solvent, 22 atoms, bonds to hydrogen constrained.

    The native `GBSAOBCForce` gives the energies of ``implicit/obc2.xml`` and is about four times faster.
    """

    title: ClassVar[str] = "ACE-ALA-NME, ff14SB, native OBC2 implicit solvent"

    kind: Literal["alanine_dipeptide"] = "alanine_dipeptide"
    hydrogen_mass: float = Field(1.008, ge=1.0, le=4.0, description="mass of hydrogen atoms [amu]")

    @property
    def scale(self) -> TemperatureScale:
        """Kelvin."""
        return KELVIN

    def build(self, copies: int = 1) -> BuiltSystem:
        """One molecule; several copies in one System bring nothing for molecules on a CPU."""
        return library_molecule("alanine_dipeptide", "amber14/protein.ff14SB.xml", self.hydrogen_mass, copies)
