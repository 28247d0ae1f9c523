"""What every feature is: settings that resolve against a topology, and a scriptable torch module."""

import textwrap
from abc import abstractmethod
from collections.abc import Sequence

import mdtraj
import torch
from torch import Tensor, nn

from latf_openmm.errors import ConfigError
from latf_openmm.settings import Settings


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
    """

    names: list[str]
    invariant = True

    @property
    def n_features(self) -> int:
        """Number of descriptors."""
        return len(self.names)

    def used_atoms(self) -> Tensor | None:
        """Atoms the descriptors depend on, ascending; None means all."""
        return None

    def relabel(self, new: Tensor) -> None:
        """Let atom i be atom ``new[i]`` from now on; only where `used_atoms` names atoms."""
        raise NotImplementedError


class FeatureSettings(Settings):
    """Settings of one feature; subclasses add a literal ``kind`` and live in one file each."""

    def resolve(self, topology: mdtraj.Topology) -> "FeatureSettings":
        """Return settings with explicit atom indices, which need no topology any more.

        Raises
        ------
        ConfigError
            If a selection or an index names atoms that are not in `topology`.
        """
        return self

    @abstractmethod
    def build(self) -> Features:
        """Make the torch module of resolved settings."""


class JoinedFeatures(Features):
    """Concatenation of several features, in order."""

    def __init__(self, parts: Sequence[Features]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.names = [name for part in parts for name in part.names]
        self.invariant = all(part.invariant for part in parts)

    def used_atoms(self) -> Tensor | None:
        """Atoms any part depends on."""
        each = [part.used_atoms() for part in self.parts]  # type: ignore[operator]
        if any(atoms is None for atoms in each):
            return None
        return torch.unique(torch.cat(each))

    def relabel(self, new: Tensor) -> None:
        """Relabel every part."""
        for part in self.parts:
            part.relabel(new)  # type: ignore[operator]

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return all descriptors side by side, shape (n_frames, n_features)."""
        columns: list[Tensor] = []
        for part in self.parts:
            columns.append(part(positions, box))
        return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)


def resolve_features(settings: Sequence[FeatureSettings], topology: mdtraj.Topology) -> list[FeatureSettings]:
    """Resolve all settings against `topology`; every problem is reported, each as one line."""
    resolved, problems = [], []
    for index, item in enumerate(settings):
        try:
            resolved.append(item.resolve(topology))
        except ConfigError as error:
            problems += [f"features[{index}]: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(*problems)
    return resolved


def build_features(resolved: Sequence[FeatureSettings]) -> Features:
    """Build the joined module of resolved settings."""
    return JoinedFeatures([item.build() for item in resolved])


def select_atoms(topology: mdtraj.Topology, selection: str) -> list[int]:
    """Return the atom indices of an MDTraj selection; an empty or invalid one is a `ConfigError`."""
    try:
        atoms = topology.select(selection)
    except Exception as error:
        reason = textwrap.shorten(str(error), 120, placeholder=" ...")
        raise ConfigError(f"selection {selection!r} is not valid MDTraj syntax ({reason})") from None
    if len(atoms) == 0:
        raise ConfigError(f"selection {selection!r} matches no atom of {topology.n_atoms}")
    return [int(atom) for atom in atoms]


def check_atoms(topology: mdtraj.Topology, atoms: Sequence[int], what: str) -> None:
    """Raise `ConfigError` when an index is outside the topology."""
    for atom in atoms:
        if not 0 <= atom < topology.n_atoms:
            raise ConfigError(
                f"{what} names atom {atom}, but the topology has atoms 0 to {topology.n_atoms - 1}"
            )


def atom_label(topology: mdtraj.Topology, atom: int) -> str:
    """Short name of an atom, for example ``ALA2-CA``."""
    return str(topology.atom(atom))


def minimum_image(delta: Tensor, box: Tensor) -> Tensor:
    """Shift difference vectors to their nearest periodic image.

    Parameters
    ----------
    delta
        Shape (n_frames, n_pairs, 3) [nm].
    box
        Rows are the box vectors in OpenMM's reduced triclinic form, shape (n_frames, 3, 3) [nm]; an empty
        tensor means no box and returns `delta`.

    Notes
    -----
    The image is the nearest one as long as the distance is below half the smallest box width, the same
    condition under which OpenMM's own forces are defined.
    """
    if box.numel() == 0:
        return delta
    for axis in (2, 1, 0):
        vector = box[:, axis : axis + 1]
        shift = torch.round(delta.detach()[:, :, axis : axis + 1] / vector[:, :, axis : axis + 1])
        delta = delta - shift * vector
    return delta


def pair_distances(positions: Tensor, first: Tensor, second: Tensor, box: Tensor) -> Tensor:
    """Distances between the atoms `first` and `second`, shape (n_frames, n_pairs) [nm]."""
    delta = positions.index_select(1, second) - positions.index_select(1, first)
    delta = minimum_image(delta, box)
    return torch.sqrt((delta * delta).sum(dim=-1))
