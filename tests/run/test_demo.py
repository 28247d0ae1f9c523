"""The demonstration in its shortest form: made, continued where it is there, refused where something else is."""

import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from latf_openmm.cli import app
from latf_openmm.errors import ConfigError, DataError
from latf_openmm.run.demo import TEMPERATURE, demo_config, run_demo
from latf_openmm.run.folder import RunFolder


def demo(folder: Path) -> Result:
    return CliRunner().invoke(app, ["--quiet", "demo", "--tiny", "--output", str(folder)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("demo") / "latf-demo"
    result = demo(path)
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"structures at T = {TEMPERATURE:g}; reliability " in result.stdout
    assert f"{path}/run/report/index.html: the report" in result.stdout
    return path


def test_what_there_is(folder: Path) -> None:
    assert len(RunFolder.open(folder / "run").complete_rounds()) == 1
    assert (folder / "run" / "report" / "index.html").is_file()
    assert (folder / "generated" / "T0.35" / "ensemble.json").is_file()


def test_what_is_there_is_not_made_again(folder: Path) -> None:
    def times() -> dict[Path, int]:
        kept = [*(folder / "run" / "rounds").rglob("*"), *(folder / "generated").rglob("*")]
        return {path: path.stat().st_mtime_ns for path in kept}

    before = times()
    result = run_demo(folder, tiny=True)
    assert result.ensemble is None
    assert times() == before


def test_what_is_damaged_or_another_run_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with pytest.raises(ConfigError, match="started with another configuration"):
        run_demo(copy)  # the whole one
    damaged = copy / "generated" / "T0.35" / "populations.csv"
    damaged.write_text(damaged.read_text() + "\n")
    with pytest.raises(
        DataError, match=r"populations\.csv: .* bytes; expected .*the same command makes it again"
    ):
        run_demo(copy, tiny=True)


def test_the_whole_one_is_that_of_the_library() -> None:
    whole, tiny = demo_config(), demo_config(tiny=True)
    assert whole.loop.rounds == 2
    low, high = whole.simulation.temperatures
    assert low < TEMPERATURE < high
    assert tiny.simulation.steps < whole.simulation.steps / 5
    assert tiny.validation is None
