"""Commands before a run: doctor, demo, systems, init."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from latf_openmm.cli.application import app
from latf_openmm.cli.messages import say_next


@app.command()
def doctor() -> None:
    """Check this installation: versions, platforms, and whether biasing works. Exit code 1 if it cannot."""
    from latf_openmm.doctor.checks import run_doctor
    from latf_openmm.doctor.findings import render

    report = run_doctor()
    render(report, Console())
    say_next("latf-openmm demo" if report.can_bias else "what is said above, then latf-openmm doctor")
    raise typer.Exit(report.exit_code)


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the demonstration; continued where it is there.")
    ] = Path("latf-demo"),
    tiny: Annotated[
        bool,
        typer.Option("--tiny", help="Much shorter, to see that an installation works: numbers mean nothing."),
    ] = False,
) -> None:
    """See it work in a few minutes: seven particles, two rounds of the loop, an unsimulated temperature, the report."""
    from latf_openmm.progress import make_progress
    from latf_openmm.report.page import write_report
    from latf_openmm.reweighting.reliability import reliability_text
    from latf_openmm.run.demo import run_demo

    with make_progress() as progress:
        result = run_demo(output, tiny, progress)
    page = write_report(result.run, result.run.last_round().index)
    console = Console()
    if result.ensemble is not None:
        at = result.run.scale.label(result.ensemble.temperature)
        verdict = reliability_text(result.ensemble.reliability)
        console.print(f"{result.generated}: structures at {at}; {verdict}", highlight=False, soft_wrap=True)
    console.print(f"{page}: the report", highlight=False, soft_wrap=True)
    say_next(
        f"open {page} in a browser",
        f"latf-openmm observe {result.run.path} -T 0.2:0.5:0.05 --observable energy --output OBSERVED",
        "latf-openmm init protein.pdb --output my.yaml, for a molecule of your own",
    )


@app.command()
def systems(
    name: Annotated[
        str | None, typer.Argument(help="Print this configuration, for example lj7 or lj7/fast.")
    ] = None,
) -> None:
    """List the systems of the library, or print the configuration of one to start your own from."""
    from latf_openmm.run.config_file import read_config
    from latf_openmm.run.config_path import config_path
    from latf_openmm.run.init_template import KEYS_COMMENT
    from latf_openmm.systems import SYSTEM_KINDS, library_folder, library_names

    if name is not None:
        file = config_path(name)
        read_config(file)
        typer.echo(f"{KEYS_COMMENT}\n{file.read_text(encoding='utf-8')}", nl=False)
        say_next(f"latf-openmm run {name} --output RUN")
        return
    table = Table("system", "what it is", "configurations")
    for entry in library_names():
        variants = sorted(path.stem for path in library_folder(entry).glob("*.yaml"))
        names = [entry if variant == "loop" else f"{entry}/{variant}" for variant in variants]
        table.add_row(entry, SYSTEM_KINDS[entry].title, ", ".join(sorted(names)))
    Console().print(table)
    say_next("latf-openmm systems lj7/fast > my.yaml", "latf-openmm run lj7/fast --output RUN")


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
    timestep: Annotated[
        float | None,
        typer.Option(help="Integration step in ps; default: 0.004 where hydrogens are heavy, else 0.002."),
    ] = None,
    frame_interval: Annotated[
        int | None, typer.Option(help="Steps between frames; default: those of 1 ps.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Code in an XML file may run: Python forces, scripts.")
    ] = False,
) -> None:
    """Write a commented configuration for your own system, and say what it will cost on this machine."""
    from latf_openmm.run.init import write_starter
    from latf_openmm.run.platform_speeds import speeds_text
    from latf_openmm.units import duration

    proposal = write_starter(
        files, output, force_field or [], trust, timestep=timestep, frame_interval=frame_interval
    )
    console = Console()
    console.print(
        f"{output}: {proposal.n_atoms} atoms, {proposal.surroundings}, {proposal.n_features} descriptors",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"steps a second for one walker, were nothing else at work: {speeds_text(proposal.speeds)}",
        highlight=False,
        soft_wrap=True,
    )
    time = duration(3600.0 * proposal.hours)
    console.print(
        f"{proposal.platform}: simulation of one round as proposed takes about {time}; training is not included",
        highlight=False,
        soft_wrap=True,
    )
    say_next(f"latf-openmm run {output} --output RUN, after you have read and changed it")
