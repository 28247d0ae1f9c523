"""A run that is killed again and again ends as one that never was: frame by frame, model by model."""

import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.kills import config_file, finished, interrupted, moment, partial, reached, start
from typer.testing import CliRunner

from latf_openmm.cli import app
from latf_openmm.run.config import load_config
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.loop import run_loop


def killed(file: Path, run: Path, kills: int, longest: float, seed: int) -> Counter[str]:
    """Kill the run `kills` times and let it end; return how often while it did what.

    Every other kill comes after a random time of at most `longest` seconds, the others a moment after the run began to
    do something drawn at random, since training and writing are short here.
    """
    rng, after = np.random.default_rng(seed), Counter[str]()
    while after.total() < kills:
        process, begin = start(file, run), time.perf_counter()
        delay, seen = float(rng.uniform(0.0, longest)), ""
        if after.total() % 2:
            wanted = str(rng.choice(["writing", "simulation", "training", "generation"]))
            seen = wanted if reached(process, run, wanted) else ""
            delay = float(rng.uniform(0.0, 0.1)) if seen else longest
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            after[seen or moment(run)] += 1
            continue
        assert process.returncode == 0, process.stderr.read().decode() if process.stderr else ""
        # It ended before: what is left of the kills falls on a new round of the same run, and comes sooner.
        longest = 0.7 * (time.perf_counter() - begin)
        more = yaml.safe_load(file.read_text())
        more["loop"]["rounds"] += 1
        file.write_text(yaml.safe_dump(more))
    finished(file, run)
    return after


def same(one: Path, other: Path) -> None:
    """Every frame, decision and model of two runs is the same."""
    a, b = RunFolder.open(one), RunFolder.open(other)
    rounds = len(a.complete_rounds())
    assert len(b.complete_rounds()) == rounds == b.config.loop.rounds
    for mine, theirs in zip(a.walkers(rounds - 1), b.walkers(rounds - 1), strict=True):
        pd.testing.assert_frame_equal(mine.table, theirs.table)
        np.testing.assert_array_equal(mine.load(a.topology()).xyz, theirs.load(b.topology()).xyz)
    for index in range(rounds):
        for name in ("model/model.safetensors", "decision.json", "starts.npz"):
            assert (a.round(index).path / name).read_bytes() == (b.round(index).path / name).read_bytes(), (
                name
            )


def whole(run: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(run)])
    assert result.exit_code == 0, result.output
    assert not partial(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "seed", "tempering"), [(2, 1, ""), (50, 2, ""), (20, 3, "exchange"), (20, 4, "expanded")]
)
def test_kills_leave_no_trace(tmp_path: Path, kills: int, seed: int, tempering: str) -> None:
    file = config_file(tmp_path, tempering)
    run, quiet = tmp_path / "killed", tmp_path / "quiet"
    longest = finished(file, quiet)
    after = killed(file, run, kills, longest, seed)
    assert after.total() == kills
    print(dict(after))
    if kills >= 50:
        assert {"simulation", "training", "generation", "writing"} <= set(after)
    finished(file, quiet)  # it has as many rounds as the killed one came to have
    same(quiet, run)
    whole(run)


def test_an_interrupt_ends_it_with_its_code_and_no_traceback(tmp_path: Path) -> None:
    found, errors = interrupted(config_file(tmp_path), tmp_path / "run", signal.SIGINT)
    assert found == 130, errors.decode()
    assert b"Traceback" not in errors


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_a_polite_signal_and_a_kill_leave_no_trace(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """The first among the segments, the kill in the training after them; compared with an undisturbed run."""
    file, run = config_file(tmp_path), tmp_path / "run"
    found, errors = interrupted(file, run, number)
    assert found == code, errors.decode()
    assert b"Traceback" not in errors
    assert b"the same command continues" in errors
    assert interrupted(file, run, signal.SIGKILL, "training")[0] == -signal.SIGKILL
    config = load_config(file)  # and the rest in this process, which makes no difference
    config = config.model_copy(update={"simulation": config.simulation.model_copy(update={"processes": 1})})
    run_loop(config, run)
    run_loop(config, tmp_path / "quiet")
    same(tmp_path / "quiet", run)
    whole(run)
