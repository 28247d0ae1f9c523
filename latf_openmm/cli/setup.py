"""Commands before a run: doctor, systems, init."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from latf_openmm.cli.application import app


@app.command()
def doctor() -> None:
    """Check this installation: versions, platforms, and whether biasing works. Exit code 1 if it cannot."""
    from latf_openmm.doctor.checks import run_doctor
    from latf_openmm.doctor.findings import render

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

    proposal = write_starter(files, output, force_field or [], trust)
    box = "periodic" if proposal.periodic else "not periodic"
    console = Console()
    console.print(
        f"{output}: {proposal.n_atoms} atoms, {box}, {proposal.n_features} descriptors", highlight=False
    )
    console.print(
        f"{proposal.platform}: {proposal.steps_per_second:.0f} steps a second; one round as proposed takes about "
        f"{proposal.hours:.2g} hours",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"read it, change it, then: latf-openmm run {output} --output RUN", highlight=False, soft_wrap=True
    )
