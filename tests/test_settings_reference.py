"""Classes of settings say in their docstrings what their keys are."""

import inspect
import pydoc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field
from pydantic.fields import FieldInfo

import latf_openmm
from latf_openmm.run.config import RunConfig
from latf_openmm.sampling.umbrella.plan import UmbrellaSettings
from latf_openmm.settings import Settings
from latf_openmm.settings_reference import PythonWords, Words, about, kinds_in, sections_in
from latf_openmm.training.settings import TrainingSettings


class Chosen(Settings):
    """Base of two kinds."""


class First(Chosen):
    """The first kind."""

    kind: Literal["first"] = "first"


class Second(Chosen):
    """The second kind."""

    kind: Literal["second"] = "second"
    parts: list[Chosen] = Field([], description="more of them")


class Section(Settings):
    """A section with a key."""

    length: float = Field(1.0, ge=0.5, description="of a rod [nm]; default: a long one")


def package_settings() -> list[type[Settings]]:
    def below(cls: type[Settings]) -> Iterator[type[Settings]]:
        for sub in cls.__subclasses__():
            yield sub
            yield from below(sub)

    assert RunConfig in Settings.__subclasses__()
    assert UmbrellaSettings in Settings.__subclasses__()
    return [cls for cls in below(Settings) if cls.__module__.startswith("latf_openmm.")]


@pytest.mark.parametrize("cls", package_settings(), ids=lambda cls: cls.__name__)
def test_a_docstring_has_every_key_with_its_meaning(cls: type[Settings]) -> None:
    text = inspect.getdoc(cls) or ""
    fields = {name: field for name, field in cls.model_fields.items() if name != "kind"}
    assert f"\n{text}".count("\nParameters\n----------\n") == bool(fields)
    flat = " ".join(text.split())
    for name, field in fields.items():
        assert re.search(rf"^{name} : .+, (required|default .+)$", text, re.MULTILINE), name
        assert " ".join((field.description or "").split()) in flat
    assert all(len(line) <= 75 for line in text.splitlines() if line.startswith("    "))
    assert "Parameters\n" not in about(cls)


def test_help_shows_type_limits_default_unit_and_meaning() -> None:
    shown = pydoc.plain(pydoc.render_doc(latf_openmm.OpesSettings))
    for line in (
        "barrier : float, > 0, required",
        "    highest free-energy barrier to cross [kJ/mol]",
        "min_sigma : float, > 0, <= 1, default 0.05",
        "flavour : {'metad', 'explore'}, default 'metad'",
        "sigma : float, list of float or None, default None",
    ):
        assert f" |  {line}\n" in shown


def test_a_section_written_by_hand_stays() -> None:
    class Written(Settings):
        """Settings.

        Parameters
        ----------
        length
            In words of its author.
        """

        length: float = Field(1.0, description="generated")

    assert Written.__doc__ is not None
    assert "In words of its author." in Written.__doc__
    assert "generated" not in Written.__doc__


def test_parameters_come_before_other_sections_and_after_the_text() -> None:
    class Exemplary(Settings):
        """Settings.

        More on them.

        Examples
        --------
        >>> 1 + 1
        2
        """

        length: float = Field(1.0, description="of a rod [nm]")

    assert Exemplary.__doc__ == (
        "Settings.\n\nMore on them.\n\nParameters\n----------\nlength : float, default 1.0\n    of a rod [nm]\n\n"
        "Examples\n--------\n>>> 1 + 1\n2"
    )
    assert about(Exemplary) == "Settings.\n\nMore on them."


@pytest.mark.parametrize(
    ("annotation", "field", "plain", "python"),
    [
        (float, Field(gt=0, le=2.5), "number, > 0, <= 2.5", "float, > 0, <= 2.5"),
        (list[float] | None, Field(min_length=1), "list of numbers or null, at least 1 item", None),
        (list[list[int]], Field(max_length=3), "list of lists of integers, at most 3 items", None),
        (list[float | None], Field(), "list of (number or null)", "list of (float or None)"),
        (Literal["a", "b"] | None, Field(), "a, b or null", "{'a', 'b'} or None"),
        (dict[str, Path], Field(), "text to path", "dict of str to Path"),
        (bool, Field(), "true or false", "bool"),
        (First | Second, Field(), "kind of chosen", "Chosen"),
        (list[Chosen], Field(), "list of kinds of chosen", "list of Chosen"),
        (Section, Field(), "section", "Section"),
    ],
)
def test_types_for_people(annotation: Any, field: Any, plain: str, python: str | None) -> None:
    info = FieldInfo.from_annotated_attribute(annotation, field)
    assert Words().key_of("key", info).type == plain
    if python is not None:
        assert PythonWords().key_of("key", info).type == python


def test_defaults_for_people() -> None:
    defaults = {key.name: key.default for key in Words().keys_of(TrainingSettings)}
    assert (defaults["lag"], defaults["beta"], defaults["restarts"]) == ("auto", "0.0001", "3")

    class Others(Settings):
        """Defaults of other types."""

        text: str = ""
        flag: bool = True
        numbers: list[int] = Field([1, 2])
        none: float | None = None
        section: Section = Section()
        chosen: Chosen = First()
        computed: list[int] = Field(default_factory=list)
        required: int

    plain = [key.default for key in Words().keys_of(Others)]
    assert plain == ["''", "true", "[1, 2]", "null", "its defaults", "first", "its defaults", "required"]
    python = [key.default for key in PythonWords().keys_of(Others)]
    assert python[:6] == ["''", "True", "[1, 2]", "None", "Section()", "First()"]


def test_kinds_and_sections_are_told_apart() -> None:
    assert kinds_in(list[Chosen]) == {"first": First, "second": Second}
    assert kinds_in(Section | None) == {}
    assert sections_in(Section | None) == [Section]
    assert sections_in(First | None) == []
