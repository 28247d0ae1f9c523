"""Alanine dipeptide (ACE-ALA-NME) in implicit solvent."""

from typing import ClassVar, Literal

from pydantic import Field

from latf_openmm.systems.base import BuiltSystem
from latf_openmm.systems.library_molecule import LibraryMolecule


class AlanineDipeptideSettings(LibraryMolecule):
    """ff14SB with OpenMM's native OBC2 implicit solvent, 22 atoms, bonds to hydrogen constrained.

    The native `GBSAOBCForce` gives the energies of ``implicit/obc2.xml`` and is about four times faster.
    """

    title: ClassVar[str] = "ACE-ALA-NME, ff14SB, native OBC2 implicit solvent"
    platform: ClassVar[str] = "Reference"

    kind: Literal["alanine_dipeptide"] = "alanine_dipeptide"
    hydrogen_mass: float = Field(1.008, ge=1.0, le=4.0, description="mass of hydrogen atoms [amu]")

    def build(self, copies: int = 1) -> BuiltSystem:
        """One molecule, or copies of it."""
        return self.in_solvent("amber14/protein.ff14SB.xml", copies)
