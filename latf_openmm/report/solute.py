"""What of a system is worth looking at, and how it is laid out to be seen."""

import mdtraj
import numpy as np
from numpy.typing import NDArray

from latf_openmm.periodic import gather_molecules

Indices = NDArray[np.int64]


def solute_atoms(topology: mdtraj.Topology) -> Indices:
    """Atoms that are neither water nor single ions; all of them where nothing else is there.

    Examples
    --------
    >>> top = mdtraj.Topology()
    >>> chain = top.add_chain()
    >>> for name, atoms in (("ALA", ("N", "C")), ("HOH", ("O",)), ("NA", ("NA",))):
    ...     residue = top.add_residue(name, chain)
    ...     for atom in atoms:
    ...         _ = top.add_atom(atom, mdtraj.element.carbon, residue)
    >>> solute_atoms(top).tolist()
    [0, 1]
    """
    kept = [
        atom.index
        for residue in topology.residues
        if not residue.is_water and residue.n_atoms > 1
        for atom in residue.atoms
    ]
    return np.array(kept or range(topology.n_atoms), dtype=np.int64)


def trace_atoms(topology: mdtraj.Topology) -> list[list[int]]:
    """Atoms that a tube through each chain passes: alpha carbons, phosphorus (O5' where a strand begins without).

    Pieces of two residues or fewer have none.
    """
    pieces: list[list[int]] = []
    for chain in topology.chains:
        pieces.append([])
        for residue in chain.residues:
            named = {atom.name: atom.index for atom in residue.atoms}
            here = next((named[name] for name in ("CA", "P", "O5'") if name in named), None)
            if here is None or residue.n_atoms < 3:
                pieces.append([])
            else:
                pieces[-1].append(here)
    return [piece for piece in pieces if len(piece) > 2]


def whole(structures: mdtraj.Trajectory) -> mdtraj.Trajectory:
    """Solute of structures (n_atoms of the system), in one piece where there is a periodic box."""
    return gather_molecules(structures.atom_slice(solute_atoms(structures.topology)))


def lined_up(structures: mdtraj.Trajectory, reference: mdtraj.Trajectory) -> mdtraj.Trajectory:
    """Superpose on a reference (one frame) by the trace, or by heavy atoms where there is none."""
    topology = structures.topology
    atoms = [atom for piece in trace_atoms(topology) for atom in piece]
    if not atoms:
        atoms = [atom.index for atom in topology.atoms if atom.element.symbol != "H"]
    return structures.superpose(reference, atom_indices=np.array(atoms), ref_atom_indices=np.array(atoms))


def to_screen(xyz: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rotation (3, 3) that lays the longest axis of points (n, 3) along x and the shortest along the view."""
    _, _, axes = np.linalg.svd(xyz - xyz.mean(axis=0), full_matrices=True)
    if np.linalg.det(axes) < 0:
        axes[2] *= -1
    return np.asarray(axes.T, dtype=np.float32)
