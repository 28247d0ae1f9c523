"""Pages made from the code and from files of the repository, whenever the site is built; a hook of MkDocs.

The command line comes from the typer application, the configuration from the pydantic models, the Python API from the
public names, so none of them can be out of date. Formulas between dollar signs become MathML, which browsers draw
without a script.
"""

import inspect
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.models import ArgumentInfo

import latf_openmm
from latf_openmm.bias.potentials import BIAS_KINDS
from latf_openmm.cli import app
from latf_openmm.features import FEATURE_KINDS
from latf_openmm.run.config import RunConfig
from latf_openmm.run.execution import EXECUTION_KINDS
from latf_openmm.run.strategies import STRATEGY_KINDS
from latf_openmm.settings import Settings
from latf_openmm.systems import SYSTEM_KINDS, library_names

ROOT = Path(__file__).parents[1]  # of the repository
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

GROUPS = {
    "Runs": (
        "load_config",
        "RunConfig",
        "run_loop",
        "import_run",
        "ImportedTrajectory",
        "RunFolder",
        "write_report",
    ),
    "Models": ("load_model", "save_model", "fit"),
    "Ensembles": ("ensembles_at", "ensemble_at", "write_structures", "generate", "write_ensemble"),
    "Collective variables": ("latent_cv", "FeatureCV", "ModuleCV", "distance_cv", "torsion_cv", "export_cv"),
    "Biased simulations": (
        "add_bias",
        "bias_context",
        "cv_context",
        "BiasContext",
        "BiasUpdater",
        "load_bias",
        "LatentReporter",
        "MultistepStepper",
        "langevin_integrator",
        "many_copies",
    ),
    "Umbrella windows": ("UmbrellaSettings", "UmbrellaWindows", "window_centres", "window_runs"),
    "Reweighting": ("BiasedRun", "weighted", "combine", "free_energy_surface", "free_energy_difference"),
    "Biases": (
        "HarmonicSettings",
        "MovingHarmonicSettings",
        "WallSettings",
        "FlowBarrierSettings",
        "MetadynamicsSettings",
        "OpesSettings",
        "SumSettings",
    ),
    "Errors": ("LatfError", "ConfigError", "DataError", "SimulationError"),
}
"""Every public name but the version, under the heading it belongs to."""

MODULES = {
    "What ensembles are": (
        "latf_openmm.ensembles.ensemble.StructureEnsemble",
        "latf_openmm.ensembles.pool.Pool",
    ),
    "Grids": ("latf_openmm.reweighting.free_energy.LatentGrid",),
    "To be extended": (
        "latf_openmm.systems.base.SystemSettings",
        "latf_openmm.systems.base.BuiltSystem",
        "latf_openmm.features.base.FeatureSettings",
        "latf_openmm.features.base.Features",
        "latf_openmm.bias.potentials.base.BiasSettings",
        "latf_openmm.bias.potentials.base.Bias",
        "latf_openmm.bias.potentials.base.AdaptiveBias",
        "latf_openmm.run.strategies.base.StrategySettings",
        "latf_openmm.run.strategies.base.RoundState",
        "latf_openmm.run.strategies.base.Decision",
    ),
}
"""Modules and names of the reference, by their heading."""
_NAMES = {float: "number", int: "integer", str: "text", bool: "`true` or `false`", Path: "path"}
"""Types for people."""
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
"""Limits of numbers for people."""
_LENGTHS = {"min_length": "at least", "max_length": "at most"}
"""Limits of lengths for people."""


def pages() -> dict[str, str]:
    """Return the text of each generated page by its path in the documentation."""
    return {
        "reference/cli.md": command_line(),
        "reference/configuration.md": configuration(),
        "reference/python.md": python_api(),
        "reference/systems.md": library(),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "citation.md": citation(),
    }


# --- command line


def command_line() -> str:
    """Every command with its arguments and options."""
    assert app.registered_callback is not None and app.registered_callback.callback is not None
    lines = [
        "# Command line",
        "",
        f"{app.info.help}",
        "",
        "`latf-openmm [OPTIONS] COMMAND ...`; every command has `--help`.",
        "",
        "| code | meaning |",
        "|---|---|",
        "| 0 | it worked |",
        "| 1 | `doctor`: biasing does not work here; `verify`: something is damaged |",
        "| 2 | wrong input, or a file that cannot be read or written; one line says what |",
        '| 3 | `generate`, `observe`, `states`: the result is not to be relied on (reliability "poor") |',
        "| 130, 143 | interrupted (SIGINT, SIGTERM); the same command continues |",
        "",
        "## Options of all commands",
        "",
        "They come before the command.",
        "",
        *_parameters(app.registered_callback.callback),
    ]
    for name, function in commands().items():
        arguments = [p.names for p in parameters(function) if p.argument]
        usage = " ".join(["latf-openmm", name, *arguments, "[OPTIONS]"])
        lines += ["", f"## {name}", "", f"`{usage}`", "", inspect.cleandoc(function.__doc__ or ""), ""]
        lines += _parameters(function)
    return "\n".join(lines) + "\n"


def commands() -> dict[str, Callable[..., Any]]:
    """Function of each command, by its name."""
    return {
        info.name or info.callback.__name__.replace("_", "-"): info.callback
        for info in app.registered_commands
        if info.callback is not None
    }


@dataclass(frozen=True)
class Parameter:
    """An argument or option of a command: cells of its row."""

    argument: bool
    names: str
    kind: str
    default: str
    help: str


def parameters(function: Callable[..., Any]) -> Iterator[Parameter]:
    """Arguments and options of a command, from the function's signature."""
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        annotation, info = get_args(hints[name])
        argument = isinstance(info, ArgumentInfo)
        # In Annotated, the first name of an option stands where a default could.
        given = [text for text in (info.default, *(info.param_decls or ())) if isinstance(text, str)]
        required = parameter.default is inspect.Parameter.empty
        if argument:
            names = name.upper() + ("..." if "list" in str(annotation) else "")
            names = names if required else f"[{names}]"
        else:
            names = ", ".join(given) or f"--{name.replace('_', '-')}"
        default = getattr(parameter.default, "value", parameter.default)
        said = "required" if required else "" if default in (None, False) else f"`{default}`"
        low = "" if getattr(info, "min", None) is None else f", ≥ {info.min:g}"
        yield Parameter(argument, names, _value(annotation) + low, said, _cell(info.help or ""))


def _value(annotation: Any) -> str:
    """Return the kind of value of a parameter."""
    if annotation is bool:
        return "flag"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{choice.value}`" for choice in annotation)
    inner = [_value(part) for part in get_args(annotation) if part is not types.NoneType]
    return inner[0] if inner else _NAMES.get(annotation, annotation.__name__)


def _parameters(function: Callable[..., Any]) -> Iterator[str]:
    rows = [f"| `{p.names}` | {p.kind} | {p.default} | {p.help} |" for p in parameters(function)]
    if rows:
        yield from ("| | value | default | |", "|---|---|---|---|", *rows)


# --- configuration


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


# --- Python, systems, texts of the repository


def python_api() -> str:
    """The public names, and the classes that extensions are made of."""
    lines = [
        "# Python API",
        "",
        "`import latf_openmm as latf` before `import openmm`. The names in the first sections are attributes of "
        "`latf_openmm`; they are imported when first used.",
        "",
        "Numbers without a unit are in nm, ps, kJ/mol and amu; temperatures in the scale of the system.",
    ]
    for title, names in GROUPS.items():
        lines += ["", f"## {title}", ""]
        for name in names:
            module = inspect.getmodule(getattr(latf_openmm, name))
            assert module is not None, name
            lines += [f"::: {module.__name__}.{name}", ""]
    for title, paths in MODULES.items():
        lines += ["", f"## {title}", "", *(f"::: {path}\n" for path in paths)]
    return "\n".join(lines) + "\n"


def library() -> str:
    """The systems of the library, by the texts beside their files."""
    texts = [(ROOT / "systems" / name / "README.md").read_text(encoding="utf-8") for name in library_names()]
    return "# Systems of the library\n\n" + "\n".join(re.sub("^#", "##", text, flags=re.M) for text in texts)


def citation() -> str:
    """Page on citation, with the file that says so."""
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    return (
        "# Citation\n\nIf you use this package, cite it and the papers whose methods you used. The method, Latent "
        "Thermodynamic Flows, is by Qiu, John, Herron and Tiwary; this package is an independent implementation and "
        "extension. `CITATION.cff` has the details:\n\n```yaml\n" + text + "```\n\nThe licence is MIT.\n"
    )


# --- MkDocs


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Draw the formulas of pages that say ``formulas: true``."""
    if not page.meta.get("formulas"):
        return markdown
    from latex2mathml.converter import convert

    def drawn(display: str) -> Any:
        return lambda match: convert(" ".join(match.group(1).split()), display=display)

    markdown = re.sub(r"\$\$\n(.+?)\n *\$\$$", drawn("block"), markdown, flags=re.M | re.S)
    return re.sub(r"\$([^$\n]+)\$", drawn("inline"), markdown)
