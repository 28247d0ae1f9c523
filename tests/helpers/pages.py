"""Pages of the documentation as tests: their blocks are run, in order and in one folder.

Blocks of bash and python are run unless their title begins with "not executed"; a block with another title is written
to the file of that name.

Whole pages take minutes and are marked slow. Otherwise there are fewer frames, steps and epochs: in configurations
when a block has written them, and in the calls of scripts.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import SMALL_TRAINING
from typer.testing import CliRunner

from latf_openmm.cli import app

RUNNER = CliRunner()
DOCS = Path(__file__).parents[2] / "docs"
FIRST = ["quick_start.md", "tutorials/strategies.md", "tutorials/tempering.md"]
LOOP = ["tutorials/loop.md", "tutorials/generate.md"]
OWN = ["tutorials/own_data.md", "tutorials/bias.md"]
"""Pages that need no others, and pages that go on in the folder of the one before."""
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


_STEPS = re.compile(r"\.step\((\d{4,})\)")


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str

    @property
    def executed(self) -> bool:
        return self.language in ("bash", "python") and not self.title


def blocks(page: str) -> list[Block]:
    return [Block(*match.groups(default="")) for match in _BLOCK.finditer((DOCS / page).read_text())]


def shortened(text: str) -> str:
    """Return a script with a fifth of its steps, or a configuration that trains little."""
    text = _STEPS.sub(lambda match: f".step({int(match[1]) // 5})", text)
    if "\ntraining:" not in text:
        return text
    data = yaml.safe_load(text)
    data["training"] |= SMALL_TRAINING
    data["generate"]["samples"] = 200
    if data["simulation"]["walkers"] == 1:  # of a molecule; particles are fast
        data["simulation"]["frames"] = 30
    return yaml.safe_dump(data)


def perform(block: Block, folder: Path, whole: bool) -> None:
    """Run a block in a folder; the package's own commands and Python in this process, which saves its start."""
    if block.title.startswith("not executed"):
        return
    if not whole:
        block = replace(block, text=shortened(block.text))
    if block.title:
        (folder / block.title).write_text(block.text)
    elif block.language == "python":
        exec(compile(block.text, "block", "exec"), {"__name__": "__main__"})
    elif block.language == "bash":
        for line in block.text.replace("\\\n", " ").splitlines():
            command(line, folder, whole)


def command(line: str, folder: Path, whole: bool) -> None:
    words = shlex.split(line, comments=True)
    if words[:1] == ["latf-openmm"]:
        target = words[words.index(">") + 1] if ">" in words else None
        result = RUNNER.invoke(app, words[1 : words.index(">") if target else None])
        # Of fewer frames the reliability may be poor, which is code 3.
        allowed = (0,) if whole else (0, 3)
        assert result.exit_code in allowed, f"{line}\n{result.output}\n{result.exception}"
        if target:
            (folder / target).write_text(result.stdout if whole else shortened(result.stdout))
    elif words[:1] == ["python"] and words[1].endswith(".py"):
        runpy.run_path(str(folder / words[1]), run_name="__main__")
    elif words:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        subprocess.run(["bash", "-c", line], cwd=folder, env={**os.environ, "PATH": path}, check=True)


def follow(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    torch.set_num_threads(1)
    assert any(block.executed for block in blocks(page))
    for block in blocks(page):
        perform(block, folder, whole)
