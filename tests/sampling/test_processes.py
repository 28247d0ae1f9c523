"""Worker processes: scripts without a main guard, and workers that end with the process that started them."""

import os
import queue
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from latf_openmm.errors import BackendError, ConfigError, SimulationError
from latf_openmm.sampling.processes import (
    carried,
    end_pool,
    lost_workers_named,
    process_pool,
    set_apart,
    shared_objects,
)

SCRIPT = """
print("begins")
from pathlib import Path
from latf_openmm.sampling.stage import SimulationSettings, Stage, run_stage
from latf_openmm.frames.walkers import read_stage
from latf_openmm.systems import SYSTEM_KINDS

settings = SimulationSettings(temperatures=[0.7, 1.3], walkers=1, frames=10, frame_interval=2, timestep=0.01,
                              friction=5.0, processes=2)
run_stage(Stage(SYSTEM_KINDS["three_hole"](), settings, None, {}, 1, Path("stage")))
print("walkers", len(read_stage(Path("stage"))))
"""


def test_a_script_without_a_main_guard_uses_several_processes(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["begins", "walkers", "2"]
    assert "Traceback" not in done.stderr


def gone(process: int) -> bool:
    """Whether a process ended; one that its new parent has not waited for yet has."""
    stat = Path(f"/proc/{process}/stat")
    return not stat.exists() or stat.read_text().split(")")[-1].split()[0] == "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, time\nfrom latf_openmm.sampling.processes import process_pool\n"
        "pool = process_pool(2)\n"
        "print(pool.submit(os.getpid).result(), flush=True)\n"
        "pool.submit(time.sleep, 600).result()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert not gone(worker)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.perf_counter() + 30
    while not gone(worker):
        assert time.perf_counter() < deadline
        time.sleep(0.1)


class StoppedError(Exception):
    pass


def test_an_event_is_set_after_an_interrupt_in_the_middle_of_a_call() -> None:
    """An exception of a signal comes while the answer is awaited, as of SIGINT while a run waits for frames."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise StoppedError

    with shared_objects() as shared:
        frames, event = shared.Queue(), shared.Event()
        before = signal.signal(signal.SIGALRM, stop)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(StoppedError):
                frames.get(timeout=1.0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
        set_apart(event)
        with ThreadPoolExecutor(1) as apart:
            assert apart.submit(event.is_set).result()
        with pytest.raises(queue.Empty):  # what an ordinary call would have read
            event.is_set()


def killed() -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_lost_worker_is_one_clear_line() -> None:
    pool = process_pool(1)
    future: Future[Any] = pool.submit(killed)
    with (
        pytest.raises(SimulationError, match="a worker process ended before its task did"),
        lost_workers_named(),
    ):
        future.result()
    end_pool(pool)


def unreadable() -> type[Exception]:
    """A class that is pickled, but cannot be read; tblib, which Parsl brings, lets all be read that it finds."""

    class OfTwoError(Exception):
        def __init__(self, first: str, second: str) -> None:
            super().__init__(f"{first} and {second}\nand more")

    OfTwoError.__qualname__ = OfTwoError.__name__
    globals()[OfTwoError.__name__] = OfTwoError
    return OfTwoError


def fail(error: type[Exception], *arguments: str) -> None:
    raise error(*arguments)


def test_errors_that_cannot_be_read_elsewhere_are_carried_as_text() -> None:
    with pytest.raises(BackendError, match=r"test_processes\.OfTwoError: one and two$"):
        carried(fail, unreadable(), "one", "two")
    with pytest.raises(ConfigError, match="one\ntwo"):
        carried(fail, ConfigError, "one", "two")
    with pytest.raises(KeyError):
        carried(fail, KeyError, "gone")
    assert carried(max, 1, 2) == 2
