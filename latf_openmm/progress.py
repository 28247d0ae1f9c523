"""Progress bars with the time left, shared by everything that takes long."""

import logging
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
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn as TimeLeft,
)

log = logging.getLogger(__name__)


class Advance(Protocol):
    """Call with the amount done since the last call and a short note; for a simulation with its speed."""

    def __call__(self, amount: float, note: str, *, steps_per_second: float | None = None) -> None:
        """Advance the bar."""


def make_progress(console: Console | None = None) -> Progress:
    """Return a progress display; it is to be used as a context manager.

    In a notebook it is a widget; where ipywidgets is not installed nothing is drawn, and one line says so.
    """
    console = console or get_console()
    missing = console.is_jupyter and find_spec("ipywidgets") is None
    if missing:
        log.warning("progress bars in a notebook need the package ipywidgets: pip install ipywidgets")
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
    )


@contextmanager
def bar(progress: Progress | None, description: str, total: float) -> Iterator[Advance]:
    """Yield a function that advances a bar on `progress`; does nothing when that is None.

    The bar is completed on leaving without an error, also when the work ended early.
    """
    if progress is None:
        yield _nothing
        return
    task = progress.add_task(description, total=total, note="")

    def advance(amount: float, note: str, *, steps_per_second: float | None = None) -> None:
        progress.update(task, advance=amount, note=note, steps_per_second=steps_per_second)

    yield advance
    progress.update(task, completed=total)


def say(progress: Progress | None, text: str) -> None:
    """Print a line above the bars, where there are any."""
    if progress is not None:
        progress.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _nothing(amount: float, note: str, *, steps_per_second: float | None = None) -> None:
    """Show nothing."""
