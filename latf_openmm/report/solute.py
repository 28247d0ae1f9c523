"""How the solute of a system is laid out to be seen."""

import mdtraj
import numpy as np
from numpy.typing import NDArray

from latf_openmm.features.solute import Kind, alpha_carbons, residue_kinds, solute_atoms, without_hydrogens
from latf_openmm.periodic import gather_molecules


def chain_traces(topology: mdtraj.Topology) -> list[list[int]]:
    """Atoms that a tube through each chain passes: alpha carbons, phosphorus (O5' where a strand begins without).

    Pieces of two residues or fewer have none.
    """
    kinds, alpha = residue_kinds(topology), set(alpha_carbons(topology).tolist())
    pieces: list[list[int]] = []
    for chain in topology.chains:
        pieces.append([])
        for residue in chain.residues:
            atoms = [atom.index for atom in residue.atoms if atom.index in alpha]
            if kinds[residue.index] is Kind.NUCLEIC:
                named = {atom.name: atom.index for atom in residue.atoms}
                atoms = [named[name] for name in ("P", "O5'") if name in named]
            if atoms:
                pieces[-1].append(atoms[0])
            else:
                pieces.append([])
    return [piece for piece in pieces if len(piece) > 2]


def solute_of(structures: mdtraj.Trajectory) -> mdtraj.Trajectory:
    """Solute of structures (n_atoms of the system), its molecules whole and beside each other."""
    return gather_molecules(structures.atom_slice(solute_atoms(structures.topology)))


def lined_up(structures: mdtraj.Trajectory, reference: mdtraj.Trajectory) -> mdtraj.Trajectory:
    """Superpose on a reference (one frame) by the trace, or by heavy atoms where there is none."""
    topology = structures.topology
    atoms = [atom for piece in chain_traces(topology) for atom in piece]
    if not atoms:
        atoms = without_hydrogens(topology, range(topology.n_atoms)).tolist()
    return structures.superpose(reference, atom_indices=np.array(atoms), ref_atom_indices=np.array(atoms))


def to_screen(xyz: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rotation (3, 3) that lays the longest axis of points (n, 3) along x and the shortest along the view."""
    _, _, axes = np.linalg.svd(xyz - xyz.mean(axis=0), full_matrices=True)
    if np.linalg.det(axes) < 0:
        axes[2] *= -1
    return np.asarray(axes.T, dtype=np.float32)
