"""Modules beside a Python file that it imports."""

from pathlib import Path

import pytest

from latf_openmm.systems.modules_beside import modules_beside
from latf_openmm.systems.python_file import PythonFileSettings

IMPORTS: dict[str, tuple[str, set[str]]] = {
    "a module": ("import parameters", {"parameters.py"}),
    "a name of one": ("from parameters import mass", {"parameters.py"}),
    "in a function": ("def make():\n    import parameters as p", {"parameters.py"}),
    "one that imports another": ("import chain", {"chain.py", "parameters.py"}),
    "two that import each other": ("import first", {"first.py", "second.py"}),
    "itself": ("import make", set()),
    "a package": ("import field", {"field/__init__.py", "field/bonds.py"}),
    "a module of a package": (
        "import field.angles",
        {f"field/{n}.py" for n in ("__init__", "bonds", "angles")},
    ),
    "a folder without __init__": ("from plain import deep", {"plain/deep.py", "parameters.py"}),
    "everything": ("from parameters import *", {"parameters.py"}),
    "by a function": ("import importlib\nimportlib.import_module('parameters')", {"parameters.py"}),
    "what is compiled": ("import fast", {"fast.so"}),
    "what is elsewhere": ("import openmm, numpy.linalg\nfrom . import parameters_gone", set()),
    "a name that is computed": ("__import__('para' + 'meters')", set()),
    "no Python": ("import (", set()),
}

FILES = {
    "parameters.py": "mass = 40.0",
    "chain.py": "from parameters import mass",
    "first.py": "import second",
    "second.py": "import first",
    "field/__init__.py": "from . import bonds",
    "field/bonds.py": "from .. import parameters_gone",
    "field/angles.py": "from .bonds import *",
    "plain/deep.py": "import parameters",
    "fast.so": "",
    "other.py": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", IMPORTS)
def test_modules_beside_a_file_are_those_that_it_imports(name: str, folder: Path) -> None:
    text, expected = IMPORTS[name]
    (folder / "make.py").write_text(text)
    modules = modules_beside(folder / "make.py")
    assert modules == sorted(folder.resolve() / path for path in expected)
    assert PythonFileSettings(file=folder / "make.py").code() == (folder / "make.py", *modules)


def test_a_file_that_is_missing_imports_nothing(tmp_path: Path) -> None:
    assert modules_beside(tmp_path / "gone.py") == []


def test_nothing_is_run(folder: Path) -> None:
    (folder / "make.py").write_text("import parameters\nraise RuntimeError")
    (folder / "parameters.py").write_text("raise RuntimeError")
    assert modules_beside(folder / "make.py") == [folder.resolve() / "parameters.py"]
