"""The command line: parses, sets up logging, calls one function for each command."""

import json
import logging
import math
import signal
import sys
from datetime import datetime, timezone
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import rich
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from latf_openmm import __version__
from latf_openmm.errors import LatfError

if TYPE_CHECKING:
    from latf_openmm.training.lag_scan import LagRow, LagScan


_MOST_TEMPERATURES = 1000
_COUNTS = (
    "populations that count: ensemble.json, of structures with weights; populations.parquet has the flow's"
)


class Format(str, Enum):
    """Choices of --format."""

    DCD = "dcd"
    XTC = "xtc"


class LogFormat(str, Enum):
    """Choices of --log."""

    TEXT = "text"
    JSON = "json"


class Level(str, Enum):
    """Choices of --level."""

    AUTO = "auto"
    REWEIGHTED = "reweighted"
    REFINED = "refined"
    FLOW = "flow"


app = typer.Typer(
    name="latf-openmm",
    help="Learn collective variables with Latent Thermodynamic Flows, bias OpenMM along them, iterate, and "
    "generate ensembles at temperatures nobody simulated.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

ConfigArgument = Annotated[
    str,
    typer.Argument(help="A YAML configuration, or a system of the library: lj7, lj7/fast, three_hole, ..."),
]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.")]
DataOption = Annotated[
    list[Path], typer.Option("--data", help="Folder of a simulation stage; may be repeated.")
]
RoundOption = Annotated[
    int | None, typer.Option("--round", help="Use this round; default: the last complete one.")
]
LevelOption = Annotated[
    Level,
    typer.Option(
        help="How structures get their weights: frames reweighted by MBAR; walkers annealed from the nearest "
        "temperature that frames reach; frames near the flow's samples; auto: the best of these."
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run the code that the configuration in the folder of a run names, from now on: for a run of somebody "
        "else that you trust.",
    ),
]
MinutesOption = Annotated[
    float, typer.Option(min=0.0, help="With --level auto: leave out annealing that would take longer.")
]


def main() -> None:
    """Entry point: errors made on purpose are one clear line each and exit code 2, never a traceback.

    SIGINT and SIGTERM end it with 130 and 143; what is not yet whole on the disk is made again by the same command.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as of a job in the background
            signal.signal(number, _stop)
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
    except _Stopped as stopped:
        Console(stderr=True).print("interrupted; the same command continues where it stopped")
        sys.exit(128 + stopped.number)


class _Stopped(BaseException):
    """SIGINT, or SIGTERM as batch systems send it; typer ends silently at a KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, frame: object) -> None:
    raise _Stopped(number)


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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
    log: Annotated[
        LogFormat, typer.Option(help="How it logs, to standard error: text, or JSON, one record a line.")
    ] = LogFormat.TEXT,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False)
    if log is LogFormat.JSON:
        handler = logging.StreamHandler()
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    rich.reconfigure(quiet=quiet)  # progress bars are drawn on this console, results on others
    logging.getLogger("latf_openmm").setLevel(logging.INFO if verbose else logging.WARNING)


@app.command()
def doctor() -> None:
    """Check this installation: versions, platforms, and whether biasing works. Exit code 1 if it cannot."""
    from latf_openmm.doctor.checks import render, run_doctor

    report = run_doctor()
    render(report, Console())
    raise typer.Exit(report.exit_code)


@app.command()
def systems(
    name: Annotated[
        str | None, typer.Argument(help="Print this configuration, for example lj7 or lj7/fast.")
    ] = None,
) -> None:
    """List the systems of the library, or print the configuration of one to start your own from."""
    from latf_openmm.run.config import config_path, read_config
    from latf_openmm.systems import SYSTEM_KINDS, library_folder, library_names

    if name is not None:
        file = config_path(name)
        read_config(file)
        typer.echo(file.read_text(encoding="utf-8"), nl=False)
        return
    table = Table("system", "what it is", "configurations")
    for entry in library_names():
        variants = sorted(path.stem for path in library_folder(entry).glob("*.yaml"))
        names = [entry if variant == "loop" else f"{entry}/{variant}" for variant in variants]
        table.add_row(entry, SYSTEM_KINDS[entry].title, ", ".join(sorted(names)))
    Console().print(table)


@app.command()
def init(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Of your system: PDB or mmCIF; prmtop and inpcrd or rst7; top and gro; psf, crd or PDB and "
            "parameters; XML of a System and PDB; a Python file."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Configuration to write; must not exist.")],
    force_field: Annotated[
        list[str] | None,
        typer.Option(help="OpenMM force-field file for a PDB or mmCIF file; may be repeated."),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Code in an XML file may run: Python forces, scripts.")
    ] = False,
) -> None:
    """Write a commented configuration for your own system, and say what it will cost on this machine."""
    from latf_openmm.run.init import write_starter

    found = write_starter(files, output, force_field or [], trust)
    box = "periodic" if found.periodic else "not periodic"
    console = Console()
    console.print(f"{output}: {found.n_atoms} atoms, {box}, {found.n_features} descriptors", highlight=False)
    console.print(
        f"{found.platform}: {found.steps_per_second:.0f} steps a second; one round as proposed takes about "
        f"{found.hours:.2g} hours",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"read it, change it, then: latf-openmm run {output} --output RUN", highlight=False, soft_wrap=True
    )


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
            help="DCD, XTC, TRR, NetCDF, HDF5 or mdcrd file with all atoms of the system; may be repeated. Files that "
            "continue each other: with commas between them, or a quoted pattern."
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
            "bias_energy [kJ/mol]. "
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
def status(folder: RunArgument) -> None:
    """Say where a run is, and what it has found so far."""
    _print_status(folder)


def _print_status(folder: Path) -> None:
    from latf_openmm.report import status_lines

    console = Console()
    for line in status_lines(folder):
        console.print(line, highlight=False, soft_wrap=True)


@app.command()
def verify(folder: RunArgument) -> None:
    """Check that a run is whole: files, frames, energies, models, hashes. Exit code 1 if anything is damaged."""
    from latf_openmm.errors import DamagedRunError
    from latf_openmm.progress import make_progress
    from latf_openmm.run.verify import render, verify_run

    try:
        with make_progress(Console(stderr=True, quiet=rich.get_console().quiet)) as progress:
            found = verify_run(folder, progress)
    except DamagedRunError as error:
        Console().print(f"[red]{escape(str(error))}[/]", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    render(found, Console())
    raise typer.Exit(0 if found.whole else 1)


@app.command()
def simulate(
    config: ConfigArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the stage; made if missing.")],
    model: Annotated[
        Path | None, typer.Option(help="Folder of a trained model: bias along its variables.")
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Run one stage of simulation, with the configuration's bias when a model is given. Resumable."""
    from latf_openmm.errors import ConfigError, ModelError
    from latf_openmm.model.checkpoint import load_model
    from latf_openmm.progress import make_progress
    from latf_openmm.run.config import load_config
    from latf_openmm.run.folder import EXECUTION
    from latf_openmm.sampling.dynamics import BiasSource
    from latf_openmm.sampling.stage import Stage, run_stage
    from latf_openmm.storage import check_output
    from latf_openmm.systems import shared_system

    settings = load_config(config, trust)
    settings.execution.check()
    check_output(output, folder=True)
    bias = None
    if model is not None:
        if settings.bias is None:
            raise ConfigError(f"--model: {config} has no 'bias' section, so a model has nothing to do")
        try:
            load_model(model).check_topology(shared_system(settings.system).mdtraj_topology())
        except ModelError as error:
            raise ModelError(f"--model: {model}: {str(error).removeprefix(f'{model}: ')}") from error
        bias = BiasSource(model=model, bias=settings.bias)
    stage = Stage(settings.system, settings.simulation, bias, {}, settings.seed, output)
    with make_progress() as progress, settings.execution.workers(output / EXECUTION) as executor:
        run_stage(stage, progress, executor=executor)


@app.command()
def train(
    config: ConfigArgument,
    data: DataOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the model; must not exist.")],
    trust: TrustOption = False,
) -> None:
    """Train a model on stages of simulation that are already there."""
    from latf_openmm.progress import make_progress
    from latf_openmm.run.config import load_config
    from latf_openmm.run.folder import RunFolder
    from latf_openmm.run.loop import train_model
    from latf_openmm.storage import check_output

    settings = load_config(config, trust)
    check_output(output, folder=True, new="a model is never overwritten")
    trajectories = RunFolder(output, settings).stage_trajectories(data)
    with make_progress() as progress:
        trained = train_model(settings, trajectories, output, settings.seed, progress)
    facts = trained.provenance
    typer.echo(
        f"{output}: {trained.model.n_states} states from {facts['frames']} frames, lag {facts['lag']} frames; "
        f"{facts['feature_selection']}"
    )


@app.command()
def lag_scan(
    config: ConfigArgument,
    data: DataOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the scan; must not exist.")],
    lag: Annotated[
        list[int] | None,
        typer.Option("--lag", help="Lag to try, in frames; may be repeated. Default: about six."),
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Find the states at several lag times, and recommend a lag for training."""
    from latf_openmm.features import resolve_features
    from latf_openmm.progress import make_progress
    from latf_openmm.report import write_lag_scan
    from latf_openmm.run.config import load_config
    from latf_openmm.run.folder import RunFolder
    from latf_openmm.storage import check_output
    from latf_openmm.training.feature_selection import select_features
    from latf_openmm.training.lag_scan import check_lags, default_lags, scan_lags

    settings = load_config(config, trust)
    check_output(output, folder=True, new="a scan is never overwritten")
    run = RunFolder(output, settings)
    resolved = resolve_features(settings.features, run.topology())
    _, trajectories, _ = select_features(resolved, run.stage_trajectories(data), settings.feature_selection)
    lags = lag or default_lags(trajectories)
    check_lags(trajectories, lags, "--lag")
    with make_progress() as progress:
        scan = scan_lags(trajectories, settings.model, settings.training, lags, settings.seed, progress)
    write_lag_scan(scan, output)
    console = Console()
    console.print(_lag_table(scan, "ps" if settings.system.scale.name == "K" else "reduced"))
    console.print(
        f"recommended lag: {scan.recommended} frames, {scan.reason}", highlight=False, soft_wrap=True
    )
    console.print(f"written to {output}", highlight=False, soft_wrap=True)


def _lag_table(scan: "LagScan", time_unit: str) -> Table:
    headers = (
        "lag",
        f"time\n({time_unit})",
        "states",
        "information\n(nats)",
        "timescales\n(frames)",
        "settled",
    )
    table = Table(*headers)
    for row in scan.rows:
        table.add_row(
            str(row.lag),
            f"{row.time:g}",
            str(row.n_states),
            f"{row.information:.3f}",
            _timescales_text(row),
            "yes" if row.settled else "no",
            style="bold" if row.lag == scan.recommended else None,
        )
    return table


def _timescales_text(row: "LagRow") -> str:
    if not row.timescales:
        return "-"
    slowest, *others = (f"{value:.3g}" for value in row.timescales[:3])
    return ", ".join([f"{slowest} ± {row.error:.2g}", *others])


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of a trained model.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="TorchScript file to write; with --plumed a folder.")
    ],
    round_index: RoundOption = None,
    plumed: Annotated[
        bool,
        typer.Option(
            "--plumed",
            help="Write model.pt and plumed.dat: an input for PLUMED with its module pytorch.",
        ),
    ] = False,
    trust: TrustOption = False,
) -> None:
    """Export the collective variables as TorchScript: positions in nm (n_atoms, 3) -> z (latent_dim,).

    For a periodic system the box (3, 3) in nm is a second argument, and molecules have to be whole.
    """
    from latf_openmm.bias.cv import export_cv
    from latf_openmm.bias.latent_cv import latent_cv
    from latf_openmm.bias.plumed import export_plumed
    from latf_openmm.model.checkpoint import load_model
    from latf_openmm.run.folder import RunFolder
    from latf_openmm.storage import check_output
    from latf_openmm.systems import shared_system

    check_output(output, folder=plumed)
    periodic = True
    if (folder / "model.json").is_file():
        trained = load_model(folder)
    else:
        run_folder = RunFolder.open(folder, trust)
        trained = run_folder.trained(_round(run_folder, round_index))
        periodic = shared_system(run_folder.config.system).periodic
    if plumed:
        export_plumed(trained, output, periodic)
    else:
        export_cv(latent_cv(trained), output)
    typer.echo(f"{output}: {trained.model.latent_dim} collective variables of {len(trained.atoms)} atoms")


@app.command()
def generate(
    folder: RunArgument,
    temperature: Annotated[list[float], typer.Option("--temperature", "-T", help="May be repeated.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write; one subfolder a temperature.")
    ],
    samples: Annotated[int, typer.Option(min=100, help="Latent samples at each temperature.")] = 20_000,
    structures: Annotated[int, typer.Option(min=1, help="Structures at each temperature.")] = 1000,
    round_index: RoundOption = None,
    level: LevelOption = Level.AUTO,
    minutes: MinutesOption = 15.0,
    trajectory: Annotated[Format, typer.Option("--format", help="Of the structures.")] = Format.DCD,
    trust: TrustOption = False,
) -> None:
    """Generate at any temperature: latent samples, F_T(z), populations, structures with weights.

    Where too few frames reach a temperature, walkers are simulated there; the same command continues after an
    interruption. Ends with code 3 where the structures at a temperature are not to be relied on (verdict "poor").
    """
    from latf_openmm.ensembles.files import write_structures
    from latf_openmm.ensembles.reweighter import EnsembleMaker
    from latf_openmm.errors import ConfigError
    from latf_openmm.progress import make_progress
    from latf_openmm.run.annealed import ensembles_at
    from latf_openmm.run.folder import RunFolder
    from latf_openmm.run.loop import generate_into
    from latf_openmm.storage import check_output
    from latf_openmm.units import check_temperature, temperature_name

    run_folder = RunFolder.open(folder, trust)
    index = _round(run_folder, round_index)
    for value in temperature:
        check_temperature("--temperature", value)
        check_output(output / temperature_name(value), folder=True, new="structures are never overwritten")
    if len(set(temperature)) < len(temperature):
        given = ", ".join(f"{value:g}" for value in temperature)
        raise ConfigError(f"--temperature: expected each once, got {given}")
    trained, pool = run_folder.trained(index), run_folder.pool(index)
    console, poor = Console(), False
    maker = EnsembleMaker(trained, pool, run_folder.config.seed)
    with make_progress() as progress:
        ensembles = ensembles_at(
            run_folder, index, temperature, level.value, minutes, progress=progress, maker=maker
        )
    for value, ensemble in zip(temperature, ensembles, strict=True):
        target = output / temperature_name(value)
        write = partial(
            write_structures,
            ensemble,
            run_folder.topology(),
            structures=structures,
            seed=run_folder.config.seed,
            trajectory=trajectory.value,
            source=run_folder.source(index),
        )
        warnings = generate_into(run_folder, trained, pool, value, samples, target, write)
        console.print(f"{target}: {samples} samples at {run_folder.scale.label(value)}", highlight=False)
        for warning in warnings:
            console.print(f"  [yellow]warning:[/] samples: {escape(warning)}", highlight=False)
        _tell(console, ensemble)
        console.print(f"  {_COUNTS}", highlight=False, soft_wrap=True)
        for warning in ensemble.warnings:
            console.print(f"  [yellow]warning:[/] structures: {escape(warning)}", highlight=False)
        poor = poor or ensemble.verdict == "poor"
    if poor:
        raise typer.Exit(3)


@app.command()
def observe(
    folder: RunArgument,
    temperatures: Annotated[
        str, typer.Option("--temperatures", "-T", help="Range FIRST:LAST:STEP, or numbers with commas.")
    ],
    observable: Annotated[
        list[str],
        typer.Option(
            help="energy, heat_capacity, rg (mass-weighted), rmsd, contacts, hbonds (these four of the solute alone), "
            "population:STATE, free_energy:STATE:STATE (of the second over the first), or FILE.py:FUNCTION (of an "
            "MDTraj trajectory with all atoms and the box, one number a frame); may be repeated."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    reference: Annotated[
        Path | None, typer.Option(help="PDB file for rmsd and contacts; default: the system's start.")
    ] = None,
    midpoint: Annotated[
        float | None, typer.Option(help="Value whose crossing is the transition; default: the maximum.")
    ] = None,
    round_index: RoundOption = None,
    level: LevelOption = Level.AUTO,
    minutes: MinutesOption = 15.0,
    trust: TrustOption = False,
) -> None:
    """Observables against temperature, with errors: a table and a figure.

    Ends with code 3 where a value is not to be relied on (verdict "poor").
    """
    from latf_openmm.ensembles.observables import check_observable, curve
    from latf_openmm.progress import make_progress
    from latf_openmm.report.figures import observable_curves
    from latf_openmm.run.annealed import ensembles_at
    from latf_openmm.run.folder import RunFolder
    from latf_openmm.storage import atomic_file, check_output, write_text

    run_folder = RunFolder.open(folder, trust)
    check_output(output, folder=True)
    index, values = _round(run_folder, round_index), _temperatures(temperatures)
    structure = run_folder.reference_structure(reference)
    for name in observable:
        check_observable(name, structure, run_folder.trained(index).model.n_states)
    with make_progress() as progress:
        ensembles = ensembles_at(run_folder, index, values, level.value, minutes, progress=progress)
    curves = [curve(name, ensembles, run_folder.topology(), structure) for name in observable]
    console = Console()
    for one in curves:
        stem = one.name.rpartition("/")[2].replace(":", "_").replace(".py", "")
        write_text(output / f"{stem}.csv", one.table.to_csv(index=False))
        shown = Table(title=f"{one.name} [{one.unit}]" if one.unit else one.name)
        for column in ("T", "value", "error", "level", "verdict", "independent frames"):
            shown.add_column(column)
        for t, value, error, made, verdict, n in one.table.itertuples(index=False):
            shown.add_row(f"{t:g}", f"{value:.5g}", f"{error:.2g}", made, verdict, f"{n:.0f}")
        console.print(shown)
        transition = one.transition(midpoint)
        if transition is not None:
            where = "maximum" if midpoint is None else f"crosses {midpoint:g}"
            console.print(f"{one.name}: {where} at T = {transition}", highlight=False)
    figure = observable_curves(curves, run_folder.scale, run_folder.config.simulation.temperatures)
    with atomic_file(output / "observables.png") as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    console.print(f"{output}: a table for each observable, observables.png", highlight=False)
    texts = [w for e in ensembles if e.verdict != "good" for w in e.warnings] + [
        w for c in curves for w in c.warnings
    ]
    for warning in dict.fromkeys(texts):
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
    if any((one.table["verdict"] == "poor").any() for one in curves):
        raise typer.Exit(3)


@app.command()
def states(
    folder: RunArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    temperature: Annotated[
        float | None, typer.Option("--temperature", "-T", help="Default: the lowest simulated.")
    ] = None,
    observable: Annotated[
        list[str] | None,
        typer.Option(
            help="rg (mass-weighted), rmsd, contacts, hbonds, of the solute alone, or FILE.py:FUNCTION, averaged in "
            "each state; may be repeated."
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="PDB file for rmsd and contacts; default: the system's start.")
    ] = None,
    round_index: RoundOption = None,
    level: LevelOption = Level.AUTO,
    minutes: MinutesOption = 15.0,
    trust: TrustOption = False,
) -> None:
    """Metastable states: populations, lifetimes, what structures in each look like, one structure of each."""
    import numpy as np

    from latf_openmm.ensembles.files import write_structure
    from latf_openmm.ensembles.observables import structure_observable
    from latf_openmm.ensembles.reweighter import EnsembleMaker
    from latf_openmm.ensembles.states import state_table
    from latf_openmm.errors import ConfigError
    from latf_openmm.progress import make_progress
    from latf_openmm.run.annealed import ensembles_at
    from latf_openmm.run.folder import RunFolder
    from latf_openmm.storage import check_output, write_text
    from latf_openmm.units import check_temperature

    run_folder = RunFolder.open(folder, trust)
    check_output(output, folder=True)
    if temperature is not None:
        check_temperature("--temperature", temperature)
    index, structure = _round(run_folder, round_index), run_folder.reference_structure(reference)
    functions = {}
    for name in observable or []:
        function = structure_observable(name, structure)
        if function is None:
            raise ConfigError(f"--observable: {name} is not a function of single structures")
        functions[name.rpartition(":")[2]] = function
    trained, topology = run_folder.trained(index), run_folder.topology()
    maker = EnsembleMaker(trained, run_folder.pool(index), run_folder.config.seed)
    wanted = min(trained.temperatures) if temperature is None else temperature
    with make_progress() as progress:
        (ensemble,) = ensembles_at(
            run_folder, index, [wanted], level.value, minutes, progress=progress, maker=maker
        )
    values = {name: ensemble.observe(function, topology) for name, function in functions.items()}
    table = state_table(ensemble, maker.pool, int(trained.provenance["lag"]), values)
    write_text(output / "states.csv", table.to_csv(index=False))
    for state, frame in ensemble.representatives().items():
        write_structure(ensemble.pool.structures(np.array([frame]), topology), output / f"state_{state}.pdb")
    console = Console()
    unit = "ps" if run_folder.scale.name == "K" else "reduced"
    shown = Table("state", "population", f"lifetime [{unit}]", *values, title=run_folder.scale.label(wanted))
    for row in table.to_dict("records"):
        life = f"{row['lifetime_ps']:.3g} ± {row['lifetime_error']:.2g}" if row["lifetime_ps"] > 0 else "-"
        cells = [f"{row[name]:.3g} ± {row[f'{name}_spread']:.2g}" for name in values]
        shown.add_row(str(int(row["state"])), f"{row['population']:.3f} ± {row['error']:.2g}", life, *cells)
    console.print(shown)
    console.print(f"{ensemble.made}; verdict {ensemble.verdict}", highlight=False, soft_wrap=True)
    for warning in ensemble.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
    console.print(f"{output}: states.csv, one structure of each state", highlight=False, soft_wrap=True)
    if ensemble.verdict == "poor":
        raise typer.Exit(3)


def _temperatures(text: str) -> list[float]:
    """Numbers of ``first:last:step`` (both ends included) or of a list with commas."""
    from latf_openmm.errors import ConfigError

    try:
        numbers = [float(part) for part in text.replace(",", ":").split(":")]
    except ValueError:
        numbers = []
    if any(math.isinf(number) for number in numbers):
        numbers = []
    if ":" in text:
        if len(numbers) != 3 or not (0 < numbers[0] < numbers[1] and numbers[2] > 0):
            raise ConfigError(f"--temperatures: {text!r}: expected FIRST:LAST:STEP, ascending and above 0")
        first, last, step = numbers
        if (last - first) / step > _MOST_TEMPERATURES:
            raise ConfigError(
                f"--temperatures: {text!r}: expected at most {_MOST_TEMPERATURES} temperatures, a larger STEP"
            )
        return [float(f"{first + i * step:.10g}") for i in range(int((last - first) / step + 1e-9) + 1)]
    if not numbers or not all(number > 0 for number in numbers):
        raise ConfigError(
            f"--temperatures: {text!r}: expected FIRST:LAST:STEP or numbers above 0 with commas"
        )
    return sorted(set(numbers))


def _tell(console: Console, ensemble: Any) -> None:
    """Say how an ensemble of structures was made, and what it gives."""
    console.print(
        f"  structures: {ensemble.made}; verdict {ensemble.verdict}; {ensemble.independent:.0f} independent frames "
        f"effectively ({ensemble.ess:.0f} frames), largest weight {100 * ensemble.largest_weight:.2g} %",
        highlight=False,
    )
    if ensemble.verdict == "poor":
        console.print(
            "  populations and energies are not to be relied on; ensemble.json has them", highlight=False
        )
        return
    for state, population in enumerate(ensemble.populations()):
        console.print(f"  state {state}: {population}", highlight=False)
    console.print(f"  mean potential energy: {ensemble.energy()} kJ/mol", highlight=False)
    console.print(f"  heat capacity: {ensemble.heat_capacity()} k_B (configurational)", highlight=False)


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
    from latf_openmm.report import write_report
    from latf_openmm.report.tensorboard import write_events
    from latf_openmm.run.folder import RunFolder

    run_folder = RunFolder.open(folder, trust)
    index = _round(run_folder, round_index)
    if tensorboard:
        typer.echo(write_events(run_folder))
    typer.echo(write_report(run_folder, index))


def _round(run_folder: Any, index: int | None) -> int:
    from latf_openmm.errors import ConfigError

    last: int = run_folder.last_round().index
    if index is None:
        return last
    if not 0 <= index <= last:
        raise ConfigError(f"--round: {index} is not a complete round; the last one is {last}")
    return index


if __name__ == "__main__":
    main()
