"""Ensembles by new simulations: walkers annealed from the nearest temperature that frames reach.

Start structures are drawn from the frames of all rounds at a temperature T0 where MBAR leaves enough effective
ones, and carried to the temperature wanted by population annealing (`latf_openmm.sampling.annealing`), whose
weights tend to the exact Boltzmann distribution. The flow says which walkers the target will need: both the draw of
the starts and redraws on the way favour them by lookahead = r_goal(z) / r_T(z), and their weights are divided by it. A
flow that is wrong costs effective sample size, not correctness. Errors are those of the start: blocks of the frames
are redrawn, and every walker weighs what its ancestor does. They therefore hold the noise of the annealing too, as
far as ancestors differ.

::

    DIR/rounds/NNN/annealed/SWEEP/{annealing.json, starts.npz, T0.3/segment_0000/...}

and ``walkers.npz`` and ``walkers/frame_00000.npz``, ... until all temperatures of a path are reached: an
interrupted command goes on after the last change of temperature, or the last frame kept.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from rich.progress import Progress

from latf_openmm.ensembles.annealing_plan import AnnealingPath, AnnealingPlan
from latf_openmm.ensembles.combined import effective_samples
from latf_openmm.ensembles.ensemble import (
    Array,
    StructureEnsemble,
)
from latf_openmm.ensembles.pool import encode
from latf_openmm.ensembles.reweighter import Reweighter, disagreement, within_reach
from latf_openmm.errors import ConfigError
from latf_openmm.frames.formats import write_trajectory
from latf_openmm.frames.trajectory import featurise
from latf_openmm.frames.walkers import FRAMES, WalkerFrames, read_stage
from latf_openmm.periodic import boxes_of
from latf_openmm.progress import bar
from latf_openmm.reweighting.reliability import MIN_ANCESTORS, worst
from latf_openmm.reweighting.replicates import Replicates
from latf_openmm.reweighting.weights import normalised_weights, systematic
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import pool_of_walkers
from latf_openmm.run.records import parse_as
from latf_openmm.run.stage_records import AnnealingRecord
from latf_openmm.sampling.annealing import Annealed, AnnealingSettings, anneal, forget
from latf_openmm.sampling.population import Population
from latf_openmm.sampling.propagator import SETTLE, Propagator
from latf_openmm.storage import (
    atomic_folder,
    check_file,
    facts,
    make_folder,
    read_arrays,
    read_record,
    write_arrays,
    write_record,
)
from latf_openmm.systems import shared_system
from latf_openmm.systems.inspection import pressure_of
from latf_openmm.units import temperature_name

_MIN_LOOKAHEAD, _MAX_LOOKAHEAD = 0.1, 100.0
"""Limits of r_target(z) / r_T(z): a flow may be wrong."""

_FAMILY = 3.0
"""Effective samples that an ancestor may stand for."""

_CHUNK = 100_000
"""Frames whose density is computed at a time."""

_MIN_WALKERS = 100
"""Walkers that are left, at least, where fewer are taken to save time."""

_TRIAL_STEPS, _TRIAL_WALKERS = (25, 150), 4
"""Sizes of the simulations that the time of all is estimated from."""


class AnnealedEnsembles(AnnealingPlan):
    """Ensembles of one round of a run, by new walkers that are annealed.

    Parameters
    ----------
    run, index
        The run, and the round whose model and frames are used.
    reweighter
        The same frames and model.
    settings
        How walkers are annealed; default: the run's `generate.annealing`.
    """

    def __init__(
        self, run: RunFolder, index: int, reweighter: Reweighter, settings: AnnealingSettings | None = None
    ) -> None:
        config = run.config
        super().__init__(reweighter, settings or config.generate.annealing, run.scale)
        self.run, self.index = run, index
        self.folder = run.round(index).path / "annealed"
        self.dynamics = config.simulation.dynamics()
        self.features = reweighter.trained.feature_module()
        self.pressure = pressure_of(shared_system(config.system).system)

    def propagator(self) -> Propagator:
        """Return what moves walkers."""
        simulation = self.run.config.simulation
        return Propagator(self.run.config.system, self.dynamics, simulation.processes)

    def evaluations_made(self, folder: Path) -> int:
        """Force evaluations of one copy that a finished path took."""
        changes = max(int(walker.table["changes"].iloc[0]) for walker in read_stage(folder))
        file = folder / "annealing.json"
        record = parse_as(AnnealingRecord, read_record(file), file)
        settings = record.settings
        rounds = changes + settings.frames * len(record.targets)
        return rounds * (settings.steps + SETTLE) * settings.walkers

    def within(self, paths: Sequence[AnnealingPath], evaluations: float) -> "AnnealedEnsembles":
        """Return the same with so few walkers that paths take no more force evaluations; not fewer than 100."""
        wanted = sum(self.evaluations(path) for path in paths)
        if wanted <= evaluations:
            return self
        walkers = max(
            min(_MIN_WALKERS, self.settings.walkers), int(self.settings.walkers * evaluations / wanted)
        )
        settings = self.settings.model_copy(update={"walkers": walkers})
        return AnnealedEnsembles(self.run, self.index, self.reweighter, settings)

    def simulated_evaluations(self) -> float:
        """Force evaluations of one copy that the frames took."""
        rounds = [self.run.round(index).summary() for index in range(self.index + 1)]
        return sum(record.simulated_ps for record in rounds) / self.dynamics.timestep

    def seconds(self, path: AnnealingPath, propagator: Propagator) -> float:
        """Wall time that a path will take, about, where nothing else is at work; 0 where it is there already [s].

        A propagation has a cost of its own (Contexts begin anew), so that a few steps of a few walkers are tried in two
        lengths.
        """
        if self._is_finished(path):
            return 0.0
        size = self.dynamics.context_size(propagator.system, self.settings.walkers)
        n = min(self.settings.walkers, max(_TRIAL_WALKERS, size) * propagator.processes)
        starts = self._starts(path, self.reweighter.pool.z)[0][:n]
        population = self._population(path, starts, np.zeros(len(starts)))
        few, more = _TRIAL_STEPS
        short, long = (propagator.seconds(population, steps) for steps in (few, more))
        each = max(long - short, 0.0) / ((more - few) * n)  # a step of a walker
        once = max(short - each * (few + SETTLE) * n, 0.0)
        evaluations = self.evaluations(path)
        return each * evaluations + once * evaluations / (
            (self.settings.steps + SETTLE) * self.settings.walkers
        )

    def at(
        self, path: AnnealingPath, propagator: Propagator, progress: Progress | None = None
    ) -> list[StructureEnsemble]:
        """Return the ensembles at the targets of a path; simulate what is not there yet.

        Raises
        ------
        ConfigError
            If another process is annealing in this folder.
        DataError
            If what is there already was damaged.
        SimulationError
            If all walkers become unstable.
        """
        folder = self.folder_of(path)
        make_folder(folder)
        try:
            with FileLock(folder / ".lock", timeout=0):
                frames, log_lookahead = self._begin(path, folder)
                self._simulate(path, folder, frames, log_lookahead, propagator, progress)
        except Timeout:
            raise ConfigError(f"{folder}: another process is annealing here") from None
        walkers = {walker.temperature: walker for walker in read_stage(folder)}
        return [self._ensemble(path, target, walkers[target], frames) for target in path.targets]

    def folder_of(self, path: AnnealingPath) -> Path:
        """Folder of a path, named by all that its result depends on."""
        return self.folder / f"path_{hashlib.sha256(self._record(path).encode()).hexdigest()[:10]}"

    def _record(self, path: AnnealingPath) -> str:
        record = {
            "start": path.start,
            "targets": path.targets,
            "seed": self.reweighter.seed,
            "settings": self.settings.model_dump(),
            "dynamics": self.dynamics.model_dump(),
        }
        return json.dumps(record, indent=1)

    def _begin(self, path: AnnealingPath, folder: Path) -> tuple[NDArray[np.int64], Array]:
        """Return the frames to start from, and log lookahead of each; write them, and a record of the path, once."""
        record, starts = folder / "annealing.json", folder / "starts.npz"
        if not record.is_file():
            frames, log_lookahead = self._starts(path, self.reweighter.pool.z)
            write_arrays(starts, {"frames": frames, "log_lookahead": log_lookahead})
            write_record(record, json.loads(self._record(path)) | {"files": {starts.name: facts(starts)}})
        check_file(starts)
        data = read_arrays(starts)
        return data["frames"], data["log_lookahead"]

    def _simulate(
        self,
        path: AnnealingPath,
        folder: Path,
        frames: NDArray[np.int64],
        log_lookahead: Array,
        propagator: Propagator,
        progress: Progress | None,
    ) -> None:
        population = folder / "walkers.npz"
        if self._is_finished(path):
            forget(population)  # of an interruption just before the end
            return
        start = self._population(path, frames, -log_lookahead)
        words = f"anneal from {self.scale.label(path.start)}"
        with bar(progress, words, self.evaluations(path)) as advance:
            annealed = anneal(
                propagator,
                start,
                path.targets,
                self.settings,
                self.reweighter.seed,
                self.log_lookahead,
                population,
                advance,
            )
            for arrived in annealed:
                self._write(arrived, _segment(folder, arrived.population.temperature))
        forget(population)

    def _is_finished(self, path: AnnealingPath) -> bool:
        folder = self.folder_of(path)
        return all(_segment(folder, target).is_dir() for target in path.targets)

    def _starts(self, path: AnnealingPath, z: Array) -> tuple[NDArray[np.int64], Array]:
        """Frames of the pool to start from, drawn by weight times lookahead, and log lookahead of each."""
        assert self.reweighter.weighting is not None
        log_lookahead = np.concatenate(
            [
                self._log_lookahead(z[i : i + _CHUNK], path.start, path.targets[0])
                for i in range(0, len(z), _CHUNK)
            ]
        )
        chances = normalised_weights(self.reweighter.weighting.mbar.log_weights(path.start) + log_lookahead)
        rng = np.random.default_rng([self.reweighter.seed, 11])
        rows = systematic(chances, self.settings.walkers, rng)
        return rows, log_lookahead[rows]

    def _population(self, path: AnnealingPath, frames: NDArray[np.int64], log_weights: Array) -> Population:
        structures = self.reweighter.pool.structures(frames, self.run.topology())
        return Population(
            path.start,
            structures.xyz.astype(np.float64),
            boxes_of(structures),
            self.reweighter.pool.energies()[frames],
            log_weights,
            np.arange(len(frames)),
        )

    def log_lookahead(
        self, positions: Array, boxes: Array | None, temperature: float, target: float
    ) -> Array:
        """Return log lookahead of walkers, shape (n,), as `latf_openmm.sampling.annealing` wants it."""
        z, _ = encode(self.reweighter.trained, featurise(self.features, positions, boxes))
        return self._log_lookahead(z, temperature, target)

    @torch.no_grad()
    def _log_lookahead(self, z: Array, temperature: float, target: float) -> Array:
        """Log of r_goal(z) / r_T(z), kept between 0.1 and 100: a flow may be wrong."""
        model, at = self.reweighter.trained.model, torch.from_numpy(z).to(torch.float32)
        ratio = model.density(target).log_prob(at) - model.density(temperature).log_prob(at)
        return np.clip(ratio.double().numpy(), math.log(_MIN_LOOKAHEAD), math.log(_MAX_LOOKAHEAD))

    def _write(self, arrived: Annealed, target: Path) -> None:
        """Frames of all walkers, one walker after the other, as one trajectory."""
        if target.is_dir():
            return
        population, (n_frames, n) = arrived.population, arrived.energies.shape
        step = (np.arange(n_frames) + 1) * self.settings.steps
        boxes = None if arrived.boxes is None else arrived.boxes.swapaxes(0, 1).reshape(n * n_frames, 3, 3)
        work = None if self.pressure is None or boxes is None else self.pressure * np.linalg.det(boxes)
        energies = arrived.energies.T.ravel() - (0.0 if work is None else work)
        table = pd.DataFrame(
            {
                "walker": 0,
                "frame": np.arange(n * n_frames),
                "member": np.repeat(np.arange(n), n_frames),
                "ancestor": np.repeat(population.ancestors, n_frames),
                "log_weight": np.repeat(population.log_weights, n_frames),
                "step": np.tile(step, n),
                "time_ps": np.tile(step * self.dynamics.timestep, n),
                "temperature": population.temperature,
                "potential_energy": energies,
                "bias_energy": 0.0,
                "bias_offset": 0.0,
                "changes": population.changes,
            }
        )
        if work is not None:
            table["pressure_volume"] = work
        positions = arrived.positions.swapaxes(0, 1).reshape(n * n_frames, -1, 3)
        trajectory = mdtraj.Trajectory(positions.astype(np.float32), self.run.topology())
        if boxes is not None:
            trajectory.unitcell_vectors = boxes
        with atomic_folder(target) as temporary:
            table.to_parquet(temporary / FRAMES, index=False)
            write_trajectory(trajectory, temporary / f"walker_000.{self.dynamics.trajectory}")

    def _ensemble(
        self, path: AnnealingPath, temperature: float, walker: WalkerFrames, starts: NDArray[np.int64]
    ) -> StructureEnsemble:
        reweighter, table, weighting = self.reweighter, walker.table, self.reweighter.weighting
        assert weighting is not None
        logs = table["log_weight"].to_numpy()
        ancestors = starts[table["ancestor"].to_numpy()]
        weights = normalised_weights(logs)
        # An ancestor's part in a bootstrap sample is that of its descendants.
        replicates = Replicates(weighting.factors[:, ancestors], weights)
        frames, clusters = np.unique(ancestors, return_inverse=True)
        families = float(1.0 / (np.bincount(clusters, weights) ** 2).sum())
        changes = int(table["changes"].iloc[0])
        ensemble = StructureEnsemble(
            temperature,
            self.scale.kT(temperature),
            "annealed",
            f"{self.settings.walkers} walkers annealed from {self.scale.label(path.start)} in {changes} changes of "
            f"temperature, {families:.0f} ancestors effectively",
            pool_of_walkers(self.run.config, reweighter.trained, [walker]),
            weights,
            replicates,
            weighting.widening,
            clusters.astype(np.int64),
            np.ones(len(frames)),
            families,
            (),
            "poor",
        )
        return self._judged(replace(ensemble, n_effective=effective_samples(ensemble)), families)

    def _judged(self, ensemble: StructureEnsemble, families: float) -> StructureEnsemble:
        """Add what has to be known: how much carries it, where it lies, and what the other methods say."""
        reweighter, label = self.reweighter, self.scale.label
        texts = reweighter.warnings(ensemble)
        reliability = reweighter.reliability(min(ensemble.n_effective, _FAMILY * families))
        if families < MIN_ANCESTORS:
            few = f"its walkers have {families:.2g} ancestors effectively: errors are not to be relied on"
            texts.insert(0, few)
        low, high = min(self.simulated), max(self.simulated)
        if not low <= ensemble.temperature <= high:
            texts.append(
                f"{label(ensemble.temperature)} is outside the simulated {label(low)} to {label(high)}: states that "
                "matter only there are missing unless walkers found them on the way"
            )
        if far := self.far(ensemble.temperature):
            reliability = "poor"
            texts.insert(0, far)
        other = reweighter.at(ensemble.temperature, "reweighted")
        if other.reliability != "poor" and (contradictions := disagreement(ensemble, other)):
            texts += contradictions
            reliability = worst("fair", reliability)
        if within_reach(reweighter.trained, ensemble.temperature):
            texts += disagreement(ensemble, reweighter.at(ensemble.temperature, "flow"))
        return replace(ensemble, warnings=tuple(texts), reliability=reliability)


def _segment(folder: Path, temperature: float) -> Path:
    return folder / temperature_name(temperature) / "segment_0000"
