"""Hydrogen bonds, each a number between 0 and 1."""

from collections.abc import Sequence
from typing import Literal

import mdtraj
import torch
from pydantic import Field
from torch import Tensor

from latf_openmm.errors import ConfigError
from latf_openmm.features.base import (
    Features,
    FeatureSettings,
    PairFeatures,
    PairVectors,
    apart,
    check_atoms,
    select_atoms,
)
from latf_openmm.labels import Labels
from latf_openmm.settings import Settings

_LENGTH, _EXPONENT = 0.25, 8  # nm; hydrogen to acceptor (Baker and Hubbard, 1984)
_COSINE, _WIDTH = -0.5, 0.1  # of the angle donor - hydrogen - acceptor, 120 degrees


class HydrogenBond(Settings):
    """A donor with its hydrogens and an acceptor."""

    donor: int = Field(description="atom index")
    hydrogens: list[int] = Field(min_length=1, description="atom indices")
    acceptor: int = Field(description="atom index")
    name: str = Field(description="name of the descriptor")


class HydrogenBonds(PairFeatures):
    """Soft form of the criterion of Baker and Hubbard: r_HA < 0.25 nm and an angle D-H-A above 120 degrees.

    h = sum over the donor's hydrogens of 1 / (1 + (r_HA / 0.25 nm)^8) times 1 / (1 + exp((cos angle + 0.5) / 0.1)).
    Above one half, both conditions hold (for a donor with one hydrogen); where both hold, it is above a quarter.
    """

    def __init__(self, bonds: Sequence[HydrogenBond]) -> None:
        super().__init__()
        self.names = [bond.name for bond in bonds]
        each = [(k, bond.donor, h, bond.acceptor) for k, bond in enumerate(bonds) for h in bond.hydrogens]
        hydrogens = [h for _, _, h, _ in each]
        self.length, self.exponent, self.cosine, self.width = _LENGTH, _EXPONENT, _COSINE, _WIDTH
        self.n, self.each = len(bonds), len(each)
        self.vectors = PairVectors(hydrogens * 2, [d for _, d, _, _ in each] + [a for _, _, _, a in each])
        self.owner: Tensor
        self.register_buffer("owner", torch.tensor([k for k, _, _, _ in each], dtype=torch.long))

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return how far each bond is formed, shape (n_frames, n_bonds)."""
        vectors = self.vectors(positions, box)
        donor, acceptor = vectors[:, : self.each], vectors[:, self.each :]
        squared = (acceptor * acceptor).sum(-1)
        near = 1.0 / (1.0 + (squared / self.length**2) ** (0.5 * self.exponent))
        cosine = (donor * acceptor).sum(-1) / torch.sqrt(squared * (donor * donor).sum(-1))
        formed = near * torch.sigmoid((self.cosine - cosine) / self.width)
        total = torch.zeros(positions.shape[0], self.n, dtype=formed.dtype, device=formed.device)
        return total.index_add(1, self.owner, formed)


class HydrogenBondSettings(FeatureSettings):
    """Hydrogen bonds between the donors and acceptors of an MDTraj selection.

    Donors are nitrogens and oxygens that carry hydrogens (which need not be selected); acceptors are oxygens, and
    nitrogens without hydrogen that have at most two neighbours.
    """

    kind: Literal["hydrogen_bonds"] = "hydrogen_bonds"
    selection: str = Field(
        "solute",
        description="MDTraj selection of donors and acceptors; solute: neither water nor ions nor solvent",
    )
    minimum_separation: int = Field(
        2, ge=0, description="of two residues along their chain; other chains always count"
    )
    bonds: list[HydrogenBond] | None = Field(None, min_length=1, description="filled in when resolved")

    def resolve(self, topology: mdtraj.Topology) -> FeatureSettings:
        """Find donors and acceptors."""
        if self.bonds is not None:
            for bond in self.bonds:
                check_atoms(topology, [bond.donor, *bond.hydrogens, bond.acceptor], bond.name)
            return self
        chosen = [topology.atom(i) for i in select_atoms(topology, self.selection)]
        neighbours: dict[int, list[mdtraj.core.topology.Atom]] = {}
        for a, b in topology.bonds:
            neighbours.setdefault(a.index, []).append(b)
            neighbours.setdefault(b.index, []).append(a)
        polar = [atom for atom in chosen if atom.element.symbol in ("N", "O")]
        hydrogens = {
            atom.index: [n.index for n in neighbours.get(atom.index, []) if n.element.symbol == "H"]
            for atom in polar
        }
        acceptors = [
            atom
            for atom in polar
            if atom.element.symbol == "O"
            or (not hydrogens[atom.index] and len(neighbours.get(atom.index, [])) <= 2)
        ]
        labels = Labels(topology)
        bonds = [
            HydrogenBond(
                donor=d.index,
                hydrogens=hydrogens[d.index],
                acceptor=a.index,
                name=f"hb({labels.atom(d.index)},{labels.atom(a.index)})",
            )
            for d in polar
            for a in acceptors
            if hydrogens[d.index]
            and a.index != d.index
            and apart(d.residue, a.residue, self.minimum_separation)
        ]
        if not bonds:
            raise ConfigError(
                f"hydrogen_bonds: selection {self.selection!r} has no donor (N or O with hydrogens) and acceptor "
                f"{self.minimum_separation} residues apart"
            )
        return self.model_copy(update={"bonds": bonds})

    def keep(self, columns: Sequence[int]) -> tuple[FeatureSettings, list[int]]:
        """Only the bonds named."""
        return self.model_copy(update={"bonds": [(self.bonds or [])[i] for i in columns]}), list(columns)

    def build(self) -> Features:
        """Make the module."""
        return HydrogenBonds(self.bonds or [])
