"""The generated pages of the documentation have every command, key and public name."""

import importlib.util
import re
import sys
from types import ModuleType

import pytest
import yaml
from helpers.pages import DOCS

import latf_openmm
from latf_openmm.bias.potentials import BIAS_KINDS
from latf_openmm.cli import app
from latf_openmm.features import FEATURE_KINDS
from latf_openmm.run.config import RunConfig
from latf_openmm.run.strategies import STRATEGY_KINDS
from latf_openmm.systems import SYSTEM_KINDS


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(generate: ModuleType) -> dict[str, str]:
    return generate.pages()


def test_every_command_with_its_options(pages: dict[str, str]) -> None:
    sections = re.findall(r"^## (\S+)$", pages["reference/cli.md"], re.MULTILINE)
    assert len(sections) == len(app.registered_commands)
    assert {"run", "import", "lag-scan", "generate"} <= set(sections)
    for option in (
        "`--temperature, -T`",
        "`--method` | `auto` or `reweighted`",
        "`[NAME]`",
        "`FILES...`",
        "`--data`",
    ):
        assert option in pages["reference/cli.md"]


@pytest.mark.parametrize("family", [SYSTEM_KINDS, FEATURE_KINDS, BIAS_KINDS, STRATEGY_KINDS])
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
    assert "| `overlap` | number, > 0.05, < 0.99 | `0.7` |" in page  # inside generate.annealing
    anchors = set(re.findall(r"\{ #(\S+) \}", page))
    anchors |= {
        title.lower().replace(" ", "-") for title in re.findall(r"^#+ ([^{\n]+)$", page, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors


def test_every_public_name(generate: ModuleType, pages: dict[str, str]) -> None:
    names = [name for group in generate.GROUPS.values() for name in group]
    assert sorted(names) == sorted(set(latf_openmm.__all__) - {"__version__"})
    assert all(f".{name}\n" in pages["reference/python.md"] for name in names)


def test_the_citation_has_the_version() -> None:
    data = yaml.safe_load((DOCS.parent / "CITATION.cff").read_text())
    assert data["version"] == latf_openmm.__version__
