"""Boundary conditions of a System, and which of its atoms stay together."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import mdtraj
import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components

from latf_openmm.periodic.cells import reduced_box

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class BondTree:
    """Bonds that connect each molecule without rings, and its atoms in an order in which branches are contiguous.

    Attributes
    ----------
    parent, child
        Atoms of each bond, shape (n_bonds,).
    first, last
        Range of places of the branch that hangs on each bond, shape (n_bonds,).
    atoms
        In the order of their places, shape (n_atoms,).
    """

    def __init__(self, n_atoms: int, links: Indices) -> None:
        roots = np.unique(_components(n_atoms, links), return_index=True)[1]
        above = np.stack([np.full(len(roots), n_atoms), roots], axis=1)
        order, before = breadth_first_order(
            _graph(n_atoms + 1, np.concatenate([links, above])), n_atoms, directed=False
        )
        parents, walk, size = before.tolist(), order.tolist(), [1] * (n_atoms + 1)
        for node in reversed(walk[1:]):
            size[parents[node]] += size[node]
        place, free = [-1] * (n_atoms + 1), [0] * (n_atoms + 1)
        for node in walk[1:]:
            place[node] = free[parents[node]]
            free[parents[node]] += size[node]
            free[node] = place[node] + 1
        places = np.array(place[:n_atoms], dtype=np.int64)
        bound = before[:n_atoms] != n_atoms
        self.atoms = np.argsort(places)
        self.child = np.flatnonzero(bound)
        self.parent = before[:n_atoms][bound].astype(np.int64)
        self.first = places[self.child]
        self.last = self.first + np.array(size, dtype=np.int64)[self.child]


@dataclass(frozen=True)
class Boundary:
    """Boundary conditions of a System, and which of its atoms stay together.

    Attributes
    ----------
    periodic
        Whether there is a box; None: not known, then the box of a file counts.
    links
        Pairs of atoms that are bound, shape (n_links, 2).
    molecules
        Index of the molecule of each atom, shape (n_atoms,), in the order of their first atoms. Where `infinite`, each
        atom has its own.
    infinite
        Whether bonds use periodic boundary conditions, as in crystals: nothing can be made whole, and all vectors
        are those to nearest images.
    cutoff
        Longest one [nm]; a box is at least twice as wide.
    box
        The System's default box in reduced form, shape (3, 3) [nm], or None.
    """

    periodic: bool | None
    links: Indices
    molecules: Indices
    infinite: bool = False
    cutoff: float = 0.0
    box: Array | None = None

    @cached_property
    def tree(self) -> BondTree:
        """Bonds without rings."""
        return BondTree(len(self.molecules), self.links)

    def part(self, atoms: Indices) -> "Boundary":
        """Return the boundary of some of the atoms, ascending."""
        new = np.full(len(self.molecules), -1)
        new[atoms] = np.arange(len(atoms))
        links = new[self.links]
        links = links[(links >= 0).all(axis=1)]
        return replace(self, links=links, molecules=_in_order(self.molecules[atoms]))


class SystemTopology(mdtraj.Topology):
    """An MDTraj topology that knows the boundary conditions of its System; copies and parts of it do, too."""

    boundary: Boundary

    @staticmethod
    def of(topology: app.Topology, system: openmm.System | None) -> "SystemTopology":
        """Return the topology of one copy of a System; None stands for a System without a box."""
        new: SystemTopology = SystemTopology.from_openmm(topology)
        new.boundary = _boundary(new, system)
        return new

    def copy(self) -> "SystemTopology":
        """Return a copy."""
        new = super().copy()
        new.__class__ = SystemTopology
        new.boundary = self.boundary
        return new

    def subset(self, atom_indices: Iterable[int]) -> "SystemTopology":
        """Return the topology of some of the atoms."""
        atoms = np.unique(np.fromiter(atom_indices, dtype=np.int64))
        part = super().subset(atoms)
        part.__class__ = SystemTopology
        part.boundary = self.boundary.part(atoms)
        return part


def boundary_of(topology: mdtraj.Topology) -> Boundary:
    """Return the boundary of a topology; of one that belongs to no System, its bonds are all that is known."""
    if isinstance(topology, SystemTopology):
        return topology.boundary
    links = _topology_links(topology)
    return Boundary(None, links, _components(topology.n_atoms, links))


def molecules_of(topology: mdtraj.Topology) -> Indices:
    """Index of the molecule of each atom, shape (n_atoms,).

    Molecules are the connected components of the bonds, numbered in the order of their first atoms. A site without an
    element, such as the fourth site of TIP4P water, belongs to the molecule of the first atom of its residue.

    Examples
    --------
    >>> topology = mdtraj.Topology()
    >>> chain = topology.add_chain()
    >>> atoms = [topology.add_atom("C", mdtraj.element.carbon, topology.add_residue("A", chain)) for _ in range(3)]
    >>> topology.add_bond(atoms[0], atoms[2])
    >>> molecules_of(topology).tolist()
    [0, 1, 0]
    """
    return boundary_of(topology).molecules


def longest_cutoff(system: openmm.System) -> float:
    """Longest cutoff of the forces that use periodic boundary conditions [nm]; 0 where there is none."""
    cutoffs = [
        force.getCutoffDistance().value_in_unit(unit.nanometer)
        for force in system.getForces()
        if hasattr(force, "getCutoffDistance") and force.usesPeriodicBoundaryConditions()
    ]
    return float(max(cutoffs, default=0.0))


def default_box(system: openmm.System) -> Array:
    """Return the default box of a System in reduced form, shape (3, 3) [nm]."""
    return reduced_box([v.value_in_unit(unit.nanometer) for v in system.getDefaultPeriodicBoxVectors()])


def _boundary(topology: mdtraj.Topology, system: openmm.System | None) -> Boundary:
    n, known = topology.n_atoms, _topology_links(topology)
    if system is None or system.getNumParticles() != n:
        return Boundary(False, known, _components(n, known))
    links = np.concatenate([known, _system_links(system)])
    if len(links) == 0:
        links = _bonds_of(system, openmm.CustomBondForce)
    periodic = bool(system.usesPeriodicBoundaryConditions())
    if not periodic:
        return Boundary(False, links, _components(n, links))
    infinite = _has_periodic_bonds(system, known if len(known) else links)
    molecules = np.arange(n) if infinite else _components(n, links)
    return Boundary(True, links, molecules, infinite, longest_cutoff(system), default_box(system))


def _topology_links(topology: mdtraj.Topology) -> Indices:
    pairs = [(first.index, second.index) for first, second in topology.bonds]
    pairs += [
        (next(atom.residue.atoms).index, atom.index) for atom in topology.atoms if atom.element.number == 0
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _system_links(system: openmm.System) -> Indices:
    """Constraints, harmonic bonds, extra sites and Drude particles."""
    pairs = [system.getConstraintParameters(i)[:2] for i in range(system.getNumConstraints())]
    for atom in range(system.getNumParticles()):
        if system.isVirtualSite(atom):
            pairs.append([system.getVirtualSite(atom).getParticle(0), atom])
    for force in system.getForces():
        if isinstance(force, openmm.DrudeForce):
            pairs += [force.getParticleParameters(i)[:2] for i in range(force.getNumParticles())]
    links = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return np.concatenate([links, _bonds_of(system, openmm.HarmonicBondForce)])


def _bonds_of(system: openmm.System, kind: Any, only_periodic: bool = False) -> Indices:
    """Pairs of all bonds of one kind of force."""
    pairs = [
        force.getBondParameters(i)[:2]
        for force in system.getForces()
        if isinstance(force, kind) and (force.usesPeriodicBoundaryConditions() or not only_periodic)
        for i in range(force.getNumBonds())
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _has_periodic_bonds(system: openmm.System, links: Indices) -> bool:
    """Return whether the bonds of molecules, not only restraints, use periodic boundary conditions."""
    known = {frozenset(pair) for pair in links.tolist()}
    kinds = (openmm.HarmonicBondForce, openmm.CustomBondForce)
    periodic = [pair for kind in kinds for pair in _bonds_of(system, kind, only_periodic=True).tolist()]
    return any(frozenset(pair) in known for pair in periodic)


def _graph(n_atoms: int, links: Indices) -> csr_matrix:
    both = np.concatenate([links, links[:, ::-1]])
    ones = np.ones(len(both), dtype=np.int8)
    return csr_matrix((ones, (both[:, 0], both[:, 1])), shape=(n_atoms, n_atoms))


def _components(n_atoms: int, links: Indices) -> Indices:
    return _in_order(connected_components(_graph(n_atoms, links), directed=False)[1])


def _in_order(labels: NDArray[np.integer]) -> Indices:
    """The same classes numbered in the order of their first members."""
    _, start, label = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(start))[label].astype(np.int64)
