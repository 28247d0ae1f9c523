"""Walkers in two basins of different width and depth, whose shares are known at every temperature."""

import numpy as np
from numpy.typing import NDArray

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.temperatures import Basins
from latf_openmm.units import REDUCED

Array = NDArray[np.float64]

TILT, STIFFNESS = 0.5, 8.0
"""Slope along x, and how much stiffer y is in the right basin."""


def energy(x: Array, y: Array, barrier: float) -> Array:
    """U(x, y): a double well along x, tilted, with a narrow right basin."""
    stiff = 1 + STIFFNESS / (1 + np.exp(-8 * x))
    return barrier * (x * x - 1) ** 2 + TILT * x + 0.5 * stiff * y * y


def right_share(temperature: float, barrier: float) -> float:
    """Population of x > 0 by quadrature; y is Gaussian for given x."""
    x = np.linspace(-3.0, 3.0, 20_001)
    stiff = 1 + STIFFNESS / (1 + np.exp(-8 * x))
    weights = np.exp(-energy(x, np.zeros_like(x), barrier) / temperature) / np.sqrt(stiff)
    return float(weights[x > 0].sum() / weights.sum())


def simulate(
    temperature: float, barrier: float, start: Array, frames: int, every: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Metropolis walks from x = `start` (n_walkers,); positions (frames, n_walkers, 2) and energies."""
    x, y = start.copy(), rng.normal(size=start.shape) * np.sqrt(temperature) / 2
    u = energy(x, y, barrier)
    positions, energies = np.empty((frames, len(start), 2)), np.empty((frames, len(start)))
    for frame in range(frames):
        for _ in range(every):
            new_x, new_y = x + 0.25 * rng.normal(size=x.shape), y + 0.5 * rng.normal(size=x.shape)
            new = energy(new_x, new_y, barrier)
            taken = np.log(rng.random(x.shape)) < (u - new) / temperature
            x, y, u = np.where(taken, new_x, x), np.where(taken, new_y, y), np.where(taken, new, u)
        positions[frame], energies[frame] = np.stack([x, y], axis=1), u
    return positions, energies


def walkers(
    temperatures: tuple[float, ...],
    barrier: float,
    right: float,
    n_walkers: int = 10,
    frames: int = 1000,
    bath: int = 0,
    seed: int = 0,
) -> tuple[list[FeatureTrajectory], Basins]:
    """Walkers at each temperature, of which the share `right` starts in the right basin, and their basins.

    `bath` harmonic degrees of freedom that are coupled to nothing are added to the energies.
    """
    rng = np.random.default_rng(seed)
    trajectories = []
    for temperature in temperatures:
        start = np.where(np.arange(n_walkers) < right * n_walkers, 1.0, -1.0)
        xy, energies = simulate(temperature, barrier, start, frames + frames // 10, 10, rng)
        xy, energies = xy[frames // 10 :], energies[frames // 10 :]
        energies = energies + 0.5 * temperature * (rng.chisquare(bath, energies.shape) if bath else 0.0)
        trajectories += [
            FeatureTrajectory(
                xy[:, i].astype(np.float32),
                temperature,
                1.0,
                energies[:, i],
                np.zeros(frames),
                run=f"T{temperature:g}",
                name=f"{temperature:g} {i}",
                scale=REDUCED,
            )
            for i in range(n_walkers)
        ]
    z = np.concatenate([t.features for t in trajectories]).astype(np.float64)
    return trajectories, Basins(z, (z[:, 0] > 0).astype(np.int64), 2)
