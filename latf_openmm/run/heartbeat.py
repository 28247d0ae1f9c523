"""A small file in the folder of a run that says what goes on at this moment, for those who watch from outside.

It is written anew every few seconds while a command works on the run, and removed when that ends. Nothing rests on it:
it is no result, so it is written in place and without waiting for the disk, and what cannot be read counts as none.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from pydantic import ValidationError
from rich.progress import Progress

from latf_openmm.run.records import Record

FILE = ".progress.json"
"""File in the folder of a run."""
_PERIOD = 2.0
"""Seconds between beats."""
SILENCE = 60.0
"""Seconds without a beat from which nobody works on a run; clocks of machines and network file systems differ."""


class Heartbeat(Record):
    """Content of the file.

    Attributes
    ----------
    updated
        Time of the beat [s since the epoch].
    host, process
        That works on the run.
    step
        Description of the bar that goes on; empty between bars.
    done, total
        Of the bar, in units of its own.
    steps_per_second
        Time steps of all walkers together, where a simulation goes on.
    seconds_left
        Of the bar, by its speed; None where that is not known.
    note
        What the bar says of its last result.
    """

    content = "what a command does at this moment"
    updated: float
    host: str
    process: int
    step: str = ""
    done: float = 0.0
    total: float = 0.0
    steps_per_second: float | None = None
    seconds_left: float | None = None
    note: str = ""

    @property
    def fraction(self) -> float:
        """Done, as a share of the total."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0

    @property
    def age(self) -> float:
        """Seconds since the beat."""
        return max(0.0, time.time() - self.updated)

    @property
    def alive(self) -> bool:
        """True where somebody works on the run."""
        return self.age < SILENCE and not (self.host == socket.gethostname() and _gone(self.process))


def _gone(process: int) -> bool:
    """Return whether there is no such process on this machine; False where that cannot be asked."""
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)  # no signal, only the question
    except ProcessLookupError:
        return True
    except OSError:  # of another user
        return False
    return False


@contextmanager
def repeated(note: Callable[[], None]) -> Iterator[None]:
    """Call a function at once and every few seconds, in a thread, until this is left."""
    ended = Event()

    def repeat() -> None:
        note()
        while not ended.wait(_PERIOD):
            note()

    thread = Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def beating(folder: Path, progress: Progress) -> Iterator[None]:
    """Write what the bars of `progress` say into `folder` every few seconds, by a thread, until this is left."""
    path = folder / FILE

    def beat() -> None:
        with suppress(OSError):  # a full disk is said by those who need it
            path.write_text(json.dumps(_read(progress).plain()) + "\n", encoding="utf-8")

    try:
        with repeated(beat):
            yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _read(progress: Progress) -> Heartbeat:
    """Return the innermost bar that goes on."""
    left = [task for task in progress.tasks if not task.finished]
    present = Heartbeat(updated=time.time(), host=socket.gethostname(), process=os.getpid())
    if not left:
        return present
    task = left[-1]
    return Heartbeat(
        updated=present.updated,
        host=present.host,
        process=present.process,
        step=task.description.strip(),
        done=task.completed,
        total=task.total or 0.0,
        steps_per_second=task.fields.get("steps_per_second"),
        seconds_left=task.time_remaining,
        note=task.fields.get("note", ""),
    )


def read_heartbeat(folder: Path) -> Heartbeat | None:
    """Return the last beat; None where there is none, or it is being written just now."""
    try:
        return Heartbeat.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        return None
