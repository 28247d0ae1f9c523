"""Several features side by side: resolved, named apart, built as one module."""

from collections import Counter
from collections.abc import Sequence

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latf_openmm.errors import ConfigError
from latf_openmm.features.base import Features, FeatureSettings
from latf_openmm.features.readings import Reading


class JoinedFeatures(Features):
    """Concatenation of several features, in order."""

    def __init__(self, parts: Sequence[Features]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.names = [name for part in parts for name in part.names]
        self.invariant = all(part.invariant for part in parts)

    def readings(self, values: NDArray[np.floating]) -> list[Reading]:
        """Those of all parts, in order."""
        ends = np.cumsum([part.n_features for part in self.parts])
        columns = np.split(values, ends[:-1], axis=1)
        return [
            reading
            for part, block in zip(self.parts, columns, strict=True)
            for reading in part.readings(block)  # type: ignore[operator]
        ]

    def used_atoms(self) -> Tensor | None:
        """Atoms any part depends on."""
        each = [part.used_atoms() for part in self.parts]  # type: ignore[operator]
        if any(atoms is None for atoms in each):
            return None
        return torch.unique(torch.cat(each))

    def compact(self, new: Tensor, n_atoms: int) -> None:
        """Compact every part."""
        for part in self.parts:
            part.compact(new, n_atoms)  # type: ignore[operator]

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return all descriptors side by side, shape (n_frames, n_features)."""
        columns: list[Tensor] = []
        for part in self.parts:
            columns.append(part(positions, box))
        return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)


def resolve_features(settings: Sequence[FeatureSettings], topology: mdtraj.Topology) -> list[FeatureSettings]:
    """Resolve all settings against `topology`.

    Parameters
    ----------
    settings
        Of features, whose descriptors are joined in this order.
    topology
        Of the structures.

    Returns
    -------
    list of FeatureSettings
        The same with explicit atoms, for `build_features`.

    Raises
    ------
    ConfigError
        If atoms are not in `topology` or descriptors are called the same; every problem, a line each.
    """
    resolved, problems = [], []
    for index, item in enumerate(settings):
        try:
            resolved.append(item.resolve(topology))
        except ConfigError as error:
            problems += [f"features[{index}]: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(*problems)
    return _told_apart(resolved)


def _told_apart(resolved: Sequence[FeatureSettings]) -> list[FeatureSettings]:
    """Label features whose descriptors are called as those of one before; refuse equal names within one."""
    taken: set[str] = set()
    labelled: list[FeatureSettings] = []
    problems = []
    for index, item in enumerate(resolved):
        names = item.build().names
        label = None if taken.isdisjoint(names) else f"#{index + 1}"
        names = _labelled(names, label)
        repeated = [name for name, count in Counter(names).items() if count > 1 or name in taken]
        problems += [
            f"features[{index}]: two descriptors are called {name!r}; expected each once, by its own name"
            for name in repeated[:1]
        ]
        taken.update(names)
        labelled.append(item.model_copy(update={"label": label}))
    if problems:
        raise ConfigError(*problems)
    return labelled


def _labelled(names: Sequence[str], label: str | None) -> list[str]:
    return list(names) if label is None else [f"{name} {label}" for name in names]


def build_features(resolved: Sequence[FeatureSettings], molecules: Sequence[int] | None = None) -> Features:
    """Build the joined module of resolved settings.

    Parameters
    ----------
    resolved
        What `resolve_features` returned.
    molecules
        Index of the molecule of each atom; None: not known, all vectors are those to the nearest image.

    Returns
    -------
    Features
        A torch module from positions [nm], shape (n_frames, n_atoms, 3), and box vectors, shape (n_frames, 3, 3) or
        empty, to descriptors, shape (n_frames, n_features).
    """
    parts = [item.build() for item in resolved]
    for item, part in zip(resolved, parts, strict=True):
        part.names = _labelled(part.names, item.label)
    features = JoinedFeatures(parts)
    if molecules is not None:
        features.join_molecules(molecules)
    return features


def keep_columns(
    resolved: Sequence[FeatureSettings], columns: Sequence[int]
) -> tuple[list[FeatureSettings], list[int]]:
    """Return the settings of the fewest descriptors that hold `columns` of the joined ones, and their columns."""
    kept: list[FeatureSettings] = []
    kept_columns: list[int] = []
    first = 0
    for item in resolved:
        n = item.build().n_features
        wanted = [column - first for column in columns if first <= column < first + n]
        if wanted:
            fewer, chosen = item.keep(wanted)
            kept.append(fewer)
            kept_columns += [first + column for column in chosen]
        first += n
    return kept, kept_columns
