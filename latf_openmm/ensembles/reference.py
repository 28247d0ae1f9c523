"""The best independent answer there is for r_T(z): exact quadrature, or validation runs, or nothing."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from latf_openmm.ensembles.pool import Pool
from latf_openmm.frames.trajectory import featurise
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.reweighting.free_energy import (
    LatentGrid,
    bootstrap_populations,
    jensen_shannon,
    state_populations,
)
from latf_openmm.systems import SystemSettings


@dataclass(frozen=True)
class Reference:
    """Samples of the true distribution at one temperature, in the latent space of a model.

    Attributes
    ----------
    kind
        ``"exact"`` (quadrature) or ``"independent runs"``.
    z, weights
        Shapes (n, latent_dim) and (n,); the weights sum to one.
    populations, errors
        State populations and their standard errors (zero for quadrature), shape (n_states,).
    halves
        Indices of the samples of each half of the walkers; None for quadrature.
    """

    kind: str
    z: NDArray[np.float64]
    weights: NDArray[np.float64]
    populations: NDArray[np.float64]
    errors: NDArray[np.float64]
    halves: tuple[NDArray[np.int64], NDArray[np.int64]] | None

    def probability(self, grid: LatentGrid) -> NDArray[np.float64]:
        """Probability of each cell."""
        return grid.histogram(self.z, self.weights)

    def floor(self, grid: LatentGrid) -> float:
        """Jensen-Shannon divergence (nats) between two halves of the runs: what sampling alone leaves."""
        if self.halves is None:
            return 0.0
        return jensen_shannon(*(grid.histogram(self.z[half]) for half in self.halves))


def find_reference(
    system: SystemSettings, trained: TrainedModel, validation: Pool | None, temperature: float
) -> Reference | None:
    """Return the reference at one temperature, or None where there is none."""
    exact = system.exact_ensemble(temperature)
    if exact is not None:
        return _exact(trained, exact.positions, exact.weights)
    if validation is None:
        return None
    members = [i for i, w in enumerate(validation.walkers) if np.isclose(w.temperature, temperature)]
    return _runs(trained, validation, members) if members else None


@torch.no_grad()
def _exact(trained: TrainedModel, positions: NDArray[np.float64], weights: NDArray[np.float64]) -> Reference:
    latent = trained.model.encode(torch.from_numpy(featurise(trained.feature_module(), positions)))
    states = trained.model.assign(latent).numpy()
    share = state_populations(states, weights, trained.model.n_states)
    return Reference("exact", latent.double().numpy(), weights, share, np.zeros_like(share), None)


def _runs(trained: TrainedModel, pool: Pool, members: list[int]) -> Reference:
    masks = [np.arange(len(pool.z))[pool.of_walker(i)] for i in members]
    share, errors = bootstrap_populations(
        [pool.states[mask] for mask in masks],
        [np.ones(len(mask)) for mask in masks],
        trained.model.n_states,
        np.random.default_rng(0),
    )
    chosen = np.concatenate(masks)
    owner = np.repeat(np.arange(len(masks)), [len(mask) for mask in masks])
    first = owner < max(1, len(masks) // 2) if len(masks) > 1 else np.arange(len(chosen)) < len(chosen) // 2
    halves = (np.flatnonzero(first), np.flatnonzero(~first))
    weights = np.full(len(chosen), 1.0 / len(chosen))
    return Reference("independent runs", pool.z[chosen], weights, share, errors, halves)
