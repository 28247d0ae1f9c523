"""Strict settings: the base class, families chosen by ``kind``, and errors as one clear line each."""

import importlib
import json
import pkgutil
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from latf_openmm.errors import ConfigError
from latf_openmm.sentences import did_you_mean
from latf_openmm.settings_reference import first_part, kind_of, models_in, unit_in, with_parameters

_LONGEST = 60
"""Characters of a value in a message, at most."""


class Settings(BaseModel):
    """Frozen, validated settings that refuse unknown keys and non-finite numbers.

    They can be keys of a dict or of a cache whatever they hold, lists and mappings too. OpenMM quantities become
    numbers in the unit that the description of the field names in brackets, where they have its dimension.

    Raises
    ------
    ConfigError
        If an argument is unknown, missing or not possible, in the words that a configuration file is refused with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    reference_command: ClassVar[str] = ""
    """Command that says, after a place in these settings, what can stand there; problems name it."""

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            cls = type(self)
            raise ConfigError(*_problems(error.errors(), cls, cls.__name__)) from None
        self.__dict__["given_units"] = _given_units(type(self), data)

    # As pydantic marks its own, so that settings inside settings are still validated with their place.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Let the docstring of a subclass have its keys, as parameters."""
        super().__pydantic_init_subclass__(**kwargs)
        cls.__doc__ = with_parameters(cls)

    @model_validator(mode="before")
    @classmethod
    def _numbers_of_quantities(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {
            key: _without_unit(value, _unit_of(cls, key, data)) if key in cls.model_fields else value
            for key, value in data.items()
        }

    @cached_property
    def given_units(self) -> dict[str, str]:
        """Units of the arguments that were quantities, by name; no part of what the settings are equal by."""
        return {}

    def __hash__(self) -> int:
        """Hash of the canonical JSON: pydantic's own fails for fields that are lists or mappings."""
        return hash((type(self), json.dumps(self.model_dump(mode="json"), sort_keys=True)))


@dataclass(frozen=True)
class _RefusedQuantity:
    """A quantity that no number can be made of; unlike the quantity, no type of a field takes it."""

    text: str


def _is_quantity(value: Any) -> bool:
    """Return whether a value is a quantity of OpenMM, which is not imported for that."""
    return hasattr(value, "value_in_unit")


def _given_units(cls: type[BaseModel], data: dict[str, Any]) -> dict[str, str]:
    """Units of the values that are quantities, or lists with them, by key."""
    values = {key: value if isinstance(value, list | tuple) else [value] for key, value in data.items()}
    return {key: _unit_of(cls, key, data) for key, items in values.items() if any(map(_is_quantity, items))}


def _unit_of(cls: type[BaseModel], key: str, data: dict[str, Any]) -> str:
    """Name of a key's unit, empty where it has none; the value of another key where that is the exponent."""
    values = {name: field.default for name, field in cls.model_fields.items()} | data
    unit = unit_in(first_part(cls.model_fields[key]))
    return re.sub(r"(?<=\^)\w+", lambda name: str(values.get(name[0], name[0])), unit)


def _without_unit(value: Any, unit: str) -> Any:
    """Return quantities, or lists of them, as numbers in this unit, and anything else as it is."""
    if isinstance(value, list | tuple):
        return [_without_unit(item, unit) for item in value] if any(map(_is_quantity, value)) else value
    if not _is_quantity(value):
        return value
    from latf_openmm.units import numbers_in  # imports openmm, as whoever has a quantity did before

    numbers = numbers_in(value, unit)
    return _RefusedQuantity(str(value)) if numbers is None else numbers


def beside_the_configuration(path: Path, info: ValidationInfo) -> Path:
    """Paths are relative to the file that names them."""
    folder = (info.context or {}).get("folder")
    return path if path.is_absolute() or folder is None else (Path(folder) / path).resolve()


InputFile = Annotated[Path, AfterValidator(beside_the_configuration)]
"""A path in a configuration: absolute, or relative to the configuration's folder."""


S = TypeVar("S", bound=Settings)


def family(base: type[S], package: str) -> dict[str, type[S]]:
    """Import every module of `package` and return the concrete subclasses of `base` by their ``kind``.

    A new kind is therefore one new file in the package; nothing else has to name it.
    """
    module = importlib.import_module(package)
    for info in pkgutil.iter_modules(module.__path__):
        importlib.import_module(f"{package}.{info.name}")
    kinds: dict[str, type[S]] = {}
    for cls in _subclasses(base):
        if (kind := kind_of(cls)) is not None:
            kinds[kind] = cls
    return dict(sorted(kinds.items()))


def _subclasses(cls: type[S]) -> Iterable[type[S]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def validate(cls: type[S], data: Any, source: str, folder: Path | None = None) -> S:
    """Validate `data` as `cls`; raise `ConfigError` with one line for each problem, prefixed by `source`.

    Paths in it are relative to `folder`, where that is given.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected a mapping of keys to values, got {type(data).__name__}")
    try:
        return cls.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        raise ConfigError(*_problems(error.errors(), cls, source)) from None


@dataclass(frozen=True)
class _Place:
    """Place of an error.

    Attributes
    ----------
    text
        As the user wrote it, without pydantic's names for members of unions.
    path
        Names of keys around it, and of the kinds of settings, with dots between them; without an unknown key.
    keys
        Allowed there.
    field
        Innermost field around it.
    value
        Location of the value that has several possible types, of which the error is about one; None: no such value.
    """

    text: str
    path: str
    keys: list[str]
    field: FieldInfo | None
    value: tuple[int | str, ...] | None

    @property
    def meaning(self) -> str:
        """First part of the field's description."""
        return first_part(self.field) if self.field is not None else ""


def _problems(errors: Sequence[ErrorDetails], cls: type[Settings], source: str) -> list[str]:
    """One line for each problem; of the types that a value can have, only those that fit it furthest count."""
    places = [_locate(error["loc"], cls) for error in errors]
    deepest: dict[tuple[int | str, ...] | None, int] = {}
    for error, place in zip(errors, places, strict=True):
        deepest[place.value] = max(deepest.get(place.value, 0), len(error["loc"]))
    lines: dict[tuple[Any, ...], str] = {}
    remarks: dict[tuple[Any, ...], str] = {}
    for number, (error, place) in enumerate(zip(errors, places, strict=True)):
        key = (str(number), None) if place.value is None else (place.text, place.value)
        if place.value is None or (len(error["loc"]) == deepest[place.value] and key not in lines):
            lines[key], remarks[key] = _describe(error, place), _remark(error, place, cls.reference_command)
        elif len(error["loc"]) == deepest[place.value] and not isinstance(error["input"], _RefusedQuantity):
            lines[key] += f"; or {_message(error['msg'])}"
    return [f"{source}: {line}{remarks[key]}" for key, line in lines.items()]


def _remark(error: ErrorDetails, place: _Place, command: str) -> str:
    """Say what a key with a unit or without a value is, and name the command that says more where this is not all."""
    if error["type"] == "value_error" or isinstance(error["input"], _RefusedQuantity):
        return ""
    unknown = error["type"] in ("extra_forbidden", "union_tag_not_found", "union_tag_invalid")
    meaning = place.meaning if not unknown and (error["type"] == "missing" or unit_in(place.meaning)) else ""
    has_keys = place.field is not None and any(True for _ in models_in(place.field.annotation))
    more = f"see {command} {place.path}".rstrip() if command and (has_keys or not meaning) else ""
    said = "; ".join(part for part in (meaning, more) if part)
    return f" ({said})" if said else ""


def _describe(error: ErrorDetails, place: _Place) -> str:
    where = place.text
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key{did_you_mean(str(error['loc'][-1]), place.keys)}"
    if error["type"] == "missing":
        return f"{where}: this key is required"
    if error["type"] == "union_tag_not_found":
        return f"{where}.kind: this key is required"
    if error["type"] == "union_tag_invalid":
        return _unknown_kind(where, error["ctx"])
    if error["type"] == "value_error":  # of several keys it has no place; it names them
        return (f"{where}: " if error["loc"] else "") + _message(error["msg"], bool(error["loc"]))
    if isinstance(error["input"], _RefusedQuantity):
        return f"{where}: {_refuse(error['input'], place.meaning)}"
    return f"{where}: {_message(error['msg'])}, got {error['input']!r}"


def _message(text: str, inside: bool = True) -> str:
    message = text.removeprefix("Value error, ")
    return message[0].lower() + message[1:] if inside else message


def _refuse(quantity: _RefusedQuantity, meaning: str) -> str:
    unit = unit_in(meaning)
    expected = f"a number in {unit}" if unit else "a plain number"
    if unit == "z":
        expected = "a number, an angle or a length"
    elif " per z" in unit:
        expected += " with z in rad or nm"
    return f"expected {expected}, got the quantity {quantity.text}"


def _unknown_kind(where: str, facts: dict[str, Any]) -> str:
    kinds = str(facts["expected_tags"])
    hint = did_you_mean(str(facts["tag"]), kinds.replace("'", "").split(", "))
    return f"{where}: there is no kind {str(facts['tag'])!r}; expected one of {kinds}{hint}"


def _locate(loc: tuple[int | str, ...], cls: type[BaseModel]) -> _Place:
    """Find the place of an error in the settings around it."""
    text = path = ""
    models: list[type[BaseModel]] = [cls]
    keys, value = list(cls.model_fields), None
    field: FieldInfo | None = None
    for index, part in enumerate(loc):
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        tagged = [model for model in models if kind_of(model) == part]
        if tagged:
            models = tagged
            path += f".{part}"
            continue
        if field is not None and loc[index - 1] in keys and _has_several_types(field):
            value = loc[:index]
            continue
        keys = [name for model in models for name in model.model_fields]
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        field = fields[0] if fields else field
        models = [inner for field in fields for inner in models_in(field.annotation)]
        text += f".{part}" if text else part
        path += f"{'.' if path else ''}{part}" if fields else ""
    return _Place(text or "(top level)", path, keys, field, value)


def _has_several_types(field: FieldInfo) -> bool:
    """Return whether pydantic tries several types for a value, none of them settings with a ``kind``."""
    annotation = field.annotation
    if get_origin(annotation) not in (Union, UnionType) or any(True for _ in models_in(annotation)):
        return False
    return len([arg for arg in annotation.__args__ if arg is not type(None)]) > 1  # type: ignore[union-attr]


def differences(before: Any, now: Any, place: str = "") -> list[str]:
    """Return the keys whose values differ in two settings that are plain data, each with both values.

    Examples
    --------
    >>> differences({"a": {"b": 1, "c": [1, 2]}, "d": 0}, {"a": {"b": 2, "c": [1, 3]}, "d": 0})
    ['a.b: 2, was 1', 'a.c[1]: 3, was 2']
    """
    return [f"{key}: {_short(new)}, was {_short(old)}" for key, old, new in changes(before, now, place)]


def changes(before: Any, now: Any, place: str = "") -> list[tuple[str, Any, Any]]:
    """Return the keys whose values differ in two settings that are plain data, each with the value before and now.

    Examples
    --------
    >>> changes({"a": {"b": 1}, "d": 0}, {"a": {"b": 2}, "d": 0})
    [('a.b', 1, 2)]
    """
    if isinstance(before, dict) and isinstance(now, dict) and before.get("kind") == now.get("kind"):
        names = [*now, *(name for name in before if name not in now)]
        inner = [
            (f"{place}.{name}" if place else str(name), before.get(name), now.get(name)) for name in names
        ]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        inner = [(f"{place}[{i}]", *pair) for i, pair in enumerate(zip(before, now, strict=True))]
    elif before == now:
        return []
    else:
        return [(place, before, now)]
    return [change for name, old, new in inner for change in changes(old, new, name)]


def _short(value: Any) -> str:
    """A value on one line, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
