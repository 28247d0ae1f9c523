"""What is imported when: help needs no libraries of simulation or learning, and torch comes before openmm."""

import json
import subprocess
import sys
import time
from typing import get_args

import pytest
from helpers.commands import commands
from rich.text import Text

from latf_openmm.cli.options import Method
from latf_openmm.run.ensembles import Choice
from latf_openmm.run.folder import RunFolder

HEAVY = ("torch", "openmm", "mdtraj", "numpy", "scipy", "pandas", "matplotlib", "parmed")
COMMANDS = [[], *([name] for name in commands())]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def test_help_imports_nothing_heavy() -> None:
    """Of the command line and each of its commands, one after the other in one process."""
    code = f"""
import json, sys
from latf_openmm.cli import app
for command in {COMMANDS!r}:
    app([*command, "--help"], standalone_mode=False)
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
    assert json.loads(python(code)) == []


def test_the_choices_of_method_are_those_of_the_library() -> None:
    """They stand in the command line again, so that help does without the library."""
    assert tuple(method.value for method in Method) == get_args(Choice)


def test_help_takes_a_small_part_of_importing_torch() -> None:
    """The budget of 0.5 s, as a ratio that holds on slower machines: 1.5 s is what torch takes where 0.25 s is it."""

    def best(code: str) -> float:
        times = []
        for _ in range(2):
            begin = time.perf_counter()
            python(code)
            times.append(time.perf_counter() - begin)
        return min(times)

    show = "from latf_openmm.cli import app\napp(['--help'], standalone_mode=False)"
    assert best(show) < 0.5 * best("import torch, openmm\nprint(1)")


@pytest.mark.parametrize("elsewhere", [True, False])
def test_torch_comes_before_openmm_only_where_the_plugin_would_not_find_it(elsewhere: bool) -> None:
    code = f"""
import sys
import latf_openmm
latf_openmm._folder = lambda module: module if {elsewhere} else "site-packages"
assert "torch" not in sys.modules
import openmm
names = list(sys.modules)
print("torch" in names and names.index("torch") < names.index("openmm"))
"""
    assert python(code) == str(elsewhere)


def test_names_are_public_without_imports() -> None:
    code = """
import sys, latf_openmm
assert "run_loop" in latf_openmm.__all__ and "torch" not in sys.modules
latf_openmm.langevin_integrator
print("openmm" in sys.modules)
"""
    assert python(code) == "True"


def test_the_state_of_a_run_that_has_ended_needs_nothing_that_simulates_or_learns(
    small_run: RunFolder,
) -> None:
    heavy = ("torch", "pandas", "matplotlib", "sklearn", "scipy.stats")
    code = f"""
import json, sys
from latf_openmm.cli import app
app(["status", {str(small_run.path)!r}], standalone_mode=False)
print(json.dumps([name for name in {heavy!r} if name in sys.modules]))
"""
    assert json.loads(python(code)) == []


def test_the_library_is_listed_without_what_learns() -> None:
    heavy = ("torch", "pandas", "matplotlib", "sklearn")
    code = f"""
import json, sys
from latf_openmm.cli import app
for arguments in (["systems"], ["systems", "lj7/fast"]):
    app(arguments, standalone_mode=False)
print(json.dumps([name for name in {heavy!r} if name in sys.modules]))
"""
    assert json.loads(python(code)) == []


def test_a_run_is_read_without_what_only_estimates_need() -> None:
    """They take as long to import as half of torch."""
    code = """
import json, sys
import latf_openmm.report.page, latf_openmm.run.ensembles, latf_openmm.run.loop
print(json.dumps([name for name in ("sklearn", "scipy.stats", "pymbar") if name in sys.modules]))
"""
    assert json.loads(python(code)) == []


def test_help_shows_all_that_was_written() -> None:
    """What looks like markup would be left out, such as a unit in square brackets."""
    for name, sub in commands().items():
        for parameter in sub.params:
            text = getattr(parameter, "help", None) or ""
            assert Text.from_markup(text).plain == text, (name, parameter.name)
