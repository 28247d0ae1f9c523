"""Commands of runs: run, import, status, verify, report."""

from pathlib import Path
from typing import Annotated

import rich
import typer
from rich.console import Console
from rich.markup import escape

from latf_openmm.cli.application import app, ended_by_a_signal
from latf_openmm.cli.messages import say_next
from latf_openmm.cli.options import ConfigArgument, RoundOption, RunArgument, TrustOption

_IMPORT = "latf-openmm import CONFIG --output RUN with --trajectory and --table for each replica"
"""Command that follows on tables of replicas."""


@app.command()
def run(
    config: ConfigArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; made if missing.")],
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="Instead of loop.rounds.")] = None,
    trust: TrustOption = False,
) -> None:
    """Run the loop: simulate, train, generate, choose the next bias. The same command resumes it."""
    from latf_openmm.progress import make_progress
    from latf_openmm.run.config import load_config
    from latf_openmm.run.loop import run_loop

    settings = load_config(config, trust)
    if rounds is not None:
        settings = settings.model_copy(update={"loop": settings.loop.model_copy(update={"rounds": rounds})})
    with make_progress() as progress:
        run_loop(settings, output, progress)
    _print_status(output)


@app.command("import")
def import_(
    config: ConfigArgument,
    trajectory: Annotated[
        list[str],
        typer.Option(
            help="DCD, XTC, TRR, NetCDF, mdcrd or HDF5 file (HDF5 needs PyTables: pip install tables) with all atoms "
            "of the system; may be repeated. Files that continue each other: with commas between them, or a quoted "
            "pattern."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; must not exist.")],
    temperature: Annotated[
        list[float] | None,
        typer.Option(
            "--temperature",
            "-T",
            help="One for each --trajectory, in order. Default: the column temperature of its table, which may change.",
        ),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            help="Energies for each --trajectory, in order: CSV, Parquet, or as OpenMM, PLUMED, Gromacs (xvg) and "
            "Amber (mdout) write them; several with commas. potential_energy and, where it was biased, "
            "bias_energy (kJ/mol). "
            "Default: energies are computed, there was no bias."
        ),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of the run for each --trajectory, in order: those of one run share one bias. Default: each "
            "biased trajectory is a run of its own; runs are joined by MBAR."
        ),
    ] = None,
    bias: Annotated[
        list[str] | None,
        typer.Option(
            help="Bias of each run at any frame, where tables do not say it: FILE.py:FUNCTION (one for each "
            "--trajectory, or one that returns a column for each), or a YAML file of harmonic restraints of columns."
        ),
    ] = None,
    independent: Annotated[
        bool,
        typer.Option(
            "--independent", help="Do not join biased runs: each crossed between all states by itself."
        ),
    ] = False,
    ignore_times: Annotated[
        bool,
        typer.Option(
            "--ignore-times", help="Times in the files are wrong: frames lie one frame interval apart."
        ),
    ] = False,
    trust: TrustOption = False,
) -> None:
    """Make a run of trajectories you have already: they are its first round, and training follows."""
    from latf_openmm.progress import make_progress
    from latf_openmm.run.config import load_config
    from latf_openmm.run.imported import import_run
    from latf_openmm.run.imported.trajectories import given_trajectories

    given = given_trajectories(trajectory, temperature, table, run, bias)
    with make_progress() as progress:
        import_run(
            load_config(config, trust),
            given,
            output,
            progress,
            independent=independent,
            ignore_times=ignore_times,
        )
    _print_status(output)


@app.command()
def status(
    folder: RunArgument,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Draw it anew until the run has ended, or nobody works on it; Ctrl-C ends this view only.",
        ),
    ] = False,
    every: Annotated[float, typer.Option(min=0.2, help="With --watch: seconds between looks.")] = 3.0,
) -> None:
    """Say where a run is, and what it has found so far. Files are read only, so that it may go on meanwhile."""
    if not watch:
        _print_status(folder)
        return
    with ended_by_a_signal():
        from latf_openmm.report.status import run_status
        from latf_openmm.report.watch import watch_run

        watch_run(folder, Console(), every)
        say_next(run_status(folder).next_command)


def _print_status(folder: Path) -> None:
    from latf_openmm.report.status import run_status

    status, console = run_status(folder), Console()
    for line in status.lines:
        console.print(line, highlight=False, soft_wrap=True)
    say_next(status.next_command)


@app.command()
def exchange_tables(
    sampler: Annotated[
        Path,
        typer.Argument(
            help="Folder of OpenMM's ReplicaExchangeReporter (energy=True), or NetCDF file of openmmtools."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the tables; must not exist.")],
    temperature: Annotated[
        list[float] | None,
        typer.Option(
            "--temperature",
            "-T",
            help="Of the states of OpenMM's sampler, in their order, in K; repeated. The file of openmmtools has them.",
        ),
    ] = None,
) -> None:
    """Write a table for each replica of a replica exchange by OpenMM or openmmtools, to import its trajectories with.

    Those of openmmtools are written too: trajectories of its replicas.
    """
    from latf_openmm.errors import ConfigError, DataError
    from latf_openmm.run.imported.openmmtools_file import openmmtools_replicas
    from latf_openmm.run.imported.samplers import replica_exchange_tables
    from latf_openmm.units import KELVIN

    if not sampler.exists():
        raise DataError(
            f"{sampler}: missing; expected a folder of ReplicaExchangeReporter or a file of openmmtools"
        )
    if sampler.is_file():
        if temperature:
            raise ConfigError(f"--temperature: {sampler} has the temperatures of its states; leave it out")
        for pair in openmmtools_replicas(sampler, output):
            typer.echo(f"{pair[0]} {pair[1]}")
        say_next(_IMPORT)
        return
    if not temperature:
        raise ConfigError("--temperature: missing; expected those of the sampler's states, in their order")
    for path in replica_exchange_tables(sampler, temperature, KELVIN, output):
        typer.echo(path)
    say_next(_IMPORT)


@app.command()
def verify(folder: RunArgument) -> None:
    """Check that a run is whole: files, frames, energies, models, hashes. Exit code 1 if anything is damaged."""
    from latf_openmm.errors import DamagedRunError
    from latf_openmm.progress import make_progress
    from latf_openmm.run.verify import render, verify_run

    try:
        with make_progress(Console(stderr=True, quiet=rich.get_console().quiet)) as progress:
            findings = verify_run(folder, progress)
    except DamagedRunError as error:
        Console().print(f"[red]{escape(str(error))}[/]", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    render(findings, Console())
    if findings.intact:
        say_next(f"latf-openmm status {folder}")
        return
    say_next(f"restore what is damaged from a copy, then latf-openmm verify {folder}")
    raise typer.Exit(1)


@app.command()
def report(
    folder: RunArgument,
    round_index: RoundOption = None,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", help="Also write event files for TensorBoard, of all rounds, to DIR/tensorboard."
        ),
    ] = False,
    trust: TrustOption = False,
) -> None:
    """Write DIR/report/index.html and its pictures."""
    from latf_openmm.report.page import write_report
    from latf_openmm.report.tensorboard import write_events
    from latf_openmm.run.folder import RunFolder

    run_folder = RunFolder.open(folder, trust)
    index = run_folder.chosen_round(round_index)
    if tensorboard:
        typer.echo(write_events(run_folder))
    typer.echo(write_report(run_folder, index))
    say_next(f"latf-openmm generate {folder} --temperature T --output AT_T")
