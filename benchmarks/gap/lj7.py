"""LJ7 at T = 0.2 and 0.5, with harmonic degrees of freedom added to the energies, which change nothing else."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

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
REGIME = LJ7.regimes["plentiful"]
"""The runs whose frames are used, all or every n-th."""

Array = NDArray[np.float64]


class Reference:
    """Independent runs at one temperature, in the plane and in the states of a model."""

    def __init__(self, temperature: float, model: LatentThermodynamicFlow, work: Path) -> None:
        self.temperature, self.n_states = temperature, model.n_states
        found = truth(LJ7, temperature, work)
        points = LJ7.plane.project(found.features.astype(np.float64))
        self.cells = np.histogramdd(points, bins=list(LJ7.plane.edges))[0]
        with torch.no_grad():
            z = model.encode(torch.from_numpy(found.features.astype(np.float32)))
            states = model.assign(z).numpy()
        self.halves = np.array(
            [
                [float((states[found.half == half] == state).mean()) for half in (0, 1)]
                for state in range(model.n_states)
            ]
        )

    def row(self, method: str, frames: Frames, weights: Array, **facts: Any) -> dict[str, Any]:
        """Divergence of weighted frames; without shares of states."""
        plane = smoothed(frames.physical, weights, frames.folds, LJ7.plane.edges, False)
        js = jensen_shannon(plane / plane.sum(), self.cells)
        return {"temperature": self.temperature, "method": method, "js": js, "shares": [], **facts}

    def shares(
        self, states: NDArray[np.int64], share: Callable[[NDArray[np.bool_]], tuple[float, float]]
    ) -> list[dict[str, float]]:
        """Return the share of every state, and its error, beside the truth.

        Parameters
        ----------
        states
            Of the frames, shape (n_frames,).
        share
            Gives the share of chosen frames and its error.
        """
        result = []
        for state, halves in enumerate(self.halves):
            estimate, reported = share(states == state)
            truths = {"truth": float(halves.mean()), "truth_error": float(abs(halves[0] - halves[1]) / 2)}
            result.append({"share": estimate, "reported": reported, **truths})
        return result


def cases(seed: int) -> list[dict[str, Any]]:
    """Baths and numbers of frames."""
    return [{"bath": bath, "frames": frames, "seed": seed} for frames in FRAMES for bath in BATHS]


def rows(work: Path, bath: int, frames: int, seed: int) -> list[dict[str, Any]]:
    """Divergence and populations of every method at every temperature."""
    runs = training_data(LJ7, REGIME, seed, work)
    model = model_of(work, runs, seed)
    rng = np.random.default_rng(100 + seed)
    bathed = [
        replace(t, potential_energy=t.potential_energy + bath_energy(t.temperature, bath, t.n_frames, rng))
        for t in thinned(runs, frames)
    ]
    data = Frames.of(bathed, model, LJ7.plane)
    basins = Basins(data.z.astype(np.float64), data.states, data.n_states, max(2, REGIME.lag))
    weighting = TemperatureWeighting(bathed, basins)
    weights = Weights(weighting, Reweighting(bathed, weighting.inefficiency))
    result = []
    for temperature in TEMPERATURES:
        reference = Reference(temperature, model, work)
        part = weighting.mbar_share(temperature)
        for method, replicates in weights.at(temperature).items():
            row = reference.row(method, data, replicates.weights, mbar_share=part)
            row["shares"] = reference.shares(data.states, partial(weights.shares, replicates))
            result.append(row)
    return result


def bath_energy(temperature: float | Array, bath: int, n: int, rng: np.random.Generator) -> Array:
    """Energies of `bath` harmonic degrees of freedom at a temperature, or one for each, shape (n,)."""
    return np.asarray(0.5 * temperature * rng.chisquare(bath, n)) if bath else np.zeros(n)


def thinned(trajectories: list[FeatureTrajectory], frames: int) -> list[FeatureTrajectory]:
    """So many frames at each temperature, evenly."""
    each = frames // REGIME.walkers
    return [every(t, max(1, t.n_frames // each), each) for t in trajectories]


def every(trajectory: FeatureTrajectory, step: int, most: int | None = None) -> FeatureTrajectory:
    """Every `step`-th frame, `most` of them at most."""
    chosen = slice(None, None if most is None else most * step, step)
    return replace(
        trajectory,
        frame_interval=step * trajectory.frame_interval,
        features=np.ascontiguousarray(trajectory.features[chosen]),
        potential_energy=trajectory.potential_energy[chosen],
        log_weights=trajectory.log_weights[chosen],
    )


def model_of(work: Path, trajectories: list[FeatureTrajectory], seed: int) -> LatentThermodynamicFlow:
    """The model trained on all frames with their true energies; all cases of a seed share its variables and states."""
    file = work / f"lj7_model{seed}"
    if not file.is_dir():
        model, _ = train(LJ7, trajectories, REGIME.lag, seed, False)
        save_model(TrainedModel(model, (), (), LJ7.settings.scale.name, REGIME.temperatures), file)
    return load_model(file).model
