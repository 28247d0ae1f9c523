"""The resumable loop of rounds: simulate, train, generate, choose the next bias and start structures.

Every step writes into a temporary place and renames it when it is whole; a step whose result is there is
not done again. So the same command continues an interrupted run.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from rich.progress import Progress

from latf_openmm.analysis.free_energy import (
    LatentGrid,
    bootstrap_populations,
    flow_probability,
    jensen_shannon,
)
from latf_openmm.analysis.generate import generate, write_ensemble
from latf_openmm.analysis.pool import Pool, make_pool
from latf_openmm.config import RunConfig, check, dump_config
from latf_openmm.data.trajectory import FeatureTrajectory
from latf_openmm.data.weights import effective_sample_size, training_weights
from latf_openmm.errors import ConfigError
from latf_openmm.features import resolve_features
from latf_openmm.md.simulation import Stage, run_stage
from latf_openmm.md.walker_group import BiasSource
from latf_openmm.model.checkpoint import TrainedModel, save_model, versions
from latf_openmm.run_folder import BOX, CONFIG, RoundFolder, RunFolder, read_config
from latf_openmm.schema import RECORD, read_record, resume_record, start_record
from latf_openmm.storage import (
    check_output,
    make_folder,
    partial,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)
from latf_openmm.training.fit import TrainingResult, fit

log = logging.getLogger(__name__)

_CHANGEABLE = ("loop", "generate", "validation")
"""Parts of the configuration that a resumed run may change."""

_BEFORE_CONFIG = (".lock", RECORD, partial(Path(RECORD)).name, partial(Path(CONFIG)).name)
"""What an interruption at the very start may leave."""

IMPORTED = "imported.json"
"""File in a stage whose frames were not simulated here."""


def run_loop(config: RunConfig, path: Path, progress: Progress | None = None) -> RunFolder:
    """Run the loop in `path`, or continue it.

    Raises
    ------
    ConfigError
        If the configuration is impossible, or differs from the one the folder was started with, or another
        process is working in the folder.
    """
    check(config)
    _check_folder(config, path)
    make_folder(path)
    run = RunFolder(path, config)
    try:
        with FileLock(path / ".lock", timeout=0):
            _open_or_start(run)
            for index in range(config.loop.rounds):
                folder = run.round(index)
                if not folder.complete:
                    _run_round(run, folder, progress)
                if _settled(run, folder):
                    break
            _validate(run, progress)
    except Timeout:
        raise ConfigError(f"{path}: another process is working in this folder") from None
    return run


def _check_folder(config: RunConfig, path: Path) -> None:
    """Raise `ConfigError` where a folder is something else than this run."""
    check_output(path, folder=True)
    file = path / CONFIG
    if file.is_file():
        read_record(path)
        before = read_config(file)
        now = config.model_dump(mode="json")
        changed = [key for key in now if key not in _CHANGEABLE and now[key] != before.get(key)]
        if changed:
            raise ConfigError(
                f"{file}: this folder was started with another configuration (different: {', '.join(changed)}); "
                f"use a new folder, or change only {', '.join(_CHANGEABLE)}"
            )
    elif path.is_dir() and any(entry.name not in _BEFORE_CONFIG for entry in path.iterdir()):
        raise ConfigError(f"{path}: the folder is not empty and is not a run (config.yaml is missing)")


def _open_or_start(run: RunFolder) -> None:
    if (run.path / CONFIG).is_file():
        resume_record(run.path)
    else:
        start_record(run.path)
    write_text(run.path / CONFIG, dump_config(run.config))


def _run_round(run: RunFolder, folder: RoundFolder, progress: Progress | None) -> None:
    label = f"round {folder.index}"
    log.info("%s: start", label)
    seconds = {}
    seconds["simulate"] = _timed(lambda: _simulate(run, folder, progress))
    walkers = run.walkers(folder.index)
    trajectories = run.feature_trajectories(walkers)
    seconds["train"] = _timed(lambda: _train(run, folder, trajectories, progress))
    trained = run.trained(folder.index)
    pool = make_pool(trained, walkers, trajectories)
    seconds["generate"] = _timed(lambda: _generate(run, folder, trained, pool))
    _choose_starts(run, folder, pool)
    write_json(folder.record, _summary(run, folder, trained, pool, seconds))


def _timed(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _simulate(run: RunFolder, folder: RoundFolder, progress: Progress | None) -> None:
    if (folder.simulation / IMPORTED).is_file():
        return
    config = run.config
    bias = None
    starts: dict[float, NDArray[np.float64]] = {}
    boxes: dict[float, NDArray[np.float64]] = {}
    if folder.index > 0:
        previous = run.round(folder.index - 1)
        starts, boxes = previous.read_starts()
        if config.bias is not None:
            bias = BiasSource(model=previous.model, bias=config.bias)
    seed = config.seed + 100_000 * (folder.index + 1)
    stage = Stage(config.system, config.simulation, bias, starts, seed, folder.simulation, boxes)
    kind = "biased" if bias else "unbiased"
    run_stage(stage, progress, f"round {folder.index}: simulate, {kind}")


def _train(
    run: RunFolder, folder: RoundFolder, trajectories: list[FeatureTrajectory], progress: Progress | None
) -> None:
    if folder.model.is_dir():
        return
    train_model(run.config, trajectories, folder.model, run.config.seed + folder.index, progress)


def train_model(
    config: RunConfig,
    trajectories: list[FeatureTrajectory],
    folder: Path,
    seed: int,
    progress: Progress | None = None,
) -> TrainedModel:
    """Train on featurised trajectories and write the model folder with its history."""
    result = fit(trajectories, config.model, config.training, seed, progress)
    topology = config.system.build(1).mdtraj_topology()
    trained = TrainedModel(
        result.model,
        tuple(resolve_features(config.features, topology)),
        tuple(str(atom) for atom in topology.atoms),
        config.system.scale.name,
        tuple(sorted({t.temperature for t in trajectories})),
        _provenance(result, trajectories, seed),
    )
    with whole_folder(folder) as temporary:
        save_model(trained, temporary)
        history = pd.DataFrame([asdict(epoch) for epoch in result.history])
        history.to_parquet(temporary / "history.parquet", index=False)
    return trained


def _provenance(result: TrainingResult, trajectories: list[FeatureTrajectory], seed: int) -> dict[str, Any]:
    return {
        "versions": versions(),
        "seed": seed,
        "frames": sum(t.n_frames for t in trajectories),
        "states_settled": result.settled,
        "populations": result.populations,
        "ladder": result.ladder,
        "lag": result.lag,
        "lag_scan": None if result.lag_scan is None else asdict(result.lag_scan),
    }


def _generate(run: RunFolder, folder: RoundFolder, trained: TrainedModel, pool: Pool) -> None:
    for temperature in run.temperatures():
        generate_into(
            run, trained, pool, temperature, run.config.generate.samples, folder.generated(temperature)
        )


def generate_into(
    run: RunFolder, trained: TrainedModel, pool: Pool, temperature: float, samples: int, target: Path
) -> tuple[str, ...]:
    """Generate at one temperature and write it to `target`; return the warnings a reader must see."""
    ensemble = generate(trained, pool, temperature, samples, run.config.seed)
    if not target.is_dir():
        with whole_folder(target) as temporary:
            write_ensemble(ensemble, trained, pool, run.topology(), temporary)
    return ensemble.warnings


def _choose_starts(run: RunFolder, folder: RoundFolder, pool: Pool) -> None:
    """Start the next round evenly over the states, from frames of the same temperature where there are any."""
    rng = np.random.default_rng([run.config.seed, folder.index, 7])
    topology = run.topology()
    starts = {}
    for temperature in run.config.simulation.temperatures:
        chosen = _even_over_states(pool, temperature, run.config.simulation.walkers, rng)
        structures = pool.structures(chosen, topology)
        starts[f"{temperature!r}"] = structures.xyz.astype(np.float64)
        if structures.unitcell_vectors is not None:
            starts[f"{BOX}{temperature!r}"] = structures.unitcell_vectors.astype(np.float64)
    with whole_file(folder.starts) as temporary, temporary.open("wb") as file:
        np.savez(file, **starts)


def _even_over_states(pool: Pool, temperature: float, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    states = np.unique(pool.states)
    here = pool.temperatures() == temperature
    chosen = []
    for walker in range(n):
        state = pool.states == states[walker % len(states)]
        candidates = np.flatnonzero(state & here)
        chosen.append(rng.choice(candidates if len(candidates) else np.flatnonzero(state)))
    return np.array(chosen, dtype=np.int64)


def _summary(
    run: RunFolder, folder: RoundFolder, trained: TrainedModel, pool: Pool, seconds: dict[str, float]
) -> dict[str, Any]:
    config = run.config
    steps = config.simulation.frames * config.simulation.frame_interval + config.simulation.equilibration
    steps *= config.simulation.walkers * len(config.simulation.temperatures)
    if (folder.simulation / IMPORTED).is_file():
        steps = sum(len(walker.table) for walker in pool.walkers) * config.simulation.frame_interval
    return {
        "round": folder.index,
        "biased": folder.index > 0 and config.bias is not None,
        "n_states": trained.model.n_states,
        "frames": len(pool.z),
        "simulated_ps": steps * config.simulation.timestep,
        "seconds": seconds,
        "populations": pool_populations(pool, trained, run.config.seed),
        "effective_sample_size": _sample_sizes(pool),
        "change": _change(run, folder, trained, pool),
        "versions": versions(),
    }


def pool_populations(pool: Pool, trained: TrainedModel, seed: int) -> list[dict[str, Any]]:
    """State populations of the pool's frames at each simulated temperature, with bootstrap errors."""
    weights = training_weights(pool.trajectories)
    rows = []
    for temperature in sorted({t.temperature for t in pool.trajectories}):
        members = [i for i, t in enumerate(pool.trajectories) if t.temperature == temperature]
        share, error = bootstrap_populations(
            [pool.states[pool.of_walker(i)] for i in members],
            [weights[i] for i in members],
            trained.model.n_states,
            np.random.default_rng(seed),
        )
        rows.append({"temperature": temperature, "populations": share.tolist(), "errors": error.tolist()})
    return rows


def _sample_sizes(pool: Pool) -> list[dict[str, Any]]:
    """Kish's effective sample size of each run's bias weights."""
    rows = []
    for run, temperature in sorted({(t.run, t.temperature) for t in pool.trajectories}):
        logs = np.concatenate([t.log_weights for t in pool.trajectories if t.run == run])
        rows.append(
            {
                "run": run,
                "temperature": temperature,
                "frames": len(logs),
                "effective": effective_sample_size(logs),
            }
        )
    return rows


def _change(run: RunFolder, folder: RoundFolder, trained: TrainedModel, new: Pool) -> list[dict[str, float]]:
    """How far this round's weighted frames moved the distribution, in this round's latent plane.

    The frames up to the previous round and all frames, each under their own weights, are binned with this
    round's model, so that the two are compared in one plane.
    """
    if folder.index == 0:
        return []
    before = len(run.walkers(folder.index - 1))
    old = make_pool(trained, new.walkers[:before], new.trajectories[:before])
    grid = LatentGrid.around(new.z, points=30)
    rows = []
    for temperature in run.config.simulation.temperatures:
        p, q = (_weighted_histogram(pool, temperature, grid) for pool in (old, new))
        flow = flow_probability(trained.model, temperature, grid)
        rows.append(
            {
                "temperature": temperature,
                "frames": jensen_shannon(p, q),
                "flow_to_frames": jensen_shannon(flow, q),
            }
        )
    return rows


def _weighted_histogram(pool: Pool, temperature: float, grid: LatentGrid) -> NDArray[np.float64]:
    here = pool.temperatures() == temperature
    weights = np.concatenate(training_weights(pool.trajectories))
    return grid.histogram(pool.z[here], weights[here])


def _settled(run: RunFolder, folder: RoundFolder) -> bool:
    limit = run.config.loop.stop_below
    change = folder.summary()["change"]
    return limit is not None and bool(change) and all(row["frames"] < limit for row in change)


def _validate(run: RunFolder, progress: Progress | None) -> None:
    """Independent unbiased runs for the report."""
    simulation = run.config.validation_simulation()
    marker = run.validation / "complete.json"
    if simulation is None or marker.is_file():
        return
    stage = Stage(run.config.system, simulation, None, {}, run.config.seed + 77_000_000, run.validation)
    seconds = _timed(lambda: run_stage(stage, progress, "validation runs"))
    write_json(marker, {"seconds": seconds})
