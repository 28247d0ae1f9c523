"""Stem and loop of the hairpin, for `latf-openmm observe` and `states`: functions of an MDTraj trajectory."""

import mdtraj
import numpy as np

_PAIRS = ((1, 10), (2, 9), (8, 3))  # purine, pyrimidine


def _distance(trajectory, first, second):
    at = {(atom.residue.index + 1, atom.name): atom.index for atom in trajectory.topology.atoms}
    return mdtraj.compute_distances(trajectory, [[at[first], at[second]]])[:, 0].astype(float)


def pairs(trajectory):
    """Watson-Crick pairs of the stem: N1-N3 shorter than 0.35 nm; 0 to 3."""
    return sum((_distance(trajectory, (g, "N1"), (c, "N3")) < 0.35).astype(float) for g, c in _PAIRS)


def stem(trajectory):
    """Whether all three Watson-Crick pairs are there."""
    return np.asarray(pairs(trajectory) == 3, dtype=float)


def sheared(trajectory):
    """Whether the sheared pair G4-A7 is there: N2-N7 shorter than 0.4 nm."""
    return np.asarray(_distance(trajectory, (4, "N2"), (7, "N7")) < 0.4, dtype=float)


def stacked(trajectory):
    """Whether A6 lies on A7: centres of the six-rings closer than 0.5 nm, planes within 40 degrees."""
    rings = [_ring(trajectory, number) for number in (6, 7)]
    centres, normals = zip(*rings, strict=True)
    apart = np.linalg.norm(centres[1] - centres[0], axis=1)
    parallel = np.abs(np.sum(normals[0] * normals[1], axis=1))
    return np.asarray((apart < 0.5) & (parallel > np.cos(np.radians(40))), dtype=float)


def _ring(trajectory, number):
    """Centre and normal of a base's six-ring."""
    at = {(atom.residue.index + 1, atom.name): atom.index for atom in trajectory.topology.atoms}
    atoms = trajectory.xyz[:, [at[number, name] for name in ("N1", "C2", "N3", "C4", "C5", "C6")]].astype(
        float
    )
    normal = np.cross(atoms[:, 2] - atoms[:, 0], atoms[:, 4] - atoms[:, 0])
    return atoms.mean(axis=1), normal / np.linalg.norm(normal, axis=1, keepdims=True)


def melted(trajectory):
    """Whether the stem is open: no Watson-Crick pair."""
    return np.asarray(pairs(trajectory) == 0, dtype=float)


def end_to_end(trajectory):
    """Distance of the sugars of G1 and C10 [nm]."""
    return _distance(trajectory, (1, "C1'"), (10, "C1'"))
