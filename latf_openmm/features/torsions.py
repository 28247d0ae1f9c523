"""Torsion (dihedral) angles as sine and cosine."""

from typing import Literal

import mdtraj
import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from latf_openmm.errors import ConfigError
from latf_openmm.features.base import Features, FeatureSettings, PairVectors, atom_label, check_atoms

_BACKBONE = {
    "phi": mdtraj.compute_phi,
    "psi": mdtraj.compute_psi,
    "omega": mdtraj.compute_omega,
    "chi1": mdtraj.compute_chi1,
}


class Torsions(Features):
    """Sine and cosine of torsion angles, IUPAC sign (as MDTraj), smooth through +-180 degrees.

    With bonds b1, b2, b3 and normals m = b1 x b2, n = b2 x b3: cos = m.n / (|m||n|),
    sin = |b2| b1.n / (|m||n|), and (|m||n|)^2 is the sum of both numerators' squares.
    """

    def __init__(self, atoms: list[tuple[int, int, int, int]], names: list[str]) -> None:
        super().__init__()
        self.names = [f"{function}({name})" for function in ("sin", "cos") for name in names]
        first, second = ([q[i + end] for i in range(3) for q in atoms] for end in (0, 1))
        self.bonds = PairVectors(first, second)

    def used_atoms(self) -> Tensor:
        """Atoms the descriptors are made of."""
        return self.bonds.used_atoms()

    def compact(self, new: Tensor, n_atoms: int) -> None:
        """Rename the atoms."""
        self.bonds.compact(new, n_atoms)

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


class TorsionSettings(FeatureSettings):
    """Named protein torsions (phi, psi, omega, chi1) or explicit quadruples of atoms.

    Examples
    --------
    >>> module = TorsionSettings(atoms=[(0, 1, 2, 3)]).build()
    >>> xyz = torch.tensor([[[1.0, 0, 0], [0, 0, 0], [0, 0, 1.0], [0, 1.0, 1.0]]])
    >>> [round(float(v), 3) for v in module(xyz, torch.empty(0))[0]]
    [1.0, 0.0]
    """

    kind: Literal["torsions"] = "torsions"
    angles: list[Literal["phi", "psi", "omega", "chi1"]] | None = Field(
        None, min_length=1, description="named torsions"
    )
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
            names = self.names or [",".join(atom_label(topology, atom) for atom in q) for q in self.atoms]
            return TorsionSettings(atoms=self.atoms, names=names, angles=None)
        blank = mdtraj.Trajectory(np.zeros((1, topology.n_atoms, 3), np.float32), topology)
        atoms, names = [], []
        for angle in self.angles or []:
            found = _BACKBONE[angle](blank)[0]
            if len(found) == 0:
                raise ConfigError(f"the topology has no {angle} torsion")
            for quadruple in found:
                i, j, k, m = (int(atom) for atom in quadruple)
                atoms.append((i, j, k, m))
                names.append(f"{angle} {topology.atom(k if angle != 'omega' else m).residue}")
        return TorsionSettings(atoms=atoms, names=names, angles=None)

    def build(self) -> Features:
        """Make the module."""
        atoms = self.atoms or []
        return Torsions(atoms, self.names or ["-".join(map(str, q)) for q in atoms])
