"""A dimer in a WCA fluid: frames of T = 0.8 and 1.6, asked half-way and beyond.

Truths are runs at the temperatures asked, with a lower barrier (undone by weights) where there are such.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gap.methods import Weights
from benchmarks.gap.solvents import BARRIER, DENSITY, SHORT, WIDTH
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.free_energy import jensen_shannon
from latf_openmm.reweighting.temperatures import Basins, Reweighting
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.units import REDUCED

SIMULATED, ASKED = (0.8, 1.6), (1.1, 2.2)
Array = NDArray[np.float64]

_BINS = np.linspace(0.8, 2.2, 57)
_BLOCKS = 10
"""Blocks of a run, for the error of a truth."""


def cases(seed: int) -> list[dict[str, Any]]:
    """Sizes of the solvent."""
    return [{"particles": 250, "seed": seed}]


def rows(work: Path, particles: int, seed: int) -> list[dict[str, Any]]:
    """Divergence of the distance and share of the extended dimer."""
    folder = work / f"dimer{particles}"
    trajectories = [_trajectory(folder / f"T{t:g}_seed{seed}.npz", t, particles) for t in SIMULATED]
    r = np.concatenate([t.features[:, 0] for t in trajectories]).astype(np.float64)
    basins = Basins(r[:, None], _extended(r).astype(np.int64), 2)
    weighting = TemperatureWeighting(trajectories, basins)
    weights = Weights(weighting, Reweighting(trajectories, weighting.inefficiency))
    result = []
    for temperature in ASKED:
        truth = Truth.of(folder, temperature, particles)
        for method, replicates in weights.at(temperature).items():
            density = np.histogram(r, _BINS, weights=replicates.weights)[0]
            share, error = weights.shares(replicates, _extended(r))
            known = {"share": share, "reported": error, "truth": truth.share, "truth_error": truth.error}
            result.append(
                {
                    "temperature": temperature,
                    "method": method,
                    "js": jensen_shannon(density / density.sum(), truth.density),
                    "shares": [known],
                    "mbar_share": weighting.mbar_share(temperature),
                }
            )
    return result


@dataclass(frozen=True)
class Truth:
    """What runs at one temperature say.

    Attributes
    ----------
    density
        Of the distance, in bins.
    share, error
        Of the extended dimer, from blocks of all runs.
    """

    density: Array
    share: float
    error: float

    @staticmethod
    def of(folder: Path, temperature: float, particles: int) -> "Truth":
        """Read the runs, those with a lower barrier where there are some."""
        density, inside, total = np.zeros(len(_BINS) - 1), [], []
        lower = [file for file in folder.glob(f"barrier*_T{temperature:g}_seed*.npz") if _complete(file)]
        for file in sorted(lower) or sorted(filter(_complete, folder.glob(f"T{temperature:g}_seed*.npz"))):
            with np.load(file) as data:
                r = _distance(data["xyz"], particles)
            barrier = float(file.name.removeprefix("barrier").split("_")[0]) if lower else BARRIER
            bond = (1 - ((r - SHORT - WIDTH) / WIDTH) ** 2) ** 2
            w = np.exp(-(BARRIER - barrier) * bond / temperature)
            density += np.histogram(r, _BINS, weights=w)[0]
            for rows in np.array_split(np.arange(len(r)), _BLOCKS):
                inside.append(w[rows] @ _extended(r[rows]))
                total.append(w[rows].sum())
        a, b = np.array(inside), np.array(total)
        drawn = np.random.default_rng(0).integers(0, len(a), (500, len(a)))
        redone = a[drawn].sum(axis=1) / b[drawn].sum(axis=1)
        return Truth(density, float(a.sum() / b.sum()), float(redone.std(ddof=1)))


def _complete(file: Path) -> bool:
    return ".partial" not in file.name


def _trajectory(file: Path, temperature: float, particles: int) -> FeatureTrajectory:
    with np.load(file) as data:
        r, energy = _distance(data["xyz"], particles), data["energy"]
    return FeatureTrajectory(
        r[:, None].astype(np.float32),
        temperature,
        1.0,
        energy,
        np.zeros(len(energy)),
        run=f"T{temperature:g}",
        scale=REDUCED,
    )


def _distance(xyz: NDArray[np.floating], particles: int) -> NDArray[np.float64]:
    """Of the dimer's particles, nearest images."""
    edge = ((particles + 2) / DENSITY) ** (1 / 3)
    off = (xyz[:, 0] - xyz[:, 1]).astype(np.float64)
    off -= edge * np.round(off / edge)
    return np.linalg.norm(off, axis=1)


def _extended(r: NDArray[np.float64]) -> NDArray[np.bool_]:
    return r > SHORT + WIDTH
