"""How folded chignolin is, for `latf-openmm observe` and `states`: functions of an MDTraj trajectory."""

from pathlib import Path

import mdtraj
import numpy as np


def _distance(trajectory, first, second):
    at = {(atom.residue.index + 1, atom.name): atom.index for atom in trajectory.topology.atoms}
    return mdtraj.compute_distances(trajectory, [[at[first], at[second]]])[:, 0].astype(float)


def n3_o8(trajectory):
    """Distance of the hydrogen bond 3N-8O [nm]."""
    return _distance(trajectory, (3, "N"), (8, "O"))


def n7_o3(trajectory):
    """Distance of the turn's hydrogen bond 7N-3O [nm]."""
    return _distance(trajectory, (7, "N"), (3, "O"))


def folded(trajectory):
    """Whether 3N-8O is shorter than 0.45 nm and 7N-3O shorter than 0.55 nm."""
    return np.asarray((n3_o8(trajectory) < 0.45) & (n7_o3(trajectory) < 0.55), dtype=float)


def opened(trajectory):
    """Whether the hairpin is open: 3N-8O longer than 0.8 nm and 7N-3O longer than 0.7 nm."""
    return np.asarray((n3_o8(trajectory) > 0.8) & (n7_o3(trajectory) > 0.7), dtype=float)


def frayed(trajectory):
    """Whether the strands are apart at 3N-8O: longer than 0.6 nm."""
    return np.asarray(n3_o8(trajectory) > 0.6, dtype=float)


def ca_rmsd(trajectory):
    """RMSD of the alpha carbons to CLN025 folded, the structure beside this file [nm]."""
    reference = mdtraj.load(str(Path(__file__).with_name("chignolin.pdb")))
    atoms, others = (t.topology.select("name CA and protein") for t in (trajectory, reference))
    return mdtraj.rmsd(trajectory, reference, atom_indices=atoms, ref_atom_indices=others).astype(float)
