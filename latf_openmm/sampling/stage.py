"""One stage: walkers at several temperatures, in groups of which each has a Context."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from openmm import app
from pydantic import Field, model_validator
from rich.progress import Progress

from latf_openmm.errors import ConfigError, DataError, SimulationError
from latf_openmm.progress import Advance, bar
from latf_openmm.sampling.dynamics import BiasSource, DynamicsSettings, GroupTask, SetTask
from latf_openmm.sampling.group_runs import run_here, run_in_processes, run_on, waves_of
from latf_openmm.sampling.tempering import AnyTempering
from latf_openmm.storage import (
    atomic_file,
    check_folder,
    read_record,
    remove_locks,
    write_json,
    write_record,
)
from latf_openmm.systems import AnySystem, shared_system
from latf_openmm.units import temperature_name

log = logging.getLogger(__name__)

DROPPED = "dropped.json"
"""File of a stage that names the groups of walkers it goes on without."""

_Walkers = list[tuple[int, int]]


class SimulationSettings(DynamicsSettings):
    """One stage of simulation."""

    temperatures: list[float] = Field(min_length=1, description="in the scale of the system")
    walkers: int = Field(1, ge=1, le=10_000, description="walkers at each temperature")
    frames: int = Field(ge=10, description="frames of each walker")
    processes: int = Field(1, ge=1, le=256, description="groups of walkers that run at the same time")
    share_bias: Literal["temperature", "all"] = Field(
        "temperature",
        description="an adaptive bias is shared by the walkers of each temperature, or by all (it is then that of "
        "the lowest temperature)",
    )
    synchronous_bias: bool = Field(
        False,
        description="whether groups of walkers that share an adaptive bias see what the others added after every "
        "segment only, all together, so that results are the same for any number of processes; otherwise at once",
    )
    tempering: AnyTempering | None = Field(
        None, description="how walkers move among the temperatures; none: each stays at one"
    )

    @model_validator(mode="after")
    def _ladder(self) -> "SimulationSettings":
        if self.tempering is None:
            return self
        if len(set(self.temperatures)) < 2:
            raise ValueError(
                f"tempering: {self.tempering.kind} needs two temperatures or more, got {self.temperatures}"
            )
        if self.frames <= self.tempering.interval:
            raise ValueError(
                f"tempering.interval: {self.tempering.interval} frames between moves are not fewer than frames "
                f"({self.frames}), so that no walker would ever move"
            )
        return self

    @model_validator(mode="after")
    def _integrators(self) -> "SimulationSettings":
        several = min(self.context_walkers or 1, self.walkers * len(self.temperatures)) // self.walkers > 1
        if several and self.bias_every > 1:
            raise ValueError(
                f"context_walkers: {self.context_walkers} are more than walkers ({self.walkers}), so those of several "
                f"temperatures share a Context; this needs bias_every: 1, got {self.bias_every}"
            )
        return self

    @property
    def steps(self) -> int:
        """Time steps of all walkers together."""
        each = self.frames * self.frame_interval + self.equilibration
        return each * self.walkers * len(self.temperatures)

    def dynamics(self) -> DynamicsSettings:
        """Return what concerns one walker."""
        return DynamicsSettings(**self.model_dump(include=set(DynamicsSettings.model_fields)))


@dataclass(frozen=True)
class Stage:
    """One stage of simulation, with its starts.

    Parameters
    ----------
    system, settings, bias
        What and how; `bias` None is unbiased.
    starts
        Start positions for each temperature, shape (n_walkers, n_atoms, 3) [nm]; empty: the system's own.
    seed
        Random seed of the stage.
    folder
        Where it is written.
    boxes
        Periodic boxes of the start positions at each temperature, shape (n_walkers, 3, 3) [nm].
    unbiased
        Temperatures whose walkers do not feel the bias.
    """

    system: AnySystem
    settings: SimulationSettings
    bias: BiasSource | None
    starts: dict[float, NDArray[np.float64]]
    seed: int
    folder: Path
    boxes: dict[float, NDArray[np.float64]] = field(default_factory=dict)
    unbiased: frozenset[float] = frozenset()

    def tasks(self) -> list[SetTask]:
        """One task for each set of walkers that need each other."""
        tempering = self.settings.tempering
        sets: dict[Any, list[GroupTask]] = {}
        for number, rows in enumerate(self._groups()):
            exchanged = tempering is not None and tempering.between_walkers
            sets.setdefault(rows[0][1] if exchanged else number, []).append(self._task(rows))
        every = [group for groups in sets.values() for group in groups]
        tasks, first = list[SetTask](), 0
        for groups in sets.values():
            with_peers = tuple(self._with_peers(group, every) for group in groups)
            tasks.append(SetTask(with_peers, tempering, first))
            first += tasks[-1].n_walkers
        return tasks

    def _with_peers(self, group: GroupTask, every: Sequence[GroupTask]) -> GroupTask:
        """Return a group that knows with which others it shares an adaptive bias after each segment, if it does."""
        adapts = group.bias is not None and group.bias.bias.adapts
        if not (self.settings.synchronous_bias and adapts and group.exchange is not None):
            return group
        others = (peer for peer in every if peer.bias is not None and peer.exchange == group.exchange)
        return replace(group, peers=tuple(peer.folder.name for peer in others if peer.folder != group.folder))

    def _groups(self) -> list[_Walkers]:
        """Which walkers share a Context, as (place of the temperature, walker)."""
        settings = self.settings
        n, places = settings.walkers, range(len(settings.temperatures))
        wanted = settings.context_size(self.system, n)
        if wanted < 2 * n:
            size = min(wanted, n)
            return [
                [(place, walker) for walker in range(first, min(first + size, n))]
                for place in places
                for first in range(0, n, size)
            ]
        groups: list[_Walkers] = []
        for place in places:
            walkers = [(place, walker) for walker in range(n)]
            fits = groups and len(groups[-1]) + n <= wanted
            if fits and self._same_bias(groups[-1][0][0], place):
                groups[-1].extend(walkers)
            else:
                groups.append(walkers)
        return groups

    def _biased(self, place: int) -> bool:
        if self._visiting:  # a bias goes where the walker goes
            return self.bias is not None and not self.unbiased.issuperset(self.settings.temperatures)
        return self.bias is not None and self.settings.temperatures[place] not in self.unbiased

    @property
    def _visiting(self) -> bool:
        """True where each walker visits all temperatures."""
        tempering = self.settings.tempering
        return tempering is not None and not tempering.between_walkers

    def _same_bias(self, first: int, second: int) -> bool:
        """Return whether walkers at two temperatures have the same bias, or none."""
        if self._visiting:
            return True
        if self._biased(first) != self._biased(second):
            return False
        return not self._biased(first) or self.settings.share_bias == "all"

    def _task(self, rows: _Walkers) -> GroupTask:
        settings = self.settings
        n, (place, first) = settings.walkers, rows[0]
        temperatures = tuple(settings.temperatures[at] for at, _ in rows)
        lowest = min(temperatures)
        name = temperature_name(temperatures[0])
        if self._visiting:
            first += place * n
            name = f"{_span(settings.temperatures)}_w{first:03d}"
        elif lowest != max(temperatures):
            name = _span(temperatures)
            first += place * n  # numbers of their own, since they lie in one folder
        elif not (self.system.batched and len(rows) == n):
            name += f"_w{first:03d}"
        several = len(settings.temperatures) > 1
        shared_by_all = several and (settings.share_bias == "all" or self._visiting)
        shared = "all" if shared_by_all else temperature_name(lowest)
        return GroupTask(
            self.system,
            settings.dynamics(),
            self.bias if self._biased(place) else None,
            temperatures,
            _rows_of(self.starts, settings.temperatures, rows),
            first,
            settings.frames,
            _task_seed(self.seed, place, rows[0][1]),
            self.folder / name,
            self.folder / "exchange" / shared if shared_by_all or len(rows) < n else None,
            min(settings.temperatures) if shared_by_all else None,
            _rows_of(self.boxes, settings.temperatures, rows),
            tuple(sorted(settings.temperatures)) if self._visiting else (),
        )


def _span(temperatures: Sequence[float]) -> str:
    """Name of walkers at several temperatures."""
    return f"{temperature_name(temperatures[0])}-{temperature_name(temperatures[-1]).removeprefix('T')}"


def _rows_of(
    arrays: dict[float, NDArray[np.float64]], temperatures: Sequence[float], rows: _Walkers
) -> NDArray[np.float64] | None:
    """Rows of these walkers in the arrays of each temperature; None where there are none for them."""
    if temperatures[rows[0][0]] not in arrays:
        return None
    return np.stack([arrays[temperatures[place]][walker] for place, walker in rows])


def _task_seed(seed: int, temperature: int, walker: int) -> int:
    """Seed of one group; sums would give walkers of neighbouring seeds the same noise."""
    return int(np.random.SeedSequence([seed, temperature, walker]).generate_state(1, np.uint64)[0])


def check_simulated(system: AnySystem) -> None:
    """Raise `ConfigError` where a system has no forces."""
    if not system.simulated:
        raise ConfigError(
            f"system.kind: {system.kind} has atoms without forces, which cannot be simulated; import works on it, and "
            "what needs no simulation: reweighting, observables, states, the report"
        )


def run_stage(
    stage: Stage,
    progress: Progress | None = None,
    description: str = "simulate",
    executor: Executor | None = None,
) -> None:
    """Run a stage, or what is left of it.

    A group of walkers that stays unstable does not stop the others: it is dropped, with what it has, and named in
    ``dropped.json``.

    Parameters
    ----------
    stage
        What to run.
    progress, description
        Where and how to tell of it.
    executor
        Runs each group as a task that shares the file system with this process; none: `simulation.processes`
        processes of this machine.

    Raises
    ------
    ConfigError
        If walkers are to share a Context, and cannot.
    SimulationError
        If no group of some temperature comes to its end.
    """
    check_simulated(stage.system)
    check_copies(stage.system, stage.settings)
    _write_record(stage)
    dropped = read_dropped(stage.folder)
    tasks = [task for task in stage.tasks() if not dropped.keys() & set(task.names)]
    with bar(progress, description, sum(task.n_walkers * task.n_frames for task in tasks)) as told:
        advance = _with_speed(stage, tasks, told)
        waiting = [task for task in tasks if not task.segment(task.n_segments - 1).is_dir()]
        if waiting:
            _check_complete(tasks)
        if executor is not None:
            failures = run_on(executor, waves_of(tasks), advance)
            remove_locks(stage.folder)
        elif stage.settings.processes == 1 or len(waiting) < 2:
            failures = run_here(waves_of(tasks), advance)
        else:
            failures = run_in_processes(waves_of(tasks), stage.settings.processes, advance)
    if not failures:
        return
    ended = {t for task in tasks if not failures.keys() & set(task.names) for t in task.temperatures}
    if ended != set(stage.settings.temperatures):
        raise SimulationError("; ".join(dict.fromkeys(failures.values())))
    for text in dict.fromkeys(failures.values()):
        log.warning("%s; dropped, the others go on", text)
    write_record(stage.folder / DROPPED, {"dropped": dropped | failures})


def _check_complete(tasks: Sequence[SetTask]) -> None:
    """Raise `DataError` where a file of what is complete was damaged, before more is simulated.

    Checkpoints are left out, since a run goes on without one.
    """
    for task in tasks:
        for group in task.groups:
            for index in range(task.n_complete()):
                check_folder(group.segment(index), leave_out=("checkpoint.bin",))


def check_copies(system: AnySystem, dynamics: DynamicsSettings) -> None:
    """Raise `ConfigError` where walkers are to share a Context, and cannot."""
    if (dynamics.context_walkers or 1) == 1:
        return
    try:
        shared_system(system, 2)
    except ConfigError as error:
        raise ConfigError(
            f"simulation.context_walkers: {dynamics.context_walkers} is not possible: {error}"
        ) from error


def _with_speed(stage: Stage, tasks: Sequence[SetTask], told: Advance) -> Callable[[int], None]:
    """Tell of frames done, of all walkers, with their simulated time, the temperatures and the speed."""
    scale, settings = stage.system.scale, stage.settings
    at = ", ".join(f"{t:g}" for t in settings.temperatures)
    at = f"{at} K" if scale.name == "K" else f"T = {at}"
    interval = settings.timestep * settings.frame_interval
    in_all = scale.duration(interval * sum(task.n_walkers * task.n_frames for task in tasks))
    before = sum(task.n_walkers * task.frames_in(i) for task in tasks for i in range(task.n_complete()))
    begin, done = time.perf_counter(), 0

    def advance(frames: int) -> None:
        nonlocal done
        done += frames
        new, seconds = done - before, time.perf_counter() - begin
        speed = float(new * settings.frame_interval / seconds) if new > 0 else None
        said = "" if speed is None else f", {scale.speed(speed, settings.timestep)}"
        simulated = f"{scale.duration(done * interval)} of {in_all}"
        told(frames, f"{simulated}, {at}{said}", steps_per_second=speed)

    return advance


def read_dropped(folder: Path) -> dict[str, str]:
    """Return the groups of walkers that a stage goes on without, and why.

    Raises
    ------
    DataError
        If the file that says so is damaged.
    """
    path = folder / DROPPED
    if not path.is_file():
        return {}
    try:
        return {str(name): str(why) for name, why in read_record(path)["dropped"].items()}
    except (DataError, KeyError, AttributeError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{path}: damaged ({reason}); expected names of walkers and reasons") from None


def _write_record(stage: Stage) -> None:
    record = {
        "system": stage.system.model_dump(mode="json"),
        "temperature_scale": stage.system.scale.name,
        "settings": stage.settings.model_dump(mode="json"),
        "bias": None if stage.bias is None else stage.bias.model_dump(mode="json"),
        "unbiased": sorted(stage.unbiased),
        "seed": stage.seed,
    }
    write_json(stage.folder / "stage.json", record)
    built = shared_system(stage.system)
    with atomic_file(stage.folder / "topology.pdb") as temporary, temporary.open("w") as file:
        app.PDBFile.writeFile(built.topology, built.positions[0] * 10.0, file, keepIds=True)
