"""Chignolin: CLN025 (YYDPETGTWY), or the peptide it was made from (GYDPETGTWG)."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from latf_openmm.systems.base import BuiltSystem
from latf_openmm.systems.library_molecule import SolvatedMolecule, ff14sb_onlysc

MOLECULES = {"YYDPETGTWY": "chignolin", "GYDPETGTWG": "chignolin_1uao"}
"""Beginning of the names of files of each sequence."""


class ChignolinSettings(SolvatedMolecule):
    """Bonds to hydrogen constrained, charge -2; ff14SB, with GBn2 its side chains only (ff14SBonlysc)."""

    title: ClassVar[str] = "Chignolin (CLN025 or GYDPETGTWG), ff14SB, implicit solvent or TIP3P"
    curves: ClassVar[tuple[str, ...]] = ("observables.py:folded",)

    kind: Literal["chignolin"] = "chignolin"
    sequence: Literal["YYDPETGTWY", "GYDPETGTWG"] = Field(
        "YYDPETGTWY", description="CLN025 (166 atoms), or chignolin as it was first designed (138 atoms)"
    )

    def build(self, copies: int = 1) -> BuiltSystem:
        """One molecule, or copies of it."""
        field: Any = ff14sb_onlysc() if self.solvent == "gbn2" else "amber14/protein.ff14SB.xml"
        return self.solvated(field, copies, MOLECULES[self.sequence])
