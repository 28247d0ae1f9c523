"""Progress bars with the time left, shared by everything that takes long."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

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

Advance = Callable[[float, str], None]
"""Call with the amount done since the last call and a short note."""


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
        yield lambda amount, note: None
        return
    task = progress.add_task(description, total=total, note="")
    yield lambda amount, note: progress.update(task, advance=amount, note=note)
    progress.update(task, completed=total)
