"""The RNA hairpin GGCGCAAGCC with its GCAA tetraloop."""

from typing import ClassVar, Literal

from latf_openmm.systems.base import BuiltSystem
from latf_openmm.systems.library_molecule import SolvatedMolecule


class RnaTetraloopSettings(SolvatedMolecule):
    """RNA.OL3, 325 atoms, charge -9, bonds to hydrogen constrained; for the loop only TIP3P is to be trusted."""

    title: ClassVar[str] = "RNA hairpin GGCGCAAGCC, OL3, implicit solvent or TIP3P"
    curves: ClassVar[tuple[str, ...]] = ("observables.py:stem",)

    kind: Literal["rna_tetraloop"] = "rna_tetraloop"

    def build(self, copies: int = 1) -> BuiltSystem:
        """One molecule, or copies of it."""
        return self.solvated("amber14/RNA.OL3.xml", copies)
