"""Water of molecules that were read: that it is rigid where that is asked for."""

import math
from collections.abc import Iterator

import openmm
from openmm import app, unit

from latf_openmm.errors import ConfigError
from latf_openmm.water import is_water

_Pair = frozenset[int]
"""Two atoms."""


def waters(topology: app.Topology) -> list[app.topology.Residue]:
    """Residues that are water."""
    return [
        residue
        for residue in topology.residues()
        if is_water(
            residue.name, (atom.element.atomic_number if atom.element else 0 for atom in residue.atoms())
        )
    ]


def make_rigid(system: openmm.System, topology: app.Topology, source: str) -> int:
    """Constrain the two hydrogens of each water that has none between them, and return how many there were.

    OpenMM's reader of Amber files takes the bond between hydrogens for what makes water rigid. A file that has an
    angle instead, as ParmEd writes it of water that was flexible, gets two constraints a molecule and no word.

    Parameters
    ----------
    system
        Changed in place.
    topology
        Of its atoms.
    source
        Key and file it comes from, for messages.

    Raises
    ------
    ConfigError
        If neither a constraint nor an angle says how far the hydrogens of a water are from each other.
    """
    constraints = _constraints(system)
    flexible = [atoms for atoms in _atoms(topology) if frozenset(atoms[1:]) not in constraints]
    angles = _angles(system) if flexible else {}
    for oxygen, first, second in flexible:
        angle = angles.get((oxygen, frozenset((first, second))))
        pairs = [frozenset((oxygen, hydrogen)) for hydrogen in (first, second)]
        bonds = [constraints[pair].value_in_unit(unit.nanometer) for pair in pairs if pair in constraints]
        if angle is None or len(bonds) < 2:
            raise ConfigError(
                f"{source}: the water of atoms {oxygen}, {first} and {second} has no bond and no angle between its "
                "hydrogens, so it cannot be rigid; expected one of them, or system.options.rigid_water: false"
            )
        a, b = bonds
        system.addConstraint(first, second, math.sqrt(a * a + b * b - 2 * a * b * math.cos(angle)))
    return len(flexible)


def _atoms(topology: app.Topology) -> Iterator[tuple[int, int, int]]:
    """Indices of the oxygen and the two hydrogens of each water that has just these, and perhaps further sites."""
    for residue in waters(topology):
        symbols = {atom.index: atom.element.symbol for atom in residue.atoms() if atom.element is not None}
        hydrogens = [index for index, symbol in symbols.items() if symbol == "H"]
        oxygens = [index for index, symbol in symbols.items() if symbol == "O"]
        if len(hydrogens) == 2 and len(oxygens) == 1:
            yield oxygens[0], hydrogens[0], hydrogens[1]


def _constraints(system: openmm.System) -> dict[_Pair, unit.Quantity]:
    """Constrained distances by atoms."""
    terms = (system.getConstraintParameters(index) for index in range(system.getNumConstraints()))
    return {frozenset((i, j)): distance for i, j, distance in terms}


def _angles(system: openmm.System) -> dict[tuple[int, _Pair], float]:
    """Angles of harmonic terms [rad] by the atom in the middle and the two others."""
    forces = [force for force in system.getForces() if isinstance(force, openmm.HarmonicAngleForce)]
    terms = (force.getAngleParameters(index) for force in forces for index in range(force.getNumAngles()))
    return {(j, frozenset((i, k))): angle.value_in_unit(unit.radian) for i, j, k, angle, _ in terms}
