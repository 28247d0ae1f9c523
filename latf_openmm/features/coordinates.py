"""Raw Cartesian coordinates, for model potentials in an external field."""

from typing import Literal

import mdtraj
import torch
from pydantic import Field
from torch import Tensor

from latf_openmm.features.base import Features, FeatureSettings, check_atoms


class Coordinates(Features):
    """Chosen Cartesian components of chosen atoms [nm]; not invariant to translation or rotation."""

    invariant = False
    unit = "nm"

    def __init__(self, atoms: list[int], axes: str) -> None:
        super().__init__()
        self.names = [f"{axis}{atom}" if len(atoms) > 1 else axis for atom in atoms for axis in axes]
        self.flat: Tensor
        flat = [3 * atom + "xyz".index(axis) for atom in atoms for axis in axes]
        self.register_buffer("flat", torch.tensor(flat))

    def used_atoms(self) -> Tensor:
        """Atoms whose components are taken."""
        return torch.unique(self.flat // 3)

    def compact(self, new: Tensor, n_atoms: int) -> None:
        """Rename the atoms."""
        self.flat = 3 * new[self.flat // 3] + self.flat % 3

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return components, shape (n_frames, n_atoms * n_axes)."""
        return positions.reshape(positions.shape[0], -1).index_select(1, self.flat)


class CoordinateSettings(FeatureSettings):
    """Cartesian components of atoms in a model potential.

    Examples
    --------
    >>> module = CoordinateSettings(atoms=[0], axes="xy").build()
    >>> module(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.empty(0))
    tensor([[1., 2.]])
    """

    kind: Literal["coordinates"] = "coordinates"
    atoms: list[int] | None = Field(None, min_length=1, description="atom indices; default: all atoms")
    axes: Literal["x", "y", "z", "xy", "xz", "yz", "xyz"] = Field("xyz", description="which components")

    def resolve(self, topology: mdtraj.Topology) -> FeatureSettings:
        """Fill in the default and check the indices."""
        atoms = list(range(topology.n_atoms)) if self.atoms is None else self.atoms
        check_atoms(topology, atoms, "atoms")
        return CoordinateSettings(atoms=atoms, axes=self.axes)

    def build(self) -> Features:
        """Make the module."""
        return Coordinates(self.atoms or [], self.axes)
