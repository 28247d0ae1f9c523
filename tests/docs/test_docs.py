"""The generated pages of the documentation have every command, key and public name."""

import importlib
import re
from collections.abc import Iterator
from types import ModuleType

import pytest
from helpers.commands import commands
from helpers.pages import DOCS

import latf_openmm
from latf_openmm import plotting
from latf_openmm.bias.potentials import BIAS_KINDS
from latf_openmm.cli import app
from latf_openmm.ensembles.observables import OBSERVABLES
from latf_openmm.features import FEATURE_KINDS
from latf_openmm.reweighting.reliability import FAIR_SAMPLES, GOOD_SAMPLES, MEANINGS
from latf_openmm.run.config import RunConfig
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.loop import CHANGEABLE
from latf_openmm.run.paths import RunPaths
from latf_openmm.run.strategies import STRATEGY_KINDS
from latf_openmm.sampling.tempering import TEMPERING_KINDS
from latf_openmm.systems import SYSTEM_KINDS


@pytest.fixture(scope="module")
def reference_pages() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("reference_pages")


@pytest.fixture(scope="module")
def pages(reference_pages: ModuleType) -> dict[str, str]:
    return reference_pages.pages()


def test_every_command_with_its_options(pages: dict[str, str]) -> None:
    page = pages["reference/cli.md"]
    sections = re.findall(r"^## `latf-openmm (\S+)`$", page, re.MULTILINE)
    assert len(sections) == len(app.registered_commands)
    assert {"run", "import", "lag-scan", "generate"} <= set(sections)
    for text in (
        "* `-T, --temperature <list[float]>`: May be repeated.  [required]",
        "* `--method <auto|reweighted|conditional|annealed|flow>`",
        "latf-openmm systems [OPTIONS] [name]",
        "* `--data",
        "| 3 | `generate`, `observe`, `states`, `explain`, `compare`: the result is not to be relied on",
    ):
        assert text in page
    assert "**Commands**" not in page and "--help`" not in page


def test_the_words_of_reliability_are_those_of_the_commands() -> None:
    page = (DOCS / "tutorials" / "generate.md").read_text()
    for name, samples in (
        ("good", f"{GOOD_SAMPLES:g} or more"),
        ("fair", f"{FAIR_SAMPLES:g} or more"),
        ("poor", "fewer"),
    ):
        assert f"| `{name}` | {samples} | {MEANINGS[name]} |" in page


def test_every_observable(pages: dict[str, str]) -> None:
    assert all(f"| `{cls.form()}` | " in pages["reference/observables.md"] for cls in OBSERVABLES.values())


def test_links_of_the_plain_pages_lead_to_files() -> None:
    """Pages of the reference are there too, and say what prints them."""
    texts = [
        *DOCS.rglob("*.md"),
        *(DOCS.parent / name for name in ("README.md", "CONTRIBUTING.md", "RELEASING.md")),
    ]
    links = [
        (path, link)
        for path in texts
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:|#", link)
    ]
    assert sum("reference/" in link for _, link in links) >= 5
    broken = [
        f"{path.name}: {link}" for path, link in links if not (path.parent / link.split("#")[0]).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("page", ["tutorials/loop.md", "trust.md"])
def test_pages_name_all_that_a_resumed_run_may_change(page: str) -> None:
    [sentence] = re.findall(
        r"[^.:]*`generate`,\s+`validation`.*?\bmay\b.*?change", (DOCS / page).read_text(), re.DOTALL
    )
    assert re.findall(r"`(.*?)`", sentence) == list(CHANGEABLE)


def test_pages_name_all_commands_that_ask_for_consent() -> None:
    """Those with `--trust`: of a run folder, and of a configuration."""
    asking = {
        name for name, command in commands().items() if any("--trust" in p.opts for p in command.params)
    }
    text = (DOCS / "trust.md").read_text().split("## A folder from somebody else")[1].split("\n## ")[0]
    assert asking - {"init"} <= set(re.findall(r"`([a-z-]+)`", text))


def test_the_layers_on_the_page_are_those_that_the_linter_checks() -> None:
    page = (DOCS / "architecture.md").read_text()
    said = [set(re.findall(r"\w+", layer)) for layer in page.split("\n\n    ")[1].split("\n\n")[0].split(">")]
    layers = re.search(r"^layers = \[(.*?)^\]", (DOCS.parent / "pyproject.toml").read_text(), re.M | re.S)
    assert layers is not None
    assert said == [set(re.findall(r"\w+", layer)) for layer in re.findall(r'"(.*?)"', layers[1])]


def test_each_generated_page_of_the_reference_has_a_plain_one(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        if name.startswith("reference/"):
            title, _, plain = (DOCS / name).read_text(encoding="utf-8").partition("\n")
            assert text.startswith(title)
            assert "`make docs`" in plain


def test_pictures_of_benchmarks_are_beside_their_scripts() -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in DOCS.glob("benchmarks/*.md")}
    links = [(path, name) for path, text in pages.items() for name in re.findall(r"!\[.*?\]\((.*?)\)", text)]
    assert len(links) >= 7
    for path, name in links:
        assert (path.parent / name).is_file(), f"{path}: {name}"
        assert name.startswith("../../benchmarks/")


@pytest.mark.parametrize("family", [SYSTEM_KINDS, FEATURE_KINDS, BIAS_KINDS, STRATEGY_KINDS, TEMPERING_KINDS])
def test_every_kind_with_its_keys(pages: dict[str, str], family: dict[str, type]) -> None:
    page = pages["reference/configuration.md"]
    for kind, cls in family.items():
        section = page.split(f"### {kind} {{", 1)[1].split("\n### ", 1)[0]
        for name, field in cls.model_fields.items():  # type: ignore[attr-defined]
            assert name == "kind" or f"| `{name}` |" in section
            assert name == "kind" or field.description, f"{kind}.{name}"


def test_every_key_of_the_file(pages: dict[str, str]) -> None:
    page = pages["reference/configuration.md"]
    assert all(f"| `{name}` |" in page for name in RunConfig.model_fields)
    assert "| `lag` | integer or `auto` | `auto` |" in page
    assert "| `tempering` | one of [tempering](#tempering) or none | none |" in page
    assert "| `overlap` | number, > 0.05, < 0.99 | `0.7` |" in page  # inside generate.annealing
    anchors = set(re.findall(r"\{ #(\S+) \}", page))
    anchors |= {
        title.lower().replace(" ", "-") for title in re.findall(r"^#+ ([^{\n]+)$", page, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors


def test_the_page_on_python_has_the_keys_of_settings(reference_pages: ModuleType) -> None:
    griffe = pytest.importorskip("griffe")
    extension = DOCS / "reference_pages" / "docstrings.py"
    assert f"extensions: [{extension.relative_to(DOCS.parent)}]" in (DOCS.parent / "mkdocs.yml").read_text()
    extensions = griffe.load_extensions(str(extension))
    package = griffe.load("latf_openmm", search_paths=[str(DOCS.parent)], extensions=extensions)
    sections = package["bias.potentials.opes.OpesSettings"].docstring.parse("numpy")
    [keys] = [section.value for section in sections if section.kind.value == "parameters"]
    barrier = next(key for key in keys if key.name == "barrier")
    assert str(barrier.annotation) == "float, > 0"
    assert barrier.description == "highest free-energy barrier to cross [kJ/mol]"


def test_the_page_shows_what_a_run_has_from_its_bases(pages: dict[str, str]) -> None:
    assert {"last_round", "complete_rounds"} <= set(vars(RunPaths)) - set(vars(RunFolder))
    assert ".RunFolder\n    options:\n      inherited_members: true\n" in pages["reference/python.md"]


def test_every_public_name(reference_pages: ModuleType, pages: dict[str, str]) -> None:
    names = [name for group in reference_pages.GROUPS.values() for name in group]
    assert sorted(names) == sorted(set(latf_openmm.__all__) - {"__version__", "plotting"})
    assert all(f".{name}\n" in pages["reference/python.md"] for name in [*names, *plotting.__all__])
