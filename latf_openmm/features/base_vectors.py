"""Where nucleobases are in each other's frames: the vectors G behind eRMSD."""

import math
from collections.abc import Sequence
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

_WIDE, _HIGH = 0.5, 0.3  # nm
_CUTOFF = 2.4  # of the scaled distance
_RING = {"C2", "C4", "C6"}
"""Names of the ring atoms that place a base."""


class BaseVectors(PairFeatures):
    """G vectors of all ordered pairs of bases (Bottaro, Di Palma and Bussi, Nucleic Acids Res. 2014).

    Each base has a frame: origin in the middle of C2, C4 and C6 of its six-membered ring, x towards C2, z along the
    normal. With r = (x / 0.5 nm, y / 0.5 nm, z / 0.3 nm) the place of another base in it and gamma = pi / 2.4,

        G = (sin(gamma |r|) r / |r|, 1 + cos(gamma |r|)) / gamma   where |r| < 2.4, else 0.

    eRMSD^2 between two structures is the sum of the squared differences of all these numbers over the number of bases.
    G is continuous; its first three numbers have a kink at the cutoff.
    """

    def __init__(
        self, bases: list[tuple[int, int, int]], names: list[str], ordered: Sequence[tuple[int, int]]
    ) -> None:
        super().__init__()
        n = len(bases)
        self.n = n
        self.wide, self.high, self.cutoff, self.gamma = _WIDE, _HIGH, _CUTOFF, math.pi / _CUTOFF
        self.names = [f"G{k}({names[i]},{names[j]})" for i, j in ordered for k in range(4)]
        self.inner = PairVectors([b[0] for b in bases] * 2, [b[1] for b in bases] + [b[2] for b in bases])
        self.between = PairVectors([bases[i][0] for i, _ in ordered], [bases[j][0] for _, j in ordered])
        self.origin: Tensor
        self.other: Tensor
        self.register_buffer("origin", torch.tensor([i for i, _ in ordered], dtype=torch.long))
        self.register_buffer("other", torch.tensor([j for _, j in ordered], dtype=torch.long))

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return G of the ordered pairs, shape (n_frames, 4 n_pairs)."""
        inner = self.inner(positions, box)
        first, second = inner[:, : self.n], inner[:, self.n :]
        centre = (first + second) / 3.0  # from C2
        x = -centre
        z = torch.linalg.cross(x, first - centre)
        x = x / torch.sqrt((x * x).sum(-1, keepdim=True))
        z = z / torch.sqrt((z * z).sum(-1, keepdim=True))
        y = torch.linalg.cross(z, x)
        place = (
            self.between(positions, box)
            + centre.index_select(1, self.other)
            - centre.index_select(1, self.origin)
        )
        scaled = torch.stack(
            [
                (place * x.index_select(1, self.origin)).sum(-1) / self.wide,
                (place * y.index_select(1, self.origin)).sum(-1) / self.wide,
                (place * z.index_select(1, self.origin)).sum(-1) / self.high,
            ],
            dim=-1,
        )
        length = torch.sqrt((scaled * scaled).sum(-1, keepdim=True))
        angle = self.gamma * torch.clamp(length, max=self.cutoff)  # at the cutoff all four are zero
        vectors = torch.cat([torch.sin(angle) * scaled / length, 1.0 + torch.cos(angle)], dim=-1) / self.gamma
        return vectors.reshape(positions.shape[0], -1)


class BaseVectorSettings(FeatureSettings):
    """G vectors of the nucleobases in an MDTraj selection, or of the rings listed."""

    kind: Literal["base_vectors"] = "base_vectors"
    selection: str = Field(
        "solute", description="MDTraj selection; residues with C2, C4 and C6 in it are bases"
    )
    bases: list[tuple[int, int, int]] | None = Field(
        None,
        min_length=2,
        description="atoms of each ring: C2, C6, C4 of purines and C2, C4, C6 of pyrimidines; filled in when resolved",
    )
    names: list[str] | None = Field(None, description="names of the bases; filled in when resolved")
    pairs: list[tuple[int, int]] | None = Field(
        None, min_length=1, description="ordered pairs of bases, by their number in 'bases'; none: all"
    )

    @model_validator(mode="after")
    def _different(self) -> "BaseVectorSettings":
        for base in self.bases or []:
            if len(set(base)) != 3:
                raise ValueError(f"the base {base} needs three different atoms")
        if self.names is not None and len(self.names) != len(self.bases or []):
            raise ValueError("'names' needs one name for each of 'bases'")
        for i, j in self.pairs or []:
            if self.bases is None or i == j or not {i, j} <= set(range(len(self.bases))):
                raise ValueError(f"the pair ({i}, {j}) does not name two of 'bases'")
        return self

    def resolve(self, topology: mdtraj.Topology) -> FeatureSettings:
        """Find the rings."""
        if self.bases is not None:
            check_atoms(topology, [atom for base in self.bases for atom in base], "bases")
            names = self.names or ["-".join(map(str, base)) for base in self.bases]
            return BaseVectorSettings(bases=self.bases, names=names, pairs=self.pairs)
        chosen = set(select_atoms(topology, self.selection))
        bases, names, labels = [], [], Labels(topology)
        for residue in topology.residues:
            at = {atom.name: atom.index for atom in residue.atoms if atom.index in chosen}
            if set(at) >= _RING | {"C1'"}:
                order = ("C2", "C6", "C4") if "N9" in at else ("C2", "C4", "C6")
                bases.append((at[order[0]], at[order[1]], at[order[2]]))
                names.append(labels.residue(residue.index))
        if len(bases) < 2:
            raise ConfigError(
                f"base_vectors: {len(bases)} nucleobases in selection {self.selection!r}; expected 2 or more"
            )
        return BaseVectorSettings(bases=bases, names=names)

    def keep(self, columns: Sequence[int]) -> tuple[FeatureSettings, list[int]]:
        """Only the pairs of bases named, each with its four numbers."""
        pairs, chosen = self._ordered(), sorted({column // 4 for column in columns})
        fewer = self.model_copy(update={"pairs": [pairs[i] for i in chosen]})
        return fewer, [4 * i + k for i in chosen for k in range(4)]

    def build(self) -> Features:
        """Make the module."""
        bases = self.bases or []
        names = self.names or ["-".join(map(str, base)) for base in bases]
        return BaseVectors(bases, names, self._ordered())

    def _ordered(self) -> list[tuple[int, int]]:
        n = len(self.bases or [])
        return self.pairs or [(i, j) for i in range(n) for j in range(n) if i != j]
