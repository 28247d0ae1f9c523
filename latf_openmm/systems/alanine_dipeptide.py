"""Alanine dipeptide (ACE-ALA-NME) in implicit solvent."""

from typing import ClassVar, Literal

import numpy as np
from openmm import app, unit
from pydantic import Field

from latf_openmm.errors import ConfigError
from latf_openmm.systems.base import BuiltSystem, SystemSettings
from latf_openmm.systems.implicit import add_native_obc2
from latf_openmm.systems.library import library_folder
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
        if copies != 1:
            raise ConfigError("alanine_dipeptide is built one copy a System")
        pdb = app.PDBFile(str(library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"))
        system = app.ForceField("amber14/protein.ff14SB.xml").createSystem(
            pdb.topology,
            nonbondedMethod=app.NoCutoff,
            constraints=app.HBonds,
            hydrogenMass=self.hydrogen_mass * unit.amu,
        )
        add_native_obc2(system, pdb.topology)
        positions = np.array(pdb.positions.value_in_unit(unit.nanometer))[None]
        return BuiltSystem("alanine_dipeptide", pdb.topology, system, positions, KELVIN)
