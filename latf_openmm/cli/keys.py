"""Command that says what the keys of a configuration mean."""

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from latf_openmm.cli.application import app
from latf_openmm.cli.messages import say_next

if TYPE_CHECKING:
    from latf_openmm.run.config_keys import Entry, KeysPage

_MAX_WIDTH = 100
"""Characters of a line, at most: longer ones are hard to read."""


@app.command()
def keys(
    place: Annotated[
        str,
        typer.Argument(
            help="Section, kind, key or observable: simulation, bias.opes, loop.rounds, observables.rmsd. Its last "
            "part is enough where no other has it.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Say what the keys of a configuration mean: type, limits, default, unit. Without PLACE: all sections and kinds."""
    from latf_openmm.run.config_keys import keys_page

    page = keys_page(place)
    _print_page(page, Console())
    others = () if page.title else ("latf-openmm init FILES --output my.yaml",)
    say_next(f"latf-openmm keys {page.next_place}".rstrip(), *others)


def _print_page(page: "KeysPage", console: Console) -> None:
    """Print what is said of a place: title, type and default, meaning, lists."""
    width = min(console.width, _MAX_WIDTH)
    lines = [Text(page.title, "bold"), *_wrapped(page.note, width, "dim")] if page.title else []
    for paragraph in page.text.split("\n\n"):
        lines += [*([Text()] if lines else []), *_wrapped(paragraph, width)]
    for title, entries in page.lists.items():
        lines += [Text(), Text(title, "bold"), *_entry_lines(entries, width, page.brief)]
    console.print(Text("\n").join(lines), soft_wrap=True)


def _entry_lines(entries: "list[Entry]", width: int, brief: bool) -> list[Text]:
    """Return names, and beside them what is said of each; `brief`: on one line."""
    column = max(len(entry.name) for entry in entries) + 4
    lines = []
    for entry in entries:
        meaning = " ".join(entry.meaning.split())
        if brief:
            said = [Text(textwrap.shorten(meaning, width - column, placeholder=" ..."))]
        else:
            said = [*_wrapped(entry.note, width - column, "dim"), *_wrapped(meaning, width - column)]
        names = [f"  {entry.name}", *[""] * len(said)]
        lines += [
            Text(name.ljust(column), "cyan").append_text(text)
            for name, text in zip(names, said, strict=False)
        ]
    return lines


def _wrapped(text: str, width: int, style: str = "") -> list[Text]:
    return [Text(line, style) for line in textwrap.wrap(text, width)]
