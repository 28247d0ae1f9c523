"""Page on the configuration, from the pydantic models."""

from collections.abc import Iterator
from typing import ClassVar

from latf_openmm.run.config import RunConfig
from latf_openmm.run.config_keys import families
from latf_openmm.settings_reference import (
    Model,
    Words,
    about,
    family_of,
    name_of,
    sections_in,
)

FAMILIES = {
    "system": ("Systems", "`system:`"),
    "features": ("Features", "the list `features:`"),
    "bias": ("Biases", "`bias:`"),
    "simulation.tempering": ("Tempering", "`simulation.tempering:`"),
    "loop.strategy": ("Strategies", "`loop.strategy:`"),
    "execution": ("Execution", "`execution:`"),
}
"""Places of a configuration where settings are one of several kinds: the title of these, and where they stand."""


class _Markdown(Words):
    """Words with links and code."""

    names: ClassVar = {**Words.names, bool: "`true` or `false`"}
    none: ClassVar[str] = "none"
    signs: ClassVar[dict[str, str]] = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}

    def value(self, value: object) -> str:
        return f"`{super().value(value)}`"

    def family(self, base: Model) -> str:
        title = next(title for place, (title, _) in FAMILIES.items() if base is _base(place)).lower()
        return f"one of [{title}](#{title})"

    def plural(self, name: str) -> str:
        return super().plural(name.removeprefix("one of "))

    def section(self, cls: Model) -> str:
        return f"[keys](#{name_of(cls).lower().replace(' ', '-')})"


def _base(place: str) -> Model:
    """Class that the kinds at a place are subclasses of."""
    return family_of(list(families()[place].values()))


def configuration() -> str:
    """Every key of a configuration with its type, default and meaning."""
    assert FAMILIES.keys() == families().keys()
    lines = [
        "# Configuration",
        "",
        "A configuration is one YAML file. It is checked whole before any work; an unknown key, a value out of "
        "range or a selection without atoms is one clear line. Paths are relative to the file. `latf-openmm systems "
        "NAME` prints one to start from, `latf-openmm init FILES` writes one for your own system. `latf-openmm keys` "
        "says in a terminal what is on this page.",
        "",
        "Lengths are in nm, times in ps, energies in kJ/mol, masses in amu. Temperatures are in kelvin, or in reduced "
        "units where the system is a model potential.",
        "",
        "## The file",
        "",
        *_table(RunConfig),
    ]
    done: set[Model] = {RunConfig}
    for key, field in RunConfig.model_fields.items():
        for cls in sections_in(field.annotation):
            lines += _section(cls, key, done)
    for place, (title, stands) in FAMILIES.items():
        lines += ["", f"## {title}", "", f"Kinds of {stands}, chosen by `kind`.", ""]
        key = place.rpartition(".")[2]
        inner: list[tuple[Model, str]] = []
        for kind, cls in families()[place].items():
            anchor = f"{key}-{kind.replace('_', '-')}"
            lines += ["", f"### {kind} {{ #{anchor} }}", "", about(cls), "", *_table(cls)]
            inner += [
                (section, kind) for f in cls.model_fields.values() for section in sections_in(f.annotation)
            ]
        for cls, kind in inner:
            lines += _section(cls, f"{kind}, ...", done, "###")
    return "\n".join(lines) + "\n"


def _section(cls: Model, key: str, done: set[Model], level: str = "##") -> list[str]:
    """The tables of settings and of those inside them."""
    if cls in done:
        return []
    done.add(cls)
    lines = ["", f"{level} {name_of(cls)}", "", f"In `{key}`. {about(cls)}", "", *_table(cls)]
    for name, field in cls.model_fields.items():
        for inner in sections_in(field.annotation):
            lines += _section(inner, f"{key}.{name}", done, "###")
    return lines


def _table(cls: Model) -> Iterator[str]:
    rows = [
        f"| `{key.name}` | {key.type} | {key.default} | {_cell(key.meaning)} |"
        for key in _Markdown().keys_of(cls)
    ]
    if rows:
        yield from ("| key | type | default | |", "|---|---|---|---|", *rows)
    else:
        yield "It has no keys of its own."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
