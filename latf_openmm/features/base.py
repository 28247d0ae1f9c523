"""What every feature is: settings that resolve against a topology, and a scriptable torch module."""

import textwrap
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from latf_openmm.errors import ConfigError
from latf_openmm.features.readings import Reading
from latf_openmm.features.selection import selected
from latf_openmm.periodic import molecules_of
from latf_openmm.settings import Settings

_MAX_MATRIX = 6000
"""Largest number of elements of a matrix that gives differences of positions; more are indexed."""


class Features(nn.Module):
    """Map positions to descriptors.

    ``forward(positions, box)`` takes positions of shape (n_frames, n_atoms, 3) [nm] and a box of shape
    (n_frames, 3, 3) [nm] in OpenMM's reduced form, or an empty tensor where there is none, and returns
    (n_frames, n_features).

    Attributes
    ----------
    names : list of str
        One name for each feature.
    invariant : bool
        Whether the features are unchanged when the whole system is translated or rotated.
    unit : str
        Of the descriptors; empty for numbers.
    """

    names: list[str]
    invariant = True
    unit = ""

    @property
    def n_features(self) -> int:
        """Number of descriptors."""
        return len(self.names)

    def readings(self, values: NDArray[np.floating]) -> list[Reading]:
        """Return descriptors (n_frames, n_features) as quantities that a person knows; by default each is one."""
        columns = np.asarray(values, dtype=np.float64).T
        return [Reading(name, column, self.unit) for name, column in zip(self.names, columns, strict=True)]

    def used_atoms(self) -> Tensor | None:
        """Atoms the descriptors depend on, ascending; None means all."""
        return None

    def join_molecules(self, molecules: Sequence[int]) -> None:
        """Take vectors within a molecule as they are from now on, those between molecules to the nearest image.

        Before, all are those to the nearest image. Positions have to have whole molecules.

        Parameters
        ----------
        molecules
            Index of the molecule of each atom, from `latf_openmm.periodic.molecules_of`; before `compact`.
        """
        for part in self.modules():
            if isinstance(part, PairVectors):
                part.set_molecules(molecules)

    def in_rectangular_boxes(self, rectangular: bool) -> None:
        """Take boxes to be rectangular from now on, or not; that costs less than triclinic ones do."""
        for part in self.modules():
            if isinstance(part, PairVectors):
                part.rectangular = rectangular

    def compact(self, new: Tensor, n_atoms: int) -> None:
        """Let atom i be atom ``new[i]`` of `n_atoms` from now on; only where `used_atoms` names atoms."""
        raise NotImplementedError


class FeatureSettings(Settings):
    """Settings of one feature; subclasses add a literal ``kind`` and live in one file each."""

    label: str | None = Field(
        None, description="tells descriptors from those of other features with the same names; filled in"
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Let what `resolve` returns remember the molecules of the topology, and `build` use them."""
        super().__pydantic_init_subclass__(**kwargs)
        for name, wrapper in (("resolve", _remembering_molecules), ("build", _in_molecules)):
            if name in cls.__dict__:
                setattr(cls, name, wrapper(cls.__dict__[name]))

    def resolve(self, topology: mdtraj.Topology) -> "FeatureSettings":
        """Return settings with explicit atom indices, which need no topology any more.

        The settings returned remember the molecules of `topology` as long as they are not read from a file.

        Raises
        ------
        ConfigError
            If a selection or an index names atoms that are not in `topology`.
        """
        return self

    @abstractmethod
    def build(self) -> Features:
        """Make the torch module of resolved settings."""

    def keep(self, columns: Sequence[int]) -> tuple["FeatureSettings", list[int]]:
        """Return resolved settings of the fewest descriptors that hold `columns` (ascending, at least one).

        Descriptors that are made together are kept together; by default all are.

        Returns
        -------
        FeatureSettings
            Of the descriptors kept.
        list of int
            The column, among those of the present settings, of each descriptor kept, in their order.
        """
        return self, list(range(self.build().n_features))


_MOLECULES = "molecules_of_topology"
"""Attribute of resolved settings; no field of them, and not part of what is written."""


def _remembering_molecules(resolve: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    @wraps(resolve)
    def resolved(self: FeatureSettings, topology: mdtraj.Topology) -> FeatureSettings:
        resolved: FeatureSettings = resolve(self, topology).model_copy()
        object.__setattr__(resolved, _MOLECULES, molecules_of(topology).tolist())
        return resolved

    return resolved


def _in_molecules(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @wraps(build)
    def built(self: FeatureSettings) -> Features:
        features: Features = build(self)
        molecules: list[int] | None = getattr(self, _MOLECULES, None)
        if molecules is not None:
            features.join_molecules(molecules)
        return features

    return built


def select_atoms(topology: mdtraj.Topology, selection: str) -> list[int]:
    """Return the atom indices of a selection (see `selection.selected`); an empty or invalid one is a `ConfigError`."""
    try:
        atoms = selected(topology, selection)
    except Exception as error:
        reason = textwrap.shorten(str(error), 120, placeholder=" ...")
        raise ConfigError(f"selection {selection!r} is not valid MDTraj syntax ({reason})") from None
    if len(atoms) == 0:
        raise ConfigError(
            f"selection {selection!r} matches no atom of {topology.n_atoms}{_names_there_are(topology, selection)}"
        )
    return [int(atom) for atom in atoms]


def _names_there_are(topology: mdtraj.Topology, selection: str) -> str:
    """Names of residues or atoms, where a selection is by these; readers change some, HIE of a PDB file to HIS."""
    if "resname" in selection.split():
        kind, names = "residues", {residue.name for residue in topology.residues}
    elif "name" in selection.split():
        kind, names = "atoms", {atom.name for atom in topology.atoms}
    else:
        return ""
    return f"; its {kind} are called {textwrap.shorten(', '.join(sorted(names)), 160, placeholder=', ...')}"


def check_atoms(topology: mdtraj.Topology, atoms: Sequence[int], what: str) -> None:
    """Raise `ConfigError` when an index is outside the topology."""
    for atom in atoms:
        if not 0 <= atom < topology.n_atoms:
            raise ConfigError(
                f"{what} names atom {atom}, but the topology has atoms 0 to {topology.n_atoms - 1}"
            )


def minimum_image(delta: Tensor, box: Tensor, rectangular: bool = False) -> Tensor:
    """Shift difference vectors to their nearest periodic image.

    Parameters
    ----------
    delta
        Shape (n_frames, n_pairs, 3) [nm].
    box
        Rows are the box vectors in OpenMM's reduced triclinic form, shape (n_frames, 3, 3) [nm]; an empty
        tensor means no box and returns `delta`.
    rectangular
        Whether all boxes are: then rounding alone is exact.

    Notes
    -----
    After rounding one axis after the other, the nearest image is looked for among 27 neighbours: in triclinic boxes
    rounding misses it for about one in six random pairs.
    """
    if box.numel() == 0:
        return delta
    shift = torch.zeros_like(delta)
    for axis in (2, 1, 0):
        vector = box[:, axis : axis + 1]
        left = delta.detach()[:, :, axis : axis + 1] - shift[:, :, axis : axis + 1]
        shift = shift + torch.round(left / vector[:, :, axis : axis + 1]) * vector
    if not rectangular:
        index = torch.arange(27, device=box.device)
        steps = torch.stack([index % 3, index // 3 % 3, index // 9], dim=1).to(box.dtype) - 1.0
        neighbours = torch.matmul(steps, box)  # (n_frames, 27, 3)
        distance = (neighbours * neighbours).sum(-1).unsqueeze(1) - 2.0 * torch.bmm(
            delta.detach() - shift, neighbours.transpose(1, 2)
        )
        nearest = torch.argmin(distance, dim=2, keepdim=True).expand(-1, -1, 3)
        shift = shift + torch.gather(neighbours, 1, nearest)
    return delta - shift


class PairVectors(nn.Module):
    """Vectors from atoms `first` to atoms `second`, to their nearest image where there is a box.

    Between atoms of one molecule (see `set_molecules`) they are the difference of the positions, whatever the box.

    Between few atoms (see `compact`) they are one product with a matrix of -1, 0 and 1, exact to the last bit:
    a step of a biased simulation costs by the number of its operations, and gathering atoms, and scattering
    their forces, takes six of them.

    Parameters
    ----------
    first, second
        Atoms, each of length n_pairs.
    """

    def __init__(self, first: Sequence[int], second: Sequence[int]) -> None:
        super().__init__()
        self.first: Tensor
        self.second: Tensor
        self.matrix: Tensor
        self.register_buffer("first", torch.tensor(list(first), dtype=torch.long))
        self.register_buffer("second", torch.tensor(list(second), dtype=torch.long))
        self.register_buffer("matrix", torch.empty(0))
        self.crossing: Tensor
        self.register_buffer("crossing", torch.empty(0, dtype=torch.long))
        self.images = 1  # 0: no pair is looked at; 1: all are; 2: those in `crossing`
        self.rectangular = False

    def set_molecules(self, molecules: Sequence[int]) -> None:
        """Look for nearest images of pairs of different molecules only; index of the molecule of each atom."""
        owner = torch.as_tensor(molecules)
        crosses = owner[self.first] != owner[self.second]
        self.images = 1 if bool(crosses.all()) else 2 if bool(crosses.any()) else 0
        self.crossing = torch.nonzero(crosses).flatten()

    def used_atoms(self) -> Tensor:
        """Atoms at either end, ascending."""
        return torch.unique(torch.cat([self.first, self.second]))

    def compact(self, new: Tensor, n_atoms: int) -> None:
        """Let atom i be atom ``new[i]`` of `n_atoms` from now on."""
        self.first, self.second = new[self.first], new[self.second]
        n = len(self.first)
        if n * n_atoms <= _MAX_MATRIX:
            matrix = torch.zeros(n, n_atoms, dtype=torch.float64)
            matrix[torch.arange(n), self.second] += 1.0
            matrix[torch.arange(n), self.first] -= 1.0
            self.matrix = matrix

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return the vectors, shape (n_frames, n_pairs, 3) [nm]; within molecules the positions' own."""
        if self.matrix.numel() > 0:
            delta = torch.bmm(self.matrix.expand(positions.shape[0], -1, -1), positions)
        else:
            delta = positions.index_select(1, self.second) - positions.index_select(1, self.first)
        if self.images == 0 or box.numel() == 0:
            return delta
        if self.images == 1:
            return minimum_image(delta, box, self.rectangular)
        direct = delta.index_select(1, self.crossing)
        nearest = minimum_image(direct.detach(), box, self.rectangular)
        return delta.index_add(1, self.crossing, nearest - direct.detach())


class PairFeatures(Features):
    """Features whose positions all come through `PairVectors` among their submodules."""

    def _vectors(self) -> list[PairVectors]:
        return [part for part in self.children() if isinstance(part, PairVectors)]

    def used_atoms(self) -> Tensor:
        """Atoms the descriptors are made of, ascending."""
        return torch.unique(torch.cat([vectors.used_atoms() for vectors in self._vectors()]))

    def compact(self, new: Tensor, n_atoms: int) -> None:
        """Let atom i be atom ``new[i]`` of `n_atoms` from now on."""
        for vectors in self._vectors():
            vectors.compact(new, n_atoms)
