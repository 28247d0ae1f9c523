"""Distances between pairs of atoms."""

from collections.abc import Sequence
from itertools import combinations
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
from latf_openmm.labels import Labels


class Distances(PairFeatures):
    """Pair distances r_ij = |x_j - x_i| (nearest image where there is a box) [nm]."""

    unit = "nm"

    def __init__(self, pairs: list[tuple[int, int]], names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.vectors = PairVectors([i for i, _ in pairs], [j for _, j in pairs])

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return distances, shape (n_frames, n_pairs) [nm]."""
        delta = self.vectors(positions, box)
        return torch.sqrt((delta * delta).sum(dim=-1))


class DistanceSettings(FeatureSettings):
    """All pairs within an MDTraj selection, or the pairs listed.

    Examples
    --------
    >>> module = DistanceSettings(pairs=[(0, 1)]).build()
    >>> module(torch.tensor([[[0.0, 0, 0], [3.0, 4.0, 0.0]]]), torch.empty(0))
    tensor([[5.]])
    """

    kind: Literal["distances"] = "distances"
    pairs: list[tuple[int, int]] | None = Field(
        None, min_length=1, description="pairs of atom indices, from 0"
    )
    selection: str | None = Field(None, description="MDTraj selection; all pairs within it are used")
    minimum_bonds: int = Field(1, ge=1, description="skip pairs closer than this many bonds")
    names: list[str] | None = Field(None, description="names of the pairs; filled in when resolved")

    @model_validator(mode="after")
    def _one_of(self) -> "DistanceSettings":
        if (self.pairs is None) == (self.selection is None):
            raise ValueError("give either 'pairs' or 'selection'")
        for i, j in self.pairs or []:
            if i == j:
                raise ValueError(f"the pair ({i}, {j}) has the same atom twice")
        if self.pairs is not None and self.minimum_bonds != 1:
            raise ValueError("'minimum_bonds' applies to 'selection' only")
        if self.names is not None and len(self.names) != len(self.pairs or []):
            raise ValueError("'names' needs one name for each of 'pairs'")
        return self

    def resolve(self, topology: mdtraj.Topology) -> FeatureSettings:
        """Turn the selection into pairs."""
        if self.pairs is not None:
            pairs = self.pairs
        else:
            atoms = select_atoms(topology, str(self.selection))
            near = _closer_than(topology, self.minimum_bonds)
            pairs = [pair for pair in combinations(atoms, 2) if pair not in near]
        if not pairs:
            raise ConfigError(f"selection {self.selection!r} leaves no pair of atoms")
        check_atoms(topology, [atom for pair in pairs for atom in pair], "pairs")
        labels = Labels(topology)
        names = self.names or [f"d({labels.atom(i)},{labels.atom(j)})" for i, j in pairs]
        return DistanceSettings(pairs=pairs, names=names, selection=None, minimum_bonds=1)

    def keep(self, columns: Sequence[int]) -> tuple[FeatureSettings, list[int]]:
        """Only the pairs named."""
        pairs, names = self.pairs or [], self.names or []
        update = {"pairs": [pairs[i] for i in columns], "names": [names[i] for i in columns]}
        return self.model_copy(update=update), list(columns)

    def build(self) -> Features:
        """Make the module."""
        pairs = self.pairs or []
        return Distances(pairs, self.names or [f"d({i},{j})" for i, j in pairs])


def _closer_than(topology: mdtraj.Topology, minimum: int) -> set[tuple[int, int]]:
    """Ordered pairs of atoms joined by a path of fewer than `minimum` bonds."""
    bonded: list[set[int]] = [set() for _ in range(topology.n_atoms)]
    for bond in topology.bonds:
        bonded[bond[0].index].add(bond[1].index)
        bonded[bond[1].index].add(bond[0].index)
    near = set()
    for start in range(topology.n_atoms):
        reached, shell = {start}, {start}
        for _ in range(minimum - 1):
            shell = {j for i in shell for j in bonded[i]} - reached
            reached |= shell
        near |= {(start, end) for end in reached if end != start}
    return near
