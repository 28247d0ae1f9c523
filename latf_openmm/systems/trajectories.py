"""Atoms without forces, for trajectories that are there: solute without its solvent, or force fields OpenMM lacks."""

from typing import ClassVar, Literal

import openmm
from openmm import unit
from pydantic import Field

from latf_openmm.errors import ConfigError
from latf_openmm.settings import InputFile
from latf_openmm.systems.molecule import Molecule, MoleculeSettings, nanometres, structure

_CUTOFF = 0.1  # nm; nothing interacts


class TrajectoriesSettings(MoleculeSettings):
    """The atoms of trajectories, to be imported with tables of their energies; nothing can be simulated."""

    title: ClassVar[str] = "atoms of trajectories you have, without a force field"
    system_file: ClassVar[str] = "topology"
    simulated: ClassVar[bool] = False
    equilibrium_free: ClassVar[tuple[str, ...]] = ("topology",)

    kind: Literal["trajectories"] = "trajectories"
    topology: InputFile = Field(description="PDB or mmCIF file with the atoms of the trajectories, in order")
    pressure: float | None = Field(
        None, gt=0, description="of the simulations, if it was constant [bar]; the box is that of the frames"
    )

    def read(self) -> Molecule:
        """Read the structure; make a System of masses."""
        pdb = structure("topology", self.topology)
        system = openmm.System()
        force = openmm.NonbondedForce()
        for atom in pdb.topology.atoms():
            system.addParticle(atom.element.mass if atom.element is not None else 1.0)
            force.addParticle(0.0, 1.0, 0.0)
        box = pdb.topology.getPeriodicBoxVectors()
        if box is None and self.pressure is not None:
            raise ConfigError(f"system.pressure: {self.topology} has no periodic box (CRYST1)")
        if box is not None:
            system.setDefaultPeriodicBoxVectors(*box)
            force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
            force.setCutoffDistance(_CUTOFF * unit.nanometer)
            system.addForce(force)  # says that the box is periodic
            if self.pressure is not None:
                system.addForce(openmm.MonteCarloBarostat(self.pressure * unit.bar, 300.0 * unit.kelvin))
        return Molecule(pdb.topology, system, nanometres(pdb.positions))
