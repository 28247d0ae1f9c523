"""Build folded chignolin from its sequence: CLN025, or GYDPETGTWG (PDB 1UAO).

    python systems/chignolin/build.py --seeds 1 2 3 4 --stability 500 --output FOLDER
    python systems/chignolin/build.py --molecule chignolin_1uao --seeds 1 2 3 4 --output FOLDER

An extended chain (GYDPETGTWG: the fold of CLN025), hydrogens at pH 7, annealing in OBC2 with the hairpin restrained,
restraints released, checks, and a run at 300 K. Needs the extra `builders`.
"""

import io
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import PeptideBuilder
from Bio.PDB import PDBIO
from openmm import app, unit
from PeptideBuilder import Geometry

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from building import (
    RESTRAINTS,
    Model,
    Recipe,
    Stage,
    Torsion,
    Wall,
    as_trajectory,
    distance,
    main,
    minimised,
)

from latf_openmm.ensembles.observables import structure_observable
from latf_openmm.systems.chignolin import MOLECULES

SEQUENCES = {molecule: sequence for sequence, molecule in MOLECULES.items()}
FORCE_FIELD = "amber14/protein.ff14SB.xml"

_FOLDER = Path(__file__).resolve().parent
_EXTENDED = (-120.0, 140.0)

# phi and psi of the folded hairpin [degrees]
_BACKBONE = (
    (-120, 140),
    (-120, 135),
    (-95, 110),
    (-60, -30),
    (-70, -30),
    (-100, 0),
    (85, 10),
    (-110, 140),
    (-120, 135),
    (-120, 140),
)

_HYDROGEN_BONDS = {(3, 8): 0.30, (8, 3): 0.32, (1, 10): 0.32, (10, 1): 0.32, (7, 3): 0.32, (6, 3): 0.33}
_ALPHA_CARBONS = {(1, 10): 0.56, (2, 9): 0.58, (3, 8): 0.55, (4, 7): 0.60}
_SIDE_CHAINS = (
    Wall((2, "CG"), (9, "CD2"), 0.60, 300.0),
    Wall((2, "CZ"), (9, "CZ2"), 0.65, 100.0),
    Wall((4, "CG"), (9, "CD2"), 0.60, 100.0),
    Wall((3, "CG"), (6, "OG1"), 0.37, 300.0),
    Wall((3, "CG"), (5, "N"), 0.37, 300.0),
)
_END_RINGS = Wall((1, "CG"), (10, "CG"), 0.75, 100.0)

# restraints, temperature [K], steps, time step [fs]
_SCHEDULE = (
    (0.05, 300, 4000, 1),
    (0.2, 400, 4000, 2),
    (1.0, 450, 8000, 2),
    (1.0, 500, 10000, 2),
    (1.0, 450, 6000, 2),
    (1.0, 400, 6000, 2),
    (1.0, 350, 6000, 2),
    (1.0, 300, 8000, 2),
    (0.3, 300, 5000, 2),
    (0.1, 300, 5000, 2),
    (0.0, 300, 5000, 2),
)


@cache
def extended_chain(sequence: str) -> Model:
    """An extended chain with hydrogens at pH 7."""
    structure = None
    for letter in sequence:
        residue = Geometry.geometry(letter)
        residue.phi, residue.psi_im1 = _EXTENDED
        residue.omega = 180.0
        if structure is None:
            structure = PeptideBuilder.initialize_res(residue)
        else:
            PeptideBuilder.add_residue(structure, residue)
    PeptideBuilder.add_terminal_OXT(structure)
    text = io.StringIO()
    writer = PDBIO()
    writer.set_structure(structure)
    writer.save(text)
    text.seek(0)
    pdb = app.PDBFile(text)
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addHydrogens(app.ForceField(FORCE_FIELD), pH=7.0)
    return Model(modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer)))


def with_glycines() -> Model:
    """CLN025 folded, with glycine in place of both tyrosines at its ends."""
    pdb = app.PDBFile(str(_FOLDER / "chignolin.pdb"))
    modeller = app.Modeller(pdb.topology, pdb.positions)
    ends = [residue for residue in modeller.topology.residues() if residue.index in (0, 9)]
    kept = {"N", "CA", "C", "O", "OXT"}
    modeller.delete([atom for residue in ends for atom in residue.atoms() if atom.name not in kept])
    for residue in modeller.topology.residues():
        if residue.index in (0, 9):
            residue.name = "GLY"
    modeller.addHydrogens(app.ForceField(FORCE_FIELD), pH=7.0)
    return Model(modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer)))


def _walls(sequence: str) -> Iterator[Wall]:
    for (donor, acceptor), length in _HYDROGEN_BONDS.items():
        yield Wall((donor, "N"), (acceptor, "O"), length, 1000.0)
    for (first, second), length in _ALPHA_CARBONS.items():
        yield Wall((first, "CA"), (second, "CA"), length, 1000.0)
    yield from _SIDE_CHAINS
    if sequence[0] == sequence[-1] == "Y":
        yield _END_RINGS


def _torsions() -> Iterator[Torsion]:
    for number, (phi, psi) in enumerate(_BACKBONE, start=1):
        n, ca, c = (number, "N"), (number, "CA"), (number, "C")
        following = (number + 1, "N")
        if number > 1:
            yield Torsion(((number - 1, "C"), n, ca, c), phi, 60.0)
        if number < len(_BACKBONE):
            yield Torsion((n, ca, c, following), psi, 60.0)
            yield Torsion((ca, c, following, (number + 1, "CA")), 180.0, 80.0)


def recipe(name: str) -> Recipe:
    """How one of `SEQUENCES` is built."""
    sequence = SEQUENCES[name]
    atoms = as_trajectory(*extended_chain(sequence))
    bonds = ((3, 8), (8, 3), (7, 3), (1, 10))
    return Recipe(
        name=name,
        force_field=FORCE_FIELD,
        start=lambda seed, shorter: with_glycines() if sequence[0] == "G" else extended_chain(sequence),
        walls=tuple(_walls(sequence)),
        torsions=tuple(_torsions()),
        stages=tuple(Stage(t, steps, dt, {RESTRAINTS: scale}) for scale, t, steps, dt in _SCHEDULE),
        measures={
            **{f"{n}N-{o}O": distance((n, "N"), (o, "O")) for n, o in bonds},
            "ca_rmsd": structure_observable(f"{_FOLDER / 'observables.py'}:ca_rmsd", atoms),
        },
        folded=structure_observable(f"{_FOLDER / 'observables.py'}:folded", atoms),
        unfolded=lambda folded, seed: minimised(extended_chain(sequence), FORCE_FIELD, seed),
    )


RECIPES = tuple(recipe(name) for name in SEQUENCES)

if __name__ == "__main__":
    sys.exit(main(RECIPES))
