"""SIGINT and SIGTERM as an exception that is not lost, and a second one that ends the process at once."""

import os
import signal
import sys
import time
from contextlib import suppress

_AGAIN = 0.05
"""Seconds after which an exception that Python ignored is raised again."""
_SAME = 1.0
"""Seconds in which a second signal is the first: `timeout` and batch systems send it to a process and to its group."""


class Stopped(BaseException):
    """SIGINT, or SIGTERM as batch systems send it; typer ends silently at a KeyboardInterrupt.

    Parameters
    ----------
    number
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def end_at_signals() -> None:
    """Raise `Stopped` at SIGINT and SIGTERM from now on, unless they are ignored, as of a job in the background."""
    handler = _Handler()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler.stop)
    if hasattr(signal, "SIGALRM"):  # not on Windows
        signal.signal(signal.SIGALRM, handler.stop_again)
        sys.unraisablehook = handler.ignored


class _Handler:
    """Remembers the first signal."""

    def __init__(self) -> None:
        self._number, self._time = 0, 0.0
        self._unraisable = sys.unraisablehook

    def stop(self, number: int, frame: object) -> None:
        """Raise `Stopped`; at a second signal end the process."""
        if not self._number:
            self._number, self._time = number, time.monotonic()
            raise Stopped(number)
        if time.monotonic() - self._time > _SAME:
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):  # the stream may be in the middle of writing
                    stream.flush()
            os._exit(128 + number)

    def stop_again(self, number: int, frame: object) -> None:
        """Raise what was ignored."""
        raise Stopped(self._number)

    def ignored(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Python ignores exceptions of callbacks of weak references, as at the end of an import, and of finalizers."""
        if isinstance(unraisable.exc_value, Stopped):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            self._unraisable(unraisable)
