"""The application: options of all commands, logging, errors as one line each, signals."""

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Annotated

import rich
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from latf_openmm import __version__
from latf_openmm.cli.messages import set_quiet
from latf_openmm.cli.options import LogFormat
from latf_openmm.cli.stopping import Stopped, end_at_signals
from latf_openmm.errors import LatfError

app = typer.Typer(
    name="latf-openmm",
    help="Learn collective variables with Latent Thermodynamic Flows, bias OpenMM along them, iterate, and "
    "generate ensembles at temperatures nobody simulated.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main() -> None:
    """Entry point: errors made on purpose are one clear line each and exit code 2, never a traceback.

    SIGINT and SIGTERM end it with 130 and 143; what is not yet whole on the disk is made again by the same command.
    """
    end_at_signals()
    try:
        app()
    except LatfError as error:
        console = Console(stderr=True)
        for line in str(error).splitlines():
            console.print(f"[bold red]error:[/] {escape(line)}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be written
        where = f"{error.filename}: " if error.filename else ""
        Console(stderr=True).print(
            f"[bold red]error:[/] {escape(where)}{escape(error.strerror or str(error))}; what is complete stays, the "
            "same command continues",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(2)
    except Stopped as stopped:
        Console(stderr=True).print("interrupted; the same command continues where it stopped")
        sys.exit(128 + stopped.number)


@contextmanager
def ended_by_a_signal() -> Iterator[None]:
    """Leave without a word at SIGINT or SIGTERM: of what only shows something nothing is left to be continued.

    The exit code is that of any program which the signal ends; zero after SIGINT, which is how such a view is left.
    """
    try:
        yield
    except KeyboardInterrupt:
        return
    except Stopped as stopped:
        if stopped.number != signal.SIGINT:
            raise typer.Exit(128 + stopped.number) from None


def _handler(log: LogFormat) -> logging.Handler:
    """Return what writes to standard error: lines for a terminal, plain ones for a file, or JSON."""
    console = Console(stderr=True)
    handler: logging.Handler = logging.StreamHandler()
    if log is LogFormat.JSON:
        handler.setFormatter(_JsonFormatter())
    elif console.is_terminal:
        handler = RichHandler(console=console, show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s", "%H:%M:%S"))
    return handler


class _JsonFormatter(logging.Formatter):
    """One JSON object a line, for clusters."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        entry = {
            "time": datetime.fromtimestamp(record.created, tz=timezone.utc).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bars, and no word on what to do next.")
    ] = False,
    log: Annotated[
        LogFormat, typer.Option(help="How it logs, to standard error: text, or JSON, one record a line.")
    ] = LogFormat.TEXT,
    platform_property: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE for OpenMM's platform in this command, before those of the configuration: "
            "Precision=mixed, DeviceIndex=1, Threads=4; may be repeated."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if platform_property:
        from latf_openmm.sampling.contexts import PROPERTIES_VARIABLE, parse_properties

        parse_properties(platform_property)
        os.environ[PROPERTIES_VARIABLE] = ",".join(platform_property)
    logging.basicConfig(level=logging.WARNING, handlers=[_handler(log)])
    set_quiet(quiet or log is LogFormat.JSON)
    rich.reconfigure(quiet=quiet)  # progress bars are drawn on this console, results on others
    logging.getLogger("latf_openmm").setLevel(logging.INFO if verbose else logging.WARNING)
