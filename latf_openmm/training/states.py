"""Metastable states during training: initial labels, relabelling, pruning, representative inputs."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from latf_openmm.model.latf import LatentThermodynamicFlow


def initial_labels(
    features: NDArray[np.float32], weights: NDArray[np.float64], n_clusters: int, seed: int
) -> NDArray[np.int64]:
    """k-means labels of standardised descriptors, numbered 0..k-1 without gaps, shape (n_frames,)."""
    n_clusters = min(n_clusters, len(np.unique(features, axis=0)))
    means = MiniBatchKMeans(n_clusters, random_state=seed, n_init=3, batch_size=4096)
    labels = means.fit(features, sample_weight=weights).predict(features)
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)


def populations(labels: Tensor, weights: Tensor, n_states: int) -> Tensor:
    """Weighted fraction of frames in each state, shape (n_states,)."""
    return torch.bincount(labels, weights, minlength=n_states) / weights.sum()


@torch.no_grad()
def relabel(
    model: LatentThermodynamicFlow, features: Tensor, weights: Tensor, minimum: float
) -> tuple[Tensor, int]:
    """Assign every frame by argmax q(y|z) and drop states below the `minimum` population.

    The decoder loses the outputs of dropped states, so the labels returned are 0..n_states-1 again.

    Returns
    -------
    labels, dropped
        Shape (n_frames,), and how many states were dropped.
    """
    mean = model.encoder(features)
    dropped = 0
    while True:
        labels = model.assign(mean)
        share = populations(labels, weights, model.n_states)
        if (share >= minimum).all() or model.n_states == 1:
            return labels, dropped
        # One at a time, smallest first: its frames may lift another state above the minimum.
        empty = share == 0
        bad = empty if empty.any() else torch.arange(model.n_states) == int(share.argmin())
        keep = [state for state in range(model.n_states) if not bool(bad[state])]
        dropped += model.n_states - len(keep)
        model.decoder.keep(keep)


def representative_inputs(features: Tensor, labels: Tensor, weights: Tensor, n_states: int) -> Tensor:
    """Weighted mean descriptor of each state, shape (n_states, n_features)."""
    one_hot = torch.nn.functional.one_hot(labels, n_states).to(features) * weights.to(features).unsqueeze(1)
    return (one_hot.T @ features) / one_hot.sum(dim=0).clamp_min(1e-12).unsqueeze(1)
