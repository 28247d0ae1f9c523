"""Classes of settings for people: type, limits, default and meaning of their keys, and docstrings that have them all.

It knows pydantic models only, so that `latf_openmm.settings` can be made with it.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from latf_openmm.sentences import alternatives

Model = type[BaseModel]

_LENGTHS = {"min_length": "at least", "max_length": "at most"}
"""Limits of lengths for people."""
_SECTION = re.compile(r"(?:^|\n\n)(?=[A-Z][A-Za-z ]+\n-{3,}(?:\n|$))")
"""Begin of a section of a docstring."""
_WIDTH = 75
"""Characters of a line of a docstring: `help` puts four before it, and terminals have 80."""
_SINGULAR = re.compile(r"^(number|integer|text|path|section|kind|list)\b")
"""First word of the name of a type that has a plural."""


# --- classes of settings ---------------------------------------------------------------------------


def kind_of(model: Model) -> str | None:
    """Return the ``kind`` by which a configuration chooses a class; None: it is not one of several."""
    field = model.model_fields.get("kind")
    return field.default if field is not None and isinstance(field.default, str) else None


def models_in(annotation: Any) -> Iterator[Model]:
    """Yield the classes of settings in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for arg in getattr(annotation, "__args__", ()):
        yield from models_in(arg)


def kinds_in(annotation: Any) -> dict[str, Model]:
    """Return the classes in an annotation that a ``kind`` chooses from, by that; of a base class those below it."""
    kinds = {kind: cls for model in models_in(annotation) for kind, cls in _kinds_below(model)}
    return dict(sorted(kinds.items()))


def sections_in(annotation: Any) -> list[Model]:
    """Return the classes in an annotation that no ``kind`` chooses."""
    return [model for model in models_in(annotation) if not any(True for _ in _kinds_below(model))]


def family_of(models: Sequence[Model]) -> Model:
    """Return the class that all of these are, the closest to them."""
    return next(
        base
        for base in models[0].__mro__
        if issubclass(base, BaseModel) and all(issubclass(model, base) for model in models)
    )


def _kinds_below(model: Model) -> Iterator[tuple[str, Model]]:
    """A class with a kind, else those of its subclasses that have one."""
    if (kind := kind_of(model)) is not None:
        yield kind, model
        return
    for sub in model.__subclasses__():
        yield from _kinds_below(sub)


def _family_in(annotation: Any) -> Model | None:
    """Base class of a family, where an annotation is nothing else."""
    models = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    for model in models:
        if not (isinstance(model, type) and issubclass(model, BaseModel) and kinds_in(model)):
            return None
    return family_of(models)


# --- keys ------------------------------------------------------------------------------------------


def first_part(field: FieldInfo) -> str:
    """Return the first part of what a key means, with its unit."""
    return (field.description or "").split(";")[0]


def unit_in(meaning: str) -> str:
    """Return the unit that a meaning names in brackets; empty: none."""
    unit = re.search(r"\[(.+?)\]", meaning)
    return unit[1] if unit else ""


@dataclass(frozen=True)
class Key:
    """One key of settings, in words.

    Attributes
    ----------
    name
        As it is written.
    type
        With its limits.
    default
        "required" where there is none.
    meaning
        On one line, with the unit in brackets.
    """

    name: str
    type: str
    default: str
    meaning: str

    @property
    def required(self) -> bool:
        """Return whether it has to be given."""
        return self.default == REQUIRED


REQUIRED = "required"
"""In the place of a default that there is not."""
DEFAULTS = "its defaults"
"""Default of a section all of whose keys have one, and of a key whose default is computed."""


class Words:
    """Words for types and defaults, those of a configuration; subclasses have others.

    Attributes
    ----------
    names
        Of types that are no settings.
    none
        Of None.
    signs
        Of the limits of numbers.
    """

    names: ClassVar[dict[Any, str]] = {
        float: "number",
        int: "integer",
        str: "text",
        bool: "true or false",
        Path: "path",
    }
    none: ClassVar[str] = "null"
    signs: ClassVar[dict[str, str]] = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}

    def keys_of(self, cls: Model) -> list[Key]:
        """Return the keys of a class of settings, without ``kind``."""
        return [self.key_of(name, field) for name, field in cls.model_fields.items() if name != "kind"]

    def key_of(self, name: str, field: FieldInfo) -> Key:
        """Return one key."""
        type_text = self.type_of(field.annotation) + self._limits(field)
        return Key(name, type_text, self.default_of(field), " ".join((field.description or "").split()))

    def value(self, value: Any) -> str:
        """Return a value that is written as it is."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(str, value))}]"
        return f"{value:g}" if isinstance(value, float) else str(value) or "''"

    def choices(self, values: Sequence[Any]) -> list[str]:
        """Return the alternatives of values of which one is to be given."""
        return [self.value(value) for value in values]

    def family(self, base: Model) -> str:
        """Return settings of which there are kinds; `base` is what these are subclasses of."""
        return f"kind of {name_of(base).lower()}"

    def section(self, cls: Model) -> str:
        """Return settings that no kind chooses."""
        return "section"

    def list_of(self, inner: str) -> str:
        """Return a list of what `inner` is."""
        return f"list of ({inner})" if " or " in inner else f"list of {self.plural(inner)}"

    def plural(self, name: str) -> str:
        """Return the name of a type, of several."""
        return _SINGULAR.sub(r"\1s", name)

    def mapping_of(self, key: str, value: str) -> str:
        """Return a mapping."""
        return f"{key} to {value}"

    def settings(self, value: BaseModel) -> str:
        """Return a default that is settings."""
        kind = kind_of(type(value))
        return DEFAULTS if kind is None else self.value(kind)

    def type_of(self, annotation: Any) -> str:
        """Return a type."""
        return alternatives(self._alternatives(annotation))

    def _alternatives(self, annotation: Any) -> Sequence[str]:
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self._alternatives(args[0])
        if (base := _family_in(annotation)) is not None:
            return [self.family(base)]
        if origin is Literal:
            return self.choices(args)
        if origin in (Union, UnionType):
            return [text for arg in args for text in self._alternatives(arg)]
        if origin in (list, tuple) and args:
            return [self.list_of(self.type_of(args[0]))]
        if origin is dict:
            return [self.mapping_of(self.type_of(args[0]), self.type_of(args[1]))]
        if annotation is NoneType:
            return [self.none]
        if any(True for _ in models_in(annotation)):
            return [self.section(annotation)]
        return [self.names.get(annotation, getattr(annotation, "__name__", str(annotation)))]

    def default_of(self, field: FieldInfo) -> str:
        """Return the default of a key."""
        if field.default_factory is not None:
            return DEFAULTS
        value = field.default
        if value is PydanticUndefined:
            return REQUIRED
        if isinstance(value, BaseModel):
            return self.settings(value)
        return self.none if value is None else self.value(value)

    def _limits(self, field: FieldInfo) -> str:
        said = []
        for limit in field.metadata:
            said += [
                f"{sign} {getattr(limit, name):g}"
                for name, sign in self.signs.items()
                if hasattr(limit, name)
            ]
            for name, word in _LENGTHS.items():
                if (number := getattr(limit, name, None)) is not None:
                    said.append(f"{word} {number} item{'' if number == 1 else 's'}")
        return "".join(f", {text}" for text in said)


class PythonWords(Words):
    """Words of Python, for docstrings."""

    names: ClassVar[dict[Any, str]] = {}
    none: ClassVar[str] = "None"

    def value(self, value: Any) -> str:
        """Return a value as Python writes it."""
        return repr(value)

    def choices(self, values: Sequence[Any]) -> list[str]:
        """Return the values as a set, which is NumPy's convention."""
        return [f"{{{', '.join(map(repr, values))}}}"]

    def family(self, base: Model) -> str:
        """Return the name of the base class."""
        return base.__name__

    def section(self, cls: Model) -> str:
        """Return the name of the class."""
        return cls.__name__

    def plural(self, name: str) -> str:
        """Return the name as it is, which is NumPy's convention."""
        return name

    def mapping_of(self, key: str, value: str) -> str:
        """Return a mapping."""
        return f"dict of {key} to {value}"

    def settings(self, value: BaseModel) -> str:
        """Return what makes the settings."""
        return f"{type(value).__name__}()"


# --- texts -----------------------------------------------------------------------------------------


def name_of(cls: Model) -> str:
    """Return the name of a class for people.

    Examples
    --------
    >>> class FeatureSelectionSettings(BaseModel): ...
    >>> name_of(FeatureSelectionSettings)
    'Feature selection'
    """
    words = re.sub(r"(?<!^)([A-Z])", r" \1", cls.__name__.removesuffix("Settings"))
    return words[0] + words[1:].lower()


def about(cls: type) -> str:
    """Return the docstring of a class without its sections."""
    return _SECTION.split(inspect.cleandoc(cls.__doc__ or ""))[0].strip()


def with_parameters(cls: Model) -> str:
    """Return the docstring of a class of settings with a section on its keys, where it has none."""
    text = inspect.cleandoc(cls.__doc__ or "")
    before, *sections = _SECTION.split(text)
    keys = PythonWords().keys_of(cls)
    if not keys or any(section.startswith("Parameters\n") for section in sections):
        return text
    return "\n\n".join(part for part in (before, _parameters(keys), *sections) if part)


def _parameters(keys: Sequence[Key]) -> str:
    lines = ["Parameters", "----------"]
    for key in keys:
        default = key.default if key.required else f"default {key.default}"
        lines.append(f"{key.name} : {key.type}, {default}")
        lines += textwrap.wrap(key.meaning, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)
