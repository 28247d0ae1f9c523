"""Whether structures are such as the force field makes: bond lengths, angles, chirality."""

from typing import Any

import mdtraj
import numpy as np
from numpy.typing import NDArray

_SLACK = 1.02


def geometry(structures: mdtraj.Trajectory, reference: mdtraj.Trajectory) -> dict[str, Any]:
    """Compare with structures of the force field's own run.

    Returns
    -------
    dict
        Share of bond lengths and of angles outside what the reference shows (stretched by 2 % of its range),
        share of structures with the other hand at an alpha carbon, and the largest difference of a bond's or an
        angle's mean in units of its standard deviation.
    """
    bonds = np.array([(a.index, b.index) for a, b in reference.topology.bonds])
    angles = _angles(reference.topology)
    found: dict[str, Any] = {}
    for name, atoms, measure in (
        ("bonds", bonds, mdtraj.compute_distances),
        ("angles", angles, mdtraj.compute_angles),
    ):
        mine, theirs = measure(structures, atoms), measure(reference, atoms)
        middle = 0.5 * (theirs.max(axis=0) + theirs.min(axis=0))
        half = np.maximum(0.5 * _SLACK * np.ptp(theirs, axis=0), 1e-4)
        found[f"{name}_outside"] = float((np.abs(mine - middle) > half).mean())
        spread = np.maximum(theirs.std(axis=0), 1e-4)
        found[f"{name}_shift"] = float((np.abs(mine.mean(axis=0) - theirs.mean(axis=0)) / spread).max())
    found["wrong_hand"] = float((_hand(structures) * np.sign(_hand(reference).mean(axis=0)) < 0).mean())
    return found


def _angles(topology: mdtraj.Topology) -> NDArray[np.int64]:
    neighbours: dict[int, list[int]] = {}
    for a, b in topology.bonds:
        neighbours.setdefault(a.index, []).append(b.index)
        neighbours.setdefault(b.index, []).append(a.index)
    return np.array([(i, j, k) for j, around in neighbours.items() for i in around for k in around if i < k])


def _hand(structures: mdtraj.Trajectory) -> NDArray[np.float64]:
    """Triple product of the bonds N, C and CB at each alpha carbon, shape (n_frames, n_residues)."""
    products = []
    for residue in structures.topology.residues:
        at = {atom.name: atom.index for atom in residue.atoms}
        if {"N", "CA", "C", "CB"} <= set(at):
            n, c, b = (structures.xyz[:, at[name]] - structures.xyz[:, at["CA"]] for name in ("N", "C", "CB"))
            products.append(np.einsum("ij,ij->i", n, np.cross(c, b)))
    return np.array(products, dtype=np.float64).T
