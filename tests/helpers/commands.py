"""The commands of the command line, as typer has them."""

import typer

from latf_openmm.cli import app


def commands() -> dict[str, typer.core.TyperCommand]:
    """Return all commands by their names."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return dict(group.commands)
