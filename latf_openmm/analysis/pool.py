"""The pool: every simulated frame of every round with its latent coordinates under one model."""

from collections.abc import Sequence
from dataclasses import dataclass

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray

from latf_openmm.data.trajectory import FeatureTrajectory
from latf_openmm.data.walkers import WalkerFrames
from latf_openmm.model.checkpoint import TrainedModel


@dataclass(frozen=True)
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
        Their descriptors and weights, in the same order.
    """

    z: NDArray[np.float64]
    states: NDArray[np.int64]
    owner: NDArray[np.int64]
    frame: NDArray[np.int64]
    walkers: tuple[WalkerFrames, ...]
    trajectories: tuple[FeatureTrajectory, ...]

    def of_walker(self, index: int) -> NDArray[np.bool_]:
        """Mask of the frames of one walker."""
        return self.owner == index

    def temperatures(self) -> NDArray[np.float64]:
        """Temperature of each frame, shape (n_frames,)."""
        return np.array([walker.temperature for walker in self.walkers])[self.owner]

    def structures(self, indices: NDArray[np.int64], topology: mdtraj.Topology) -> mdtraj.Trajectory:
        """Read chosen frames from disk, each trajectory once, in the order of `indices`."""
        xyz = np.empty((len(indices), topology.n_atoms, 3), np.float32)
        cells: NDArray[np.float32] | None = None
        for owner in np.unique(self.owner[indices]):
            rows = np.flatnonzero(self.owner[indices] == owner)
            source = self.walkers[owner].load(topology)
            frames = self.frame[indices[rows]]
            xyz[rows] = source.xyz[frames]
            if source.unitcell_vectors is not None:
                cells = np.empty((len(indices), 3, 3), np.float32) if cells is None else cells
                cells[rows] = source.unitcell_vectors[frames]
        result = mdtraj.Trajectory(xyz, topology)
        if cells is not None:
            result.unitcell_vectors = cells
        return result


@torch.no_grad()
def make_pool(
    trained: TrainedModel, walkers: Sequence[WalkerFrames], trajectories: Sequence[FeatureTrajectory]
) -> Pool:
    """Encode and assign all frames with one model."""
    z, states = [], []
    for trajectory in trajectories:
        latent = trained.model.encode(torch.from_numpy(trajectory.features))
        z.append(latent.double().numpy())
        states.append(trained.model.assign(latent).numpy())
    lengths = [trajectory.n_frames for trajectory in trajectories]
    return Pool(
        np.concatenate(z),
        np.concatenate(states),
        np.repeat(np.arange(len(lengths)), lengths),
        np.concatenate([np.arange(n) for n in lengths]),
        tuple(walkers),
        tuple(trajectories),
    )
