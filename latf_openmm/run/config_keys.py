"""Places of a configuration, such as ``simulation`` or ``bias.opes``, and the keys there: what `latf-openmm keys` says.

A place is the names of keys with dots between them; settings that are one of several kinds are named by their kind.
Observables, which commands take and no configuration, have places too.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydantic.fields import FieldInfo

from latf_openmm.ensembles.observables import OBSERVABLES
from latf_openmm.errors import ConfigError
from latf_openmm.run.config import RunConfig
from latf_openmm.sentences import alternatives
from latf_openmm.settings_reference import DEFAULTS, Key, Model, Words, about, kinds_in, sections_in

OBSERVABLES_PLACE = "observables"
"""Place of the observables."""
_NEAR = 3
"""Near places that are named, at most."""
_WORDS = Words()
"""Words of types and defaults."""


@dataclass(frozen=True)
class Place:
    """Place of a configuration.

    Attributes
    ----------
    path
        Names with dots between them; empty: the file.
    field
        The key; None: the file, or settings of a kind.
    section
        Settings whose keys stand there; None: a value does, or settings of several kinds.
    kinds
        Settings that a key ``kind`` chooses from, by this.
    """

    path: str
    field: FieldInfo | None
    section: Model | None
    kinds: dict[str, Model]

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Entry:
    """One line of a list: a key, a kind or an observable.

    Attributes
    ----------
    name
        As it is written.
    note
        Type and default of a key, unit of an observable.
    meaning
        In words; of a key with the unit in brackets.
    """

    name: str
    note: str
    meaning: str


@dataclass(frozen=True)
class KeysPage:
    """Everything that is said of a place.

    Attributes
    ----------
    title
        The place; of the file, words.
    note
        As that of an entry.
    text
        Its meaning, paragraphs.
    lists
        Keys, kinds or observables, under their titles.
    next_place
        Place that may be asked for next; empty: the file.
    brief
        Whether a line of a list is to be cut where it is long: pages of the places say the rest.
    """

    title: str
    note: str
    text: str
    lists: dict[str, list[Entry]]
    next_place: str = ""
    brief: bool = False


# --- places ----------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def config_places() -> dict[str, Place]:
    """Return all places of a configuration by their path, in its order."""
    return {place.path: place for place in (Place("", None, RunConfig, {}), *_below("", RunConfig, ()))}


def _below(path: str, section: Model, above: tuple[Model, ...]) -> Iterator[Place]:
    """Places in a section; `above` are kinds around it, which are not followed where they hold themselves."""
    for name, field in section.model_fields.items():
        if name == "kind":
            continue
        inner = f"{path}.{name}" if path else name
        kinds, sections = kinds_in(field.annotation), sections_in(field.annotation)
        yield Place(inner, field, sections[0] if sections else None, kinds)
        for cls in sections:
            yield from _below(inner, cls, above)
        for kind, cls in kinds.items():
            if cls not in above:
                yield Place(f"{inner}.{kind}", None, cls, {})
                yield from _below(f"{inner}.{kind}", cls, (*above, *kinds.values()))


def families() -> dict[str, dict[str, Model]]:
    """Return all settings of which there are kinds: by the place where they are chosen, and by their kind."""
    places = config_places()
    return {
        path: place.kinds
        for path, place in places.items()
        if place.kinds and all(f"{path}.{kind}" in places for kind in place.kinds)
    }


def _resolve(path: str) -> str:
    """Return the complete path of a place that is named by it, or by the end that no other place has."""
    paths = [*config_places(), OBSERVABLES_PLACE, *(f"{OBSERVABLES_PLACE}.{kind}" for kind in OBSERVABLES)]
    if path in paths:
        return path
    ends = [known for known in paths if known.endswith(f".{path}")]
    if len(ends) == 1:
        return ends[0]
    near = (ends or _near(path, paths))[:_NEAR]
    hint = f"did you mean {alternatives(near)}?" if near else "latf-openmm keys lists them"
    raise ConfigError(f"{path}: no such place in a configuration; {hint}")


def _near(path: str, paths: Sequence[str]) -> list[str]:
    """Places that are spelled nearly like a path, or whose last part is nearly its last part."""
    last = path.rpartition(".")[2]
    names = difflib.get_close_matches(last, sorted({known.rpartition(".")[2] for known in paths}), n=1)
    similar = [known for known in paths if known.rpartition(".")[2] in names]
    close = difflib.get_close_matches(path, paths, n=1, cutoff=0.85)
    return list(dict.fromkeys([*close, *difflib.get_close_matches(path, similar, n=_NEAR, cutoff=0.0)]))


# --- pages -----------------------------------------------------------------------------------------


def keys_page(place: str = "") -> KeysPage:
    """Return everything that is said of a place.

    Parameters
    ----------
    place
        Its last part is enough where no other place has it, and numbers in brackets, as in ``features[0]``, do not
        matter. Empty: the sections of a configuration, and all kinds.

    Raises
    ------
    ConfigError
        If there is no such place.
    """
    path = _resolve(re.sub(r"\[\d*\]", "", place).strip(".")) if place else ""
    if not path:
        return _overview()
    if path.partition(".")[0] == OBSERVABLES_PLACE:
        return _observables_page(path)
    known = config_places()[path]
    if known.kinds:
        return _kinds_page(known)
    if known.section is not None:
        return _section_page(known, known.section)
    return KeysPage(path, _note(known), _meaning(known), {}, path.rpartition(".")[0])


def _overview() -> KeysPage:
    keys = _WORDS.keys_of(RunConfig)
    lists = {"Sections": [Entry(key.name, "", key.meaning + _if_required(key)) for key in keys]}
    for path, members in families().items():
        lists[f"Kinds of {path}"] = [
            Entry(kind, "", getattr(cls, "title", "") or _sentence(about(cls)))
            for kind, cls in members.items()
        ]
    lists["Observables"] = [Entry(cls.form(), "", _sentence(about(cls))) for cls in OBSERVABLES.values()]
    text = (
        "A configuration is one YAML file. Lengths are in nm, times in ps, energies in kJ/mol, masses in amu; "
        "temperatures in kelvin, or in reduced units where the system is a model potential. None is written as "
        "null.\n\nPlaces are names with dots between them: a section, a kind of it, a key, an observable. "
        "`latf-openmm keys bias.opes` says what the keys of this bias are."
    )
    return KeysPage("", "", text, lists, "simulation", brief=True)


def _if_required(key: Key) -> str:
    return " (required)" if key.required else ""


def _kinds_page(place: Place) -> KeysPage:
    kinds = [Entry(kind, "", _sentence(about(cls))) for kind, cls in place.kinds.items()]
    described = [
        f"{path}.{kind}"
        for path, members in families().items()
        for kind, cls in members.items()
        if place.kinds.get(kind) is cls
    ]
    lists = {"Kinds, chosen by a key `kind`": kinds}
    return KeysPage(place.path, _note(place), _meaning(place), lists, described[0])


def _section_page(place: Place, section: Model) -> KeysPage:
    keys = _WORDS.keys_of(section)
    note = _note(place) if place.field is not None else f"chosen by `kind: {place.name}`"
    lists = {"Keys": [Entry(key.name, _type_and_default(key), key.meaning) for key in keys]} if keys else {}
    text = about(section) + ("" if keys else "\n\nIt has no other keys.")
    inner = [path for path, known in config_places().items() if _is_inside(known, place)]
    return KeysPage(place.path, note, text, lists, inner[0] if inner else "")


def _is_inside(place: Place, outer: Place) -> bool:
    """Return whether a place is a key of another one that has keys or kinds."""
    has_more = place.section is not None or bool(place.kinds)
    return has_more and place.path.rpartition(".")[0] == outer.path


def _observables_page(path: str) -> KeysPage:
    if path == OBSERVABLES_PLACE:
        entries = [Entry(cls.form(), _unit(cls.unit), about(cls)) for cls in OBSERVABLES.values()]
        text = "Numbers of an ensemble: `latf-openmm observe RUN -T 300 --observable NAME --output OBSERVED`."
        return KeysPage(path, "", text, {"Names": entries}, f"{path}.rmsd")
    cls = OBSERVABLES[path.partition(".")[2]]
    return KeysPage(cls.form(), _unit(cls.unit), about(cls), {}, OBSERVABLES_PLACE)


def _unit(unit: str) -> str:
    return f"unit: {unit}" if unit else ""


def _sentence(text: str) -> str:
    """First sentence of a docstring, which is a paragraph."""
    return " ".join(text.partition("\n\n")[0].split()).removesuffix(".")


def _note(place: Place) -> str:
    """Type and default of a key."""
    return "" if place.field is None else _type_and_default(_WORDS.key_of(place.name, place.field))


def _meaning(place: Place) -> str:
    return "" if place.field is None else _WORDS.key_of(place.name, place.field).meaning


def _type_and_default(key: Key) -> str:
    if key.required:
        return f"{key.type}; required"
    return f"{key.type}; " + (
        "all its keys have defaults" if key.default == DEFAULTS else f"default {key.default}"
    )
