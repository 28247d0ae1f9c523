"""Molecules of a topology."""

import mdtraj
import numpy as np
import openmm
from openmm import app, unit

from latf_openmm.periodic import molecules_of
from latf_openmm.systems.chignolin import ChignolinSettings


def of_openmm(system: openmm.System) -> list[int]:
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    molecules = [0] * system.getNumParticles()
    for index, atoms in enumerate(sorted(context.getMolecules())):
        for atom in atoms:
            molecules[atom] = index
    return molecules


def test_molecules_are_those_of_openmm_with_ions_and_extra_sites() -> None:
    peptide = ChignolinSettings().build()
    modeller = app.Modeller(peptide.topology, peptide.positions[0])
    forces = app.ForceField("amber14-all.xml", "amber14/tip4pew.xml")
    modeller.addSolvent(forces, model="tip4pew", numAdded=60, ionicStrength=0.5 * unit.molar)
    molecules = molecules_of(mdtraj.Topology.from_openmm(modeller.topology))
    assert molecules.tolist() == of_openmm(forces.createSystem(modeller.topology))
    assert any(atom.element is None for atom in modeller.topology.atoms())
    assert np.bincount(molecules)[0] == peptide.n_atoms


def test_particles_without_bonds_are_molecules_each() -> None:
    topology = mdtraj.Topology()
    residue = topology.add_residue("LJ", topology.add_chain())
    for _ in range(3):
        topology.add_atom("AR", mdtraj.element.argon, residue)
    assert molecules_of(topology).tolist() == [0, 1, 2]
    assert molecules_of(mdtraj.Topology()).tolist() == []
