"""Groups of walkers of one stage, run in this process, in several, or on workers of an executor."""

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import replace
from typing import Any

from latf_openmm.errors import SimulationError
from latf_openmm.sampling.dynamics import GroupTask, SetTask
from latf_openmm.sampling.processes import (
    carried,
    end_pool,
    lost_workers_named,
    process_pool,
    set_apart,
    shared_objects,
)
from latf_openmm.sampling.walker_set import run_set
from latf_openmm.storage import exclusive

_LOOK = 1.0
"""Seconds between looks at the segments that workers completed; longer where a look takes long."""


Waves = Sequence[Sequence[SetTask]]
"""Tasks that run at the same time, and those that begin when these are done."""


def waves_of(tasks: Sequence[SetTask]) -> Waves:
    """Return all tasks at once, or a segment of each at a time where groups share a bias after each segment."""
    if not any(group.peers for task in tasks for group in task.groups):
        return [tasks]
    return [
        [replace(task, part=(index, index + 1)) for task in tasks]
        for index in range(max(task.n_segments for task in tasks))
    ]


def run_here(waves: Waves, advance: Callable[[int], None]) -> dict[str, str]:
    """Run groups one after the other; return those that stayed unstable, and why."""
    failures: dict[str, str] = {}
    for wave in waves:
        for task in _left(wave, failures):
            try:
                run_set(task, advance)
            except SimulationError as error:
                failures |= dict.fromkeys(task.names, str(error))
    return failures


def run_in_processes(waves: Waves, processes: int, advance: Callable[[int], None]) -> dict[str, str]:
    """Run groups in processes of this machine; return those that stayed unstable, and why."""
    pool, futures, failures = process_pool(processes), list[Future[None]](), dict[str, str]()
    with shared_objects() as shared:
        done: queue.Queue[int] = shared.Queue()
        stop = shared.Event()
        try:
            for wave in waves:
                tasks = _left(wave, failures)
                futures = [pool.submit(carried, _run_and_tell, task, done, stop) for task in tasks]
                while not all(future.done() for future in futures) or not done.empty():
                    with suppress(queue.Empty):
                        advance(done.get(timeout=0.2))
                with lost_workers_named():
                    failures |= _failures(tasks, futures)
        except BaseException:
            set_apart(stop)
            raise
        finally:
            end_pool(pool, futures)
    return failures


def _left(wave: Sequence[SetTask], failures: Mapping[str, str]) -> list[SetTask]:
    """Tasks of a wave whose groups did not fail before."""
    return [task for task in wave if not failures.keys() & set(task.names)]


def _failures(tasks: Sequence[SetTask], futures: Sequence[Future[None]]) -> dict[str, str]:
    """Groups that stayed unstable, and why; any other error is raised."""
    errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None and not isinstance(error, SimulationError):
            raise error
    return {
        name: str(error)
        for task, error in zip(tasks, errors, strict=True)
        if error is not None
        for name in task.names
    }


def _run_and_tell(task: SetTask, done: Any, stop: Any) -> None:
    """Run a group in this process; end soon after the parent was interrupted."""

    def tell(frames: int) -> None:
        if stop.is_set():
            raise SystemExit("interrupted")
        done.put(frames)

    run_set(task, tell)


def run_on(executor: Executor, waves: Waves, advance: Callable[[int], None]) -> dict[str, str]:
    """Run groups as tasks of an executor; return those that stayed unstable, and why."""
    failures: dict[str, str] = {}
    for wave in waves:
        failures |= _run_wave(executor, _left(wave, failures), advance)
    return failures


def _run_wave(executor: Executor, tasks: Sequence[SetTask], advance: Callable[[int], None]) -> dict[str, str]:
    """Run tasks at the same time; return the groups that stayed unstable, and why."""
    watch = _Watch(tasks, advance)
    watch.look()
    left = [_absolute(task) for task in watch.unfinished()]
    futures: list[Future[None]] = [executor.submit(carried, run_exclusively, task) for task in left]
    waiting, pause = set(futures), _LOOK
    try:
        while waiting:
            waiting = wait(waiting, pause).not_done
            pause = max(_LOOK, 10 * watch.look())
    except BaseException:
        for future in waiting:
            with suppress(NotImplementedError):  # Parsl's ends with its workers
                future.cancel()
        raise
    return _failures(left, futures)


def run_exclusively(task: SetTask) -> None:
    """Run a group on a worker; wait while another worker, of a driver that was lost, still runs it."""
    with exclusive(task.folder):
        run_set(task, lambda frames: None)


def _absolute(task: SetTask) -> SetTask:
    """Return the task for a process that works in another folder."""
    return replace(task, groups=tuple(_absolute_group(group) for group in task.groups))


def _absolute_group(task: GroupTask) -> GroupTask:
    bias = task.bias
    return replace(
        task,
        folder=task.folder.absolute(),
        exchange=None if task.exchange is None else task.exchange.absolute(),
        bias=None if bias is None else bias.model_copy(update={"model": bias.model.absolute()}),
    )


class _Watch:
    """Tells of the frames of all walkers as folders of segments appear."""

    def __init__(self, tasks: Sequence[SetTask], advance: Callable[[int], None]) -> None:
        self.advance = advance
        self.left = [(task, task.to_run.start) for task in tasks]

    def unfinished(self) -> list[SetTask]:
        """Tasks with segments that were not there yet."""
        return [task for task, _ in self.left]

    def look(self) -> float:
        """Look once for the next segment of each task; return how long it took [s]."""
        begin, left = time.perf_counter(), []
        for task, seen in self.left:
            now = seen
            while now in task.to_run and task.segment(now).is_dir():
                self.advance(task.n_walkers * task.frames_in(now))
                now += 1
            if now in task.to_run:
                left.append((task, now))
        self.left = left
        return time.perf_counter() - begin
