"""The pool: every simulated frame of every round with its latent coordinates under one model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.frames.walkers import WalkerFrames
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.periodic import frame_cells


@dataclass(frozen=True, repr=False)
class Pool:
    """All frames, walkers one after the other.

    Attributes
    ----------
    z
        Collective variables, shape (n_frames, latent_dim).
    states
        Metastable state of each frame, shape (n_frames,).
    owner, frame
        Index of the walker each frame came from, and its frame number there.
    walkers
        The walkers, in order.
    trajectories
        Their energies and weights, in the same order; without descriptors where they were not kept.
    n_states
        States of the model.
    """

    z: NDArray[np.float64]
    states: NDArray[np.int64]
    owner: NDArray[np.int64]
    frame: NDArray[np.int64]
    walkers: tuple[WalkerFrames, ...]
    trajectories: tuple[FeatureTrajectory, ...]
    n_states: int

    def __repr__(self) -> str:
        return f"Pool({len(self.z)} frames of {len(self.walkers)} walkers, {self.n_states} states)"

    def of_walker(self, index: int) -> slice:
        """Frames of one walker."""
        return slice(int(self._starts[index]), int(self._starts[index + 1]))

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """First frame of each walker, and the number of all."""
        return np.searchsorted(self.owner, np.arange(len(self.walkers) + 1))

    def with_other(self, other: "Pool") -> "Pool":
        """Return this pool with the frames of another one, under the same model, after its own."""
        return Pool(
            np.concatenate([self.z, other.z]),
            np.concatenate([self.states, other.states]),
            np.concatenate([self.owner, len(self.walkers) + other.owner]),
            np.concatenate([self.frame, other.frame]),
            self.walkers + other.walkers,
            self.trajectories + other.trajectories,
            self.n_states,
        )

    def first(self, n: int) -> "Pool":
        """Return the frames of the first `n` walkers."""
        last = int((self.owner < n).sum())
        return Pool(
            self.z[:last],
            self.states[:last],
            self.owner[:last],
            self.frame[:last],
            self.walkers[:n],
            self.trajectories[:n],
            self.n_states,
        )

    def energies(self) -> NDArray[np.float64]:
        """Potential energy of each frame, at constant pressure U + pV, shape (n_frames,) [kJ/mol]."""
        return np.concatenate([trajectory.potential_energy for trajectory in self.trajectories])

    def temperatures(self) -> NDArray[np.float64]:
        """Temperature of each frame, shape (n_frames,)."""
        return np.array([walker.temperature for walker in self.walkers])[self.owner]

    def structures(self, indices: NDArray[np.int64], topology: mdtraj.Topology) -> mdtraj.Trajectory:
        """Read chosen frames from disk, each trajectory once, in the order of `indices`.

        Raises
        ------
        DataError
            If a file cannot be read, or some frames have a box and others none.
        """
        xyz = np.empty((len(indices), topology.n_atoms, 3), np.float32)
        cells, present = np.zeros((len(indices), 3, 3)), np.zeros(len(indices), dtype=bool)
        for owner in np.unique(self.owner[indices]):
            rows = np.flatnonzero(self.owner[indices] == owner)
            frames, first = self.frame[indices[rows]], 0
            for piece in self.walkers[owner].chunks(topology):
                in_piece = (frames >= first) & (frames < first + piece.n_frames)
                places, target = frames[in_piece] - first, rows[in_piece]
                xyz[target] = piece.xyz[places]
                if (vectors := frame_cells(piece)) is not None:
                    cells[target], present[target] = vectors[places], True
                first += piece.n_frames
        if present.any() and not present.all():
            without = self.walkers[self.owner[indices[~present]][0]].files[0]
            raise DataError(f"{without}: has no periodic box, trajectories of the same pool have one")
        result = mdtraj.Trajectory(xyz, topology)
        if present.any():
            result.unitcell_vectors = cells
        return result


@torch.no_grad()
def encode(
    trained: TrainedModel, features: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Collective variables (n, latent_dim) and states (n,) of descriptors (n, n_features)."""
    latent = trained.model.encode(torch.from_numpy(features))
    return latent.double().numpy(), trained.model.assign(latent).numpy()


def make_pool(
    trained: TrainedModel, walkers: Sequence[WalkerFrames], trajectories: Sequence[FeatureTrajectory]
) -> Pool:
    """Encode and assign all frames with one model."""
    encoded = [encode(trained, trajectory.features) for trajectory in trajectories]
    return pool_of(walkers, trajectories, encoded, trained.model.n_states)


def pool_of(
    walkers: Sequence[WalkerFrames],
    trajectories: Sequence[FeatureTrajectory],
    encoded: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]],
    n_states: int,
) -> Pool:
    """Put walkers together whose frames are encoded and assigned already."""
    lengths = [trajectory.n_frames for trajectory in trajectories]
    return Pool(
        np.concatenate([z for z, _ in encoded]),
        np.concatenate([states for _, states in encoded]),
        np.repeat(np.arange(len(lengths)), lengths),
        np.concatenate([np.arange(n) for n in lengths]),
        tuple(walkers),
        tuple(trajectories),
        n_states,
    )
