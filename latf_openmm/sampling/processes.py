"""Worker processes: they end with the process that started them, and never import the caller's script.

`loky` starts them by an entry point of its own. The standard library's would import the main module again, so that a
plain script without ``if __name__ == "__main__":`` could not use them.
"""

import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.managers import SyncManager
from threading import Event
from typing import Any, ParamSpec, TypeVar

from loky import ProcessPoolExecutor
from loky.backend import get_context

from latf_openmm.errors import BackendError, SimulationError, first_line

Given = ParamSpec("Given")
Result = TypeVar("Result")
_ENVIRONMENT = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e15"}
"""No worker is replaced because it keeps memory: Contexts are kept on purpose."""


def process_pool(processes: int) -> Executor:
    """Return a pool of new processes, which end when this one does, however it ends; `end_pool` ends it."""
    return ProcessPoolExecutor(
        processes,
        context=get_context("loky"),
        initializer=_begin_worker,
        initargs=(os.getpid(),),
        env=_ENVIRONMENT,
    )


def end_pool(pool: Executor, futures: Sequence["Future[Any]"] = (), kill: bool = False) -> None:
    """End a pool when its running tasks are done, or at once.

    Parameters
    ----------
    pool
        From `process_pool`.
    futures
        Tasks, of which those that did not begin are cancelled.
    kill
        Do not wait for those that did.
    """
    for future in futures:
        future.cancel()
    assert isinstance(pool, ProcessPoolExecutor)
    pool.shutdown(wait=True, kill_workers=kill)


@contextmanager
def shared_objects() -> Iterator[SyncManager]:
    """Yield a manager of queues and events that tasks of a pool can be given."""
    manager = SyncManager(ctx=get_context("loky"))
    manager.start(end_with_parent, (os.getpid(),))
    with manager:
        yield manager


def set_apart(event: Event) -> None:
    """Set an event of a manager after an exception that may have come in the middle of a call to the manager.

    The answer to that call is still unread on the connection of this thread, and would be taken for that of the next
    call; another thread has a connection of its own.
    """

    def tell() -> None:
        with suppress(OSError, EOFError):  # the manager has ended
            event.set()

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    thread.join()


@contextmanager
def lost_workers_named() -> Iterator[None]:
    """Say in one line that a worker process ended before its task.

    Raises
    ------
    SimulationError
        In place of `BrokenProcessPool`.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise SimulationError(
            "a worker process ended before its task did (killed, or out of memory); with fewer "
            "simulation.processes less memory is needed"
        ) from error


def carried(function: Callable[Given, Result], *arguments: Given.args, **named: Given.kwargs) -> Result:
    """Call a function on a worker, so that an error of it reaches the process that waits, whatever its class is.

    An exception whose class takes other arguments than its text is pickled, but cannot be read: the pool then takes
    its worker for lost, and the thread of Parsl that reads results ends: nothing comes any more (parsl 2026.10).

    Raises
    ------
    BackendError
        In place of an exception that cannot be carried; it has its class and text.
    """
    try:
        return function(*arguments, **named)
    except Exception as error:
        if _can_be_carried(error):
            raise
        kind = type(error)
        raise BackendError(f"{kind.__module__}.{kind.__qualname__}: {first_line(error)}") from None


def _can_be_carried(error: Exception) -> bool:
    try:
        return isinstance(pickle.loads(pickle.dumps(error)), type(error))
    except Exception:  # whatever its class does
        return False


def _begin_worker(parent: int) -> None:
    """Prepare a worker: the process that started it has said what there is to say of the system."""
    logging.getLogger("latf_openmm.systems").setLevel(logging.ERROR)
    end_with_parent(parent)


def end_with_parent(parent: int) -> None:
    """Watch from a thread whether the parent is still there; without it this process has no purpose."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
