"""Chignolin CLN025 (YYDPETGTWY) in implicit solvent."""

from typing import ClassVar, Literal

import numpy as np
from openmm import app, unit
from pydantic import Field

from latf_openmm.errors import ConfigError
from latf_openmm.systems.base import BuiltSystem, SystemSettings
from latf_openmm.systems.implicit import add_native_obc2
from latf_openmm.systems.library import library_folder
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
        if copies != 1:
            raise ConfigError("chignolin is built one copy a System")
        pdb = app.PDBFile(str(library_folder("chignolin") / "chignolin.pdb"))
        system = app.ForceField("amber14/protein.ff14SB.xml").createSystem(
            pdb.topology,
            nonbondedMethod=app.NoCutoff,
            constraints=app.HBonds,
            hydrogenMass=self.hydrogen_mass * unit.amu,
        )
        add_native_obc2(system, pdb.topology)
        positions = np.array(pdb.positions.value_in_unit(unit.nanometer))[None]
        return BuiltSystem("chignolin", pdb.topology, system, positions, KELVIN)
