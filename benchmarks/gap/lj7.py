"""LJ7 at T = 0.2 and 0.5, with harmonic degrees of freedom added to the energies, which change nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gap.methods import Weights
from benchmarks.quality.cases import LJ7
from benchmarks.quality.data import training_data, truth
from benchmarks.quality.methods import Frames, smoothed, train
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.model.checkpoint import TrainedModel, load_model, save_model
from latf_openmm.model.latf import LatentThermodynamicFlow
from latf_openmm.reweighting.free_energy import jensen_shannon
from latf_openmm.reweighting.temperatures import Basins, Reweighting
from latf_openmm.reweighting.weighting import TemperatureWeighting

TEMPERATURES = (0.3, 0.4, 0.6, 0.7)
BATHS = (0, 200, 1000, 5000)
FRAMES = (40_000, 2000)
_REGIME = LJ7.regimes["plentiful"]


def cases(seed: int) -> list[dict[str, Any]]:
    """Baths and numbers of frames."""
    return [{"bath": bath, "frames": frames, "seed": seed} for frames in FRAMES for bath in BATHS]


def rows(work: Path, bath: int, frames: int, seed: int) -> list[dict[str, Any]]:
    """Divergence and populations of every method at every temperature."""
    every = training_data(LJ7, _REGIME, seed, work)
    model = _model(work, every, seed)
    trajectories = [_thinned(t, frames // _REGIME.walkers) for t in every]
    rng = np.random.default_rng(100 + seed)
    bathed = [
        replace(
            t,
            potential_energy=t.potential_energy
            + (0.5 * t.temperature * rng.chisquare(bath, t.n_frames) if bath else 0.0),
        )
        for t in trajectories
    ]
    data = Frames.of(bathed, model, LJ7.plane)
    weighting = TemperatureWeighting(bathed, Basins(data.z, data.states, data.n_states, max(2, _REGIME.lag)))
    weights = Weights(weighting, Reweighting(bathed, weighting.inefficiency))
    result = []
    for temperature in TEMPERATURES:
        reference = truth(LJ7, temperature, work)
        cells = np.histogramdd(
            LJ7.plane.project(reference.features.astype(np.float64)), bins=list(LJ7.plane.edges)
        )[0]
        with torch.no_grad():
            z = model.encode(torch.from_numpy(reference.features.astype(np.float32)))
            states = model.assign(z).numpy()
        for method, replicates in weights.at(temperature).items():
            plane = smoothed(data.physical, replicates.weights, data.folds, LJ7.plane.edges, False)
            shares = []
            for state in range(model.n_states):
                share, error = weights.shares(replicates, data.states == state)
                halves = [float((states[reference.half == half] == state).mean()) for half in (0, 1)]
                shares.append(
                    {
                        "share": share,
                        "reported": error,
                        "truth": float(np.mean(halves)),
                        "truth_error": abs(halves[0] - halves[1]) / 2,
                    }
                )
            result.append(
                {
                    "temperature": temperature,
                    "method": method,
                    "js": jensen_shannon(plane / plane.sum(), cells),
                    "shares": shares,
                    "mbar_share": weighting.mbar_share(temperature),
                }
            )
    return result


def _thinned(trajectory: FeatureTrajectory, n: int) -> FeatureTrajectory:
    """About `n` frames, evenly."""
    chosen = slice(None, None, max(1, trajectory.n_frames // n))
    return replace(
        trajectory,
        features=np.ascontiguousarray(trajectory.features[chosen][:n]),
        potential_energy=trajectory.potential_energy[chosen][:n],
        log_weights=trajectory.log_weights[chosen][:n],
    )


def _model(work: Path, trajectories: list[FeatureTrajectory], seed: int) -> LatentThermodynamicFlow:
    """The model trained on all frames with their true energies; all cases of a seed share its variables and states."""
    file = work / f"lj7_model{seed}"
    if not file.is_dir():
        model, _ = train(LJ7, trajectories, _REGIME.lag, seed, False)
        save_model(TrainedModel(model, (), (), LJ7.settings.scale.name, _REGIME.temperatures), file)
    return load_model(file).model
