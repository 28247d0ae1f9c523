"""Many copies of a molecule in one OpenMM System, so far apart that they do not feel each other.

Interactions without a cutoff get one that no two atoms of a molecule can exceed, and copies stand further apart than
that. Forces within a copy are the same as without a cutoff; its energy is, up to a constant. A weak restraint holds the
centre of mass of each copy at its site: it does not depend on anything else of the molecule, so the distribution of all
that a molecule does within itself stays what it is.
"""

import copy
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import shortest_path

from latf_openmm.errors import ConfigError

_STRETCHED = 1.15
"""How much longer than at rest the way along bonds and angles between two atoms may become."""
_TETHER = 1000.0  # kJ/mol/nm^2; a centre of mass strays 0.06 nm at 450 K along each axis
_SLACK = 1.0  # nm
_TERMS: dict[type, tuple[str, int, int]] = {
    openmm.HarmonicBondForce: ("Bond", 0, 2),
    openmm.HarmonicAngleForce: ("Angle", 0, 3),
    openmm.PeriodicTorsionForce: ("Torsion", 0, 4),
    openmm.RBTorsionForce: ("Torsion", 0, 4),
    openmm.CMAPTorsionForce: ("Torsion", 1, 9),
    openmm.CustomBondForce: ("Bond", 0, 2),
    openmm.CustomAngleForce: ("Angle", 0, 3),
    openmm.CustomTorsionForce: ("Torsion", 0, 4),
}
"""What a force is a sum of, and which of a term's parameters are numbers of particles (from, to)."""
_PAIRWISE: dict[type, tuple[str, ...]] = {
    openmm.NonbondedForce: ("Exception",),
    openmm.CustomNonbondedForce: ("Exclusion",),
    openmm.CustomGBForce: ("Exclusion",),
    openmm.GBSAOBCForce: (),
}
"""Forces of all pairs, and what is said of single pairs."""
_REFUSED = ("ParticleParameterOffsets", "ExceptionParameterOffsets", "InteractionGroups")
"""Parts of forces that cannot be copied."""


@dataclass(frozen=True)
class Copies:
    """Copies of a molecule in one System.

    Attributes
    ----------
    system
        Copies one after the other.
    sites
        Where the centre of mass of each is held, shape (n_copies, 3) [nm].
    cutoff
        What interactions without one were given [nm].
    """

    system: openmm.System
    sites: NDArray[np.float64]
    cutoff: float

    def placed(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move the centre of mass of each copy, shape (n_copies, n_atoms, 3) [nm], to its site."""
        n_copies, n_atoms = positions.shape[:2]
        masses = masses_of(self.system).reshape(n_copies, n_atoms)[0]
        centres = np.average(positions, axis=1, weights=masses)
        return np.asarray(positions + (self.sites - centres)[:, None])


def many_copies(system: openmm.System, n_copies: int) -> Copies:
    """Put copies of a molecule in vacuum or implicit solvent into one System, each as if it were alone.

    Parameters
    ----------
    system
        Of one molecule, whose atoms harmonic bonds and constraints connect; not periodic. It is not changed.
    n_copies
        How many.

    Returns
    -------
    Copies
        The System, and where each copy stands in it.

    Raises
    ------
    ConfigError
        If `n_copies` is below 1, the System is periodic, its atoms are not all connected, some are frozen or virtual,
        or it has a force that depends on more than the molecule itself, or one that is not known here.

    Notes
    -----
    Of two atoms, none is further away than the way along bonds, and across angles, is long; the cutoff is 1.15 times
    the longest such way. `openmm.CMMotionRemover` is left out. What pairs beyond the cutoff would cost differs between
    platforms: on GPUs and for `openmm.NonbondedForce` next to nothing, for implicit solvent on the CPU and
    Reference platforms a test of the distance for every pair of atoms of all copies.
    """
    if n_copies < 1:
        raise ConfigError(f"n_copies: expected 1 or more, got {n_copies}")
    if system.usesPeriodicBoundaryConditions():
        raise ConfigError(
            "the System is periodic, and copies in one System must not feel each other: give each walker its own "
            "Context, or use implicit solvent"
        )
    if any(system.isVirtualSite(i) for i in range(system.getNumParticles())):
        raise ConfigError("virtual sites cannot be copied; give each walker its own Context")
    if (masses_of(system) == 0).any():  # a restrained centre of mass would act on what moves beside them
        raise ConfigError("frozen particles (mass 0) cannot be copied; give each walker its own Context")
    for force in system.getForces():
        _check(force)
    longest = _longest_ways(system)
    cutoff = _STRETCHED * float(longest.max())
    combined = copy.deepcopy(system)
    for index in reversed(range(combined.getNumForces())):
        if isinstance(combined.getForce(index), openmm.CMMotionRemover):
            combined.removeForce(index)
    widest = max([cutoff, *(_own_cutoff(force) for force in combined.getForces())])
    sites = _grid(n_copies, widest + 2 * _STRETCHED * _radius(longest, masses_of(system)) + _SLACK)
    _add_particles(combined, n_copies)
    for force in combined.getForces():
        _repeat(force, system.getNumParticles(), n_copies)
        _cut(force, cutoff)
    combined.addForce(_tethers(sites, system.getNumParticles()))
    return Copies(combined, sites, cutoff)


def masses_of(system: openmm.System) -> NDArray[np.float64]:
    """Masses of all particles [amu]."""
    each = [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(system.getNumParticles())]
    return np.array(each)


def _check(force: openmm.Force) -> None:
    kind = type(force)
    if kind is openmm.CMMotionRemover or kind in _TERMS:
        return
    name = force.getName() if force.getName() == kind.__name__ else f"{kind.__name__} {force.getName()!r}"
    if kind not in _PAIRWISE:
        raise ConfigError(f"{name} cannot be copied; give each walker its own Context")
    used = [what for what in _REFUSED if getattr(force, f"getNum{what}", int)() > 0]
    if used:
        raise ConfigError(f"{name} has {used[0]}, which cannot be copied; give each walker its own Context")


def _longest_ways(system: openmm.System) -> NDArray[np.float64]:
    """Longest distance of each two atoms with bonds and angles at rest, shape (n, n) [nm]."""
    n, lengths = system.getNumParticles(), dict[tuple[int, int], float]()
    for i in range(system.getNumConstraints()):
        a, b, length = system.getConstraintParameters(i)
        lengths[min(a, b), max(a, b)] = length.value_in_unit(unit.nanometer)
    for force in system.getForces():
        for i in range(force.getNumBonds() if isinstance(force, openmm.HarmonicBondForce) else 0):
            a, b, length, _ = force.getBondParameters(i)
            lengths[min(a, b), max(a, b)] = length.value_in_unit(unit.nanometer)
    ways = dict(lengths)
    for force in system.getForces():
        for i in range(force.getNumAngles() if isinstance(force, openmm.HarmonicAngleForce) else 0):
            *atoms, angle, _ = force.getAngleParameters(i)
            first, second = (lengths.get((min(pair), max(pair))) for pair in pairwise(atoms))
            if first is not None and second is not None:
                across = (
                    first**2 + second**2 - 2 * first * second * math.cos(angle.value_in_unit(unit.radian))
                )
                ways[min(atoms[0], atoms[2]), max(atoms[0], atoms[2])] = math.sqrt(across)
    rows, columns = np.array(list(ways), dtype=np.int64).reshape(-1, 2).T
    graph = csr_matrix((list(ways.values()), (rows, columns)), shape=(n, n))
    distances = np.asarray(shortest_path(graph, directed=False))
    if not np.isfinite(distances).all():
        lost = int(np.argwhere(~np.isfinite(distances[0]))[0][0])
        raise ConfigError(
            f"atoms 0 and {lost} are not connected by harmonic bonds or constraints, so nothing keeps copies of "
            "the system apart; give each walker its own Context"
        )
    return distances


def _radius(longest: NDArray[np.float64], masses: NDArray[np.float64]) -> float:
    """Largest distance of an atom from the centre of mass [nm]: at most its mean distance from the others."""
    return float((longest @ masses).max() / masses.sum())


def _grid(n: int, spacing: float) -> NDArray[np.float64]:
    """Points of a cubic grid around the origin, shape (n, 3) [nm]; near it, single precision is finest."""
    side = math.ceil(round(n ** (1 / 3), 9))
    cells = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:n]
    return np.asarray(spacing * (cells - cells.mean(axis=0)))


def _add_particles(system: openmm.System, n_copies: int) -> None:
    masses = [system.getParticleMass(i) for i in range(system.getNumParticles())]
    constraints = [system.getConstraintParameters(i) for i in range(system.getNumConstraints())]
    for shift in range(len(masses), n_copies * len(masses), len(masses)):
        for mass in masses:
            system.addParticle(mass)
        for a, b, length in constraints:
            system.addConstraint(a + shift, b + shift, length)


def _repeat(force: openmm.Force, n_atoms: int, n_copies: int) -> None:
    """Add to a force what the other copies have."""
    kinds = [_TERMS[type(force)]] if type(force) in _TERMS else []
    if type(force) in _PAIRWISE:
        kinds = [("Particle", 0, 0), *((what, 0, 2) for what in _PAIRWISE[type(force)])]
    for what, first, last in kinds:
        read = getattr(force, f"get{what}Particles" if what == "Exclusion" else f"get{what}Parameters")
        add = getattr(force, f"add{what}")
        terms: list[list[Any]] = [list(read(i)) for i in range(getattr(force, f"getNum{what}s")())]
        if isinstance(force, openmm.CustomGBForce | openmm.CustomNonbondedForce) and what == "Particle":
            terms = [[values] for values in terms]
        for shift in range(n_atoms, n_copies * n_atoms, n_atoms):
            for term in terms:
                atoms = [atom + shift for atom in term[first:last]]
                add(*term[:first], *atoms, *term[last:])


def _cut(force: openmm.Force, cutoff: float) -> None:
    """Give a force of all pairs a cutoff, where it has none."""
    if type(force) not in _PAIRWISE or force.getNonbondedMethod() != force.NoCutoff:
        return
    force.setNonbondedMethod(force.CutoffNonPeriodic)
    force.setCutoffDistance(cutoff)
    if isinstance(force, openmm.NonbondedForce):  # then the reaction field adds a constant, and nothing else
        force.setReactionFieldDielectric(1.0)


def _own_cutoff(force: openmm.Force) -> float:
    """Cutoff of a force that has one, else 0 [nm]."""
    if type(force) not in _PAIRWISE or force.getNonbondedMethod() == force.NoCutoff:
        return 0.0
    return float(force.getCutoffDistance().value_in_unit(unit.nanometer))


def _tethers(sites: NDArray[np.float64], n_atoms: int) -> openmm.CustomCentroidBondForce:
    """Energy tether/2 d^2 of the distance d of each centre of mass from its site."""
    force = openmm.CustomCentroidBondForce(1, "0.5*tether*((x1 - x0)^2 + (y1 - y0)^2 + (z1 - z0)^2)")
    force.setName("Tether")
    force.addGlobalParameter("tether", _TETHER)
    for axis in "xyz":
        force.addPerBondParameter(f"{axis}0")
    for index, site in enumerate(sites):
        group = force.addGroup(list(range(index * n_atoms, (index + 1) * n_atoms)))
        force.addBond([group], site.tolist())
    return force
