"""From points of r_T(z) back to frames: simulated frames weighted so that they stand for a temperature.

r_T(z) says how much of the ensemble lies near z; among the frames near z the MBAR weights say which of them
belong to that temperature. So the density may rest on all the flow has learned, also where the MBAR weights
of the whole pool are carried by a few frames, and basins still keep their inner structure at T.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import logsumexp

from latf_openmm.model.latf import LatentDensity


def nearest_frames(
    points: NDArray[np.float64], z: NDArray[np.float64], log_weights: NDArray[np.float64], neighbours: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the frames that stand for points of the density, in proportion to their MBAR weights.

    Parameters
    ----------
    points, z
        Collective variables of the points and of the frames, shapes (n, latent_dim) and (n_frames, latent_dim).
    log_weights
        Logarithm of each frame's MBAR weight, shape (n_frames,).
    neighbours
        Frames for each point, k; all where there are fewer.

    Returns
    -------
    frames, shares, distances
        The frames nearest to each point and their shares, which sum to one, each (n, k), and the distance of each point
        to the nearest one in standard deviations of `z`, shape (n,).
    """
    scale = z.std(axis=0) + 1e-12
    k = min(neighbours, len(z))
    distances, frames = cKDTree(z / scale).query(points / scale, k=k)
    frames = frames.reshape(len(points), k)
    logs = log_weights[frames]
    shares = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    return frames, shares, distances.reshape(len(points), k)[:, 0]


def frame_weights(
    density: LatentDensity,
    z: NDArray[np.float64],
    log_weights: NDArray[np.float64],
    samples: int = 200_000,
    neighbours: int = 10,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Weights of the frames at the density's temperature, summing to one; shape (n_frames,).

    Parameters
    ----------
    density
        r_T(z).
    z
        Collective variables of the frames, shape (n_frames, latent_dim).
    log_weights
        Logarithm of each frame's MBAR weight at the same temperature, or zeros without energies.
    samples
        Points drawn from r_T(z); each hands its share to the frames nearest to it.
    neighbours
        Frames that share one point, in proportion to their MBAR weights.
    """
    points = density.sample(samples, torch.Generator().manual_seed(seed)).double().numpy()
    frames, shares, _ = nearest_frames(points, z, log_weights, neighbours)
    return np.asarray(np.bincount(frames.ravel(), shares.ravel() / samples, len(z)), dtype=np.float64)
