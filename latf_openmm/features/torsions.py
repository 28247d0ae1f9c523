"""Torsion (dihedral) angles as sine and cosine."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from latf_openmm.errors import ConfigError
from latf_openmm.features.base import (
    Features,
    FeatureSettings,
    PairFeatures,
    PairVectors,
    check_atoms,
)
from latf_openmm.features.chain import next_residues
from latf_openmm.features.readings import Reading
from latf_openmm.labels import Labels

_PROTEIN = {
    "phi": mdtraj.compute_phi,
    "psi": mdtraj.compute_psi,
    "omega": mdtraj.compute_omega,
    "chi1": mdtraj.compute_chi1,
    "chi2": mdtraj.compute_chi2,
    "chi3": mdtraj.compute_chi3,
    "chi4": mdtraj.compute_chi4,
}
"""Functions of MDTraj that find torsions of a protein."""
_BACKBONE = {
    "phi": (("C", 0), ("N", 1), ("CA", 1), ("C", 1)),
    "psi": (("N", 0), ("CA", 0), ("C", 0), ("N", 1)),
    "omega": (("CA", 0), ("C", 0), ("N", 1), ("CA", 1)),
}
"""Atom names and the residue each is in: the first (0) or the one that follows it (1)."""
_NUCLEIC = {
    "alpha": (("O3'", -1), ("P", 0), ("O5'", 0), ("C5'", 0)),
    "beta": (("P", 0), ("O5'", 0), ("C5'", 0), ("C4'", 0)),
    "gamma": (("O5'", 0), ("C5'", 0), ("C4'", 0), ("C3'", 0)),
    "delta": (("C5'", 0), ("C4'", 0), ("C3'", 0), ("O3'", 0)),
    "epsilon": (("C4'", 0), ("C3'", 0), ("O3'", 0), ("P", 1)),
    "zeta": (("C3'", 0), ("O3'", 0), ("P", 1), ("O5'", 1)),
}
"""Atom names, each with its residue: the one before (-1), the nucleotide itself, the one after (IUPAC-IUB, 1983)."""
_GLYCOSIDIC = (("O4'", "C1'", "N9", "C4"), ("O4'", "C1'", "N1", "C2"))
"""Atom names of chi of nucleotides: of purines, then of pyrimidines."""
AngleName = Literal[
    "phi", "psi", "omega", "chi1", "chi2", "chi3", "chi4",
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "chi",
]  # fmt: skip


class Torsions(PairFeatures):
    """Sine and cosine of torsion angles, IUPAC sign (as MDTraj), smooth through +-180 degrees.

    With bonds b1, b2, b3 and normals m = b1 x b2, n = b2 x b3: cos = m.n / (|m||n|),
    sin = |b2| b1.n / (|m||n|), and (|m||n|)^2 is the sum of both numerators' squares.
    """

    def __init__(self, atoms: list[tuple[int, int, int, int]], names: list[str]) -> None:
        super().__init__()
        self.names = [f"{function}({name})" for function in ("sin", "cos") for name in names]
        self.torsions = names
        first, second = ([q[i + end] for i in range(3) for q in atoms] for end in (0, 1))
        self.bonds = PairVectors(first, second)

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return all sines, then all cosines, shape (n_frames, 2 n_torsions)."""
        bonds = self.bonds(positions, box)
        bonds = bonds.reshape(positions.shape[0], 3, bonds.shape[1] // 3, 3)
        normals = torch.linalg.cross(bonds[:, :2], bonds[:, 1:])
        b1, b2 = bonds[:, 0], bonds[:, 1]
        cos = (normals[:, 0] * normals[:, 1]).sum(-1)
        sin = torch.sqrt((b2 * b2).sum(-1)) * (b1 * normals[:, 1]).sum(-1)
        norm = torch.sqrt(sin * sin + cos * cos)
        return torch.cat([sin / norm, cos / norm], dim=1)

    def readings(self, values: NDArray[np.floating]) -> list[Reading]:
        """Return the angle of each torsion [degrees]."""
        sines, cosines = np.split(np.asarray(values, dtype=np.float64).T, 2)
        angles = np.degrees(np.arctan2(sines, cosines))
        labels = [
            sine.removeprefix(f"sin({name})") for sine, name in zip(self.names, self.torsions, strict=False)
        ]
        return [
            Reading(name + label, angle, "degrees", 360.0)
            for name, label, angle in zip(self.torsions, labels, angles, strict=True)
        ]


class TorsionSettings(FeatureSettings):
    """Named torsions or explicit quadruples of atoms.

    Of proteins phi, psi, omega, chi1 to chi4; of nucleic acids alpha, beta, gamma, delta, epsilon, zeta and chi.

    Examples
    --------
    >>> module = TorsionSettings(atoms=[(0, 1, 2, 3)]).build()
    >>> xyz = torch.tensor([[[1.0, 0, 0], [0, 0, 0], [0, 0, 1.0], [0, 1.0, 1.0]]])
    >>> [round(float(v), 3) for v in module(xyz, torch.empty(0))[0]]
    [1.0, 0.0]
    """

    kind: Literal["torsions"] = "torsions"
    angles: list[AngleName] | None = Field(None, min_length=1, description="named torsions")
    atoms: list[tuple[int, int, int, int]] | None = Field(
        None, min_length=1, description="quadruples of atom indices"
    )
    names: list[str] | None = Field(None, description="names; filled in when resolved")

    @model_validator(mode="after")
    def _one_of(self) -> "TorsionSettings":
        if (self.angles is None) == (self.atoms is None):
            raise ValueError("give either 'angles' or 'atoms'")
        for quadruple in self.atoms or []:
            if len(set(quadruple)) != 4:
                raise ValueError(f"the torsion {quadruple} needs four different atoms")
        if self.names is not None and len(self.names) != len(self.atoms or []):
            raise ValueError("'names' needs one name for each of 'atoms'")
        return self

    def resolve(self, topology: mdtraj.Topology) -> FeatureSettings:
        """Turn named torsions into quadruples of atoms."""
        if self.atoms is not None:
            check_atoms(topology, [atom for quadruple in self.atoms for atom in quadruple], "atoms")
            labels = Labels(topology)
            names = self.names or [",".join(labels.atom(atom) for atom in q) for q in self.atoms]
            return TorsionSettings(atoms=self.atoms, names=names, angles=None)
        atoms, names, labels = [], [], Labels(topology)
        for angle in self.angles or []:
            torsions = _named(topology, angle)
            if not torsions:
                raise ConfigError(f"the topology has no {angle} torsion")
            atoms += [quadruple for quadruple, _ in torsions]
            names += [f"{angle} {labels.residue(residue)}" for _, residue in torsions]
        return TorsionSettings(atoms=atoms, names=names, angles=None)

    def keep(self, columns: Sequence[int]) -> tuple[FeatureSettings, list[int]]:
        """Only the torsions named, each with sine and cosine."""
        atoms, names = self.atoms or [], self.names or []
        chosen = sorted({column % len(atoms) for column in columns})
        update = {"atoms": [atoms[i] for i in chosen], "names": [names[i] for i in chosen]}
        return self.model_copy(update=update), [*chosen, *(len(atoms) + i for i in chosen)]

    def build(self) -> Features:
        """Make the module."""
        atoms = self.atoms or []
        return Torsions(atoms, self.names or ["-".join(map(str, q)) for q in atoms])


def _named(topology: mdtraj.Topology, angle: str) -> list[tuple[tuple[int, int, int, int], int]]:
    """Atoms and residue of every torsion of that name; where bonds are known, its atoms are bonded one to the next."""
    named = _protein(topology, angle) if angle in _PROTEIN else _nucleic(topology, angle)
    bonded = {frozenset((first.index, second.index)) for first, second in topology.bonds}
    return [
        (atoms, residue)
        for atoms, residue in named
        if not bonded or all(frozenset(pair) in bonded for pair in pairwise(atoms))
    ]


def _protein(topology: mdtraj.Topology, angle: str) -> list[tuple[tuple[int, int, int, int], int]]:
    blank = mdtraj.Trajectory(np.zeros((1, topology.n_atoms, 3), np.float32), topology)
    along = [(int(q[0]), int(q[1]), int(q[2]), int(q[3])) for q in _PROTEIN[angle](blank)[0]]
    named = [*along, *_closing(topology, angle)]
    residues = [topology.atom(q[3 if angle == "omega" else 2]).residue.index for q in named]
    return sorted(zip(named, residues, strict=True), key=lambda item: item[1])


def _closing(topology: mdtraj.Topology, angle: str) -> list[tuple[int, int, int, int]]:
    """Torsions of a backbone where the residue that follows is not the next of the chain, as in rings."""
    if angle not in _BACKBONE:
        return []
    quadruples = []
    for k, following in next_residues(topology).items():
        if following != k + 1:
            atoms = [{atom.name: atom.index for atom in topology.residue(i).atoms} for i in (k, following)]
            if all(name in atoms[step] for name, step in _BACKBONE[angle]):
                i, j, m, n = (atoms[step][name] for name, step in _BACKBONE[angle])
                quadruples.append((i, j, m, n))
    return quadruples


def _nucleic(topology: mdtraj.Topology, angle: str) -> list[tuple[tuple[int, int, int, int], int]]:
    after = next_residues(topology)
    before = {following: index for index, following in after.items()}
    atoms = [{atom.name: atom.index for atom in residue.atoms} for residue in topology.residues]
    wanted = [[(name, 0) for name in names] for names in _GLYCOSIDIC] if angle == "chi" else [_NUCLEIC[angle]]
    torsions = []
    for k in range(topology.n_residues):
        if "C1'" not in atoms[k]:
            continue
        place = {-1: before.get(k, -1), 0: k, 1: after.get(k, -1)}
        for names in wanted:
            if all(place[step] >= 0 and name in atoms[place[step]] for name, step in names):
                i, j, m, n = (atoms[place[step]][name] for name, step in names)
                torsions.append(((i, j, m, n), k))
                break  # N1 of a purine is not bound to its sugar
    return torsions
