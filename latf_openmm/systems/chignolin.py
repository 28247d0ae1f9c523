"""Chignolin CLN025 (YYDPETGTWY)."""

from typing import Any, ClassVar, Literal

from latf_openmm.systems.base import BuiltSystem
from latf_openmm.systems.library_molecule import SolvatedMolecule, ff14sb_onlysc


class ChignolinSettings(SolvatedMolecule):
    """166 atoms, charge -2, bonds to hydrogen constrained; ff14SB, with GBn2 its side chains only (ff14SBonlysc)."""

    title: ClassVar[str] = "Chignolin CLN025, ff14SB, implicit solvent or TIP3P"
    curves: ClassVar[tuple[str, ...]] = ("observables.py:folded",)

    kind: Literal["chignolin"] = "chignolin"

    def build(self, copies: int = 1) -> BuiltSystem:
        """One molecule, folded, or copies of it."""
        field: Any = ff14sb_onlysc() if self.solvent == "gbn2" else "amber14/protein.ff14SB.xml"
        return self.in_solvent(field, copies, self.solvent, self.pressure)
