"""What the parts of a system are: protein, nucleic acid, water, ions, other solvent, and what is looked at: the solute.

Residues are told by what they consist of, since names depend on where a system comes from; by their names where
content does not say it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum

import mdtraj
import numpy as np
from mdtraj.core.topology import Atom, Residue
from numpy.typing import NDArray

from latf_openmm.periodic import molecules_of
from latf_openmm.water import is_water

Indices = NDArray[np.int64]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_AMINO_ACIDS = _names(
    "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL HID HIE HIP HSD HSE HSP HISD HISE "
    "HISH CYX CYM CYS2 CYSH ASH ASPH ASPP GLH GLUH GLUP LYN LSN LYSH ARGN AR0 TYM MSE HYP SEP TPO PTR SEC PYL ORN NLE"
)
"""Residue names of amino acids, with those of protonation states and force fields."""
_CAPS = _names("ACE NME NMA NH2 NHE FOR CT1 CT2 CT3")
"""Residue names of caps of proteins."""
_NUCLEOTIDES = _names("A C G U T I DA DC DG DT DU DI RA RC RG RU ADE CYT GUA THY URA PSU")
"""Residue names of nucleotides, without the marks of their ends."""
_SUGAR = ("C1'", "C3'", "C4'")
"""Carbon atoms that every nucleotide has."""
_ION_ATOMS = 8
"""Largest ion of several atoms without carbon, such as phosphate."""
_COPIES = 20
"""Molecules other than proteins and nucleic acids of which there are more than so many are solvent, or a membrane."""


class Kind(Enum):
    """Kind of a residue."""

    PROTEIN = "protein"
    NUCLEIC = "nucleic"
    WATER = "water"
    ION = "ion"
    OTHER = "other"


def residue_kinds(topology: mdtraj.Topology) -> list[Kind]:
    """Return what each residue is.

    Protein
        Residues with atoms N, CA and C that are bonded to each other or have a known name; known names with an alpha
        carbon, or without elements (coarse-grained); caps, by their names or an amide bond to the backbone of such
        residues.
    Nucleic acid
        Residues with the sugar carbons C1', C3' and C4' that have a known name or are bound to others by phosphate.
    Water
        As `latf_openmm.water.is_water` has it: by its atoms, then by its name.
    Ion
        One atom (and sites without element) that is bound to nothing but water; of several atoms without carbon, at
        most eight, that are bound to nothing else.

    Examples
    --------
    >>> topology = mdtraj.Topology()
    >>> for name, atoms in (("HIE", ("N", "CA", "C")), ("X", ("O", "H", "H")), ("CA", ("Ca",))):
    ...     residue = topology.add_residue(name, topology.add_chain())
    ...     for atom in atoms:
    ...         _ = topology.add_atom(atom, mdtraj.element.get_by_symbol(atom if atom == "Ca" else atom[0]), residue)
    >>> [kind.value for kind in residue_kinds(topology)]
    ['protein', 'water', 'ion']
    """
    return _Classifier(topology).kinds()


def protein_atoms(topology: mdtraj.Topology) -> Indices:
    """Atoms of amino acids and caps, ascending."""
    return _atoms_of(topology, residue_kinds(topology), Kind.PROTEIN)


def nucleic_atoms(topology: mdtraj.Topology) -> Indices:
    """Atoms of nucleic acids, ascending."""
    return _atoms_of(topology, residue_kinds(topology), Kind.NUCLEIC)


def water_atoms(topology: mdtraj.Topology) -> Indices:
    """Atoms of water, ascending."""
    return _atoms_of(topology, residue_kinds(topology), Kind.WATER)


def ion_atoms(topology: mdtraj.Topology) -> Indices:
    """Atoms of ions, ascending."""
    return _atoms_of(topology, residue_kinds(topology), Kind.ION)


def solute_atoms(topology: mdtraj.Topology) -> Indices:
    """Atoms of what is dissolved, ascending: neither water, nor ions, nor other solvent or membrane.

    Other solvent is any molecule, not of protein or nucleic acid, of which there are more than 20. Where nothing would
    be left, ions are the solute, and solvent other than water, and water alone. So in a system of nothing but
    identical particles all are.

    Examples
    --------
    >>> topology = mdtraj.Topology()
    >>> chain = topology.add_chain()
    >>> for name, atoms in (("ALA", "NC"), ("HOH", "O"), ("NA", "N")):
    ...     residue = topology.add_residue(name, chain)
    ...     for atom in atoms:
    ...         _ = topology.add_atom(atom, mdtraj.element.get_by_symbol(atom), residue)
    >>> solute_atoms(topology).tolist()
    [0, 1]
    """
    kinds = residue_kinds(topology)
    solvent = _many_copies(topology, kinds)
    for is_solvent in (
        lambda residue: kinds[residue.index] in (Kind.WATER, Kind.ION) or residue.index in solvent,
        lambda residue: kinds[residue.index] in (Kind.WATER, Kind.ION),
        lambda residue: kinds[residue.index] is Kind.WATER,
    ):
        atoms = [
            atom.index for residue in topology.residues if not is_solvent(residue) for atom in residue.atoms
        ]
        if atoms:
            return np.array(atoms, dtype=np.int64)
    return np.arange(topology.n_atoms, dtype=np.int64)


def heavy_atoms(topology: mdtraj.Topology) -> Indices:
    """Atoms of the solute without hydrogens, ascending; sites without element only where there is nothing else."""
    return without_hydrogens(topology, solute_atoms(topology))


def without_hydrogens(topology: mdtraj.Topology, atoms: Sequence[int] | Indices) -> Indices:
    """Those of some atoms that are no hydrogens, in order; sites without element only where there is nothing else.

    Examples
    --------
    >>> topology = mdtraj.Topology()
    >>> residue = topology.add_residue("LIG", topology.add_chain())
    >>> for name, element in (("CL", "Cl"), ("H", "H"), ("EP", "VS")):
    ...     _ = topology.add_atom(name, mdtraj.element.get_by_symbol(element), residue)
    >>> without_hydrogens(topology, [0, 1, 2]).tolist(), without_hydrogens(topology, [1, 2]).tolist()
    ([0], [2])
    """
    chosen = np.array(list(atoms), dtype=np.int64)
    numbers = np.array([topology.atom(i).element.number for i in chosen], dtype=np.int64)
    heavy = chosen[numbers > 1]
    return heavy if len(heavy) else chosen[numbers != 1]


def alpha_carbons(topology: mdtraj.Topology) -> Indices:
    """Alpha carbons of proteins, ascending; ions of calcium, and other atoms called CA, are none."""
    protein = (topology.atom(i) for i in protein_atoms(topology))
    return np.array([atom.index for atom in protein if _is_alpha_carbon(atom)], dtype=np.int64)


def trace_atoms(topology: mdtraj.Topology) -> Indices:
    """One atom of each residue that carries the fold, ascending: alpha carbons, and C4' (else P) of nucleic acids."""
    sugars = []
    for residue, kind in zip(topology.residues, residue_kinds(topology), strict=True):
        if kind is Kind.NUCLEIC:
            named = {atom.name.replace("*", "'"): atom.index for atom in residue.atoms}
            sugars += [named[name] for name in ("C4'", "P") if name in named][:1]
    return np.sort(np.concatenate([alpha_carbons(topology), np.array(sugars, dtype=np.int64)]))


def _atoms_of(topology: mdtraj.Topology, kinds: list[Kind], kind: Kind) -> Indices:
    residues = (residue for residue in topology.residues if kinds[residue.index] is kind)
    return np.array([atom.index for residue in residues for atom in residue.atoms], dtype=np.int64)


def _is_alpha_carbon(atom: Atom) -> bool:
    return atom.name == "CA" and atom.element.number in (0, 6)


def _many_copies(topology: mdtraj.Topology, kinds: list[Kind]) -> set[int]:
    """Residues of molecules of several atoms, not of protein or nucleic acid, that are there many times."""
    molecules = molecules_of(topology)
    parts: dict[int, list[Residue]] = {}
    for residue in topology.residues:
        parts.setdefault(int(molecules[next(residue.atoms).index]) if residue.n_atoms else -1, []).append(
            residue
        )
    composition = {
        molecule: tuple((residue.name, residue.n_atoms) for residue in residues)
        for molecule, residues in parts.items()
        if all(kinds[residue.index] is Kind.OTHER for residue in residues)
        and sum(residue.n_atoms for residue in residues) > 1
    }
    count = Counter(composition.values())
    return {
        residue.index
        for molecule, what in composition.items()
        if count[what] > _COPIES
        for residue in parts[molecule]
    }


class _Classifier:
    """Looks at residues and at what they are bound to."""

    def __init__(self, topology: mdtraj.Topology) -> None:
        self._topology = topology
        self._bonded: set[tuple[int, int]] = set()
        self._links: dict[int, list[tuple[Atom, Atom]]] = {}
        for first, second in topology.bonds:
            self._bonded |= {(first.index, second.index), (second.index, first.index)}
            if first.residue.index != second.residue.index:
                self._links.setdefault(first.residue.index, []).append((first, second))
                self._links.setdefault(second.residue.index, []).append((second, first))

    def kinds(self) -> list[Kind]:
        """Kind of each residue."""
        tests: list[tuple[Kind, Callable[[Residue], bool]]] = [
            (Kind.WATER, lambda residue: is_water(residue.name, _numbers(residue))),
            (Kind.PROTEIN, self._is_amino_acid),
            (Kind.NUCLEIC, self._is_nucleotide),
        ]
        kinds = [
            next((kind for kind, test in tests if test(residue)), Kind.OTHER)
            for residue in self._topology.residues
        ]
        first = list(kinds)
        for residue in self._topology.residues:
            if kinds[residue.index] is Kind.OTHER:
                if self._is_cap(residue, first):
                    kinds[residue.index] = Kind.PROTEIN
                elif self._is_ion(residue, first):
                    kinds[residue.index] = Kind.ION
        return kinds

    def _is_amino_acid(self, residue: Residue) -> bool:
        named = {atom.name: atom for atom in residue.atoms}
        elements = [named[name].element.number if name in named else -1 for name in ("N", "CA", "C")]
        if elements == [7, 6, 6]:
            n, alpha, c = (named[name].index for name in ("N", "CA", "C"))
            return {(n, alpha), (alpha, c)} <= self._bonded or _known(residue)
        if residue.name not in _AMINO_ACIDS:
            return False
        return any(_is_alpha_carbon(atom) for atom in residue.atoms) or _without_elements(residue)

    def _is_nucleotide(self, residue: Residue) -> bool:
        named = {atom.name.replace("*", "'"): atom for atom in residue.atoms}
        if not all(name in named and named[name].element.number == 6 for name in _SUGAR):
            return _without_elements(residue) and _nucleotide_name(residue)
        return _nucleotide_name(residue) or any(
            {atom.element.number, other.element.number} == {8, 15}
            for atom, other in self._links.get(residue.index, [])
        )

    def _is_cap(self, residue: Residue, kinds: list[Kind]) -> bool:
        """Return whether it is bound to the backbone of an amino acid by an amide, or has the name of such a cap."""
        if residue.name in _CAPS and all(atom.element.number in (0, 1, 6, 7, 8) for atom in residue.atoms):
            return True
        return any(
            kinds[other.residue.index] is Kind.PROTEIN
            and (atom.element.number, other.name) in ((6, "N"), (7, "C"))
            for atom, other in self._links.get(residue.index, [])
        )

    def _is_ion(self, residue: Residue, kinds: list[Kind]) -> bool:
        if any(
            kinds[other.residue.index] is not Kind.WATER for _, other in self._links.get(residue.index, [])
        ):
            return False
        numbers = [number for number in _numbers(residue) if number > 0]
        if len(numbers) <= 1:
            return len(numbers) == 1 or residue.n_atoms == 1
        return 4 <= len(numbers) <= _ION_ATOMS and 6 not in numbers and len(set(numbers)) > 1


def _known(residue: Residue) -> bool:
    return residue.name in _AMINO_ACIDS or bool(residue.is_protein)


def _nucleotide_name(residue: Residue) -> bool:
    ends = residue.name.removesuffix("3").removesuffix("5").removesuffix("N")
    return bool(residue.is_nucleic) or residue.name in _NUCLEOTIDES or ends in _NUCLEOTIDES


def _without_elements(residue: Residue) -> bool:
    return residue.n_atoms > 0 and all(atom.element.number == 0 for atom in residue.atoms)


def _numbers(residue: Residue) -> list[int]:
    """Atomic numbers of its atoms; 0 of sites without element."""
    return [atom.element.number for atom in residue.atoms]
