"""Helpers of several test files, made for those of ensemble."""

import numpy as np
import torch

from latf_openmm.ensembles.pool import Pool
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.frames.walkers import WalkerFrames
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.model.flow import FlowSettings
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.units import REDUCED

DIM = 4


def model(members: int = 3) -> LatentThermodynamicFlow:
    """z = (x0, x1), and r_T(z) is exact: the prior is a Gaussian of variance T."""
    settings = ModelSettings(latent_dim=2, tau=0.0, flow=FlowSettings(layers=2, hidden=[4], bins=3))
    torch.manual_seed(0)
    made = LatentThermodynamicFlow(settings, DIM, 2, 1.0, n_members=members)
    with torch.no_grad():
        made.encoder.mean[0].weight.copy_(torch.eye(DIM)[:2])
        made.encoder.mean[0].bias.zero_()
    for flow in made.flows:
        flow.whiten(torch.zeros(2), torch.ones(2))  # type: ignore[operator]
    return made


def trained(members: int = 3, temperatures: tuple[float, ...] = (1.0, 2.0)) -> TrainedModel:
    return TrainedModel(model(members), (), (), "reduced", temperatures)


def walk(temperature: float, n: int, seed: int, stiffening: float, correlation: float) -> FeatureTrajectory:
    """A stationary walk of U = |x|^2 / 2 at T, under a bias V = stiffening |x|^2 / 2."""
    rng = np.random.default_rng(seed)
    x = np.empty((n, DIM))
    x[0] = rng.normal(size=DIM)
    for i in range(1, n):
        x[i] = correlation * x[i - 1] + np.sqrt(1 - correlation**2) * rng.normal(size=DIM)
    x *= np.sqrt(temperature / (1 + stiffening))
    energy = 0.5 * (x**2).sum(axis=1)
    run = f"T{temperature:g} {stiffening:g}"
    bias = stiffening * energy / temperature
    return FeatureTrajectory(
        x.astype(np.float32), temperature, 1.0, energy, bias, run=run, name=f"{seed}", scale=REDUCED
    )


def pool_of(*trajectories: FeatureTrajectory) -> Pool:
    x = np.concatenate([t.features for t in trajectories]).astype(np.float64)
    lengths = [t.n_frames for t in trajectories]
    walkers = tuple(
        WalkerFrames(t.run, i, t.temperature, None, ())  # type: ignore[arg-type]
        for i, t in enumerate(trajectories)
    )
    return Pool(
        x[:, :2],
        (x[:, 0] > 0.5).astype(np.int64),
        np.repeat(np.arange(len(lengths)), lengths),
        np.concatenate([np.arange(n) for n in lengths]),
        walkers,
        tuple(trajectories),
        2,
    )


def plenty(seed: int = 0, n: int = 4000, correlation: float = 0.8) -> Pool:
    return pool_of(
        *(walk(1.0, n, 10 * seed + i, 0.0, correlation) for i in range(2)),
        walk(2.0, n, 10 * seed + 2, 0.0, correlation),
        walk(1.0, n, 10 * seed + 3, -0.4, correlation),
    )


def beyond(temperature: float) -> float:
    """Population of x0 > 0.5."""
    from scipy.stats import norm

    return float(norm.sf(0.5 / np.sqrt(temperature)))
