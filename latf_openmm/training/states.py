"""The states stage: metastable states from several starts, each refined by training and relabelling in turn."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from latf_openmm.model.latf import LatentThermodynamicFlow
from latf_openmm.progress import Advance, bar
from latf_openmm.training.objective import RepresentativePrior
from latf_openmm.training.run import PART, Stage, TrainingRun

log = logging.getLogger(__name__)

_MAX_FOR_CLUSTERS = 200_000
"""Frames that the clusters at the start are made of; evenly chosen from more."""


@dataclass(frozen=True)
class FoundStates:
    """Metastable states of one refinement, or of the best of several.

    Attributes
    ----------
    labels
        State of every frame, shape (n_frames,).
    settled
        Whether they stopped changing before the refinements ran out.
    information
        Predictive information on held-out pairs: entropy of the states one lag later, less what is left of
        it once z is known (nats).
    """

    labels: Tensor
    settled: bool
    information: float


def find_states(run: TrainingRun, seed: int, progress: Progress | None) -> FoundStates:
    """Refine the states from several starts; the model ends as the most predictive of them."""
    s, best, best_state, best_decoder = run.settings, None, None, run.model.decoder
    with bar(progress, "  states", s.restarts * s.refinements * s.epochs_states) as advance:
        for start in range(s.restarts):
            if start:
                run.model.encoder = run.new_encoder()
            refined = _refine_states(run, seed + 7919 * start, advance)
            log.info("start %d: %d states, information %.3f", start, run.model.n_states, refined.information)
            if best is None or refined.information > best.information:
                best, best_decoder = refined, run.model.decoder
                best_state = copy.deepcopy(run.model.state_dict())
    assert best is not None and best_state is not None
    run.model.decoder = best_decoder
    run.model.load_state_dict(best_state)
    return best


def _refine_states(run: TrainingRun, seed: int, advance: Advance) -> FoundStates:
    """Refine the states until they stop changing."""
    s, settled = run.settings, False
    labels = initial_labels(run.features, run.pairs.weights, s.initial_states, seed, run.model.normalise)
    run.model.decoder = run.new_decoder(int(labels.max()) + 1)
    for refinement in range(s.refinements):
        share = populations(labels, run.weights, run.model.n_states)
        inputs = representative_inputs(run.features, labels, run.weights, run.model.n_states)
        inputs = torch.where(share.unsqueeze(1) > 0, run.model.normalise(inputs), 0.0)
        prior = RepresentativePrior(inputs, share)
        parameters = [
            *run.model.encoder.parameters(),
            *run.model.decoder.parameters(),
            *prior.parameters(),
        ]
        stage = Stage("states", prior, parameters, s.epochs_states, 2, refinement)
        run.train(labels, stage, advance)
        new, dropped = relabel(run.model, run.encode(), run.weights, s.minimum_population)
        changed = float((run.weights * (new != labels)).sum() / run.weights.sum())
        labels = new
        log.info("refinement %d: %d states, %d dropped", refinement, run.model.n_states, dropped)
        if dropped == 0 and changed < s.label_tolerance:
            settled = True
            break
    return FoundStates(labels, settled, _information(run, labels, stage))


def _information(run: TrainingRun, labels: Tensor, stage: Stage) -> float:
    """Predictive information of the states on held-out pairs (nats)."""
    first = torch.from_numpy(run.pairs.held_out).to(labels.device)
    share = populations(labels[first + run.pairs.lag], run.weights[first], run.model.n_states)
    entropy = float(-torch.xlogy(share, share).sum())
    return entropy - run.evaluate(labels, stage).prediction


def initial_labels(
    features: Tensor,
    weights: NDArray[np.float64],
    n_clusters: int,
    seed: int,
    standardise: Callable[[Tensor], Tensor],
) -> Tensor:
    """k-means labels of standardised descriptors, numbered 0..k-1 without gaps, shape (n_frames,)."""
    from sklearn.cluster import MiniBatchKMeans  # half a second, and few commands need it

    every = -(-len(features) // _MAX_FOR_CLUSTERS)
    sample = standardise(features[::every]).cpu().numpy()
    n_clusters = min(n_clusters, len(np.unique(sample, axis=0)))
    means = MiniBatchKMeans(n_clusters, random_state=seed, n_init=3, batch_size=4096)
    means.fit(sample, sample_weight=weights[::every])
    parts = (standardise(part).cpu().numpy() for part in features.split(PART))
    labels = np.concatenate([means.predict(part) for part in parts])
    compact = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return torch.from_numpy(compact).to(features.device)


def populations(labels: Tensor, weights: Tensor, n_states: int) -> Tensor:
    """Weighted fraction of frames in each state, shape (n_states,)."""
    return torch.bincount(labels, weights, minlength=n_states) / weights.sum()


@torch.no_grad()
def relabel(model: LatentThermodynamicFlow, z: Tensor, weights: Tensor, minimum: float) -> tuple[Tensor, int]:
    """Assign every point by argmax q(y|z) and drop states below the `minimum` population.

    The decoder loses the outputs of dropped states, so the labels returned are 0..n_states-1 again.

    Parameters
    ----------
    z
        Collective variables of all frames, shape (n_frames, latent_dim).
    weights
        Of the frames, shape (n_frames,).

    Returns
    -------
    labels, dropped
        Shape (n_frames,), and how many states were dropped.
    """
    labels, dropped = model.assign(z), 0
    while True:
        share = populations(labels, weights, model.n_states)
        if (share >= minimum).all() or model.n_states == 1:
            return labels, dropped
        # One at a time, smallest first: its frames may lift another state above the minimum.
        empty = share == 0
        bad = empty if empty.any() else torch.arange(model.n_states) == int(share.argmin())
        keep = [state for state in range(model.n_states) if not bool(bad[state])]
        dropped += model.n_states - len(keep)
        model.decoder.keep(keep)
        number = torch.full((len(bad),), -1, device=labels.device)
        number[keep] = torch.arange(len(keep), device=labels.device)
        labels = number[labels]
        # Only frames of a dropped state change theirs.
        lost = torch.nonzero(labels < 0).squeeze(1)
        if len(lost):
            labels[lost] = model.assign(z[lost])


def representative_inputs(features: Tensor, labels: Tensor, weights: Tensor, n_states: int) -> Tensor:
    """Weighted mean descriptor of each state, shape (n_states, n_features)."""
    sums = torch.zeros((n_states, features.shape[1]), dtype=torch.float64, device=features.device)
    for x, states, w in zip(features.split(PART), labels.split(PART), weights.split(PART), strict=True):
        sums.index_add_(0, states, x.double() * w.double().unsqueeze(1))
    totals = torch.bincount(labels, weights.double(), minlength=n_states).clamp_min(1e-12)
    return (sums / totals.unsqueeze(1)).to(features)
