"""A loop whose walkers move among temperatures: rounds, record, report, status, checks, resumption."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import SMALL_TRAINING
from helpers.folders import killed_before_its_decision, resealed

from latf_openmm.errors import ConfigError
from latf_openmm.frames.moves import energy_acceptances, read_moves, round_trips, temperature_paths
from latf_openmm.report.page import write_report
from latf_openmm.report.status import run_status
from latf_openmm.run.config import RunConfig, dump_config
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.loop import run_loop
from latf_openmm.run.verify.run import verify_run
from latf_openmm.settings import validate
from latf_openmm.systems import library_folder


def configured(**changes: Any) -> RunConfig:
    data = yaml.safe_load((library_folder("three_hole") / "fast.yaml").read_text())
    data["simulation"] |= {
        "temperatures": [0.7, 1.0, 1.3],
        "walkers": 3,
        "frames": 80,
        "segment_frames": 30,
        "equilibration": 50,
        "tempering": {"kind": "exchange", "interval": 4},
    }
    data["simulation"] |= changes
    data["training"] |= SMALL_TRAINING
    data["model"]["flow"] = {"layers": 2}
    data["bias"] = {"kind": "opes", "barrier": 3.0, "pace": 20}
    data["generate"] = {"temperatures": [0.85], "samples": 200}
    return validate(RunConfig, data, "small")


@pytest.fixture(scope="module", params=["exchange", "expanded"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    torch.set_num_threads(1)
    config = configured(tempering={"kind": request.param, "interval": 4})
    return run_loop(config, tmp_path_factory.mktemp(request.param) / "run")


def test_the_record_says_how_walkers_moved(run: RunFolder) -> None:
    kind = run.config.simulation.tempering
    assert kind is not None
    for folder in run.complete_rounds():
        tempering = folder.summary().tempering
        assert tempering is not None
        assert tempering.kind == kind.kind
        assert tempering.walkers == 9
        assert len(tempering.acceptance) == 2
        assert all(value is not None and 0.1 < value <= 1 for value in tempering.acceptance)
        moves = read_moves(folder.simulation)
        assert moves["accepted"].mean() == pytest.approx(moves["probability"].mean(), abs=0.15)


def test_the_frames_of_a_round_are_read_once(run: RunFolder) -> None:
    walkers = run.walkers(0)
    assert sum(len(walker.table) for walker in walkers) == 9 * 80
    assert {walker.temperature for walker in walkers} == {0.7, 1.0, 1.3}
    paths = temperature_paths(walkers)
    assert {len(path) for path in paths.values()} == {80}
    if run.config.simulation.tempering and run.config.simulation.tempering.kind == "exchange":
        at_once = np.array(list(paths.values()))
        assert (np.sort(at_once, axis=0) == np.repeat([0.7, 1.0, 1.3], 3)[:, None]).all()


def test_report_and_status_show_it(run: RunFolder) -> None:
    page = write_report(run, 1).read_text()
    assert "Moves among temperatures" in page
    assert "walkers moved among temperatures" in page
    assert (run.path / "report" / "moves.png").is_file() or "moves." in page
    assert any("walkers moved among temperatures" in line for line in run_status(run.path).lines)


def test_files_are_checked(run: RunFolder, tmp_path: Path) -> None:
    assert not verify_run(run.path).damages
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    state = sorted(copy.glob("rounds/000/simulation/T*/segment_0000/tempering.json"))[0]
    moves = state.with_name("moves.parquet")
    assert len(json.loads(state.read_text())["replicas"]) > 0
    moves.write_bytes(moves.read_bytes()[:-10])
    state.unlink()
    damages = verify_run(copy).damages
    assert {state, moves} <= damages.keys()
    table = state.with_name("frames.parquet")
    rows = pd.read_parquet(table)
    rows.loc[3, "temperature"] = 0.9
    rows.to_parquet(table)
    assert "temperature is 0.9" in verify_run(copy).damages[table]


def test_a_continued_run_is_the_same(run: RunFolder) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("frames.parquet")}
    run_loop(run.config, run.path)
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("frames.parquet")}


def test_bad_settings() -> None:
    for changes, message in (
        ({"temperatures": [1.0]}, "tempering: exchange needs two temperatures or more"),
        ({"tempering": {"kind": "exchange", "interval": 80}}, "tempering.interval: 80 frames between moves"),
        ({"tempering": {"kind": "exchange", "interval": 2}}, "training.lag is 2"),
        ({"tempering": {"kind": "swap"}}, "tempering"),
        ({"tempering": {"kind": "expanded", "learning": 1.5}}, "learning"),
    ):
        with pytest.raises(ConfigError, match=message):
            configured(**changes)


def test_temperatures_far_apart_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """200 and 700 K of alanine dipeptide: the acceptance expected, and how many temperatures are needed."""
    from latf_openmm.sampling.stage import SimulationSettings, Stage, run_stage
    from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings

    settings = SimulationSettings(
        temperatures=[200.0, 700.0],
        frames=12,
        timestep=0.002,
        friction=5.0,
        frame_interval=50,
        equilibration=500,
        tempering={"kind": "exchange", "interval": 4},
    )
    run_stage(Stage(AlanineDipeptideSettings(), settings, None, {}, 1, tmp_path))
    assert "between 200 K and 700 K an acceptance of" in caplog.text
    assert "temperatures in place of these two would give 0.2" in caplog.text
    assert not read_moves(tmp_path)["accepted"].any()


def test_round_trips_and_acceptances() -> None:
    paths = {0: np.array([1.0, 2, 3, 2, 1, 3, 1]), 1: np.array([3.0, 1, 2, 2, 2, 1, 1])}
    assert round_trips(paths, [1.0, 2.0, 3.0]) == 2
    assert energy_acceptances([], {1.0: 1.0, 2.0: 0.5}) == [None]
    assert "tempering" in dump_config(configured())


# --- rounds that move and rounds that stay --------------------------------------------------------------------


def choosing() -> RunConfig:
    """Frames near T = 1.3 are all that counts, which walkers that stay have more of; the first round moves."""
    data = configured(temperatures=[0.7, 1.0, 1.3], walkers=2).model_dump(mode="json")
    strategy = {"kind": "active", "population_tolerance": 0.99, "energy_tolerance": 0.001}
    data["loop"] = {"rounds": 3, "strategy": strategy}
    data["generate"] = {"temperatures": [1.3], "samples": 200}
    data["bias"] = None
    return validate(RunConfig, data, "choosing")


@pytest.fixture(scope="module")
def choice(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    torch.set_num_threads(1)
    return run_loop(choosing(), tmp_path_factory.mktemp("choice") / "run")


def test_a_round_moves_or_stays_as_decided(choice: RunFolder) -> None:
    assert choice.round(0).summary().tempering is not None
    for index in (1, 2):
        decision = choice.round(index - 1).read_decision()
        assert not decision.moving
        assert [row["plan"] for row in decision.diagnostics["plans"]] == [
            "walkers stay at the temperatures chosen",
            "walkers stay at all temperatures",
            "walkers move among all temperatures",
        ]
        settings, biased = choice.plan(index)
        assert settings.tempering is None
        assert biased == frozenset()
        assert settings.temperatures == decision.temperatures != [0.7, 1.0, 1.3]
        summary = choice.round(index).summary()
        assert summary.tempering is None
        assert summary.temperatures == decision.temperatures
        assert len(read_moves(choice.round(index).simulation)) == 0
    assert choice.config.simulation.tempering is not None
    assert choice.plan(0)[0].tempering == choice.config.simulation.tempering


def test_rounds_of_both_kinds_are_checked_and_shown(choice: RunFolder, tmp_path: Path) -> None:
    assert not verify_run(choice.path).damages
    lines = run_status(choice.path).lines
    assert sum("walkers moved among temperatures" in line for line in lines) == 1
    assert sum("walkers stayed at their temperatures" in line for line in lines) == 2
    assert any("walkers stay at the temperatures chosen: expected error" in line for line in lines)
    shutil.copytree(choice.path, tmp_path / "run")
    page = write_report(RunFolder.open(tmp_path / "run"), 2).read_text()
    assert "Round 0: 6 walkers moved among temperatures" in page
    assert "<th>round trips of a walker</th>" in page
    assert "<td>stay</td>" in page


def test_a_killed_choice_is_made_again(choice: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    before = (choice.path / "rounds" / "001" / "decision.json").read_text()
    last = killed_before_its_decision(choice.path, copy, 1)
    run_loop(choosing(), copy)
    assert (last / "decision.json").read_text() == before
    for first, second in zip(RunFolder.open(copy).walkers(2), choice.walkers(2), strict=True):
        assert first.table.equals(second.table)


def test_a_plan_that_does_not_say_moves_as_configured(choice: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(choice.path, copy)
    path = copy / "rounds" / "000" / "decision.json"
    plan = {**json.loads(path.read_text()), "temperatures": [0.7, 1.3]}
    del plan["moving"]
    path.write_text(json.dumps(plan))
    resealed(copy)
    assert RunFolder.open(copy).plan(1)[0].tempering == choice.config.simulation.tempering
