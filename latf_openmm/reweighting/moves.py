"""Moves of a structure that keep volumes in configuration space, and slopes of slow variables along them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mdtraj
import numpy as np
from numpy.typing import NDArray

from latf_openmm.reweighting.identities import Slopes

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Shift:
    """A particle moved along an axis; the step is a length [nm].

    Attributes
    ----------
    particle, axis
        Its index, and 0, 1 or 2.
    """

    particle: int
    axis: int

    def moved(self, positions: Array, step: float) -> Array:
        """Positions (n_frames, n_atoms, 3) after a step."""
        changed = positions.copy()
        changed[:, self.particle, self.axis] += step
        return changed

    def force(self, positions: Array, forces: Array) -> Array:
        """Force along the move, shape (n_frames,)."""
        return np.asarray(forces[:, self.particle, self.axis])


@dataclass(frozen=True)
class Turn:
    """A part of a molecule turned rigidly about a bond; the step is an angle [rad].

    It changes a torsion and no bond, no angle and no constraint; the volume element is that of the torsion.

    Attributes
    ----------
    start, end
        Atoms of the bond.
    part
        Atoms on the side of `end`, shape (n,).
    """

    start: int
    end: int
    part: Indices

    def moved(self, positions: Array, step: float) -> Array:
        """Positions (n_frames, n_atoms, 3) after a step, by Rodrigues' formula."""
        axis, arms = self._axis(positions)[:, None], self._arms(positions)
        changed = positions.copy()
        along = (arms * axis).sum(axis=2, keepdims=True) * axis
        turned = along + np.cos(step) * (arms - along) + np.sin(step) * np.cross(axis, arms)
        changed[:, self.part] = positions[:, self.end, None] + turned
        return changed

    def force(self, positions: Array, forces: Array) -> Array:
        """Torque about the bond, shape (n_frames,) [kJ/mol]."""
        torques = np.cross(self._arms(positions), forces[:, self.part]).sum(axis=1)
        return np.asarray((torques * self._axis(positions)).sum(axis=1))

    def _axis(self, positions: Array) -> Array:
        bond = positions[:, self.end] - positions[:, self.start]
        return np.asarray(bond / np.linalg.norm(bond, axis=1, keepdims=True))

    def _arms(self, positions: Array) -> Array:
        return np.asarray(positions[:, self.part] - positions[:, self.end, None])


def moves_of(topology: mdtraj.Topology) -> list[Shift | Turn]:
    """Return the moves of a system: turns about all bonds that can turn, or shifts of particles without bonds.

    A bond can turn if two or more atoms follow each of its ends, and it is in no ring.
    """
    if not topology.n_bonds:
        return [Shift(atom, axis) for atom in range(topology.n_atoms) for axis in range(3)]
    bonded: list[set[int]] = [set() for _ in range(topology.n_atoms)]
    bonds = [(first.index, second.index) for first, second in topology.bonds]
    for first, second in bonds:
        bonded[first].add(second)
        bonded[second].add(first)
    turns: list[Shift | Turn] = []
    for first, second in bonds:
        sides = [(_beyond(bonded, *ends), ends) for ends in ((first, second), (second, first))]
        part, (start, end) = min(sides, key=lambda side: len(side[0]))
        if len(part) > 1 and start not in part:
            turns.append(Turn(start, end, np.array(sorted(part - {end}), dtype=np.int64)))
    return turns


def _beyond(bonded: list[set[int]], start: int, end: int) -> set[int]:
    """Atoms that are reached from `end` without the bond from `start` to it."""
    reached, edge = {end}, [end]
    while edge:
        atom = edge.pop()
        further = bonded[atom] - reached - ({start} if atom == end else set())
        reached |= further
        edge += further
    return reached


def slopes_along(
    moves: Sequence[Shift | Turn],
    variables: Callable[[Array], Array],
    positions: Array,
    forces: Array,
    step: float = 1e-3,
) -> Slopes:
    """Slopes of slow variables along moves, by finite differences of second order.

    Parameters
    ----------
    variables
        Positions (n_frames, n_atoms, 3) [nm] to slow variables (n_frames, dim), in double precision; smooth: the second
        derivative at a kink is lost.
    positions, forces
        Shape (n_frames, n_atoms, 3) [nm], [kJ/mol/nm].
    step
        Of the differences [nm, rad].
    """
    z = variables(positions)
    n, dim = z.shape
    metric, curvature, work = np.zeros((n, dim, dim)), np.zeros((n, dim)), np.zeros((n, dim))
    for move in moves:
        above, below = (variables(move.moved(positions, sign * step)) for sign in (1, -1))
        slope = (above - below) / (2 * step)
        metric += slope[:, :, None] * slope[:, None, :]
        curvature += (above - 2 * z + below) / step**2
        work += move.force(positions, forces)[:, None] * slope
    return Slopes(z, metric, curvature, work)
