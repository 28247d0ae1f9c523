"""The last line of a command says what to do next, apart from what it prints for others."""

import ast
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from latf_openmm.cli import app
from latf_openmm.cli.messages import set_quiet
from latf_openmm.model.checkpoint import load_model
from latf_openmm.reweighting.reliability import MEANINGS, reliability_text
from latf_openmm.run.folder import RunFolder

CLI = Path(__file__).parents[2] / "latf_openmm" / "cli"
SPEAKERS = {"say_next", "_print_status", "_end"}


def test_every_command_says_it() -> None:
    commands = []
    for path in CLI.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and any(
                "command" in ast.unparse(d) for d in node.decorator_list
            ):
                called = {ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
                assert called & SPEAKERS, node.name
                commands.append(node.name)
    assert len(commands) == len(app.registered_commands)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("systems", "latf-openmm systems lj7/fast > my.yaml"),
        ("systems lj7", "latf-openmm run lj7 --output RUN"),
        ("keys bias", "latf-openmm keys bias.flow_barrier"),
        ("status RUN", "latf-openmm report RUN"),
        ("report RUN", "latf-openmm generate RUN --temperature"),
        ("verify RUN", "latf-openmm status RUN"),
        ("export RUN -o OUT/cv.pt", "torch.jit.load('OUT/cv.pt')"),
        ("generate RUN -T 1 --method reweighted -o OUT/at", "latf-openmm "),
        ("observe RUN -T 1 --observable energy --method reweighted -o OUT/observed", "latf-openmm "),
        ("explain RUN -T 1", "latf-openmm run RUN/config.yaml --rounds 3 --output RUN"),
    ],
)
def test_it_is_on_standard_error(command: str, words: str, small_run: RunFolder, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run.path, run)
    arguments = command.replace("RUN", str(run)).replace("OUT", str(tmp_path)).split()
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code in (0, 3), (done.output, done.exception)
    assert "Next: " not in done.stdout
    said = done.stderr.replace(str(run), "RUN").replace(str(tmp_path), "OUT")
    [line] = [text for text in said.splitlines() if text.startswith("Next: ")]
    assert words in line


def test_a_run_that_has_ended_names_its_model_and_its_report(small_run: RunFolder, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run.path, run)
    page = run / "report" / "index.html"
    said = CliRunner().invoke(app, ["run", str(run / "config.yaml"), "-o", str(run)]).stdout
    [model] = [line.split(": ")[1] for line in said.splitlines() if "last model: " in line]
    assert load_model(Path(model)).model.n_members == 2
    assert f"report: none yet; latf-openmm report {run} writes {page}" in said
    page.parent.mkdir()
    page.touch()
    assert f"report: {page}\n" in CliRunner().invoke(app, ["status", str(run)]).stdout


def test_quiet_leaves_it_out() -> None:
    try:
        assert "Next" not in CliRunner().invoke(app, ["-q", "systems"]).output
        assert "Next" not in CliRunner().invoke(app, ["--log", "json", "systems"]).output
        assert "Next: " in CliRunner().invoke(app, ["systems"]).stderr
    finally:
        set_quiet(False)


def test_reliability_has_one_wording() -> None:
    """No other file has words of its own for it."""
    assert reliability_text("good") == f"reliability good: {MEANINGS['good']}"
    package = CLI.parent
    for path in [*package.rglob("*.py"), *package.rglob("*.html")]:
        text = path.read_text()
        for words in ("trust them", "take the numbers", "do not rely on", "can be relied on"):
            assert words not in text, f"{path}: {words}"
