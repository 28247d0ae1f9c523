"""The loop as a user runs it: two rounds on a tiny three-hole run, resumed, generated from, reported."""

import html
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import SMALL_TRAINING
from helpers.folders import resealed
from typer.testing import CliRunner

from latf_openmm.cli import app
from latf_openmm.errors import ConfigError, DataError
from latf_openmm.report.status import run_status
from latf_openmm.run.config import RunConfig, dump_config, load_config
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import featurise_walkers
from latf_openmm.run.loop import run_loop
from latf_openmm.run.schema import start_record
from latf_openmm.run.slopes import reweighter_of_round
from latf_openmm.settings import validate
from latf_openmm.systems import BuiltSystem, library_folder
from latf_openmm.systems.three_hole import ThreeHoleSettings

RUNNER = CliRunner()


def tiny(**changes: dict[str, Any]) -> RunConfig:
    data = yaml.safe_load((library_folder("three_hole") / "fast.yaml").read_text())
    data["simulation"] |= {"walkers": 6, "frames": 120, "segment_frames": 50, "equilibration": 100}
    data["training"] |= SMALL_TRAINING
    data["generate"]["samples"] = 300
    for key, values in changes.items():
        data[key] |= values
    return validate(RunConfig, data, "tiny")


@pytest.fixture(scope="module")
def builds() -> list[int]:
    """Copies in each System that was built for `finished`."""
    return []


@pytest.fixture(scope="module")
def finished(builds: list[int], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    torch.set_num_threads(1)
    build = ThreeHoleSettings.build

    def counted(settings: ThreeHoleSettings, copies: int = 1) -> BuiltSystem:
        builds.append(copies)
        return build(settings, copies)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ThreeHoleSettings, "build", counted)
        return run_loop(tiny(), tmp_path_factory.mktemp("loop") / "run")


def test_the_system_is_built_a_few_times_only(finished: RunFolder, builds: list[int]) -> None:
    assert 0 < len(builds) <= 3


def test_two_rounds_the_second_biased(finished: RunFolder) -> None:
    rounds = finished.complete_rounds()
    assert [folder.summary().biased for folder in rounds] == [False, True]
    first, second = (finished.walkers(0), finished.walkers(1)[len(finished.walkers(0)) :])
    assert all((walker.table["bias_energy"] == 0).all() for walker in first)
    assert any((walker.table["bias_energy"] > 0).any() for walker in second)
    stage = json.loads((rounds[1].simulation / "stage.json").read_text())
    assert stage["bias"]["bias"]["kind"] == "flow_barrier"


def test_training_data_are_weighted_with_the_bias(finished: RunFolder) -> None:
    for trajectory, walker in zip(
        featurise_walkers(finished.config, finished.walkers(1), finished.path),
        finished.walkers(1),
        strict=True,
    ):
        expected = walker.table["bias_energy"].to_numpy() / walker.temperature
        np.testing.assert_allclose(trajectory.log_weights, expected)


def test_training_data_have_thermal_speeds(finished: RunFolder) -> None:
    """Of a coordinate: kT/m, estimated from as many velocities as there are frames at most."""
    (mass,) = finished.config.system.build(1).masses
    trajectories = featurise_walkers(finished.config, finished.walkers(0), finished.path)
    found = [t.square_speeds / (t.temperature / mass) for t in trajectories]
    np.testing.assert_allclose(np.mean(found), 1.0, atol=0.5)


def test_same_command_does_nothing_more(finished: RunFolder) -> None:
    before = {p: p.stat().st_mtime_ns for p in (finished.path / "rounds").rglob("*") if p.is_file()}
    run_loop(tiny(), finished.path)
    after = {p: p.stat().st_mtime_ns for p in (finished.path / "rounds").rglob("*") if p.is_file()}
    assert before == after


def test_interrupted_run_ends_as_the_uninterrupted_one(finished: RunFolder, tmp_path: Path) -> None:
    """Take away what a kill in the middle of round 1 would not have left, and run again."""
    copy = tmp_path / "run"
    shutil.copytree(finished.path, copy)
    cut = copy / "rounds" / "001"
    shutil.rmtree(cut / "model")
    shutil.rmtree(cut / "generated")
    (cut / "round.json").unlink()
    (cut / "starts.npz").unlink()
    for group in (cut / "simulation").glob("T*"):
        last = sorted(group.glob("segment_*"))[-1]
        last.rename(last.with_name(last.name + ".partial"))
    resealed(copy)
    # The bias of round 1 came from the model of round 0, which the copy still has.
    run = run_loop(tiny(), copy)
    for mine, theirs in zip(run.walkers(1), finished.walkers(1), strict=True):
        pd.testing.assert_frame_equal(mine.table, theirs.table)
    weights = [r.trained(1).model.state_dict() for r in (run, finished)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
def test_a_killed_run_leaves_no_process_and_resumes(tmp_path: Path) -> None:
    """SIGKILL in the middle of a simulation in two processes; then the same command."""
    # About 20 segments of 0.1 s at each temperature; the children need up to a second to notice.
    simulation = {"processes": 2, "frames": 1000, "frame_interval": 400, "segment_frames": 50, "walkers": 4}
    config = tiny(simulation=simulation, loop={"rounds": 1}, generate={"temperatures": []})
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config))
    path = tmp_path / "killed"
    command = [sys.executable, "-m", "latf_openmm.cli", "run", str(file), "-o", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(path.glob("rounds/000/simulation/T*/segment_0001")) and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
    children = _children(process.pid)
    assert children
    process.kill()
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    written = len(list(path.glob("rounds/000/simulation/T*/segment_????")))
    assert written > 1
    resumed = run_loop(config, path)
    whole = run_loop(config, tmp_path / "whole")
    for mine, theirs in zip(resumed.walkers(0), whole.walkers(0), strict=True):
        pd.testing.assert_frame_equal(mine.table, theirs.table)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_another_configuration_is_refused(finished: RunFolder) -> None:
    with pytest.raises(
        ConfigError,
        match=r"\(different: model\.tau: 1\.0, was [02]\.\d+\); use a new folder",
    ):
        run_loop(tiny(model={"tau": 1.0}), finished.path)


def test_a_second_process_is_refused(finished: RunFolder) -> None:
    from filelock import FileLock

    with FileLock(finished.path / ".lock"), pytest.raises(ConfigError, match="another process"):
        run_loop(tiny(), finished.path)


def test_structures_of_samples_are_the_frames_that_the_table_names(finished: RunFolder) -> None:
    folder = finished.last_round().generated(1.0)
    samples = pd.read_parquet(folder / "latent_samples.parquet")
    structures = mdtraj.load(str(folder / "structures.dcd"), top=str(folder / "topology.pdb"))
    assert structures.n_frames == len(samples)
    row = samples.iloc[7]
    walker = next(
        w for w in finished.walkers(1) if w.run == row["nearest_run"] and w.walker == row["nearest_walker"]
    )
    frame = walker.load(finished.topology()).xyz[row["nearest_frame"]]
    np.testing.assert_allclose(structures.xyz[7], frame, atol=1e-6)


def test_a_slip_of_the_pen_is_the_first_warning(finished: RunFolder, tmp_path: Path) -> None:
    result = RUNNER.invoke(
        app, ["generate", str(finished.path), "-T", "0.1", "-o", str(tmp_path / "out"), "--samples", "300"]
    )
    assert result.exit_code == 3, result.output
    first, second, *others = " ".join(result.output.split()).split("warning: ")[1:]
    assert "structures: T = 0.1 is farther than a factor of 2 from every simulated temperature" in first
    assert second.startswith("samples and structures: T = 0.1 is outside the simulated T = 0.7 to T = 1.3")
    assert any("effective samples stand for T = 0.1" in text for text in others)
    assert not any("outside the simulated" in text for text in others)  # which is said once


def test_generate_writes_what_it_says(finished: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = RUNNER.invoke(
        app, ["generate", str(finished.path), "-T", "0.9", "-T", "2.5", "-o", str(out), "--samples", "300"]
    )
    assert result.exit_code in (0, 3), result.output
    assert "outside the simulated T = 0.7 to T = 1.3" in " ".join(result.output.split())
    samples = pd.read_parquet(out / "T0.9" / "latent" / "latent_samples.parquet")
    assert len(samples) == 300
    assert np.isfinite(samples[["z0", "z1", "log_density"]].to_numpy()).all()
    surface = pd.read_parquet(out / "T0.9" / "latent" / "free_energy.parquet")
    assert surface["free_energy"].min() == 0.0
    populations = pd.read_csv(out / "T0.9" / "populations.csv")
    assert populations["population"].sum() == pytest.approx(1.0)
    assert (out / "T0.9" / "ensemble.json").is_file()
    listed = set(json.loads((out / "T0.9" / "manifest.json").read_text())["files"])
    written = {p.relative_to(out / "T0.9").as_posix() for p in (out / "T0.9").rglob("*") if p.is_file()}
    assert written - listed == {"manifest.json"}
    again = RUNNER.invoke(app, ["generate", str(finished.path), "-T", "0.9", "-o", str(out)])
    assert isinstance(again.exception, ConfigError)


def test_generate_writes_structures_with_weights(finished: RunFolder, tmp_path: Path) -> None:
    arguments = ["generate", str(finished.path), "-T", "0.9", "--structures", "40", "--samples", "200"]
    arguments += ["--method", "reweighted"]
    result = RUNNER.invoke(app, [*arguments, "-o", str(tmp_path / "out")])
    said = " ".join(result.output.split())
    folder = tmp_path / "out" / "T0.9"
    record = json.loads((folder / "ensemble.json").read_text())
    assert f"reliability {record['reliability']}" in said
    assert "mean potential energy" in said
    values = len(record["populations"]) + 2
    assert said.count(" (poor)") == (values if record["reliability"] == "poor" else 0)
    table = pd.read_parquet(folder / "frames.parquet")
    assert table["weight"].sum() == pytest.approx(1.0)
    structures = mdtraj.load(str(folder / "ensemble.dcd"), top=str(folder / "ensemble.pdb"))
    assert structures.n_frames == 40
    # Each structure is a frame that has a weight.
    frames = np.concatenate([w.load(finished.topology()).xyz for w in finished.walkers(1)])
    off = np.abs(structures.xyz[:, None] - frames[None]).max(axis=(2, 3)).min(axis=1)
    assert off.max() < 1e-6
    energy = (table["potential_energy"] * table["weight"]).sum()
    assert record["mean_energy"]["value"] == pytest.approx(energy)
    populations = pd.read_csv(folder / "populations.csv")
    shares = table.groupby("state")["weight"].sum()
    for row in populations.itertuples():
        assert row.population == pytest.approx(shares.get(row.state, 0.0), abs=1e-9)
    assert [row["value"] for row in record["populations"]] == pytest.approx(list(populations["population"]))
    states = sorted(int(path.stem.split("_")[1]) for path in folder.glob("state_*.pdb"))
    assert states == sorted(table["state"].unique())


def test_generate_does_not_pretend_to_know(finished: RunFolder, tmp_path: Path) -> None:
    result = RUNNER.invoke(
        app, ["generate", str(finished.path), "-T", "0.01", "-o", str(tmp_path / "out"), "--samples", "200"]
    )
    assert result.exit_code == 3, result.output
    said = " ".join(result.output.split())
    why = "T = 0.01 is farther than a factor of 2 from every simulated temperature"
    assert f"reliability poor: not to be relied on, since {why}" in said
    assert re.search(r"state 0: \S+( ± \S+)? \(poor\)", said)
    assert re.search(r"mean potential energy: \S+( ± \S+)? kJ/mol \(poor\)", said)


def test_states_say_why_they_are_poor(finished: RunFolder, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["states", str(finished.path), "-T", "0.01", "-o", str(tmp_path / "out")])
    assert result.exit_code == 3, result.output
    assert "T = 0.01 (poor)" in result.output
    said = " ".join(result.output.split())
    assert "reliability poor: not to be relied on, since T = 0.01 is farther than a factor of 2" in said


def check_populations(run: RunFolder, page: str) -> None:
    """Temperatures asked for are in the summary and in a table, poor ones too: marked, and with why."""
    ensembles = [reweighter_of_round(run, 1).at(temperature) for temperature in run.temperatures()]
    assert "poor" in {ensemble.reliability for ensemble in ensembles}
    for ensemble in ensembles:
        label = run.scale.label(ensemble.temperature)
        said = re.search(rf"at {label} (?:mostly )?state (?:[^;(.]|\.\d)* %(.{{50}})", page)
        if ensemble.temperature in run.config.generate.temperatures:
            assert said is not None
            poor = said[1].startswith(" (reliability poor: not to be relied on, since ")
            assert poor == (ensemble.reliability == "poor")
        mark = f'<span class="reliability {ensemble.reliability}">{ensemble.reliability}</span>'
        assert f"<td>{label}</td><td>{mark}</td> <td>{ensemble.populations()[0]}</td>" in page
        if ensemble.reliability == "poor":
            assert f"{label}: {ensemble.verdict}." in html.unescape(page)


def test_report_and_status(finished: RunFolder) -> None:
    assert RUNNER.invoke(app, ["report", str(finished.path)]).exit_code == 0
    page = (finished.path / "report" / "index.html").read_text()
    for name in ("training", "plane", "free_energy", "populations", "traces"):
        assert f"{name}.png" in page
        assert (finished.path / "report" / f"{name}.png").stat().st_size > 5000
    rows = json.loads((finished.path / "report" / "comparison.json").read_text())
    assert [row["temperature"] for row in rows] == [0.5, 0.7, 1.0, 1.3, 1.6]
    assert all(row["reference"] == "exact" for row in rows)
    assert "There are no structures to look at" in page  # one particle
    check_populations(finished, " ".join(page.split()))
    assert not list((finished.path / "report").glob("*.pdb"))
    status = RUNNER.invoke(app, ["status", str(finished.path)])
    assert "2 of 2 rounds complete" in status.output
    settled = "all 2 rounds of the configuration are complete"
    planned = "the temperatures are fixed; walkers start evenly over the metastable states"
    lines = [line.strip() for line in run_status(finished.path).lines]
    assert lines.index(f"no further round: {settled}") + 1 == lines.index(
        f"one more round would be planned so: {planned}"
    )
    assert not any(line.startswith(("next round", "decision")) for line in lines)
    assert f"No further round followed ({settled}): the last line is how one more" in page
    card = html.unescape(finished._repr_html_())
    assert f"One more round would be planned so: {planned}" in card


def test_export_agrees_with_the_model(finished: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "cv.pt"
    assert RUNNER.invoke(app, ["export", str(finished.path), "-o", str(file)]).exit_code == 0
    positions = torch.tensor([[0.3, -0.2, 0.01]], dtype=torch.float64)
    z = torch.jit.load(str(file))(positions)
    expected = finished.trained(1).model.encode(positions[:, :2].float())
    torch.testing.assert_close(z.float(), expected[0], rtol=1e-5, atol=1e-6)


def test_simulate_and_train_by_hand(finished: RunFolder, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    shutil.copy(finished.path / "config.yaml", config)
    model = finished.round(0).model
    stage = tmp_path / "stage"
    result = RUNNER.invoke(app, ["simulate", str(config), "-o", str(stage), "--model", str(model)])
    assert result.exit_code == 0, result.output
    result = RUNNER.invoke(app, ["train", str(config), "--data", str(stage), "-o", str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "model" / "model.safetensors").is_file()
    with pytest.raises(ConfigError, match="a model is never overwritten"):
        RUNNER.invoke(
            app,
            ["train", str(config), "--data", str(stage), "-o", str(tmp_path / "model")],
            catch_exceptions=False,
        )


def test_nothing_complete_yet(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.yaml").write_text((library_folder("three_hole") / "fast.yaml").read_text())
    start_record(path, (path / "config.yaml").read_text())
    with pytest.raises(DataError, match="no round is complete yet"):
        RunFolder.open(path).last_round()
    assert "0 of 2 rounds complete" in RUNNER.invoke(app, ["status", str(path)]).output


def test_stops_when_settled(tmp_path: Path) -> None:
    config = tiny(loop={"rounds": 5, "convergence_threshold": 10.0}, generate={"temperatures": []})
    assert len(run_loop(config, tmp_path / "run").complete_rounds()) == 2


def test_one_collective_variable_and_no_bias(tmp_path: Path) -> None:
    config = load_config("lj7/fast").model_dump(mode="json")
    config["simulation"] |= {
        "walkers": 4,
        "frames": 80,
        "equilibration": 100,
        "processes": 1,
        "temperatures": [0.4],
    }
    config["training"] |= SMALL_TRAINING
    config["model"]["latent_dim"] = 1
    config |= {"bias": None, "validation": None, "generate": {"temperatures": [0.5], "samples": 200}}
    run = run_loop(validate(RunConfig, config, "one"), tmp_path / "run")
    assert not any(folder.summary().biased for folder in run.complete_rounds())
    assert RUNNER.invoke(app, ["report", str(run.path)]).exit_code == 0
    summary = json.loads((run.last_round().generated(0.5) / "summary.json").read_text())
    assert any("outside the simulated" in warning for warning in summary["warnings"])
