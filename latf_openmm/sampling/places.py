"""Places of walkers in the Contexts of a set, between which tempering moves them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from latf_openmm.sampling.walker_group import Present, WalkerGroup

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class Places:
    """Places of all walkers of several groups, one after the other; `latf_openmm.sampling.tempering.Walkers`.

    Parameters
    ----------
    groups
        Each with one Context.
    first
        Number of the first walker.

    Attributes
    ----------
    replicas
        Number of the walker in each place, shape (n,).
    """

    def __init__(self, groups: Sequence["WalkerGroup"], first: int) -> None:
        self.groups = groups
        sizes = [len(group.temperatures) for group in groups]
        ends = np.cumsum(sizes)
        self.rows = [slice(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)]
        self.replicas = first + np.arange(int(ends[-1]))

    @property
    def temperatures(self) -> Array:
        """Temperature of each place, in the scale of the system, shape (n,)."""
        return np.concatenate([group.temperatures for group in self.groups])

    @property
    def kT(self) -> Array:  # noqa: N802 - the field's own name
        """Thermal energy of each place [kJ/mol], shape (n,)."""
        return np.array([self.groups[0].built.scale.kT(t) for t in self.temperatures])

    def energies(self) -> Array:
        """U + pV of the walker in each place, without bias, shape (n,) [kJ/mol]."""
        return np.concatenate([group.energies() for group in self.groups])

    @torch.no_grad()
    def bias_energies(self) -> Array:
        """Bias of each place for the walker in each place, shape (n_places, n_walkers) [kJ/mol]."""
        n = len(self.replicas)
        energies = np.zeros((n, n))
        biased = [group for group in self.groups if group.cv is not None]
        if not biased:
            return energies
        cv, z = biased[0].cv, []
        assert cv is not None
        for group in self.groups:
            present = group.present()
            box = torch.empty(0) if present.boxes is None else torch.from_numpy(present.boxes.copy())
            z.append(cv(torch.from_numpy(present.positions), box))
        variables = torch.cat(z)
        for group, rows in zip(self.groups, self.rows, strict=True):
            if group.bias is not None:
                energies[rows] = group.bias(variables).numpy()
        return energies

    def exchange(self, walkers: Indices) -> None:
        """Put into each place the walker that is in the place given, shape (n,), with velocities of the place."""
        moved = walkers != np.arange(len(walkers))
        if not moved.any():
            return
        every = [group.present() for group in self.groups]
        positions, velocities = (np.concatenate(part) for part in _columns(every))
        boxes = (
            None
            if every[0].boxes is None
            else np.concatenate([p.boxes for p in every if p.boxes is not None])
        )
        scale = np.sqrt(self.kT / self.kT[walkers])[:, None, None]
        for group, rows, present in zip(self.groups, self.rows, every, strict=True):
            if moved[rows].any():
                taken = walkers[rows]
                cells = None if boxes is None else boxes[taken]
                group.put(type(present)(positions[taken], velocities[taken] * scale[rows], cells))
        self.replicas = self.replicas[walkers]

    def set_temperatures(self, temperatures: Array) -> None:
        """Give each place a temperature, and its walker velocities of it."""
        for group, rows in zip(self.groups, self.rows, strict=True):
            group.set_temperatures(temperatures[rows])


def _columns(every: Sequence["Present"]) -> tuple[list[Array], list[Array]]:
    """Positions and velocities of each group."""
    return [present.positions for present in every], [present.velocities for present in every]
