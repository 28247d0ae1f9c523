"""Progress with the time left, shared by everything that takes long: bars, or lines where there is no terminal."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Protocol

from rich import get_console
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn as TimeLeft,
)

from latf_openmm.units import duration

log = logging.getLogger(__name__)

_SOON, _LATE = 10.0, 60.0
"""Seconds between two lines on one step: at least, where another tenth of it is done, and at most."""
_SPEED_OVER = 600.0
"""Seconds whose steps the time left is reckoned from: one step, as an epoch with many frames, can take minutes."""


class Advance(Protocol):
    """Call with the amount done since the last call and a short note; for a simulation with its speed."""

    def __call__(self, amount: float, note: str, *, steps_per_second: float | None = None) -> None:
        """Advance the bar."""


def make_progress(console: Console | None = None) -> Progress:
    """Return a progress display; it is to be used as a context manager.

    On a terminal it is bars, in a notebook a widget; where ipywidgets is not installed nothing is drawn, and one line
    says so. Anywhere else, as in a file, it is a line now and then.
    """
    console = console or get_console()
    missing = console.is_jupyter and find_spec("ipywidgets") is None
    if missing:
        log.warning("progress bars in a notebook need the package ipywidgets: pip install ipywidgets")
    if not (console.is_terminal or console.is_jupyter):
        return LineProgress(console)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=18),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeft(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=missing,
        speed_estimate_period=_SPEED_OVER,
    )


class LineProgress(Progress):
    """Progress in plain lines: as each step begins and ends, and in between after every tenth of it or every minute.

    Parameters
    ----------
    console
        Where lines are printed.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console=console, disable=True, speed_estimate_period=_SPEED_OVER)  # nothing is drawn
        self._last: dict[TaskID, tuple[float, float]] = {}

    def begin(self, task: TaskID, description: str) -> None:
        """Say that a step begins."""
        self._last[task] = (time.monotonic(), 0.0)
        self._say(f"{description}: begins")

    def advanced(self, task: TaskID, description: str, note: str) -> None:
        """Say how far a step is, if it is time to."""
        state = self._state(task)
        (when, percent), now = self._last[task], time.monotonic()
        enough = state.percentage >= percent + 10.0 and now - when >= _SOON
        if state.finished or not (enough or now - when >= _LATE):
            return
        self._last[task] = (now, state.percentage)
        left = "" if state.time_remaining is None else f", {duration(state.time_remaining)} left"
        amount = f"{state.completed:,.0f} of {state.total or 0:,.0f} ({state.percentage:.0f} %)"
        self._say(f"{description}: {amount}{left}" + (f"; {note}" if note else ""))

    def end(self, task: TaskID, description: str, note: str) -> None:
        """Say that a step has ended."""
        state = self._state(task)
        self._say(f"{description}: done in {duration(state.elapsed)}" + (f"; {note}" if note else ""))

    def _state(self, task: TaskID) -> Task:
        return next(state for state in self.tasks if state.id == task)

    def _say(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {text}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(progress: Progress | None, description: str, total: float) -> Iterator[Advance]:
    """Yield a function that advances a bar on `progress`; does nothing when that is None.

    The bar is completed on leaving without an error, also when the work ended early.
    """
    if progress is None:
        yield _nothing
        return
    task, last = progress.add_task(description, total=total, note=""), ""
    lines = progress if isinstance(progress, LineProgress) else None
    if lines is not None:
        lines.begin(task, description)

    def advance(amount: float, note: str, *, steps_per_second: float | None = None) -> None:
        nonlocal last
        last = note
        progress.update(task, advance=amount, note=note, steps_per_second=steps_per_second)
        if lines is not None:
            lines.advanced(task, description, note)

    yield advance
    progress.update(task, completed=total)
    if lines is not None:
        lines.end(task, description, last)


def say(progress: Progress | None, text: str) -> None:
    """Print a line above the bars, where there are any."""
    if progress is not None:
        progress.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _nothing(amount: float, note: str, *, steps_per_second: float | None = None) -> None:
    """Show nothing."""
