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


def stack(trajectory):
    """Whether A6 stacks on A7: the middles of their six-membered rings closer than 0.5 nm."""
    at = {(atom.residue.index + 1, atom.name): atom.index for atom in trajectory.topology.atoms}
    rings = [[at[residue, name] for name in ("N1", "C2", "N3", "C4", "C5", "C6")] for residue in (6, 7)]
    first, second = (trajectory.xyz[:, ring].mean(axis=1) for ring in rings)
    return np.asarray(np.linalg.norm(first - second, axis=1) < 0.5, dtype=float)


def melted(trajectory):
    """Whether the stem is open: no Watson-Crick pair."""
    return np.asarray(pairs(trajectory) == 0, dtype=float)


def end_to_end(trajectory):
    """Distance of the sugars of G1 and C10 [nm]."""
    return _distance(trajectory, (1, "C1'"), (10, "C1'"))
