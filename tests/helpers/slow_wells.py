"""A slow coordinate in two wells of known energies, with a bath of fast oscillators that hides them."""

import numpy as np
from numpy.typing import NDArray

from latf_openmm.frames.trajectory import FeatureTrajectory, RecordedEnergies
from latf_openmm.reweighting.temperatures import Basins
from latf_openmm.units import REDUCED

Array = NDArray[np.float64]
TILT = 0.5


def energy(x: Array, barrier: float) -> Array:
    """U(x): two wells at -1 and 1, the right one higher by 2 x `TILT`."""
    return barrier * (x * x - 1) ** 2 + TILT * x


def mean_energy(temperature: float, barrier: float, low: float, high: float) -> float:
    """Mean of U(x) from `low` to `high`, by quadrature."""
    x = np.linspace(low, high, 4001)
    u = energy(x, barrier)
    weights = np.exp(-u / temperature)
    return float(weights @ u / weights.sum())


def recorded_walkers(
    temperatures: tuple[float, ...],
    barrier: float,
    step: float,
    *,
    n_walkers: int = 10,
    frames: int = 500,
    recordings: int = 20,
    bath: int = 1000,
    seed: int = 0,
) -> tuple[list[FeatureTrajectory], Basins]:
    """Metropolis walks in x with steps of `step`, one a recording; the bath is new at each.

    Windows are those of the sampler: `recordings` // 2 before the frame, it, and the others after it.
    """
    rng = np.random.default_rng(seed)
    n, trajectories = recordings, []
    for temperature in temperatures:
        x = np.where(np.arange(n_walkers) % 2 == 0, -1.0, 1.0)
        series, energies = (np.empty(((frames + 21) * n, n_walkers)) for _ in range(2))
        for i in range(len(series)):
            new = x + step * rng.normal(size=x.shape)
            taken = np.log(rng.random(x.shape)) < (energy(x, barrier) - energy(new, barrier)) / temperature
            x = np.where(taken, new, x)
            series[i] = x
            energies[i] = energy(x, barrier) + 0.5 * temperature * rng.chisquare(bath, n_walkers)
        at = (np.arange(frames) + 20) * n
        windows = energies[at[:, None] + np.arange(-(n // 2), n - n // 2)]
        counts, means, variances = np.full(frames, float(n)), windows.mean(axis=1), windows.var(axis=1)
        trajectories += [
            FeatureTrajectory(
                series[at, i, None].astype(np.float32),
                temperature,
                1.0,
                energies[at, i],
                np.zeros(frames),
                run=f"T{temperature:g}",
                name=f"{temperature:g} {i}",
                scale=REDUCED,
                recorded=RecordedEnergies(counts, means[:, i], variances[:, i]),
            )
            for i in range(n_walkers)
        ]
    z = np.concatenate([t.features for t in trajectories]).astype(np.float64)
    return trajectories, Basins(z, (z[:, 0] > 0).astype(np.int64), 2)
