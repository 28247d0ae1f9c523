"""Build the folded hairpin GGCGCAAGCC from its sequence.

    python systems/rna_tetraloop/build.py --seeds 1 2 --stability 200 --output FOLDER

A model whose stem bases are A-form, a stage with a soft repulsion that pulls the loop into place, annealing in OBC2
with the hairpin restrained, restraints released, checks, and a run at 300 K. Needs the extra `builders`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import mdtraj
import numpy as np
import openmm
from openmm import app, unit
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from rdkit.Geometry import Point3D
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from building import (
    HYDROGEN_MASS,
    RESTRAINTS,
    Atom,
    BuildError,
    Model,
    Positions,
    Recipe,
    Stage,
    Torsion,
    Wall,
    add_restraints,
    atom_indices,
    distance,
    heated,
    main,
    positions_of,
    run_stages,
    start_simulation,
)

from latf_openmm.ensembles.observables import StructureObservable, structure_observable

SEQUENCE = "GGCGCAAGCC"
FORCE_FIELD = "amber14/RNA.OL3.xml"

_FOLDER = Path(__file__).resolve().parent
_REFERENCE = mdtraj.load(str(_FOLDER / "rna_tetraloop.pdb"))
_STEM = ((1, 10), (2, 9), (3, 8))

# Standard base frames of Olson et al. (2001), x and y [Angstrom]; z is 0.
_BASES = {
    "A": "C1' -2.479 5.346 N9 -1.291 4.498 C8 0.024 4.897 N7 0.877 3.902 C5 0.071 2.771 C6 0.369 1.398 "
    "N6 1.611 0.909 N1 -0.668 0.532 C2 -1.912 1.023 N3 -2.320 2.290 C4 -1.267 3.124",
    "G": "C1' -2.477 5.399 N9 -1.289 4.551 C8 0.023 4.962 N7 0.870 3.969 C5 0.071 2.833 C6 0.424 1.460 "
    "O6 1.554 0.955 N1 -0.700 0.641 C2 -1.999 1.087 N2 -2.949 0.139 N3 -2.342 2.364 C4 -1.265 3.177",
    "C": "C1' -2.477 5.402 N1 -1.285 4.542 C2 -1.472 3.158 O2 -2.628 2.709 N3 -0.391 2.344 C4 0.837 2.868 "
    "N4 1.875 2.027 C5 1.056 4.275 C6 -0.023 5.068",
}
_RISE, _TWIST, _X_DISPLACEMENT, _INCLINATION = 2.81, 32.7, -4.5, 16.0  # Angstrom, degrees; A-form
_SHEAR = np.array([6.8, -4.6, 0.0])  # Angstrom, of G4 against A7

_REPULSION = "repulsion"
_TARGETS = 500.0  # kJ/mol/nm^2
_SIZES = {True: 0.20, False: 0.32}  # nm, of hydrogens and of other atoms in the soft repulsion

# restraints, repulsion [kJ/mol/nm^2], temperature [K], steps
_SOFT_SCHEDULE = (
    (0.1, 10, 600, 5000),
    (0.3, 100, 800, 8000),
    (1.0, 100, 800, 10000),
    (1.0, 1000, 600, 8000),
    (1.0, 4000, 400, 8000),
    (1.0, 8000, 300, 6000),
)
# restraints, temperature [K], steps, time step [fs]
_SCHEDULE = (
    (0.05, 300, 3000, 1),
    (0.3, 350, 3000, 1),
    (1.0, 400, 6000, 2),
    (1.0, 450, 8000, 2),
    (1.0, 400, 6000, 2),
    (1.0, 350, 5000, 2),
    (1.0, 300, 6000, 2),
    (0.3, 300, 4000, 2),
    (0.1, 300, 4000, 2),
)


def _rotation(axis: str, degrees: float) -> Rotation:
    return Rotation.from_euler(axis, degrees, degrees=True)


def placed_base(
    number: int, level: int, strand: int, shift: Positions | None = None
) -> dict[Atom, Positions]:
    """Atoms of a base [nm] in the pair `level` of an A-form helix, on its first or second strand.

    Parameters
    ----------
    number
        Of the residue.
    level
        Of the base pair, from 0.
    strand
        1 or 2.
    shift
        Of the base in the frame of its pair [Angstrom].
    """
    words = _BASES[SEQUENCE[number - 1]].split()
    flat = np.array([[float(x), float(y), 0.0] for x, y in zip(words[1::3], words[2::3], strict=True)])
    if strand == 2:
        flat = flat * [1, -1, -1]
    if shift is not None:
        flat = flat + shift
    inclined = _rotation("x", _INCLINATION).apply(flat) + np.array([_X_DISPLACEMENT, 0, 0])
    placed = _rotation("z", _TWIST * level).apply(inclined) + np.array([0, 0, _RISE * level])
    return {(number, name): 0.1 * xyz for name, xyz in zip(words[::3], placed, strict=True)}


def stem_bases() -> dict[Atom, Positions]:
    """Where the atoms of the stem's bases are in an A-form helix [nm]."""
    bases: dict[Atom, Positions] = {}
    for level, (first, second) in enumerate(_STEM):
        bases |= placed_base(first, level, 1) | placed_base(second, level, 2)
    return bases


def loop_bases() -> dict[Atom, Positions]:
    """Where the atoms of the sheared pair G4-A7 and of A6 on top of it are to be [nm]."""
    level = len(_STEM)
    bases = (
        placed_base(4, level, 1, 0.5 * _SHEAR)
        | placed_base(7, level, 2, -0.5 * _SHEAR)
        | placed_base(6, level + 1, 2, -0.5 * _SHEAR)
    )
    return {atom: xyz for atom, xyz in bases.items() if atom[1] != "C1'"}


def stem_model(seed: int) -> Model:
    """A model whose stem bases are A-form and whose loop is anywhere, with hydrogens.

    Raises
    ------
    BuildError
        If RDKit finds no coordinates.
    """
    molecule = _molecule()
    at = {_name(atom): atom.GetIdx() for atom in molecule.GetAtoms()}
    settings = rdDistGeom.ETKDGv3()
    settings.randomSeed = seed
    settings.useRandomCoords = True
    settings.maxIterations = 50
    settings.SetCoordMap({at[atom]: Point3D(*(10 * xyz)) for atom, xyz in stem_bases().items()})
    whole = Chem.AddHs(molecule)
    if rdDistGeom.EmbedMolecule(whole, settings) < 0:
        raise BuildError(f"RDKit found no coordinates with seed {seed}")
    positions = 0.1 * whole.GetConformer().GetPositions()[: molecule.GetNumAtoms()]
    modeller = app.Modeller(_topology(molecule), positions * unit.nanometer)
    modeller.addHydrogens(app.ForceField(FORCE_FIELD))
    return Model(modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer)))


def _molecule() -> Chem.Mol:
    """The heavy atoms, phosphates without their protons."""
    molecule = Chem.MolFromSequence(SEQUENCE, flavor=2)
    for atom in molecule.GetAtoms():
        single = atom.GetBonds()[0].GetBondType() == Chem.BondType.SINGLE
        if _name(atom)[1] in ("OP1", "OP2") and single:
            atom.SetFormalCharge(-1)
    Chem.SanitizeMol(molecule)
    return molecule


def _name(atom: Chem.Atom) -> Atom:
    info = atom.GetPDBResidueInfo()
    return info.GetResidueNumber(), info.GetName().strip()


def _topology(molecule: Chem.Mol) -> app.Topology:
    topology = app.Topology()
    chain = topology.addChain("A")
    residues = [topology.addResidue(letter, chain) for letter in SEQUENCE]
    atoms = []
    for atom in molecule.GetAtoms():
        number, name = _name(atom)
        element = app.Element.getBySymbol(atom.GetSymbol())
        atoms.append(topology.addAtom(name, element, residues[number - 1]))
    for bond in molecule.GetBonds():
        topology.addBond(atoms[bond.GetBeginAtomIdx()], atoms[bond.GetEndAtomIdx()])
    return topology


def hairpin_model(seed: int, shorter: int = 1) -> Model:
    """A model with stem and loop in place, from dynamics in which atoms pass through each other at first."""
    model = stem_model(seed)
    at = atom_indices(model.topology)
    targets = {at[atom]: xyz for atom, xyz in stem_bases().items()}
    model = Model(model.topology, _superposed(model.positions, targets))
    targets |= {at[atom]: xyz for atom, xyz in loop_bases().items()}
    system = _soft_system(model.topology, targets)
    add_restraints(system, model.topology, RECIPE.walls, RECIPE.torsions)
    simulation = start_simulation(model, system, seed)
    run_stages(simulation, _SOFT_STAGES, shorter)
    simulation.minimizeEnergy()
    return Model(model.topology, positions_of(simulation))


def _superposed(positions: Positions, targets: dict[int, Positions]) -> Positions:
    here, there = positions[list(targets)], np.array(list(targets.values()))
    rotation, _ = Rotation.align_vectors(there - there.mean(axis=0), here - here.mean(axis=0))
    return rotation.apply(positions - here.mean(axis=0)) + there.mean(axis=0)


def _soft_system(topology: app.Topology, targets: dict[int, Positions]) -> openmm.System:
    """Bonds, angles and torsions of the force field, a soft repulsion, and springs to the targets."""
    system = app.ForceField(FORCE_FIELD).createSystem(topology, hydrogenMass=HYDROGEN_MASS * unit.amu)
    index, nonbonded = next(
        (i, force) for i, force in enumerate(system.getForces()) if isinstance(force, openmm.NonbondedForce)
    )
    system.addForce(_soft_repulsion(topology, nonbonded))
    system.removeForce(index)
    springs = openmm.CustomExternalForce(f"{RESTRAINTS}*k*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    springs.addGlobalParameter(RESTRAINTS, 0.0)
    springs.addGlobalParameter("k", _TARGETS)
    for name in ("x0", "y0", "z0"):
        springs.addPerParticleParameter(name)
    for atom, xyz in targets.items():
        springs.addParticle(atom, xyz)
    system.addForce(springs)
    return system


def _soft_repulsion(topology: app.Topology, nonbonded: openmm.NonbondedForce) -> openmm.CustomNonbondedForce:
    force = openmm.CustomNonbondedForce(f"{_REPULSION}*step(rm-r)*(rm-r)^2; rm=0.5*(size1+size2)")
    force.addGlobalParameter(_REPULSION, 10.0)
    force.addPerParticleParameter("size")
    for atom in topology.atoms():
        force.addParticle([_SIZES[atom.element is app.element.hydrogen]])
    for i in range(nonbonded.getNumExceptions()):
        force.addExclusion(*nonbonded.getExceptionParameters(i)[:2])
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffNonPeriodic)
    force.setCutoffDistance(max(_SIZES.values()))
    return force


def _walls() -> Iterator[Wall]:
    for g, c in ((1, 10), (2, 9), (8, 3)):
        yield Wall((g, "O6"), (c, "N4"), 0.295, 2000.0)
        yield Wall((g, "N1"), (c, "N3"), 0.295, 2000.0)
        yield Wall((g, "N2"), (c, "O2"), 0.285, 2000.0)
    yield Wall((4, "N2"), (7, "N7"), 0.30, 2000.0)
    yield Wall((4, "N3"), (7, "N6"), 0.33, 2000.0)
    yield Wall((4, "N2"), (7, "OP2"), 0.32, 300.0)
    yield Wall((4, "O2'"), (6, "N7"), 0.29, 500.0)
    for lower, upper in ((3, 4), (5, 6), (6, 7), (7, 8)):
        yield Wall((lower, "C4"), (upper, "C4"), 0.50, 300.0)
        yield Wall((lower, "C2"), (upper, "C2"), 0.52, 200.0)


def _torsions() -> Iterator[Torsion]:
    """Torsions of A-form, with the turn between G4 and C5 and the sugar of C5 left free."""
    for number in range(1, len(SEQUENCE) + 1):
        for value, atoms in _a_form(number):
            yield Torsion(atoms, value, 60.0)


def _a_form(number: int) -> Iterator[tuple[float, tuple[Atom, Atom, Atom, Atom]]]:
    def atom(name: str, of: int = number) -> Atom:
        return of, name

    before, after = number - 1, number + 1
    glycosidic = ("N9", "C4") if SEQUENCE[number - 1] in "GA" else ("N1", "C2")
    yield -158, (atom("O4'"), atom("C1'"), atom(glycosidic[0]), atom(glycosidic[1]))
    if number != 5:
        yield 82, (atom("C5'"), atom("C4'"), atom("C3'"), atom("O3'"))
    if number not in (1, 5):
        yield 54, (atom("O5'"), atom("C5'"), atom("C4'"), atom("C3'"))
        yield 178, (atom("P"), atom("O5'"), atom("C5'"), atom("C4'"))
        yield -68, (atom("O3'", before), atom("P"), atom("O5'"), atom("C5'"))
    if number not in (4, len(SEQUENCE)):
        yield -153, (atom("C4'"), atom("C3'"), atom("O3'"), atom("P", after))
        yield -71, (atom("C3'"), atom("O3'"), atom("P", after), atom("O5'", after))


def _observable(name: str) -> StructureObservable:
    return structure_observable(f"{_FOLDER / 'observables.py'}:{name}", _REFERENCE)


def _folded(trajectory: mdtraj.Trajectory) -> Positions:
    """Stem, sheared pair and stack: 1 where all three are there."""
    return np.prod([_observable(name)(trajectory) for name in ("stem", "sheared", "stacked")], axis=0)


_SOFT_STAGES = tuple(
    Stage(temperature, steps, 1.0, {RESTRAINTS: scale, _REPULSION: repulsion})
    for scale, repulsion, temperature, steps in _SOFT_SCHEDULE
)

RECIPE = Recipe(
    name="rna_tetraloop",
    force_field=FORCE_FIELD,
    start=hairpin_model,
    walls=tuple(_walls()),
    torsions=tuple(_torsions()),
    stages=tuple(Stage(t, steps, dt, {RESTRAINTS: scale}) for scale, t, steps, dt in _SCHEDULE),
    measures={
        **{f"{g}N1-{c}N3": distance((g, "N1"), (c, "N3")) for g, c in ((1, 10), (2, 9), (8, 3))},
        "4N2-7N7": distance((4, "N2"), (7, "N7")),
        **{name: _observable(name) for name in ("stem", "sheared", "stacked")},
    },
    folded=_folded,
    unfolded=lambda folded, seed: heated(folded, FORCE_FIELD, seed, 600.0, 200.0),
)

if __name__ == "__main__":
    sys.exit(main([RECIPE]))
