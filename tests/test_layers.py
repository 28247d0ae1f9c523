"""Imports run one way: cli -> workflow -> {training, analysis, md} -> model -> data -> features, systems -> base."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "latf_openmm"
LAYERS = [
    {"errors"},
    {"units", "settings", "progress", "storage", "labels"},
    {"periodic"},
    {"features", "systems", "execution"},
    {"data"},
    {"model"},
    {"training", "md", "analysis"},
    {"strategies"},
    {"config", "schema"},
    {"run_folder"},
    {"workflow", "refine", "plots", "starter"},
    {"report", "imported", "tensorboard", "verify"},
    {"probes", "doctor", "cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("latf_openmm."):
            names.add(str(node.module).split(".")[1])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    mine = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for other in imported(path) - {mine}:
        assert other in LEVEL, f"{other} has no layer"
        if mine not in ("probes", "doctor", "cli"):
            assert LEVEL[other] < LEVEL[mine], f"{mine} must not import {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_edge_prints(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    prints = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
    assert not prints or path.name == "probes.py"
