"""The next step, which every command says in its last line.

It goes to standard error: what a command prints is for whoever reads it, people or programs.
"""

from rich.console import Console

_console = Console(stderr=True)
"""Where they go."""


def set_quiet(quiet: bool) -> None:
    """Leave the lines out, for programs."""
    _console.quiet = quiet


def say_next(command: str, *others: str) -> None:
    """Say what to do next: one command, or one of several, each on a line of its own."""
    for line in (f"Next: {command}", *(f"  or: {other}" for other in others)):
        _console.print(line, highlight=False, markup=False, soft_wrap=True)
