"""Status of a run that goes on, or was killed: read from outside, without a lock; and its report."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from helpers.kills import FRAMES, config_file, interrupted
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner

from latf_openmm.cli import app, main
from latf_openmm.errors import LatfError
from latf_openmm.progress import bar
from latf_openmm.report.status import run_status
from latf_openmm.report.watch import run_table, watch_run
from latf_openmm.run.activity import activity_of
from latf_openmm.run.config import load_config
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.heartbeat import FILE, Heartbeat, beating, read_heartbeat
from latf_openmm.run.loop import run_loop
from latf_openmm.run.stages import round_stage
from latf_openmm.run.wall_time import WallTimes
from latf_openmm.sampling.stage import run_stage
from latf_openmm.training.kept_lags import KeptLags, lags_beside

ALL = 2 * 3 * FRAMES // 2
"""Frames of all walkers in one round."""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A configuration of two rounds whose walkers exchange, and a run with the first of them."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("first")
    file = config_file(folder, "exchange", processes=1)
    data = yaml.safe_load(file.read_text()) | {"bias": {"kind": "flow_barrier", "barrier_kt": 3.0}}
    data["loop"]["strategy"] = {"kind": "fixed"}  # with which walkers move in every round
    data["simulation"] |= {"frames": FRAMES // 2, "segment_frames": 5}
    file.write_text(yaml.safe_dump(data))
    config = load_config(file)
    once = config.model_copy(update={"loop": config.loop.model_copy(update={"rounds": 1})})
    run_loop(once, folder / "run")
    return file, folder / "run"


@pytest.fixture(scope="module")
def killed(first: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, killed while it simulates the second round."""
    run = tmp_path_factory.mktemp("killed") / "run"
    shutil.copytree(first[1], run)
    assert interrupted(first[0], run, signal.SIGKILL, more=2)[0] == -signal.SIGKILL
    return run


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def drawn(run: Path) -> str:
    """What the view shows of a run."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(width=120, record=True, file=nowhere)
        folder = RunFolder.open(run, builds=False)
        console.print(run_table(folder, activity_of(folder)))
        return console.export_text()


def page(run: Path) -> str:
    result = CliRunner().invoke(app, ["report", str(run)])
    assert result.exit_code == 0, (result.output, result.exception)
    return (run / "report" / "index.html").read_text()


@contextmanager
def working(run: Path) -> Iterator[None]:
    """Be the process that simulates a run, a quarter of a round being done."""
    progress = Progress(disable=True)
    with bar(progress, "round 1: simulate", ALL) as advance:
        advance(ALL / 4, "", steps_per_second=12_345.6)
        with beaten(run, progress):
            yield


@contextmanager
def beaten(run: Path, progress: Progress) -> Iterator[None]:
    """Be the process with these bars."""
    (run / FILE).unlink(missing_ok=True)
    with beating(run, progress):
        while read_heartbeat(run) is None:
            time.sleep(0.01)
        yield


def check_stages(run: Path) -> None:
    """A run that trains says which stage, how far it is, and the time left of it."""
    progress = Progress(disable=True)
    for stage, amount in (("states", "2 of at most 6"), ("joint", "2 of at most 6"), ("flow", "2 of 6")):
        with bar(progress, f"  {stage}", 6) as advance:
            advance(1, "")
            with beaten(run, progress):
                said = "\n".join(run_status(run).lines)
                assert "not finished: round 1, training, stage " in said
                assert said.endswith(" 6 epochs, time left not known yet")
                assert "time left not known yet" in " ".join(drawn(run).split())
            time.sleep(0.02)
            advance(1, "2 flows, held-out 1.376")
            with beaten(run, progress):
                place = f"round 1, training, stage {stage}, {amount} epochs (2 flows, held-out 1.376)"
                assert re.search(rf"{re.escape(place)}, \S+ s left of this stage$", run_status(run).lines[-1])
                shown = drawn(run)
                assert place in shown
                assert re.search(r"time left +\S+ s of this stage", shown)


def test_a_run_killed_in_its_simulation(killed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(killed, run)
    activity = activity_of(RunFolder.open(run))
    assert activity is not None
    assert (activity.round, activity.step, activity.n_frames) == (1, "simulating", ALL)
    assert 0 < activity.frames < ALL
    assert activity.heartbeat is None  # its process is gone
    before, place = (
        contents(run),
        f"round 1, simulating, {activity.frames:,} of {ALL:,} frames of all walkers",
    )
    said = "\n".join(run_status(run).lines)
    assert f"this run is not finished: {place}, " in said
    assert "time units; no command works on it now" in said
    assert "next round: the temperatures are fixed" in said
    assert "next round: walkers start evenly over the metastable states" in said
    assert "one more round" not in said
    shown = drawn(run)
    for words in (
        "next round: the temperatures are fixed",
        "1 of 2 rounds complete",
        "no command works on it now",
        f"{activity.frames:,} of {ALL:,}",
        "simulated at",
    ):
        assert words in shown
    assert "acceptance between neighbouring temperatures" in shown
    assert run_status(run).next_command == f"latf-openmm run {run}/config.yaml --output {run}"
    assert contents(run) == before  # all of this reads only
    text = page(run)
    assert f"This run is not finished: {place}. Everything here is of the rounds up to 0." in text
    assert "The last line is the plan of a round that is not part of this report." in text


def test_a_run_killed_in_its_training(first: tuple[Path, Path], killed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(killed, run)
    assert interrupted(first[0], run, signal.SIGKILL, "training")[0] == -signal.SIGKILL
    times = json.loads((run / ".wall_time.json").read_text())
    (run / ".wall_time.json").write_text(
        json.dumps({name: s for name, s in times.items() if "train" not in name})
    )
    assert "not finished: round 1, next: training; no" in "\n".join(
        run_status(run).lines
    )  # simulated, and no more
    (run / ".wall_time.json").write_text(json.dumps({"round 1: train": 0.1} | times))
    kept = KeptLags(lags_beside(run / "rounds" / "001" / "model"), "data and settings")
    kept.plan([1, 3, 9])
    kept.write(1, {"lag": 1})
    assert "round 1, scanning lag times, 1 of 3 done; no" in "\n".join(run_status(run).lines)
    for lag in (3, 9):
        kept.write(lag, {"lag": lag})
    assert "this run is not finished: round 1, training; no command works" in "\n".join(run_status(run).lines)
    check_stages(run)
    assert "round 1, training" in drawn(run)
    assert "This run is not finished: round 1, training. Everything" in page(run)
    assert times["round 1: simulate"] > 0
    (run / ".wall_time.json").write_text(json.dumps(times | {"round 1: simulate": 1000.0}))
    done = CliRunner().invoke(app, ["-q", "run", str(run / "config.yaml"), "-o", str(run)])  # as it was told
    assert done.exit_code == 0, (done.output, done.exception)
    assert activity_of(RunFolder.open(run)) is None
    assert run_status(run).next_command == f"latf-openmm report {run}"
    assert not (run / FILE).exists()
    seconds = RunFolder.open(run).round(1).summary().seconds  # of both starts
    assert 1000 < seconds.simulate < 1100
    assert not list(run.glob(".wall_time.json*"))


def test_a_run_that_goes_on(killed: Path) -> None:
    """Frames that are not on disk yet, the speed and the time left are those of the command that works on it."""
    with working(killed):
        shown = drawn(killed)
        for words in (f"{ALL // 4} of {ALL} (25 %)", "12,300 steps/s", " of this", "round 1, simulating"):
            assert words in shown
        assert "12,300 steps/s" in "\n".join(run_status(killed).lines)
        assert run_status(killed).next_command == f"latf-openmm status {killed} --watch"
    assert read_heartbeat(killed) is None


def test_a_run_counts_the_frames_of_all_walkers(tmp_path: Path) -> None:
    """Its own bar says the same as the view."""
    progress = Progress(disable=True)
    run = tmp_path / "run"
    config = load_config(config_file(tmp_path, processes=1))
    stage = round_stage(RunFolder(run, config), RunFolder(run, config).round(0))
    run_stage(stage, progress)
    (task,) = progress.tasks
    assert task.completed == task.total == 2 * 3 * FRAMES == 2 * ALL
    assert task.fields["note"].startswith("144 time units of 144 time units, T = ")


def test_a_beat_of_a_process_that_is_gone_or_silent_counts_as_none(tmp_path: Path) -> None:
    now = time.time()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with beating(tmp_path, Progress(disable=True)):
        while (beat := read_heartbeat(tmp_path)) is None:
            time.sleep(0.01)
    assert beat.alive
    assert not beat.model_copy(update={"updated": now - 1000}).alive
    assert not beat.model_copy(update={"process": ended.pid}).alive
    assert Heartbeat(updated=now, host="another machine", process=ended.pid).alive
    for text in ("", "{", "[]", '{"updated": "today"}'):
        (tmp_path / FILE).write_text(text)
        assert read_heartbeat(tmp_path) is None


def test_wall_time_is_that_of_all_starts(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), WallTimes(tmp_path).counting("round 0: train"):
        time.sleep(0.1)
        raise RuntimeError
    times = WallTimes(tmp_path)
    before = times.seconds("round 0: train")
    assert before >= 0.1
    with times.counting("round 0: train"):
        time.sleep(0.1)
    assert times.seconds("round 0: train") >= before + 0.1
    with times.counting("validation runs"):
        pass
    times.forget("round 0: ")
    assert WallTimes(tmp_path).seconds("round 0: train") == 0
    assert WallTimes(tmp_path).seconds("validation runs") > 0
    times.forget("validation runs")
    assert not list(tmp_path.iterdir())
    for damaged in ("", "{", "[1]", '{"round 0: train": "long"}'):
        (tmp_path / ".wall_time.json").write_text(damaged)
        assert WallTimes(tmp_path).seconds("round 0: train") == 0


def test_the_view_ends_with_the_run(first: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(app, ["status", str(first[1]), "--watch"])
    assert result.exit_code == 0
    assert "complete" in result.output


def test_the_view_ends_where_nobody_works_and_where_a_file_is_damaged(killed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(killed, run)
    console = Console(width=120, record=True)
    watch_run(run, console, every=0.01, patience=0.0)
    assert "no command works on it now" in console.export_text()
    record = run / "rounds" / "000" / "round.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"frames": 1}))
    with pytest.raises(LatfError, match=r"round\.json"):
        watch_run(run, console, every=0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_view_without_a_word(
    number: signal.Signals,
    code: int,
    killed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["latf-openmm", "status", str(killed), "--watch", "--every", "0.2"])
    handlers = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # it is ignored where tests run in the background
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), number))
    with working(killed), pytest.raises(SystemExit) as end:
        timer.start()
        main()
    for which, handler in handlers.items():
        signal.signal(which, handler)
    said = capfd.readouterr()
    assert (end.value.code or 0) == code
    assert said.err == ""
    assert "12,300 steps/s" in said.out
