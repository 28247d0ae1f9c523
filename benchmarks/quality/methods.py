"""Ways to estimate a distribution at a temperature from the same frames: ours and the competitors.

Every method gives probabilities of the cells of two planes (the latent plane of a model and the physical
plane of the system), state populations and, where it has weights for frames, energies.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from benchmarks.quality.cases import Array, Plane, SystemCase
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.model.latf import LatentThermodynamicFlow
from latf_openmm.model.transfer import frame_weights
from latf_openmm.reweighting.blocks import FrameBlocks
from latf_openmm.reweighting.free_energy import (
    LatentGrid,
    flow_populations,
    flow_probability,
    state_populations,
)
from latf_openmm.reweighting.weights import effective_sample_size, normalised_weights
from latf_openmm.training.fit import fit
from latf_openmm.training.settings import TrainingSettings

_FINE = 4
_BANDWIDTHS = (0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
_FOLDS = 5
_DRAWS = 40_000
_ENOUGH = 200.0
"""Effective sample size from which energies are averaged with plain MBAR weights."""


@dataclass(frozen=True)
class Estimate:
    """One method's answer at one temperature.

    Attributes
    ----------
    latent, physical
        Probability of each cell of the two planes; None where the method says nothing.
    populations, errors
        State populations and their reported standard errors (None where none is reported).
    energy, capacity
        Mean potential energy [kJ/mol] and its variance over kT^2, or None.
    members
        Probability of each latent cell under each member of the committee, or None.
    """

    latent: Array
    physical: Array | None
    populations: Array
    errors: Array | None = None
    energy: float | None = None
    capacity: float | None = None
    members: Array | None = None


@dataclass(frozen=True)
class Frames:
    """All training frames with what the methods need of them."""

    z: Array
    physical: Array
    states: NDArray[np.int64]
    energy: NDArray[np.float64]
    temperatures: NDArray[np.float64]
    folds: NDArray[np.int64]
    n_states: int

    @staticmethod
    @torch.no_grad()
    def of(
        trajectories: Sequence[FeatureTrajectory], model: LatentThermodynamicFlow, plane: Plane
    ) -> "Frames":
        """Encode, assign and fold the frames."""
        features = np.concatenate([t.features for t in trajectories])
        z = model.encode(torch.from_numpy(features))
        lengths = FrameBlocks(trajectories).lengths
        folds = np.repeat(np.random.default_rng(0).permutation(len(lengths)) % _FOLDS, lengths)
        return Frames(
            z.double().numpy(),
            plane.project(features.astype(np.float64)),
            model.assign(z).numpy(),
            np.concatenate([t.potential_energy for t in trajectories]),
            np.concatenate([np.full(t.n_frames, t.temperature) for t in trajectories]),
            folds,
            model.n_states,
        )


def train(
    case: SystemCase,
    trajectories: Sequence[FeatureTrajectory],
    lag: int,
    seed: int,
    prior_only: bool,
) -> tuple[LatentThermodynamicFlow, float]:
    """Train with the defaults, or in the paper's form; return the model and the seconds it took."""
    settings, model = TrainingSettings(lag=lag), case.model
    if prior_only:
        paper = {"energies": "ignore", "restarts": 1, "committee": 1, "decorrelation": 0.0}
        settings = settings.model_copy(update=paper)
        model = model.model_copy(update={"flow": model.flow.model_copy(update={"context": "none"})})
    start = time.perf_counter()
    result = fit(trajectories, model, settings, seed)
    return result.model, time.perf_counter() - start


def flow_estimate(
    model: LatentThermodynamicFlow,
    frames: Frames,
    log_weights: NDArray[np.float64],
    temperature: float,
    kT: float,
    grid: LatentGrid,
    plane: Plane,
) -> Estimate:
    """A trained flow: its closed form in the latent plane, weighted frames in the physical one."""
    density = model.density(temperature)
    populations, errors = flow_populations(model, temperature, _DRAWS)
    weights = frame_weights(density, frames.z, log_weights)
    reweighted = normalised_weights(log_weights)
    enough = np.ptp(log_weights) > 0 and effective_sample_size(log_weights) >= _ENOUGH
    each = flow_probability(model, temperature, grid, members=True)
    return Estimate(
        each.mean(axis=0),
        smoothed(frames.physical, weights, frames.folds, plane.edges, plane.periodic),
        populations,
        errors if model.n_members > 1 else None,
        *_energies(frames.energy, reweighted if enough else weights, kT),
        each,
    )


def histogram_estimate(
    frames: Frames, weights: Array, kT: float, grid: LatentGrid, plane: Plane, smooth: bool
) -> Estimate:
    """Weighted frames as histograms, or as kernel density estimates with a cross-validated bandwidth."""
    if smooth:
        latent = smoothed(frames.z, weights, frames.folds, grid.edges, False)
        physical = smoothed(frames.physical, weights, frames.folds, plane.edges, plane.periodic)
    else:
        latent = grid.histogram(frames.z, weights)
        physical = np.histogramdd(frames.physical, bins=list(plane.edges), weights=weights)[0]
    populations = state_populations(frames.states, weights, frames.n_states)
    return Estimate(latent, physical, populations, None, *_energies(frames.energy, weights, kT))


def nearest_weights(frames: Frames, temperature: float) -> Array:
    """Equal weights of the frames at the simulated temperature nearest in ln T."""
    simulated = np.unique(frames.temperatures)
    nearest = simulated[np.abs(np.log(simulated / temperature)).argmin()]
    weights = (frames.temperatures == nearest).astype(float)
    return weights / weights.sum()


def _energies(energy: NDArray[np.float64], weights: Array, kT: float) -> tuple[float, float]:
    mean = float(weights @ energy)
    return mean, float(weights @ (energy - mean) ** 2) / kT**2


def smoothed(
    points: Array, weights: Array, folds: NDArray[np.int64], edges: tuple[Array, ...], periodic: bool
) -> Array:
    """Kernel density estimate on cells; the bandwidth has the best likelihood on left-out blocks."""
    fine = [np.linspace(e[0], e[-1], _FINE * (len(e) - 1) + 1) for e in edges]
    each = np.array(
        [
            np.histogramdd(points[folds == fold], bins=fine, weights=weights[folds == fold])[0]
            for fold in range(_FOLDS)
        ]
    )
    total, mode = each.sum(axis=0), "wrap" if periodic else "constant"
    scores = []
    for bandwidth in _BANDWIDTHS:
        score = 0.0
        for part in each:
            density = gaussian_filter(total - part, bandwidth, mode=mode)
            score += float((part * np.log(density / density.sum() + 1e-9)).sum())
        scores.append(score)
    best = gaussian_filter(total, _BANDWIDTHS[int(np.argmax(scores))], mode=mode)
    n, m = (len(e) - 1 for e in edges)
    return np.asarray(best.reshape(n, _FINE, m, _FINE).sum(axis=(1, 3)))
