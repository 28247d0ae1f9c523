"""Page on the configuration, from the pydantic models."""

import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from latf_openmm.bias.potentials import BIAS_KINDS
from latf_openmm.features import FEATURE_KINDS
from latf_openmm.run.config import RunConfig
from latf_openmm.run.execution import EXECUTION_KINDS
from latf_openmm.run.strategies import STRATEGY_KINDS
from latf_openmm.settings import Settings
from latf_openmm.systems import SYSTEM_KINDS

FAMILIES: dict[str, tuple[str, dict[str, type[Settings]]]] = {
    "system": ("Systems", SYSTEM_KINDS),
    "features": ("Features", FEATURE_KINDS),
    "bias": ("Biases", BIAS_KINDS),
    "strategy": ("Strategies", STRATEGY_KINDS),
    "execution": ("Execution", EXECUTION_KINDS),
}
"""Keys whose value is one of several kinds: the title of the family, its members."""

PLACES = {
    "system": "`system:`",
    "features": "the list `features:`",
    "bias": "`bias:`",
    "strategy": "`loop.strategy:`",
    "execution": "`execution:`",
}
"""Keys of a configuration where the members of a family stand."""

_NAMES = {float: "number", int: "integer", str: "text", bool: "`true` or `false`", Path: "path"}
"""Types for people."""
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
"""Limits of numbers for people."""
_LENGTHS = {"min_length": "at least", "max_length": "at most"}
"""Limits of lengths for people."""


def configuration() -> str:
    """Every key of a configuration with its type, default and meaning."""
    lines = [
        "# Configuration",
        "",
        "A configuration is one YAML file. It is checked whole before any work; an unknown key, a value out of "
        "range or a selection without atoms is one clear line. Paths are relative to the file. `latf-openmm systems "
        "NAME` prints one to start from, `latf-openmm init FILES` writes one for your own system.",
        "",
        "Lengths are in nm, times in ps, energies in kJ/mol, masses in amu. Temperatures are in kelvin, or in reduced "
        "units where the system is a model potential.",
        "",
        "## The file",
        "",
        *_table(RunConfig),
    ]
    done: set[type[Settings]] = {RunConfig}
    for key, field in RunConfig.model_fields.items():
        if key not in FAMILIES:
            for cls in _nested(field.annotation):
                lines += _section(cls, key, done)
    for key, (title, members) in FAMILIES.items():
        lines += ["", f"## {title}", "", f"Kinds of {PLACES[key]}, chosen by `kind`.", ""]
        inner: list[tuple[type[Settings], str]] = []
        for kind, cls in members.items():
            lines += [
                "",
                f"### {kind} {{ #{key}-{kind.replace('_', '-')} }}",
                "",
                _meaning(cls),
                "",
                *_table(cls),
            ]
            inner += [(nested, kind) for f in cls.model_fields.values() for nested in _nested(f.annotation)]
        for cls, kind in inner:
            lines += _section(cls, f"{kind}, ...", done, "###")
    return "\n".join(lines) + "\n"


def _section(cls: type[Settings], key: str, done: set[type[Settings]], level: str = "##") -> list[str]:
    """The tables of settings and of those inside them."""
    if cls in done:
        return []
    done.add(cls)
    lines = ["", f"{level} {_name(cls)}", "", f"In `{key}`. {_meaning(cls)}", "", *_table(cls)]
    for name, field in cls.model_fields.items():
        for inner in _nested(field.annotation):
            lines += _section(inner, f"{key}.{name}", done, "###")
    return lines


def _nested(annotation: Any) -> list[type[Settings]]:
    """Settings in an annotation that are not a family."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [] if _family(annotation) else [annotation]
    if _family(annotation):
        return []
    return [cls for part in get_args(annotation) for cls in _nested(part)]


def _family(annotation: Any) -> str | None:
    """Key of the family that an annotation is."""
    alternatives = {arg for arg in get_args(annotation) if isinstance(arg, type)}
    for part in get_args(annotation):
        if get_origin(part) in (Union, types.UnionType):
            alternatives |= set(get_args(part))
    for key, (_, members) in FAMILIES.items():
        if annotation in (cls.__bases__[0] for cls in members.values()) or alternatives >= set(
            members.values()
        ):
            return key
    return None


def _meaning(cls: type[Settings]) -> str:
    return inspect.cleandoc(cls.__doc__ or "").split("\nExamples\n")[0].strip()


def _name(cls: type[Settings]) -> str:
    """A heading for people, from the name of a class."""
    words = re.sub(r"(?<!^)([A-Z])", r" \1", cls.__name__.removesuffix("Settings"))
    return words[0] + words[1:].lower()


def _table(cls: type[Settings]) -> Iterator[str]:
    rows = [
        f"| `{name}` | {_type(field.annotation)}{_limits(field)} | {_default(field)} | "
        f"{_cell(field.description or '')} |"
        for name, field in cls.model_fields.items()
        if name != "kind"
    ]
    if rows:
        yield from ("| key | type | default | |", "|---|---|---|---|", *rows)
    else:
        yield "It has no keys of its own."


def _type(annotation: Any) -> str:
    if key := _family(annotation):
        return f"one of [{FAMILIES[key][0].lower()}](#{FAMILIES[key][0].lower()})"
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(args[0])
    if origin is Literal:
        return " or ".join(f"`{arg}`" for arg in args)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if arg is types.NoneType else _type(arg) for arg in args)
    if origin in (list, tuple):
        inner = _type(args[0]) if args else "anything"
        return f"list of ({inner})" if " or " in inner else f"list of {inner}"
    if origin is dict:
        return f"{_type(args[0])} to {_type(args[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return f"[keys](#{_name(annotation).lower().replace(' ', '-')})"
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _limits(field: FieldInfo) -> str:
    said = []
    for limit in field.metadata:
        said += [f"{sign} {getattr(limit, name):g}" for name, sign in _SIGNS.items() if hasattr(limit, name)]
        said += [f"{word} {getattr(limit, name)}" for name, word in _LENGTHS.items() if hasattr(limit, name)]
    return f", {', '.join(said)}" if said else ""


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Settings):
        return f"`{value.kind}`" if hasattr(value, "kind") else "its defaults"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (list, tuple)):
        return "`[" + ", ".join(str(item) for item in value) + "]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
