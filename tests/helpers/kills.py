"""Runs in processes of their own that are killed or interrupted at a chosen moment."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml
from conftest import small_config

FRAMES = 120
"""Frames of each walker in a round."""


def config_file(folder: Path, tempering: str = "", processes: int = 2) -> Path:
    """Several processes, an adaptive bias, the active strategy, and enough frames to be killed among them.

    Walkers that visit all temperatures would share an adaptive bias, which depends on who is first: theirs is another.
    """
    data = small_config().model_dump(mode="json")
    data["simulation"] |= {"frames": FRAMES, "segment_frames": 10, "processes": processes, "minimise": False}
    data["loop"] = {"rounds": 2, "strategy": {"kind": "active", "stop": False}}
    data |= {"generate": {"samples": 200, "temperatures": [1.0]}, "validation": None}
    data["bias"] = {"kind": "opes", "barrier": 5.0, "pace": 50}
    if tempering:
        data["simulation"] |= {"tempering": {"kind": tempering, "interval": 4}}
    if tempering == "expanded":
        data["bias"] = {"kind": "flow_barrier", "barrier_kt": 3.0}
    file = folder / "loop.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def start(file: Path, run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "latf_openmm.cli", "run", str(file), "-o", str(run)]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # Where tests run in the background SIGINT is ignored, and would be by this one too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def finished(file: Path, run: Path) -> float:
    """Run to the end; return how long it took [s]."""
    begin = time.perf_counter()
    process = start(file, run)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return time.perf_counter() - begin


def partial(run: Path) -> bool:
    """Whether something is being written; folders may go while this looks, which rglob would not bear."""
    return any(name.endswith(".partial") for _, *names in os.walk(run) for name in itertools.chain(*names))


def moment(run: Path) -> str:
    """What a run that was killed was doing, by what is on the disk."""
    rounds = sorted(run.glob("rounds/*"))
    if not rounds:
        return "start"
    if partial(run):
        return "writing"
    last = rounds[-1]
    if (last / "round.json").is_file():
        return "between rounds"
    if (last / "model").is_dir():
        return "generation"
    segments = len(list(last.glob("simulation/*/segment_*[0-9]")))
    return "training" if segments == 2 * FRAMES // 10 else "simulation"


def reached(process: subprocess.Popen[bytes], run: Path, wanted: str) -> bool:
    """Wait until the run does what is wanted; False if it ends before."""
    while moment(run) != wanted:
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return True


def segments(run: Path) -> int:
    return len(list(run.glob("rounds/*/simulation/*/segment_*[0-9]")))


def interrupted(
    file: Path, run: Path, number: signal.Signals, wanted: str = "simulation", more: int = 1
) -> tuple[int, bytes]:
    """Send a signal when the run does what is wanted, and has `more` segments since it was started."""
    before, deadline = segments(run), time.perf_counter() + 240
    process = start(file, run)
    while moment(run) != wanted or (wanted == "simulation" and segments(run) < before + more):
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        assert time.perf_counter() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors
