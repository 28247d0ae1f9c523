"""A dimer in a WCA fluid: frames of T = 0.8 and 1.6, asked half-way and beyond."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gap.methods import Weights
from benchmarks.gap.solvents import DENSITY, SHORT, WIDTH
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.free_energy import jensen_shannon
from latf_openmm.reweighting.temperatures import Basins, Reweighting
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.units import REDUCED

SIMULATED, ASKED = (0.8, 1.6), (1.1, 2.2)
_BINS = np.linspace(0.8, 2.2, 57)


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
        truths = [
            _distance(np.load(file)["xyz"], particles)
            for file in sorted(folder.glob(f"T{temperature:g}_seed*.npz"))
            if ".partial" not in file.name
        ]
        exact = np.histogram(np.concatenate(truths), _BINS)[0].astype(float)
        parts = [part for truth in truths for part in np.array_split(_extended(truth), 10)]
        shares = np.array([part.mean() for part in parts])
        for method, replicates in weights.at(temperature).items():
            density = np.histogram(r, _BINS, weights=replicates.weights)[0]
            share, error = weights.shares(replicates, _extended(r))
            truth = float(shares.mean())
            result.append(
                {
                    "temperature": temperature,
                    "method": method,
                    "js": jensen_shannon(density / density.sum(), exact),
                    "shares": [
                        {
                            "share": share,
                            "reported": error,
                            "truth": truth,
                            "truth_error": float(shares.std(ddof=1) / np.sqrt(len(shares))),
                        }
                    ],
                    "mbar_share": weighting.mbar_share(temperature),
                }
            )
    return result


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
