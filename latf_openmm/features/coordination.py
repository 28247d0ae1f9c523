"""Coordination numbers of identical particles, sorted so that their labels do not matter."""

from typing import Literal

import mdtraj
import torch
from pydantic import Field, model_validator
from torch import Tensor

from latf_openmm.errors import ConfigError
from latf_openmm.features.base import (
    Features,
    FeatureSettings,
    PairFeatures,
    PairVectors,
    check_atoms,
    select_atoms,
)
from latf_openmm.features.solute import solute_atoms


class Coordination(PairFeatures):
    """Sorted coordination numbers c_i = sum_j 1 / (1 + (r_ij / r0)^n), largest last.

    Sorting makes them invariant to permutation of the particles; they stay continuous, with a kink in
    the gradient where two particles have the same coordination.
    """

    def __init__(self, atoms: list[int], r0: float, exponent: int) -> None:
        super().__init__()
        self.names = [f"coordination {rank + 1}" for rank in range(len(atoms))]
        self.r0 = r0
        self.exponent = exponent
        self.n = len(atoms)
        self.vectors = PairVectors([i for i in atoms for _ in atoms], [j for _ in atoms for j in atoms])
        self.off_diagonal: Tensor
        self.register_buffer("off_diagonal", 1.0 - torch.eye(len(atoms), dtype=torch.float64))

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return sorted coordination numbers, shape (n_frames, n_particles)."""
        delta = self.vectors(positions, box)
        squared = (delta * delta).sum(-1).reshape(positions.shape[0], self.n, self.n)
        contact = 1.0 / (1.0 + (squared / self.r0**2) ** (0.5 * self.exponent))
        numbers = (contact * self.off_diagonal.to(contact.dtype)).sum(-1)
        return torch.sort(numbers, dim=1)[0]


class CoordinationSettings(FeatureSettings):
    """Sorted coordination numbers of the selected (identical) particles.

    Examples
    --------
    >>> module = CoordinationSettings(atoms=[0, 1], r0=1.0).build()
    >>> module(torch.tensor([[[0.0, 0, 0], [1.0, 0, 0]]]), torch.empty(0))
    tensor([[0.5000, 0.5000]])
    """

    kind: Literal["coordination"] = "coordination"
    atoms: list[int] | None = Field(
        None, description="atom indices; default: the solute (all that is neither water nor ions nor solvent)"
    )
    selection: str | None = Field(None, description="MDTraj selection instead of `atoms`")
    r0: float = Field(gt=0, description="distance where a contact counts one half [nm]")
    exponent: int = Field(8, ge=2, description="steepness n of the switching function; even")

    @model_validator(mode="after")
    def _check(self) -> "CoordinationSettings":
        if self.exponent % 2:
            raise ValueError(f"exponent must be even, got {self.exponent}")
        if self.atoms is not None and self.selection is not None:
            raise ValueError("give either 'atoms' or 'selection', or neither for the solute")
        if self.atoms is not None and len(set(self.atoms)) < len(self.atoms):
            raise ValueError("'atoms' has the same atom twice")
        return self

    def resolve(self, topology: mdtraj.Topology) -> FeatureSettings:
        """Turn the selection into indices."""
        if self.atoms is not None:
            atoms = self.atoms
        elif self.selection is not None:
            atoms = select_atoms(topology, self.selection)
        else:
            atoms = solute_atoms(topology).tolist()
        check_atoms(topology, atoms, "atoms")
        if len(atoms) < 2:
            raise ConfigError("coordination numbers need at least two particles")
        return CoordinationSettings(atoms=atoms, r0=self.r0, exponent=self.exponent, selection=None)

    def build(self) -> Features:
        """Make the module."""
        return Coordination(self.atoms or [], self.r0, self.exponent)
