"""Bonds of a System: which there are, how long they should be, and whether those of its start structure are."""

from dataclasses import dataclass

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app

from latf_openmm.errors import ConfigError
from latf_openmm.systems.base import BuiltSystem

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Pair = tuple[int, int]
Springs = dict[Pair, tuple[float, float]]
"""Length [nm] and force constant [kJ/mol/nm^2] of what holds two atoms, by their indices, ascending."""

_RADII = {
    "H": 0.031, "D": 0.031, "B": 0.084, "C": 0.076, "N": 0.071, "O": 0.066, "F": 0.057, "Si": 0.111, "P": 0.107,
    "S": 0.105, "Cl": 0.102, "Se": 0.120, "Br": 0.120, "I": 0.139,
}  # fmt: skip
"""Covalent radii [nm] (Cordero and others, Dalton Trans. 2008, 2832)."""
_MIN_LENGTH, _MAX_LENGTH = 0.5, 1.8
"""Of a start structure, relative to what is expected; minimisation mends what is within."""
_WEAK = 0.1
"""Force constant of a spring that is no bond, relative to those of the bonds of both atoms."""
_OPPOSITE = 1.3
"""Length of a side of a triangle that is no bond, relative to the mean of the others: 1.4 for a right angle."""
_ANGSTROM = 10.0
"""Angstrom in a nanometre."""
_TOLERANCE = 0.5
"""Deviation of a bond from its length that is always allowed, relative to the length."""
_FLUCTUATIONS = 10.0
"""Deviation of a bond from its length that is always allowed, in thermal standard deviations."""


@dataclass(frozen=True)
class Bonds:
    """Pairs of atoms (n_bonds, 2), and the shortest and longest distance thought possible [nm]."""

    pairs: Indices
    lengths: Array
    shortest: Array
    longest: Array


def springs(system: openmm.System) -> Springs:
    """Harmonic bonds and constraints of a System; constraints have an infinite force constant."""
    known: Springs = {}  # OpenMM's own units: asking for nanometres takes ten times as long
    for force in system.getForces():
        for index in range(force.getNumBonds() if isinstance(force, openmm.HarmonicBondForce) else 0):
            i, j, length, k = force.getBondParameters(index)
            known[min(i, j), max(i, j)] = (length._value, k._value)
    for index in range(system.getNumConstraints()):
        i, j, length = system.getConstraintParameters(index)
        known[min(i, j), max(i, j)] = (length._value, np.inf)
    return known


def add_missing_bonds(topology: app.Topology, known: Springs) -> None:
    """Add the bonds of the System to atoms that have none in the topology, as those of a PDB file without CONECT.

    Harmonic bonds and constraints count, but for those that hold an angle (Urey-Bradley, rigid water) and for weak
    ones, such as restraints and elastic networks.
    """
    atoms = list(topology.atoms())
    bound = {atom.index for bond in topology.bonds() for atom in (bond[0], bond[1])}
    if not any(i not in bound or j not in bound for i, j in known):
        return
    for i, j in _chemical(known):
        if i not in bound or j not in bound:
            topology.addBond(atoms[i], atoms[j])


def _chemical(known: Springs) -> list[Pair]:
    """Pairs whose springs are bonds."""
    stiffest: dict[int, float] = {}
    partners: dict[int, set[int]] = {}
    for pair, (_, k) in known.items():
        for atom, other in (pair, pair[::-1]):
            partners.setdefault(atom, set()).add(other)
            if np.isfinite(k):
                stiffest[atom] = max(stiffest.get(atom, 0.0), k)
    chemical = []
    for (i, j), (length, k) in known.items():
        weak = k < _WEAK * min(stiffest.get(i, 0.0), stiffest.get(j, 0.0))
        sides = [
            (known[min(i, n), max(i, n)][0] + known[min(j, n), max(j, n)][0]) / 2
            for n in partners[i] & partners[j]
        ]
        if not weak and not any(length > _OPPOSITE * side for side in sides):
            chemical.append((i, j))
    return chemical


def check_start(
    topology: app.Topology, system: openmm.System, known: Springs, positions: Array, source: str
) -> None:
    """Raise `ConfigError` where atoms of the start structure that are bound cannot be.

    A bond should be as long as its spring or constraint says, else as the radii of its elements. Bonds of atoms that
    are alone in their residues (beads), and of those with another force between them, are not judged by their elements.

    Parameters
    ----------
    positions
        Shape (n_atoms, 3) [nm]; molecules are whole.
    source
        Key and file, for the message.
    """
    atoms = list(topology.atoms())
    pairs, expected = _expected_lengths(topology, system, known)
    if not len(pairs):
        return
    lengths = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    ratios = lengths / expected
    wrong = np.flatnonzero((ratios < _MIN_LENGTH) | (ratios > _MAX_LENGTH))
    if not len(wrong):
        return
    worst = wrong[np.abs(np.log(ratios[wrong] + 1e-9)).argmax()]
    first, second = (atoms[k] for k in pairs[worst])
    raise ConfigError(
        f"{source}: atoms {_name(first)} and {_name(second)} are bound and {lengths[worst]:.3g} nm apart in the start "
        f"structure, expected about {expected[worst]:.2g} nm ({len(wrong)} of {len(pairs)} bonds are wrong): "
        + _cause(ratios, len(wrong), first, second)
    )


def _expected_lengths(topology: app.Topology, system: openmm.System, known: Springs) -> tuple[Indices, Array]:
    others = _other_pairs(system)
    expected: dict[Pair, float] = {}
    for bond in topology.bonds():
        first, second = bond[0], bond[1]
        pair = (min(first.index, second.index), max(first.index, second.index))
        if system.isVirtualSite(pair[0]) or system.isVirtualSite(pair[1]):
            continue
        if pair in known:
            expected[pair] = known[pair][0]
            continue
        radii = [_RADII.get(atom.element.symbol) if atom.element else None for atom in (first, second)]
        beads = all(len(list(atom.residue.atoms())) == 1 for atom in (first, second))
        rigid_water = radii[0] == radii[1] == _RADII["H"]  # whose hydrogens some formats connect
        if radii[0] and radii[1] and not (beads or rigid_water) and pair not in others:
            expected[pair] = radii[0] + radii[1]
    kept = {pair: length for pair, length in expected.items() if length > 0.01}
    return np.array(list(kept), dtype=np.int64).reshape(-1, 2), np.array(list(kept.values()))


def _other_pairs(system: openmm.System) -> set[Pair]:
    """Pairs that custom bonds are between."""
    forces = [force for force in system.getForces() if isinstance(force, openmm.CustomBondForce)]
    ends = [force.getBondParameters(k)[:2] for force in forces for k in range(force.getNumBonds())]
    return {(min(i, j), max(i, j)) for i, j in ends}


def _name(atom: app.topology.Atom) -> str:
    residue = atom.residue
    return f"{residue.name}{residue.id}{residue.insertionCode.strip()}-{atom.name}"


def _cause(ratios: Array, n_wrong: int, first: app.topology.Atom, second: app.topology.Atom) -> str:
    if (scale := wrong_unit(ratios)) is not None:
        return f"{scale}; convert them"
    if first.residue is not second.residue and n_wrong <= max(3, len(ratios) // 10):
        return "residues are missing between them, and the file has no TER there; add the residues, or TER"
    return "atoms are in another order than those of the System, or a molecule is broken over a box that is not said"


def wrong_unit(ratios: Array) -> str | None:
    """Say what unit positions are in, by lengths relative to what is expected; None where that is not what is wrong."""
    middle = float(np.median(ratios))
    if abs(np.log(max(middle, 1e-9) / _ANGSTROM)) < 0.2:
        return "positions are in Angstrom, and read as nanometres"
    if abs(np.log(max(middle, 1e-9) * _ANGSTROM)) < 0.2:
        return "positions are in nanometres, and read as Angstrom"
    return None


def expected_bonds(built: BuiltSystem, kT: float) -> Bonds:
    """Bonds of a system: its constraints and harmonic bonds, else those of the topology as long as at its start.

    Parameters
    ----------
    kT
        Thermal energy of the hottest frames, by which harmonic bonds fluctuate [kJ/mol].
    """
    system, start = built.system, built.positions[0]
    known = {
        pair: (length, float(np.sqrt(kT / max(k, 1e-9)))) for pair, (length, k) in springs(system).items()
    }
    for bond in built.topology.bonds():
        i, j = sorted((bond[0].index, bond[1].index))
        if (i, j) not in known and not (system.isVirtualSite(i) or system.isVirtualSite(j)):
            length = float(np.linalg.norm(start[i] - start[j]))
            if 0.05 < length < 0.3:  # else the start structure says nothing, or this is no bond of atoms
                known[i, j] = (length, 0.5 * length / _FLUCTUATIONS)
    real = {pair: value for pair, value in known.items() if value[0] > 0.01}
    lengths = np.array([length for length, _ in real.values()])
    margin = np.array([max(_TOLERANCE * length, _FLUCTUATIONS * spread) for length, spread in real.values()])
    pairs = np.array(list(real), dtype=np.int64).reshape(-1, 2)
    return Bonds(pairs, lengths, np.maximum(lengths - margin, 0.0), lengths + margin)
