"""MDTraj's selection language, in which protein, nucleic, water, solute and heavy are what `solute` says they are."""

import logging
import re
from collections import Counter
from dataclasses import dataclass

import mdtraj
import numpy as np
from mdtraj.core.selection import parse_selection
from mdtraj.core.topology import Atom, Chain, Residue

from latf_openmm.errors import warn_once
from latf_openmm.features.solute import Indices, Kind, heavy_atoms, residue_kinds, solute_atoms

log = logging.getLogger(__name__)

_WORDS = {"solute": solute_atoms, "heavy": heavy_atoms}
"""Words that MDTraj does not know, and the atoms they stand for."""
_WORD = re.compile(rf"(?<![\w'\"])({'|'.join(_WORDS)})(?![\w'\"])")
"""One of these words, outside quotation marks."""
_BACKBONE = ("C", "CA", "N", "O")
"""Names of the backbone atoms of a protein."""


@dataclass(frozen=True, slots=True)
class _Residue:
    """Properties of a residue that a selection may use."""

    name: str
    index: int
    resSeq: int  # noqa: N815 - MDTraj's name
    code: str | None
    chain: Chain
    is_protein: bool
    is_nucleic: bool
    is_water: bool


@dataclass(frozen=True, slots=True)
class _Atom:
    """Properties of an atom that a selection may use."""

    name: str
    index: int
    n_bonds: int
    segment_id: str
    element: mdtraj.core.element.Element
    residue: _Residue

    @property
    def is_backbone(self) -> bool:
        return self.residue.is_protein and self.name in _BACKBONE

    @property
    def is_sidechain(self) -> bool:
        return self.residue.is_protein and self.name not in (*_BACKBONE, "HA", "H")


def selected(topology: mdtraj.Topology, selection: str) -> Indices:
    """Return the atoms, ascending, that a selection in MDTraj's language names.

    Beside MDTraj's words there are ``solute`` and ``heavy``, its atoms that are neither hydrogens nor sites without an
    element (see `latf_openmm.features.solute`). A name that atoms of
    another element share with ions, as alpha carbons do with calcium, stands for the former; ``element Ca`` names the
    latter.

    Raises
    ------
    Exception
        What MDTraj raises where the text is not in its language.
    """
    text = _WORD.sub(lambda word: _ranges(_WORDS[word.group()](topology)), selection)
    matches = parse_selection(text).expr
    kinds = residue_kinds(topology)
    views = _views(topology, kinds)
    shared = _shared_names(topology, kinds)
    masked = [
        _Atom("", atom.index, atom.n_bonds, atom.segment_id, atom.element, atom.residue)
        if (atom.name, atom.element.number) in shared and kinds[atom.residue.index] is Kind.ION
        else atom
        for atom in views
    ]
    chosen = [atom.index for atom in masked if matches(atom)]
    if shared:
        left_out = [atom for atom in views if matches(atom) and not matches(masked[atom.index])]
        if not chosen:
            chosen = [atom.index for atom in left_out]
        elif left_out:
            ion = left_out[0]
            log.warning(
                "selection %r: %d ions that are called %s too are left out; 'element %s' selects them",
                selection, len(left_out), ion.name, ion.element.symbol,
            )  # fmt: skip
    _warn_of_ions(
        topology, selection, [i for i in chosen if kinds[topology.atom(i).residue.index] is Kind.ION], chosen
    )
    return np.array(chosen, dtype=np.int64)


def _warn_of_ions(topology: mdtraj.Topology, selection: str, ions: list[int], chosen: list[int]) -> None:
    """Warn where a selection has ions beside other atoms and names none of them."""
    atoms = [topology.atom(i) for i in ions]
    named = set(re.findall(r"[\w+-]+", selection))
    if not ions or len(ions) == len(chosen):
        return
    if any(named & {atom.name, atom.residue.name, atom.element.symbol} for atom in atoms):
        return
    names = ", ".join(sorted({atom.residue.name for atom in atoms}))
    warn_once(
        log,
        f"selection {selection!r}: {len(ions)} atoms of ions ({names}) are in it; ions diffuse, so that descriptors "
        "with them are the slowest and say nothing of the solute: 'and solute' leaves ions and solvent out",
    )


def _ranges(atoms: Indices) -> str:
    """Atoms as a selection."""
    pieces = np.split(atoms, np.flatnonzero(np.diff(atoms) > 1) + 1)
    return "(" + " or ".join(f"index {piece[0]} to {piece[-1]}" for piece in pieces) + ")"


def _shared_names(topology: mdtraj.Topology, kinds: list[Kind]) -> set[tuple[str, int]]:
    """Name and atomic number of ions whose name other atoms of another element have."""
    ions: set[tuple[str, int]] = set()
    others: set[tuple[str, int]] = set()
    for residue in topology.residues:
        names = ions if kinds[residue.index] is Kind.ION else others
        names.update((atom.name, atom.element.number) for atom in residue.atoms)
    return {(name, number) for name, number in ions if any(n == name and k != number for n, k in others)}


def _views(topology: mdtraj.Topology, kinds: list[Kind]) -> list[_Atom]:
    n_bonds = Counter(atom.index for bond in topology.bonds for atom in (bond[0], bond[1]))
    views = []
    for residue in topology.residues:
        view = _residue_view(residue, kinds[residue.index])
        views += [_atom_view(atom, n_bonds[atom.index], view) for atom in residue.atoms]
    return sorted(views, key=lambda atom: atom.index)


def _residue_view(residue: Residue, kind: Kind) -> _Residue:
    return _Residue(
        residue.name,
        residue.index,
        residue.resSeq,
        residue.code,
        residue.chain,
        kind is Kind.PROTEIN,
        kind is Kind.NUCLEIC,
        kind is Kind.WATER,
    )


def _atom_view(atom: Atom, n_bonds: int, residue: _Residue) -> _Atom:
    return _Atom(atom.name, atom.index, n_bonds, atom.segment_id, atom.element, residue)
