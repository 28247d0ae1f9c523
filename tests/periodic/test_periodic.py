"""Molecules of a topology."""

import mdtraj
import numpy as np
import openmm
from openmm import app, unit

from latf_openmm.periodic import frame_cells, molecules_of
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


def test_cells_of_frames_are_those_of_mdtraj() -> None:
    rng = np.random.default_rng(5)
    topology = mdtraj.Topology()
    topology.add_atom("AR", mdtraj.element.argon, topology.add_residue("AR", topology.add_chain()))
    for dtype in (np.float32, np.float64):
        frames = mdtraj.Trajectory(np.zeros((50, 1, 3), np.float32), topology)
        frames.unitcell_lengths = rng.uniform(2.0, 5.0, (50, 3)).astype(dtype)
        frames.unitcell_angles = np.concatenate([np.full((20, 3), 90.0), rng.uniform(70.0, 110.0, (30, 3))])
        np.testing.assert_array_equal(frame_cells(frames), frames.unitcell_vectors)
    frames.unitcell_lengths = frames.unitcell_angles = None
    assert frame_cells(frames) is None
