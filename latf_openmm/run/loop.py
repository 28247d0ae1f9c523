"""The resumable loop of rounds: simulate, train, generate, choose the next bias and start structures.

Every step writes into a temporary place and renames it when it is whole; a step whose result is there is
not done again. So the same command continues an interrupted run.
"""

import logging
from concurrent.futures import Executor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from rich.progress import Progress

from latf_openmm.ensembles.latent import generate, write_ensemble
from latf_openmm.ensembles.pool import Pool, make_pool
from latf_openmm.errors import ConfigError
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.periodic import boxes_of
from latf_openmm.progress import bar
from latf_openmm.run.config import RunConfig, check, dump_config
from latf_openmm.run.consent import agree_to_execution, agree_to_system, check_outside
from latf_openmm.run.ending import settled
from latf_openmm.run.folder import EXECUTION, RunFolder
from latf_openmm.run.frames import featurise_walkers, run_features
from latf_openmm.run.heartbeat import beating
from latf_openmm.run.records import DecisionRecord, Seconds, ValidationRecord
from latf_openmm.run.rounds import BOX, RoundFolder
from latf_openmm.run.schema import RECORD, add_record, resume_record, start_record
from latf_openmm.run.stages import round_stage, validation_stage
from latf_openmm.run.strategies import Decision, RoundState
from latf_openmm.run.summaries import (
    n_earlier_walkers,
    summary_of,
)
from latf_openmm.run.trainings import train_here, train_on_worker
from latf_openmm.run.wall_time import WallTimes
from latf_openmm.sampling.stage import check_simulated, run_stage
from latf_openmm.settings import differences
from latf_openmm.storage import (
    CONFIG,
    atomic_folder,
    check_folder,
    check_output,
    facts_below,
    make_folder,
    temporary_path,
    write_arrays,
    write_json,
    write_record,
    write_text,
)
from latf_openmm.systems import system_files
from latf_openmm.training.feature_selection import narrowed
from latf_openmm.units import KELVIN, temperature_name

log = logging.getLogger(__name__)
_COLD = 100.0
"""Temperature below which another number may be meant [K]."""

CHANGEABLE = (
    "loop",
    "generate",
    "validation",
    "execution",
    "simulation.processes",
    "simulation.platform_properties",
)
"""Places of the configuration that a resumed run may change; what is in them does not change what was done."""

_NAMED = 5
"""Differences between two configurations that a message names, at most."""

_BEFORE_CONFIG = (".lock", RECORD, temporary_path(Path(RECORD)).name, temporary_path(Path(CONFIG)).name)
"""What an interruption at the very start may leave."""


def run_loop(config: RunConfig, path: Path, progress: Progress | None = None) -> RunFolder:
    """Run the loop in `path`, or continue it.

    Raises
    ------
    ConfigError
        If the configuration is impossible, or differs from the one the folder was started with, or another
        process is working in the folder, or what `config.execution` needs is not installed.
    BackendError
        If workers were lost for good.
    """
    check(config)
    config.execution.check()
    _check_folder(config, path)
    check_outside(path / CONFIG, path, config.system)
    agree_to_system(config.system)
    agree_to_execution(config.execution)
    run = RunFolder(path, config)
    _check_simulated(run)
    _say_cold(run)
    make_folder(path)
    bars = Progress(disable=True) if progress is None else progress
    try:
        with FileLock(path / ".lock", timeout=0):
            _open_or_start(run)
            workers = nullcontext() if run.ended else config.execution.workers(path / EXECUTION)
            with beating(path, bars), workers as executor:
                _run_rounds(run, bars, executor)
                _validate(run, bars, executor)
    except Timeout:
        raise ConfigError(f"{path}: another process is working in this folder") from None
    return run


def _say_cold(run: RunFolder) -> None:
    """Warn of temperatures that may have lost a digit, or are of another unit."""
    cold = [t for t in run.config.simulation.temperatures if t < _COLD]
    if cold and run.scale is KELVIN:
        said = ", ".join(map(run.scale.label, cold))
        log.warning(
            "simulation.temperatures: %s: hardly anything moves there; is another number meant?", said
        )


def _run_rounds(run: RunFolder, progress: Progress, executor: Executor | None) -> None:
    for index in range(run.config.loop.rounds):
        folder = run.round(index)
        if not folder.complete:
            _run_round(run, folder, progress, executor)
        if reason := settled(run, run.config.loop, folder):
            log.info("no further round: %s", reason)
            break


def _check_folder(config: RunConfig, path: Path) -> None:
    """Raise `ConfigError` where a folder is something else than this run."""
    check_output(path, folder=True)
    file = path / CONFIG
    if file.is_file():
        before = RunFolder.open(path, builds=False).config.model_dump(
            mode="json"
        )  # what is left out has its default
        now = config.model_dump(mode="json")
        for place in CHANGEABLE:
            section, _, key = place.partition(".")
            if key:
                before[section][key] = now[section][key]
            else:
                before[section] = now[section]
        if changed := differences(before, now):
            more = len(changed) - _NAMED
            named = "; ".join([*changed[:_NAMED], *([f"and {more} more"] if more > 0 else [])])
            raise ConfigError(
                f"{file}: this folder was started with another configuration (different: {named}); "
                f"use a new folder, or change only {', '.join(CHANGEABLE)}"
            )
    elif path.is_dir() and any(entry.name not in _BEFORE_CONFIG for entry in path.iterdir()):
        raise ConfigError(f"{path}: the folder is not empty and is not a run (config.yaml is missing)")


def _check_simulated(run: RunFolder) -> None:
    """Raise `ConfigError` where rounds are left that cannot be simulated."""
    rounds = [run.round(index) for index in range(run.config.loop.rounds)]
    left = [folder for folder in rounds if not folder.imported()]
    validated = run.config.validation is None or run.validated.is_file()
    if any(not folder.complete for folder in left) or not validated:
        check_simulated(run.config.system)


def _open_or_start(run: RunFolder) -> None:
    text = dump_config(run.config)
    if (run.path / CONFIG).is_file():
        resume_record(run.path, text, system_files(run.config.system))
        for folder in run.complete_rounds():  # an interruption may have come before they were listed
            add_record(run.path, folder.record)
        if run.validated.is_file():
            add_record(run.path, run.validated)
    else:
        start_record(run.path, text, system_files(run.config.system))
    write_text(run.path / CONFIG, text)


def _run_round(
    run: RunFolder, folder: RoundFolder, progress: Progress | None, executor: Executor | None
) -> None:
    label = f"round {folder.index}"
    log.info("%s: start", label)
    times = WallTimes(run.path)
    with times.counting(f"{label}: simulate"):
        _simulate(run, folder, progress, executor)
    if executor is not None:  # before anything is read: frames are not held while a worker trains
        with times.counting(f"{label}: train"):
            train_on_worker(run, folder, executor)
    walkers = run.walkers(folder.index)
    trajectories = featurise_walkers(run.config, walkers, run.path)
    if executor is None:
        with times.counting(f"{label}: train"):
            train_here(run, folder, trajectories, progress)
    trained = run.trained(folder.index)
    names = trained.feature_module().names
    fewer = narrowed(trajectories, run_features(run.config).names, names, trained.columns)
    pool = make_pool(trained, walkers, fewer)
    with times.counting(f"{label}: generate"):
        _generate(run, folder, trained, pool, progress)
    decision = decide(run, folder, trained, pool)
    for reason in decision.reasons:
        log.info("%s: %s", label, reason)
    seconds = Seconds(**{name: times.seconds(f"{label}: {name}") for name in Seconds.model_fields})
    write_record(folder.record, summary_of(run, folder, trained, pool, seconds).plain())
    add_record(run.path, folder.record)
    times.forget(f"{label}: ")


def _simulate(
    run: RunFolder, folder: RoundFolder, progress: Progress | None, executor: Executor | None
) -> None:
    if folder.imported():
        return
    stage = round_stage(run, folder)
    kind = "biased" if stage.bias else "unbiased"
    run_stage(stage, progress, f"round {folder.index}: simulate, {kind}", executor)


def _generate(
    run: RunFolder, folder: RoundFolder, trained: TrainedModel, pool: Pool, progress: Progress | None
) -> None:
    temperatures, samples = run.temperatures(), run.config.generate.samples
    with bar(progress, f"round {folder.index}: generate", len(temperatures)) as advance:
        for temperature in temperatures:
            generate_into(run, trained, pool, temperature, samples, folder.generated(temperature))
            advance(1, run.scale.label(temperature))


def generate_into(
    run: RunFolder,
    trained: TrainedModel,
    pool: Pool,
    temperature: float,
    samples: int,
    target: Path,
) -> tuple[str, ...]:
    """Generate at one temperature and write it to `target`; return the warnings a reader must see."""
    ensemble = generate(trained, pool, temperature, samples, run.config.seed)
    if target.is_dir():  # written before an interruption
        check_folder(target)
    else:
        with atomic_folder(target) as temporary:
            write_ensemble(ensemble, trained, pool, run.topology(), temporary)
    return ensemble.warnings


def round_state(run: RunFolder, folder: RoundFolder, trained: TrainedModel, pool: Pool) -> RoundState:
    """Return what is known after a round, for a strategy."""
    config = run.config
    return RoundState(
        trained,
        pool,
        n_earlier_walkers(folder, pool),
        tuple(sorted(config.generate.temperatures or config.simulation.temperatures)),
        tuple(config.simulation.temperatures),
        config.simulation.walkers,
        config.simulation.frames,
        config.bias is not None,
        config.seed + 1_000_003 * folder.index,
        config.simulation.tempering,
    )


def decide(run: RunFolder, folder: RoundFolder, trained: TrainedModel, pool: Pool) -> Decision:
    """Plan the next round; write its start structures and the plan with its reasons."""
    config = run.config
    decision = config.loop.strategy.decide(round_state(run, folder, trained, pool))
    _write_starts(run, folder, pool, decision)
    origins = {
        temperature_name(temperature).removeprefix("T"): [
            f"{pool.walkers[pool.owner[i]].run}/walker {pool.walkers[pool.owner[i]].walker}/frame {pool.frame[i]}"
            for i in frames
        ]
        for temperature, frames in decision.starts.items()
    }
    record = DecisionRecord(
        strategy=config.loop.strategy.kind,
        temperatures=list(decision.temperatures),
        biased=list(decision.biased),
        stop=decision.stop,
        reasons=list(decision.reasons),
        starts=origins,
        diagnostics=dict(decision.diagnostics),
        moving=decision.moving,
    )
    write_json(folder.decision, record.plain())
    return decision


def _write_starts(run: RunFolder, folder: RoundFolder, pool: Pool, decision: Decision) -> None:
    topology = run.topology()
    starts = {}
    for temperature, frames in decision.starts.items():
        structures = pool.structures(frames, topology)
        starts[f"{temperature!r}"] = structures.xyz.astype(np.float64)
        if (boxes := boxes_of(structures)) is not None:
            starts[f"{BOX}{temperature!r}"] = boxes
    write_arrays(folder.starts, starts)


def _validate(run: RunFolder, progress: Progress | None, executor: Executor | None) -> None:
    """Independent unbiased runs for the report."""
    stage = validation_stage(run)
    if stage is None or run.validated.is_file():
        return
    times, label = WallTimes(run.path), "validation runs"
    with times.counting(label):
        run_stage(stage, progress, label, executor)
    files = facts_below(run.validation, leave_out=(run.validated.name,))
    write_record(run.validated, ValidationRecord(seconds=times.seconds(label), files=files).plain())
    add_record(run.path, run.validated)
    times.forget(label)
