"""What the molecules of the library have in common: a structure of ours, a force field and a solvent to choose."""

import io
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal
from xml.etree import ElementTree

import numpy as np
import openmm
from openmm import app, unit
from pydantic import Field, model_validator

from latf_openmm.errors import ConfigError
from latf_openmm.systems.base import BuiltSystem, SystemSettings
from latf_openmm.systems.implicit import native_obc2_system
from latf_openmm.systems.library import library_folder
from latf_openmm.units import KELVIN, TemperatureScale

Solvent = Literal["obc2", "gbn2", "tip3p"]
_CUTOFF = 0.9  # nm


class LibraryMolecule(SystemSettings):
    """A molecule of the library, bonds to hydrogen constrained."""

    platform: ClassVar[str] = "CPU"

    hydrogen_mass: float = Field(3.0, ge=1.0, le=4.0, description="mass of hydrogen atoms [amu]")

    @property
    def scale(self) -> TemperatureScale:
        """Kelvin."""
        return KELVIN

    @abstractmethod
    def build(self, copies: int = 1) -> BuiltSystem:
        """One molecule, or copies of it."""

    def in_solvent(
        self,
        force_field: Any,
        copies: int,
        solvent: Solvent = "obc2",
        pressure: float | None = None,
        structure: str | None = None,
    ) -> BuiltSystem:
        """Return the molecule in a solvent.

        Parameters
        ----------
        force_field
            File of OpenMM for the molecule, or an open file.
        copies
            In one System; more than 1 in implicit solvent only.
        solvent
            ``obc2``: OpenMM's native OBC2, no cutoff. ``gbn2``: GBn2 (a `CustomGBForce`), no cutoff. ``tip3p``: the
            file STRUCTURE_tip3p.pdb, PME with a cutoff of 0.9 nm.
        pressure
            Of a barostat [bar]; none: constant volume.
        structure
            File in the folder of the system, without what TIP3P adds to its name and the ending; by default that of the
            kind.

        Raises
        ------
        ConfigError
            If more than one copy is asked for with ``tip3p``.
        """
        stem = structure or self.kind
        file = f"{stem}_tip3p.pdb" if solvent == "tip3p" else f"{stem}.pdb"
        pdb = app.PDBFile(str(library_folder(self.kind) / file))
        if solvent == "obc2":
            system = native_obc2_system(pdb.topology, force_field, self.hydrogen_mass)
        else:
            water = {"gbn2": "implicit/gbn2.xml", "tip3p": "amber14/tip3p.xml"}[solvent]
            system = app.ForceField(force_field, water).createSystem(
                pdb.topology,
                nonbondedMethod=app.PME if solvent == "tip3p" else app.NoCutoff,
                nonbondedCutoff=_CUTOFF * unit.nanometer,
                constraints=app.HBonds,
                hydrogenMass=self.hydrogen_mass * unit.amu,
            )
        if pressure is not None:  # its temperature is that of the walkers
            system.addForce(openmm.MonteCarloBarostat(pressure * unit.bar, 300.0 * unit.kelvin))
        positions = np.array(pdb.positions.value_in_unit(unit.nanometer))[None]
        return BuiltSystem(self.kind, pdb.topology, system, positions, KELVIN).copied(copies)


class SolvatedMolecule(LibraryMolecule):
    """One that comes in several solvents."""

    solvent: Solvent = Field(
        "obc2",
        description="obc2: native implicit solvent, fast; gbn2: implicit, slower; tip3p: a box of water, 0.1 M NaCl",
    )
    pressure: float | None = Field(
        None,
        gt=0,
        description="of a barostat, with tip3p [bar]; none: constant volume, that of 300 K and 1 bar",
    )

    start: Literal["folded", "unfolded"] = Field(
        "folded", description="structure that walkers start from; unfolded: in implicit solvent"
    )

    @model_validator(mode="after")
    def _fits_the_solvent(self) -> "SolvatedMolecule":
        if self.start == "unfolded" and self.solvent == "tip3p":
            raise ValueError("start: unfolded needs solvent obc2 or gbn2, got tip3p")
        if self.pressure is not None and self.solvent != "tip3p":
            raise ValueError(f"pressure: constant pressure needs solvent tip3p, got {self.solvent}")
        return self

    def solvated(self, force_field: Any, copies: int, molecule: str | None = None) -> BuiltSystem:
        """Return the molecule in its solvent, from the structure chosen.

        Parameters
        ----------
        force_field, copies
            As in `in_solvent`.
        molecule
            Beginning of the names of its files; the kind, where none is given.
        """
        stem = (molecule or self.kind) + ("_unfolded" if self.start == "unfolded" else "")
        return self.in_solvent(force_field, copies, self.solvent, self.pressure, stem)


def ff14sb_onlysc() -> io.StringIO:
    """Return ff14SB with the backbone of ff99SB, the force field that goes with GBn2.

    Nguyen, Maier, Huang, Perrone and Simmerling, J. Am. Chem. Soc. 136, 13959 (2014). Only the torsions C beta -
    C alpha - N - C differ from ff14SB.
    """
    path = Path(app.__file__).parent / "data" / "amber14" / "protein.ff14SB.xml"
    tree = ElementTree.parse(path)
    changed = 0
    for torsion in tree.iter("Proper"):
        types = [torsion.get(f"type{i}", "").removeprefix("protein-") for i in range(1, 5)]
        if types[0] in ("CT", "C8", "2C", "3C") and types[1:] == ["CX", "N", "C"]:
            torsion.set("k2", "1.6736")
            torsion.set("k3", "8.368")
            changed += 1
    if changed != 4:
        raise ConfigError(
            f"{path}: {changed} torsions of the backbone, expected 4; another version of the file"
        )
    return io.StringIO(ElementTree.tostring(tree.getroot(), encoding="unicode"))
