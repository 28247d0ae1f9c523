"""Notebooks: each is listed, reads as cells, and runs as a script."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.pages import DOCS

FOLDER = DOCS.parent / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[a-e]_*.py"))
STEPS = re.compile(r"\.step\(([\d_]{5,})\)")


def execute(text: str, folder: Path) -> str:
    """Run a notebook as a script with figures that nobody sees; return what it prints."""
    script = folder / "notebook.py"
    script.write_text(text)
    paths = os.pathsep.join([str(DOCS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": paths, "TMPDIR": str(folder)}
    result = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Warning: " not in result.stderr
    return result.stdout


def test_there_are_five() -> None:
    assert [path.name[0] for path in NOTEBOOKS] == list("abcde")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_cells_and_a_place_on_the_page(path: Path) -> None:
    text = path.read_text()
    compile(text, path.name, "exec")
    header, *cells = re.split(r"(?m)^(?=# %%)", text)
    assert "format_name: percent" in header
    assert cells[0].startswith("# %% [markdown]\n# # ")
    assert len(cells) > 10
    for cell in cells:
        if cell.startswith("# %% [markdown]"):
            assert all(line.startswith("#") for line in cell.rstrip().splitlines()), cell
    page = (DOCS / "notebooks.md").read_text()
    title = cells[0].splitlines()[1].removeprefix("# # ")
    assert path.name in page
    assert title in page


def test_one_that_is_shortened_runs(tmp_path: Path) -> None:
    (path,) = FOLDER.glob("d_*.py")
    # Half as long: with a fifth, one simulation in some hundreds is too short to tell 300 from 450 K.
    short = STEPS.sub(lambda match: f".step({int(match[1]) // 2})", path.read_text())
    said = execute(short, tmp_path)
    for text in (
        "are their temperatures exchanged?",
        "its unit is kcal/mol",
        "would count twice",
        "is cut off",
    ):
        assert text in said


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    execute(path.read_text(), tmp_path)
