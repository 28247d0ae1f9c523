"""Commands of single steps: simulate, train, lag-scan, export."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from latf_openmm.cli.application import app
from latf_openmm.cli.messages import say_next
from latf_openmm.cli.options import ConfigArgument, DataOption, RoundOption, TrustOption

if TYPE_CHECKING:
    from latf_openmm.training.lag_scan import LagRow, LagScan


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
    from latf_openmm.progress import make_progress
    from latf_openmm.run.config import load_config
    from latf_openmm.run.steps import simulate_stage

    settings = load_config(config, trust)
    with make_progress() as progress:
        simulate_stage(settings, output, model, progress, source=config)
    say_next(f"latf-openmm train {config} --data {output} --output MODEL")


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
    from latf_openmm.run.steps import train_on_stages

    settings = load_config(config, trust)
    with make_progress() as progress:
        trained = train_on_stages(settings, data, output, progress)
    facts = trained.provenance
    typer.echo(
        f"{output}: {trained.model.n_states} states from {facts['frames']} frames, lag {facts['lag']} frames; "
        f"{facts['feature_selection']}"
    )
    say_next(
        f"latf-openmm simulate {config} --model {output} --output BIASED",
        f"latf-openmm export {output} --output cv.pt",
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
    from latf_openmm.progress import make_progress
    from latf_openmm.report.lag_scan import write_lag_scan
    from latf_openmm.run.config import load_config
    from latf_openmm.run.steps import scan_stages

    settings = load_config(config, trust)
    with make_progress() as progress:
        scan = scan_stages(settings, data, output, lag or (), progress)
    write_lag_scan(scan, output)
    console = Console()
    console.print(_lag_table(scan, "ps" if settings.system.scale.name == "K" else "reduced"))
    console.print(
        f"recommended lag: {scan.recommended} frames, {scan.reason}", highlight=False, soft_wrap=True
    )
    console.print(f"written to {output}", highlight=False, soft_wrap=True)
    stages = " ".join(f"--data {stage}" for stage in data)
    say_next(f"latf-openmm train {config} {stages} --output MODEL, with training.lag: {scan.recommended}")


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
        Path,
        typer.Option("--output", "-o", help="TorchScript file to write; with --plumed or --bias a folder."),
    ],
    round_index: RoundOption = None,
    plumed: Annotated[
        bool,
        typer.Option(
            "--plumed",
            help="Write model.pt and plumed.dat: an input for PLUMED with its module pytorch.",
        ),
    ] = False,
    bias: Annotated[
        bool,
        typer.Option(
            "--bias", help="Write the run's bias for OpenMM scripts without torch (load_exported_bias)."
        ),
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature", "-T", help="With --bias: of the simulation; default: the lowest of the run."
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="With --bias: bias.pt of a segment, what an adaptive bias has learned."),
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Export the collective variables as TorchScript, positions in nm (n_atoms, 3) -> z (latent_dim,), or a bias.

    For a periodic system the box (3, 3) in nm is a second argument, and molecules have to be whole.
    """
    from latf_openmm.errors import ConfigError
    from latf_openmm.run.steps import export_round_bias, export_variables

    if bias and plumed:
        raise ConfigError("--bias, --plumed: expected one of them")
    if not bias and (temperature is not None or state is not None):
        raise ConfigError("--temperature, --state: only with --bias")
    if bias:
        export_round_bias(folder, output, temperature, state=state, round_index=round_index, trust=trust)
        typer.echo(f"{output}: the bias, for latf_openmm.load_exported_bias")
        say_next(f"latf_openmm.load_exported_bias({str(output)!r}) in an OpenMM script")
        return
    trained = export_variables(folder, output, round_index=round_index, plumed=plumed, trust=trust)
    typer.echo(f"{output}: {trained.model.latent_dim} collective variables of {len(trained.atoms)} atoms")
    use = f"plumed.dat in {output}, for PLUMED" if plumed else f"torch.jit.load({str(output)!r}) in a script"
    say_next(use)
