"""Ensembles by new simulations: walkers annealed from the nearest temperature that frames reach.

Start structures are drawn from the frames of all rounds at a temperature T0 where MBAR leaves enough effective
ones, and carried to the temperature wanted by population annealing (`latf_openmm.sampling.annealing`), whose
weights tend to the exact Boltzmann distribution. The flow says which walkers the goal will need: both the draw of
the starts and redraws on the way favour them by psi = r_goal(z) / r_T(z), and their weights are divided by it. A
flow that is wrong costs effective sample size, not correctness. Errors are those of the start: blocks of the frames
are redrawn, and every walker weighs what its ancestor does. They therefore hold the noise of the annealing too, as
far as ancestors differ.

::

    DIR/rounds/NNN/annealed/SWEEP/{sweep.json, starts.npz, T0.3/segment_0000/...}

and ``walkers.npz`` until all temperatures of a sweep are reached.
"""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import mdtraj
import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from rich.progress import Progress

from latf_openmm.ensembles.ensemble import (
    Array,
    Method,
    StructureEnsemble,
    mixture,
)
from latf_openmm.ensembles.pool import encode
from latf_openmm.ensembles.reweighter import Reweighter, disagreement, within_reach
from latf_openmm.errors import ConfigError, SimulationError
from latf_openmm.frames.trajectory import featurise
from latf_openmm.frames.walkers import WalkerFrames, read_stage, write_trajectory
from latf_openmm.periodic import boxes_of
from latf_openmm.progress import bar
from latf_openmm.reweighting.reliability import AMPLE_SAMPLES, MAX_TEMPERATURE_FACTOR, MIN_ANCESTORS
from latf_openmm.reweighting.replicates import Replicates, Statistic
from latf_openmm.reweighting.weights import normalised_weights, systematic
from latf_openmm.run.folder import RunFolder
from latf_openmm.sampling.annealing import Annealed, AnnealingSettings, anneal, expected_changes
from latf_openmm.sampling.population import Population
from latf_openmm.sampling.propagator import SETTLE, Propagator
from latf_openmm.sampling.stage import check_simulated
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
from latf_openmm.units import check_temperature, temperature_name

Choice = Literal["auto", "reweighted", "annealed", "flow"]

_GRID = 200  # temperatures that may be started from
_KEPT = 0.8  # of the effective samples that the simulated temperature next to the start has
_COOLER = 3.0  # times farther is worth it to come from the hotter side
_LEAST, _MOST = 0.1, 100.0  # psi
_FAMILY = 3.0  # effective samples that an ancestor may stand for
_PRESENT = 0.05
_CHUNK = 100_000
_TRIAL_STEPS, _TRIAL_WALKERS = 50, 4


@dataclass(frozen=True)
class Sweep:
    """One population annealed from a start through temperatures in one direction.

    Attributes
    ----------
    start
        Temperature whose reweighted frames it begins with.
    goals
        Temperatures it is to reach, in order.
    """

    start: float
    goals: tuple[float, ...]


class Refiner:
    """Refines ensembles of one round of a run.

    Parameters
    ----------
    run, index
        The run, and the round whose model and frames are used.
    reweighter
        The same frames and model.
    settings
        How walkers are annealed; default: the run's `generate.refine`.
    """

    def __init__(
        self, run: RunFolder, index: int, reweighter: Reweighter, settings: AnnealingSettings | None = None
    ) -> None:
        if reweighter.reweighting is None:
            raise ConfigError("method: annealing needs the potential energies of the frames")
        config = run.config
        self.run, self.reweighter = run, reweighter
        self.settings = settings or config.generate.refine
        self.folder = run.round(index).path / "annealed"
        self.dynamics = config.simulation.dynamics()
        self.scale = run.scale
        self.simulated = [float(t) for t in reweighter.reweighting.simulated]
        self.features = reweighter.trained.feature_module()
        self.pressure = pressure_of(shared_system(config.system).system)
        self._reach: dict[float, float] = {}

    def propagator(self) -> Propagator:
        """Return what moves walkers."""
        simulation = self.run.config.simulation
        return Propagator(self.run.config.system, self.dynamics, simulation.processes)

    def far(self, temperature: float) -> str | None:
        """Return what to say of a temperature that is too far from all simulated ones; None of others."""
        if (
            min(self.simulated) / MAX_TEMPERATURE_FACTOR
            <= temperature
            <= max(self.simulated) * MAX_TEMPERATURE_FACTOR
        ):
            return None
        label = self.scale.label(temperature)
        return (
            f"{label} is farther than a factor of {MAX_TEMPERATURE_FACTOR:g} from every simulated temperature"
        )

    def start(self, temperature: float) -> float:
        """Return the temperature to start from.

        On the hotter side, if there is one, the temperature nearest to the one wanted that at least 80 % of the
        effective samples reach that the simulated one there has; likewise on the colder side, where there is no
        hotter one or it is three times farther in ln T. Cooling loses states that the start has; heating can
        only find new ones as fast as the walkers move.
        """
        sides = [
            self._nearest(temperature, [t for t in self.simulated if t >= temperature * (1 - 1e-9)]),
            self._nearest(temperature, [t for t in self.simulated[::-1] if t <= temperature * (1 + 1e-9)]),
        ]
        hot, cold = sides
        if hot is None or cold is None:
            found = cold if hot is None else hot
            assert found is not None
            return found
        far = math.log(hot / temperature) > _COOLER * math.log(temperature / cold)
        return cold if far else hot

    def _nearest(self, temperature: float, simulated: list[float]) -> float | None:
        if not simulated:
            return None
        base = simulated[0]
        enough, found = _KEPT * self._reached(base), base
        low, high = sorted((temperature, base))
        between = [t for t in self._grid if low <= t <= high]
        for candidate in sorted(between, key=lambda t: abs(math.log(t / base))):
            if self._reached(candidate) < enough:
                break
            found = candidate
        return found

    @cached_property
    def _grid(self) -> list[float]:
        low, high = min(self.simulated), max(self.simulated)
        return [float(t) for t in np.geomspace(low, high, _GRID)]

    def _reached(self, temperature: float) -> float:
        if temperature not in self._reach:
            self._reach[temperature] = self.reweighter.reach(temperature)
        return self._reach[temperature]

    def sweeps(self, temperatures: Sequence[float]) -> list[Sweep]:
        """Put temperatures together that one population can go through."""
        groups: dict[tuple[float, bool], list[float]] = {}
        for temperature in temperatures:
            start = self.start(temperature)
            groups.setdefault((start, temperature > start), []).append(temperature)
        return [Sweep(start, tuple(sorted(goals, reverse=not up))) for (start, up), goals in groups.items()]

    def evaluations(self, sweep: Sweep) -> int:
        """Force evaluations of one copy that a sweep will take, about."""
        energy = self.reweighter.pool.energies()
        weights = self.reweighter.weights(sweep.start)
        variance = float(weights @ (energy - weights @ energy) ** 2)
        capacity = variance / self.scale.kT(sweep.start) ** 2
        changes = expected_changes(sweep.start, sweep.goals[-1], capacity, self.settings.overlap)
        rounds = changes + self.settings.frames * len(sweep.goals)
        return rounds * (self.settings.steps + SETTLE) * self.settings.walkers

    def evaluations_made(self, folder: Path) -> int:
        """Force evaluations of one copy that a finished sweep took."""
        changes = max(int(walker.table["changes"].iloc[0]) for walker in read_stage(folder))
        record = read_record(folder / "sweep.json")
        settings = AnnealingSettings(**record["settings"])
        rounds = changes + settings.frames * len(record["goals"])
        return rounds * (settings.steps + SETTLE) * settings.walkers

    def seconds(self, sweep: Sweep, propagator: Propagator) -> float:
        """Time that a sweep will take here, about, from a few steps of a few walkers."""
        n = max(_TRIAL_WALKERS, self.dynamics.context_size(propagator.system, self.settings.walkers))
        starts = self._starts(sweep, self.reweighter.pool.z)[0][:n]
        population = self._population(sweep, starts, np.zeros(len(starts)))
        propagator.propagated(population, 1, 0)  # Contexts are made
        begin = time.perf_counter()
        propagator.propagated(population, _TRIAL_STEPS, 0)
        each = (time.perf_counter() - begin) / ((_TRIAL_STEPS + SETTLE) * len(starts))
        return each * self.evaluations(sweep)

    def at(
        self, sweep: Sweep, propagator: Propagator, progress: Progress | None = None
    ) -> list[StructureEnsemble]:
        """Return the ensembles at the goals of a sweep; simulate what is not there yet.

        Raises
        ------
        ConfigError
            If another process is refining in this folder.
        DataError
            If what is there already was damaged.
        SimulationError
            If all walkers become unstable.
        """
        folder = self.folder_of(sweep)
        make_folder(folder)
        try:
            with FileLock(folder / ".lock", timeout=0):
                frames, log_psi = self._begin(sweep, folder)
                self._simulate(sweep, folder, frames, log_psi, propagator, progress)
        except Timeout:
            raise ConfigError(f"{folder}: another process is refining here") from None
        walkers = {walker.temperature: walker for walker in read_stage(folder)}
        return [self._ensemble(sweep, goal, walkers[goal], frames) for goal in sweep.goals]

    def folder_of(self, sweep: Sweep) -> Path:
        """Where a sweep lies, named by all that its result depends on."""
        return self.folder / f"sweep_{hashlib.sha256(self._record(sweep).encode()).hexdigest()[:10]}"

    def _record(self, sweep: Sweep) -> str:
        record = {
            "start": sweep.start,
            "goals": sweep.goals,
            "seed": self.reweighter.seed,
            "settings": self.settings.model_dump(),
            "dynamics": self.dynamics.model_dump(),
        }
        return json.dumps(record, indent=1)

    def _begin(self, sweep: Sweep, folder: Path) -> tuple[NDArray[np.int64], Array]:
        """Return the frames to start from, and log psi of each; write them, and a record of the sweep, once."""
        record, starts = folder / "sweep.json", folder / "starts.npz"
        if not record.is_file():
            frames, log_psi = self._starts(sweep, self.reweighter.pool.z)
            write_arrays(starts, {"frames": frames, "log_psi": log_psi})
            write_record(record, json.loads(self._record(sweep)) | {"files": {starts.name: facts(starts)}})
        check_file(starts)
        data = read_arrays(starts)
        return data["frames"], data["log_psi"]

    def _simulate(
        self,
        sweep: Sweep,
        folder: Path,
        frames: NDArray[np.int64],
        log_psi: Array,
        propagator: Propagator,
        progress: Progress | None,
    ) -> None:
        population = folder / "walkers.npz"
        if all(_segment(folder, goal).is_dir() for goal in sweep.goals):
            population.unlink(missing_ok=True)  # of an interruption just before the end
            return
        start = self._population(sweep, frames, -log_psi)
        words = f"refine from {self.scale.label(sweep.start)}"
        with bar(progress, words, self.evaluations(sweep)) as advance:
            annealed = anneal(
                propagator,
                start,
                sweep.goals,
                self.settings,
                self.reweighter.seed,
                self.log_psi,
                population,
                advance,
            )
            for found in annealed:
                self._write(found, _segment(folder, found.population.temperature))
        population.unlink(missing_ok=True)

    def _starts(self, sweep: Sweep, z: Array) -> tuple[NDArray[np.int64], Array]:
        """Frames of the pool to start from, drawn by weight times psi, and log psi of each."""
        assert self.reweighter.reweighting is not None
        log_psi = np.concatenate(
            [self._log_psi(z[i : i + _CHUNK], sweep.start, sweep.goals[0]) for i in range(0, len(z), _CHUNK)]
        )
        chances = normalised_weights(self.reweighter.reweighting.log_weights(sweep.start) + log_psi)
        rng = np.random.default_rng([self.reweighter.seed, 11])
        rows = systematic(chances, self.settings.walkers, rng)
        return rows, log_psi[rows]

    def _population(self, sweep: Sweep, frames: NDArray[np.int64], log_weights: Array) -> Population:
        found = self.reweighter.pool.structures(frames, self.run.topology())
        return Population(
            sweep.start,
            found.xyz.astype(np.float64),
            boxes_of(found),
            self.reweighter.pool.energies()[frames],
            log_weights,
            np.arange(len(frames)),
        )

    def log_psi(self, positions: Array, boxes: Array | None, temperature: float, goal: float) -> Array:
        """Return log psi of walkers, shape (n,), as `latf_openmm.sampling.annealing` wants it."""
        z, _ = encode(self.reweighter.trained, featurise(self.features, positions, boxes))
        return self._log_psi(z, temperature, goal)

    @torch.no_grad()
    def _log_psi(self, z: Array, temperature: float, goal: float) -> Array:
        """Log of r_goal(z) / r_T(z), kept between 0.1 and 100: a flow may be wrong."""
        model, at = self.reweighter.trained.model, torch.from_numpy(z).to(torch.float32)
        ratio = model.density(goal).log_prob(at) - model.density(temperature).log_prob(at)
        return np.clip(ratio.double().numpy(), math.log(_LEAST), math.log(_MOST))

    def _write(self, found: Annealed, target: Path) -> None:
        """Frames of all walkers, one walker after the other, as one trajectory."""
        if target.is_dir():
            return
        population, (n_frames, n) = found.population, found.energies.shape
        step = (np.arange(n_frames) + 1) * self.settings.steps
        boxes = None if found.boxes is None else found.boxes.swapaxes(0, 1).reshape(n * n_frames, 3, 3)
        work = None if self.pressure is None or boxes is None else self.pressure * np.linalg.det(boxes)
        energies = found.energies.T.ravel() - (0.0 if work is None else work)
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
        positions = found.positions.swapaxes(0, 1).reshape(n * n_frames, -1, 3)
        trajectory = mdtraj.Trajectory(positions.astype(np.float32), self.run.topology())
        if boxes is not None:
            trajectory.unitcell_vectors = boxes
        with atomic_folder(target) as temporary:
            table.to_parquet(temporary / "frames.parquet", index=False)
            write_trajectory(trajectory, temporary / f"walker_000.{self.dynamics.trajectory}")

    def _ensemble(
        self, sweep: Sweep, temperature: float, walker: WalkerFrames, starts: NDArray[np.int64]
    ) -> StructureEnsemble:
        reweighter, table = self.reweighter, walker.table
        logs = table["log_weight"].to_numpy()
        ancestors = starts[table["ancestor"].to_numpy()]
        weights = normalised_weights(logs)
        # An ancestor's part in a bootstrap sample is that of its descendants.
        replicates = Replicates(reweighter.factors[:, ancestors], weights)
        frames, clusters = np.unique(ancestors, return_inverse=True)
        families = float(1.0 / (np.bincount(clusters, weights) ** 2).sum())
        changes = int(table["changes"].iloc[0])
        found = StructureEnsemble(
            temperature,
            self.scale.kT(temperature),
            "annealed",
            f"{self.settings.walkers} walkers annealed from {self.scale.label(sweep.start)} in {changes} changes of "
            f"temperature, {families:.0f} ancestors effectively",
            self.run.pool_of(reweighter.trained, [walker]),
            weights,
            replicates,
            reweighter.widening,
            clusters.astype(np.int64),
            np.ones(len(frames)),
            families,
            (),
            "poor",
        )
        return self._judged(replace(found, n_effective=_n_effective(found)), families)

    def _judged(self, found: StructureEnsemble, families: float) -> StructureEnsemble:
        """Add what has to be known: how much carries it, where it lies, and what the other methods say."""
        reweighter, label = self.reweighter, self.scale.label
        texts = reweighter.warnings(found)
        reliability = reweighter.reliability(min(found.n_effective, _FAMILY * families))
        if families < MIN_ANCESTORS:
            texts.append(
                f"its walkers have {families:.2g} ancestors effectively: errors are not to be relied on"
            )
        low, high = min(self.simulated), max(self.simulated)
        if not low <= found.temperature <= high:
            texts.append(
                f"{label(found.temperature)} is outside the simulated {label(low)} to {label(high)}: states that "
                "matter only there are missing unless walkers found them on the way"
            )
        if far := self.far(found.temperature):
            reliability = "poor"
            texts.append(far)
        other = reweighter.at(found.temperature, "reweighted")
        if other.reliability != "poor" and (contradictions := disagreement(found, other)):
            texts += contradictions
            reliability = "fair" if reliability == "good" else reliability
        if within_reach(reweighter.trained, found.temperature):
            texts += disagreement(found, reweighter.at(found.temperature, "flow"))
        return replace(found, warnings=tuple(texts), reliability=reliability)


def ensembles_at(
    run: RunFolder,
    index: int,
    temperatures: Sequence[float],
    method: Choice = "auto",
    minutes: float = 15.0,
    progress: Progress | None = None,
    reweighter: Reweighter | None = None,
) -> list[StructureEnsemble]:
    """Return structures with weights at each temperature, made in the best way there is.

    Parameters
    ----------
    run, index
        A run, and the round whose model and frames are used.
    temperatures
        In the scale of the system.
    method
        ``auto``: frames reweighted where 1000 effective samples reach the temperature; else walkers annealed to it, if
        it is within a factor of two of the simulated ones, that is thought to take at most `minutes`,
        put together with the reweighted ones so that errors are least; else frames reweighted where there are
        enough, or those near the flow's samples. Or one of the three.
    minutes
        See `method`.
    reweighter
        Of the same round, if there is one already.

    Raises
    ------
    ConfigError
        If a temperature is not positive, or the method cannot be made.
    DataError
        If a file that is used was damaged.
    SimulationError
        If walkers become unstable and `method` is ``annealed``.
    """
    for temperature in temperatures:
        check_temperature("temperature", temperature)
    if reweighter is None:
        reweighter = Reweighter(run.trained(index), run.pool(index), run.config.seed)
    if method in ("reweighted", "flow"):
        return [reweighter.at(temperature, _plain(method)) for temperature in temperatures]
    if method == "annealed":
        check_simulated(run.config.system)
    if method == "auto" and (reweighter.reweighting is None or not run.config.system.simulated):
        return [reweighter.at(temperature) for temperature in temperatures]
    if method == "annealed":
        found, wanted = {}, list(temperatures)
    else:
        found = {temperature: reweighter.at(temperature) for temperature in temperatures}
        wanted = [t for t, one in found.items() if one.method == "flow" or one.n_effective < AMPLE_SAMPLES]
    if not wanted:
        return [found[temperature] for temperature in temperatures]
    refiner = Refiner(run, index, reweighter)
    if method == "auto":
        for temperature in wanted:
            if far := refiner.far(temperature):
                found[temperature] = replace(_with_warning(found[temperature], far), reliability="poor")
        wanted = [temperature for temperature in wanted if refiner.far(temperature) is None]
    with refiner.propagator() as propagator:
        for sweep in refiner.sweeps(wanted):
            if method == "auto":
                expected = refiner.seconds(sweep, propagator) / 60.0
                if expected > minutes:
                    text = f"refining would take about {expected:.0f} minutes; it was left out"
                    found |= {goal: _with_warning(found[goal], text) for goal in sweep.goals}
                    continue
            try:
                annealed = refiner.at(sweep, propagator, progress)
            except SimulationError as error:  # a damaged file is not passed over
                if method == "annealed":
                    raise
                text = f"refining failed: {error}"
                found |= {goal: _with_warning(found[goal], text) for goal in sweep.goals}
                continue
            for goal, one in zip(sweep.goals, annealed, strict=True):
                found[goal] = _better(found[goal], one) if goal in found else one
    return [found[temperature] for temperature in temperatures]


def _n_effective(found: StructureEnsemble) -> float:
    """Number of effective samples: the least of variance / error^2 over energy and populations."""
    variance = Statistic.variance(found.energies()).of(found.weights)
    numbers = [variance / found.energy().error ** 2]
    for population in found.populations():
        if _PRESENT < population.value < 1 - _PRESENT:
            numbers.append(population.value * (1 - population.value) / population.error**2)
    return float(min(numbers))


def _plain(method: Choice) -> Method:
    assert method != "auto"
    return method


def _better(present: StructureEnsemble, annealed: StructureEnsemble) -> StructureEnsemble:
    """Return both together; or the annealed ones alone where reweighting has few effective samples."""
    if present.method != "reweighted" or present.reliability != "good":
        return annealed
    share = _best_share(annealed, present)
    if share == 0.0:
        return present
    found = mixture(annealed, present, share)
    return replace(
        found,
        description=f"{annealed.description}; with {100 * (1 - share):.0f} % reweighted frames",
        n_effective=_n_effective(found),
    )


def _best_share(annealed: StructureEnsemble, present: StructureEnsemble) -> float:
    """Share of the annealed frames with which the product of the errors of energy and populations is least."""
    spreads = []
    for one in (annealed, present):
        states = [
            one.pool.states == state
            for state, population in enumerate(annealed.populations())
            if _PRESENT < population.value < 1 - _PRESENT
        ]
        spreads.append(one.replicates.means(np.stack([one.energies(), *states], axis=1)).T)
    shares = np.linspace(0.0, 1.0, 21)
    errors = [np.log((s * spreads[0] + (1 - s) * spreads[1]).std(axis=1)).sum() for s in shares]
    return float(shares[int(np.argmin(errors))])


def _with_warning(ensemble: StructureEnsemble, text: str) -> StructureEnsemble:
    return replace(ensemble, warnings=(*ensemble.warnings, text))


def _segment(folder: Path, temperature: float) -> Path:
    return folder / temperature_name(temperature) / "segment_0000"
