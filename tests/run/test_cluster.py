"""The same run on workers of Parsl: equal results, lost workers, bad settings. Nothing is left running."""

import builtins
import importlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import small_config
from helpers.stages import same_results

from latf_openmm.errors import BackendError, ConfigError, SimulationError
from latf_openmm.frames.walkers import read_stage
from latf_openmm.run.config import RunConfig, load_config
from latf_openmm.run.execution.parsl import ParslSettings, RetryCost
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.loop import run_loop
from latf_openmm.sampling.processes import carried
from latf_openmm.sampling.stage import SimulationSettings, Stage, run_stage
from latf_openmm.settings import validate
from latf_openmm.systems.lj7 import LJ7Settings

psutil = pytest.importorskip("psutil")
pytest.importorskip("parsl")

EXAMPLES = Path(__file__).parents[2] / "examples" / "cluster"
TWO = ParslSettings(workers_per_node=2, heartbeat=1)


def of_parsl() -> list[Any]:
    """Processes that this one started, directly or not: they have its mark in their environment."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = " ".join(process.info["cmdline"] or [])
        here = (process.info["environ"] or {}).get("LATF_TEST") == str(os.getpid())
        if here and process.pid != os.getpid() and ("python" in words or "bash" in words):
            found.append(process)
    return found


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End what a failed test left running, by its process id; a test that passed left nothing."""
    monkeypatch.setenv("LATF_TEST", str(os.getpid()))
    torch.set_num_threads(1)
    yield
    deadline = time.monotonic() + 15.0
    while (left := of_parsl()) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in left:
        process.kill()
    assert not left, [process.info["cmdline"] for process in left]


# --- the same results ------------------------------------------------------------------------------


def on_workers(config: RunConfig, execution: ParslSettings = TWO) -> RunConfig:
    return config.model_copy(update={"execution": execution})


def test_a_loop_is_the_same(small_run: RunFolder, tmp_path: Path) -> None:
    run = run_loop(on_workers(small_config()), tmp_path / "run")
    assert len(run.complete_rounds()) == len(small_run.complete_rounds()) == 2
    same_results(small_run.validation, run.validation)
    for index in range(2):
        here, there = small_run.round(index), run.round(index)
        same_results(here.simulation, there.simulation)
        for name in ("model/model.safetensors", "decision.json", "starts.npz"):
            assert (here.path / name).read_bytes() == (there.path / name).read_bytes(), name
    assert not list(run.path.rglob(".*.lock")) or list(run.path.rglob(".*.lock")) == [run.path / ".lock"]
    # It goes on here; and it is complete, so that nothing is started.
    before = sorted(path.name for path in (run.path / "execution").iterdir())
    run_loop(small_config(), run.path)
    run_loop(on_workers(small_config()), run.path)
    assert sorted(path.name for path in (run.path / "execution").iterdir()) == before


def lj7(folder: Path, **changes: Any) -> Stage:
    few: dict[str, Any] = {
        "timestep": 0.005,
        "friction": 1.0,
        "frame_interval": 20,
        "segment_frames": 100,
        "temperatures": [0.2, 0.3],
        "walkers": 2,
        "frames": 500,
        "platform": "Reference",
    }
    starts = changes.pop("starts", {})
    return Stage(LJ7Settings(), SimulationSettings(**(few | changes)), None, starts, 5, folder)


def kill_a_worker(stage: Stage, killed: list[int]) -> None:
    """Kill the busiest worker when the first segment is there: it is the one that runs its group, or the other."""
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline:
        if any(task.segment(0).is_dir() for task in stage.tasks()):
            workers = [p for p in of_parsl() if "multiprocessing.spawn" in " ".join(p.cmdline())]
            busy = max(workers, key=lambda p: sum(p.cpu_times()[:2]))
            busy.send_signal(signal.SIGKILL)
            killed.append(busy.pid)
            return
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_worker_leaves_no_trace(tmp_path: Path) -> None:
    quiet, stage = (lj7(tmp_path / name, frames=1000) for name in ("quiet", "killed"))
    run_stage(quiet)
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(stage, killed))
    with TWO.workers(tmp_path / "execution") as executor:
        killer.start()
        run_stage(stage, executor=executor)
        assert len(killed) == 1  # and not after the end
    killer.join()
    same_results(quiet.folder, stage.folder)
    logs = (tmp_path / "execution").rglob("worker_*.log")
    started = sum(path.read_text().count("Received executor task") for path in logs)
    assert started == 3  # two groups, one of them twice


BROKEN = """
class OfTwoError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def fail():
    raise OfTwoError("one", "two")
"""


@pytest.mark.slow
def test_an_error_that_cannot_be_read_ends_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    broken = importlib.import_module("broken_module")
    path = f"export PYTHONPATH={tmp_path}:$PYTHONPATH"
    with TWO.model_copy(update={"worker_init": path}).workers(tmp_path / "execution") as executor:
        with pytest.raises(BackendError, match=r"broken_module\.OfTwoError: one and two"):
            executor.submit(carried, broken.fail).result(timeout=120)
        assert executor.submit(carried, max, 1, 2).result(timeout=120) == 2


# --- the path of an executor, without Parsl --------------------------------------------------------


def test_progress_and_dropped_walkers_on_an_executor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts = np.stack([LJ7Settings().build(1).positions[0]] * 3)
    stages = [
        lj7(tmp_path / name, walkers=3, temperatures=[0.2, 0.3], frames=200, starts={0.2: starts})
        for name in ("here", "there")
    ]
    told: list[int] = []
    run_stage(stages[0])
    monkeypatch.setattr("latf_openmm.sampling.stage._with_speed", lambda stage, tasks, advance: told.append)
    with ThreadPoolExecutor(1) as executor:  # Contexts of the Reference platform share their random numbers
        run_stage(stages[1], executor=executor)
        assert sum(told) == 1200  # of all walkers
        same_results(stages[0].folder, stages[1].folder)
        run_stage(stages[1], executor=executor)  # all of it is there
        assert sum(told) == 2400
    assert not list(stages[1].folder.glob(".*"))
    bad = lj7(tmp_path / "bad", frames=100, minimise=False, starts={0.2: np.full((2, 7, 3), np.nan)})
    with ThreadPoolExecutor(2) as executor, pytest.raises(SimulationError, match=r"T0\.2: unstable"):
        run_stage(bad, executor=executor)
    assert {walker.temperature for walker in read_stage(bad.folder)} == {0.3}


def test_relative_folders_reach_the_workers_as_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Path] = []
    monkeypatch.setattr(
        "latf_openmm.sampling.group_runs.run_exclusively",
        lambda task: seen.extend([task.folder, *(group.exchange for group in task.groups)]),
    )
    stage = lj7(Path("stage"))
    with ThreadPoolExecutor(1) as executor:
        run_stage(stage, executor=executor)
    assert seen[0] == tmp_path / "stage" / "T0.2"


class _Task:
    """A task of which a segment more is there each time it is lost, until there are three."""

    done = 0

    def n_complete(self) -> int:
        self.done = min(self.done + 1, 3)
        return self.done


def test_only_losses_without_a_segment_more_count() -> None:
    cost, record = RetryCost(2), {"id": 7, "args": [_Task()]}
    assert [cost(OSError(), record) for _ in range(5)] == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert cost(SimulationError("unstable"), record) > 2
    assert cost(OSError(), {"id": 8, "args": ["a path"]}) == 1.0
    assert cost(OSError(), {"id": 9, "args": [carried, _Task()]}) == 0.0


# --- settings --------------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "kind": ({"kind": "parsley"}, r"execution: there is no kind 'parsley'.*did you mean 'parsl'"),
    "provider": ({"provider": "pbs"}, r"execution\.provider: .*'local' or 'slurm', got 'pbs'"),
    "workers": ({"workers_per_node": 0}, r"execution\.workers_per_node: .*equal to 1, got 0"),
    "gpus": ({"gpus_per_node": 0}, r"execution\.gpus_per_node: .*equal to 1, got 0"),
    "uneven": ({"gpus_per_node": 4, "workers_per_node": 6}, r"workers_per_node: 6 is no multiple"),
    "walltime": ({"walltime": "a day"}, r"execution\.walltime: expected hours:minutes:seconds.*'a day'"),
    "days": ({"walltime": "2-00:00:00"}, r"execution\.walltime: expected hours.*'2-00:00:00'"),
    "minutes": ({"walltime": "10:00"}, r"execution\.walltime: expected hours"),
    "short": ({"walltime": "00:00:30"}, r"execution\.walltime: expected at least a minute"),
    "blocks": ({"provider": "slurm", "init_blocks": 3, "max_blocks": 2}, r"min_blocks <= init_.*0, 3 and 2"),
    "machines": ({"max_blocks": 2}, r"'local' is one machine; expected max_blocks 1"),
    "partition": ({"partition": "gpu"}, r"partition: only for provider 'slurm', got 'gpu'"),
    "retries": ({"retries": -1}, r"execution\.retries: .*equal to 0, got -1"),
    "unknown": ({"partitions": "gpu"}, r"execution\.partitions: unknown key; did you mean 'partition'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings(case: str) -> None:
    changes, message = BAD[case]
    data = small_config().model_dump(mode="json") | {"execution": {"kind": "parsl"} | changes}
    with pytest.raises(ConfigError, match=message):
        validate(RunConfig, data, "config.yaml")


def test_an_unquoted_walltime_is_what_was_written() -> None:
    data = yaml.safe_load("{provider: slurm, walltime: 36:30:15}")
    assert ParslSettings(**data).walltime == "36:30:15"
    assert ParslSettings(provider="slurm", walltime="48:00:00").walltime == "48:00:00"


def test_parsl_is_missing(small_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "parsl":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"execution\.kind: 'parsl' needs .*latf-openmm\[cluster\]"):
        run_loop(on_workers(small_config()), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    validate(RunConfig, on_workers(small_config()).model_dump(mode="json"), "a run is read without it")


def test_a_platform_is_looked_for_where_the_tasks_run(tmp_path: Path) -> None:
    data = small_config().model_dump(mode="json")
    data["simulation"]["platform"] = "Abacus"
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(data | {"execution": {"kind": "parsl", "provider": "slurm"}}))
    load_config(file)
    file.write_text(yaml.safe_dump(data | {"execution": {"kind": "parsl"}}))
    with pytest.raises(ConfigError, match="no platform 'Abacus'"):
        load_config(file)


@pytest.mark.parametrize("name", ["workstation", "slurm"])
def test_ready_configurations(name: str, tmp_path: Path) -> None:
    file = EXAMPLES / f"{name}.yaml"
    data = yaml.safe_load(file.read_text())
    data["simulation"]["platform"] = "Reference"  # CUDA is not everywhere
    settings = validate(RunConfig, data, name).execution
    assert isinstance(settings, ParslSettings)
    found = settings.parsl_config(tmp_path / "execution")
    (executor,) = found.executors
    provider = executor.provider
    assert executor.available_accelerators == [str(i) for i in range(settings.workers_on_node)]
    assert executor.workers_per_node == settings.workers_on_node
    assert (provider.init_blocks, provider.min_blocks, provider.max_blocks) == (
        settings.init_blocks,
        settings.min_blocks,
        settings.max_blocks,
    )
    assert "export OMP_NUM_THREADS=1" in provider.worker_init
    assert found.retries == settings.retries
    if name == "slurm":
        options = provider.scheduler_options
        for line in ("--partition=gpu", "--account=my_project", "--gpus-per-node=4", "--constraint=a100"):
            assert f"#SBATCH {line}\n" in options
        assert "--exclusive" not in options
        assert provider.walltime == "12:00:00"
        assert provider.nodes_per_block == 2
    assert not (tmp_path / "execution").exists()
