"""How close residues are: contacts between their heavy atoms, those of a reference structure among them."""

import textwrap
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

import mdtraj
import numpy as np
import torch
from mdtraj.core.topology import Atom
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.spatial import KDTree
from torch import Tensor

from latf_openmm.errors import ConfigError, DataError, first_line
from latf_openmm.features.base import (
    Features,
    FeatureSettings,
    PairFeatures,
    PairVectors,
    check_atoms,
    select_atoms,
)
from latf_openmm.features.chain import Separations
from latf_openmm.features.solute import without_hydrogens
from latf_openmm.labels import Labels
from latf_openmm.periodic import as_structure, boxes_of, molecules_of
from latf_openmm.settings import InputFile, Settings

_SEPARATION = 4  # residues along a chain
_TOUCHING = 0.45  # nm, closest heavy atoms of a native contact (Best, Hummer and Eaton, PNAS 2013)


class AtomContact(Settings):
    """Two groups of atoms whose distance is looked at."""

    first: list[int] = Field(min_length=1, description="atom indices of one group")
    second: list[int] = Field(min_length=1, description="atom indices of the other")
    name: str = Field(description="name of the descriptor")


class Contacts(PairFeatures):
    """Soft minimum of the distances between two groups of atoms, or the contact number made of it.

    d = beta / ln(sum_ij exp(beta / r_ij)), as in ``mdtraj.compute_contacts(soft_min=True)``; a little below the
    smallest distance. With `r0` the descriptor is 1 / (1 + (d / r0)^n), which is bounded.
    """

    def __init__(self, contacts: Sequence[AtomContact], beta: float, r0: float, exponent: int) -> None:
        super().__init__()
        self.names = [contact.name for contact in contacts]
        self.beta, self.r0, self.exponent, self.n = beta, r0, exponent, len(contacts)
        pairs = [(k, i, j) for k, c in enumerate(contacts) for i in c.first for j in c.second]
        self.vectors = PairVectors([i for _, i, _ in pairs], [j for _, _, j in pairs])
        self.owner: Tensor
        self.register_buffer("owner", torch.tensor([k for k, _, _ in pairs], dtype=torch.long))

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return distances [nm] or contact numbers, shape (n_frames, n_contacts)."""
        delta = self.vectors(positions, box)
        inverse = self.beta / torch.sqrt((delta * delta).sum(-1))
        start = torch.zeros(positions.shape[0], self.n, dtype=inverse.dtype, device=inverse.device)
        owners = self.owner.expand(positions.shape[0], -1)
        highest = start.scatter_reduce(1, owners, inverse.detach(), "amax", include_self=False)
        raised = torch.exp(inverse - highest.index_select(1, self.owner))
        distance = self.beta / (torch.log(start.index_add(1, self.owner, raised)) + highest)
        if self.r0 <= 0.0:
            return distance
        return 1.0 / (1.0 + (distance / self.r0) ** self.exponent)


class ContactSettings(FeatureSettings):
    """Contacts of all pairs of residues in an MDTraj selection, or of those that touch in a reference structure.

    Only heavy atoms count.
    """

    kind: Literal["contacts"] = "contacts"
    selection: str = Field(
        "solute",
        description="MDTraj selection; contacts between its residues; solute: neither water nor ions nor solvent",
    )
    minimum_separation: int = Field(
        3, ge=1, description="of two residues along their chain; other chains always count"
    )
    reference: InputFile | None = Field(
        None, description="structure file; only residues closer than 0.45 nm in it are looked at"
    )
    contacts: list[AtomContact] | None = Field(None, min_length=1, description="filled in when resolved")
    beta: float = Field(20.0, gt=0, le=200, description="sharpness of the soft minimum [nm]")
    r0: float | None = Field(
        0.5, gt=0, description="distance where a contact counts one half [nm]; none: the distance itself"
    )
    exponent: int = Field(6, ge=2, le=24, description="steepness of the contact number")

    def resolve(self, topology: mdtraj.Topology) -> FeatureSettings:
        """Find the pairs of residues and their heavy atoms."""
        if self.contacts is not None:
            for contact in self.contacts:
                check_atoms(topology, [*contact.first, *contact.second], f"contacts: {contact.name}")
            return self
        contacts = [
            AtomContact(first=atoms[0], second=atoms[1], name=f"contact({a},{b})")
            for a, b, atoms in _residue_pairs(topology, self.selection, self.minimum_separation)
        ]
        if self.reference is not None:
            structure = read_reference(self.reference, topology)
            contacts = [contact for contact in contacts if _touching(structure, contact)]
        if not contacts:
            raise ConfigError(
                f"contacts: no two residues of selection {self.selection!r} are {self.minimum_separation} apart"
                + (f" and touch in {self.reference}" if self.reference else "")
            )
        return self.model_copy(update={"contacts": contacts, "reference": None})

    def keep(self, columns: Sequence[int]) -> tuple[FeatureSettings, list[int]]:
        """Only the contacts named."""
        fewer = self.model_copy(update={"contacts": [(self.contacts or [])[i] for i in columns]})
        return fewer, list(columns)

    def build(self) -> Features:
        """Make the module."""
        return Contacts(self.contacts or [], self.beta, self.r0 or 0.0, self.exponent)


class NativeContacts(PairFeatures):
    """Fraction of the contacts of a reference structure (Best, Hummer and Eaton, PNAS 2013).

    Q = mean over pairs of 1 / (1 + exp(50/nm (r_ij - 1.8 r0_ij))), one number.
    """

    steepness = 50.0  # 1/nm
    slack = 1.8

    def __init__(self, pairs: Sequence[tuple[int, int]], lengths: Sequence[float]) -> None:
        super().__init__()
        self.names = ["Q"]
        self.vectors = PairVectors([i for i, _ in pairs], [j for _, j in pairs])
        self.steep = self.steepness
        self.middle: Tensor
        self.register_buffer("middle", self.slack * torch.tensor(list(lengths), dtype=torch.float64))

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return the fraction of native contacts, shape (n_frames, 1)."""
        delta = self.vectors(positions, box)
        distance = torch.sqrt((delta * delta).sum(-1))
        return torch.sigmoid(self.steep * (self.middle.to(distance.dtype) - distance)).mean(
            dim=1, keepdim=True
        )


class NativeContactSettings(FeatureSettings):
    """Fraction of native contacts: heavy atoms closer than 0.45 nm in the reference, more than three residues apart.

    Residues of different chains always count.
    """

    kind: Literal["native_contacts"] = "native_contacts"
    reference: InputFile | None = Field(None, description="structure file with the system's atoms")
    selection: str = Field(
        "solute",
        description="MDTraj selection; contacts between its heavy atoms; solute: neither water nor ions nor solvent",
    )
    pairs: list[tuple[int, int]] | None = Field(None, min_length=1, description="filled in when resolved")
    lengths: list[float] | None = Field(None, description="distances in the reference [nm]; filled in")

    @model_validator(mode="after")
    def _one_of(self) -> "NativeContactSettings":
        if (self.reference is None) == (self.pairs is None):
            raise ValueError("native_contacts: give 'reference', a structure file")
        if len(self.pairs or []) != len(self.lengths or []):
            raise ValueError("'lengths' needs one distance for each of 'pairs'")
        return self

    def resolve(self, topology: mdtraj.Topology) -> FeatureSettings:
        """Find the contacts of the reference."""
        if self.pairs is not None:
            check_atoms(topology, [atom for pair in self.pairs for atom in pair], "native_contacts")
            return self
        assert self.reference is not None
        structure = read_reference(self.reference, topology)
        return native_contacts_of(structure, select_atoms(topology, self.selection))

    def build(self) -> Features:
        """Make the module."""
        return NativeContacts(self.pairs or [], self.lengths or [])


def native_contacts_of(structure: mdtraj.Trajectory, atoms: Sequence[int]) -> NativeContactSettings:
    """Return the resolved settings of the contacts in a structure (one frame, whole) between the given atoms.

    Raises
    ------
    ConfigError
        If it has none.
    """
    topology = structure.topology
    heavy = [topology.atom(i) for i in without_hydrogens(topology, sorted(atoms))]
    separations = Separations(topology)
    xyz = structure.xyz[0, [atom.index for atom in heavy]].astype(np.float64)
    near = KDTree(xyz).query_pairs(_TOUCHING, output_type="ndarray") if len(heavy) else np.empty((0, 2), int)
    pairs = [
        (int(i), int(j))
        for i, j in near[np.lexsort(near.T[::-1])]
        if separations.apart(heavy[i].residue, heavy[j].residue, _SEPARATION)
    ]
    if not pairs:
        raise ConfigError("contacts: the reference has no contact of residues more than three apart")
    atom_pairs = [(heavy[i].index, heavy[j].index) for i, j in pairs]
    return NativeContactSettings(pairs=atom_pairs, lengths=_distances(structure, atom_pairs).tolist())


def read_reference(path: Path, topology: mdtraj.Topology) -> mdtraj.Trajectory:
    """Read one structure with the atoms of `topology`.

    Raises
    ------
    ConfigError
        If the file cannot be read, or its atoms are others.
    """
    if not path.is_file():
        raise ConfigError(f"reference: {path}: no such file")
    try:
        reference = mdtraj.load(str(path))[0]
    except Exception as error:
        reason = textwrap.shorten(first_line(error), 120, placeholder=" ...")
        raise ConfigError(f"reference: {path}: cannot be read ({reason})") from error
    if reference.n_atoms != topology.n_atoms:
        raise ConfigError(f"reference: {path}: {reference.n_atoms} atoms, the system has {topology.n_atoms}")
    for atom, other in zip(topology.atoms, reference.topology.atoms, strict=True):
        if atom.element != other.element:
            raise ConfigError(
                f"reference: {path}: atom {atom.index} is {other} ({other.element.name}), the system has "
                f"{Labels(topology).atom(atom.index)} ({atom.element.name}) there{_guessed(atom, other)}"
            )
    try:
        return as_structure(reference, topology)
    except DataError as error:
        raise ConfigError(f"reference: {path}: {error}") from None


def _guessed(atom: Atom, other: Atom) -> str:
    """Advice where atoms have the same name and another element."""
    if atom.name != other.name:
        return ""
    return "; without an element column elements are guessed by where names begin: write the elements"


def _distances(structure: mdtraj.Trajectory, pairs: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Distances in one structure as the descriptors have them, shape (n_pairs,) [nm]."""
    vectors = PairVectors([i for i, _ in pairs], [j for _, j in pairs])
    vectors.set_molecules(molecules_of(structure.topology).tolist())
    box = boxes_of(structure)
    cell = torch.empty(0) if box is None else torch.from_numpy(box)
    delta = vectors(torch.from_numpy(structure.xyz.astype(np.float64)), cell)
    return np.asarray(delta.norm(dim=-1)[0].numpy())


def _residue_pairs(
    topology: mdtraj.Topology, selection: str, separation: int
) -> list[tuple[str, str, tuple[list[int], list[int]]]]:
    chosen = set(without_hydrogens(topology, select_atoms(topology, selection)).tolist())
    residues = [
        (residue, [a.index for a in residue.atoms if a.index in chosen]) for residue in topology.residues
    ]
    labels, separations = Labels(topology), Separations(topology)
    return [
        (labels.residue(a.index), labels.residue(b.index), (first, second))
        for (a, first), (b, second) in combinations([(r, atoms) for r, atoms in residues if atoms], 2)
        if separations.apart(a, b, separation)
    ]


def _touching(structure: mdtraj.Trajectory, contact: AtomContact) -> bool:
    pairs = [(i, j) for i in contact.first for j in contact.second]
    return bool(_distances(structure, pairs).min() < _TOUCHING)
