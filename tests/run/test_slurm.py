"""Runs on the workers of Slurm jobs: a Slurm of this machine, where it is installed (packages munge and slurm-wlm)."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import small_config
from helpers.slurm import cancel, is_possible, jobs, local_slurm
from helpers.stages import same_results

from latf_openmm.run.execution.parsl import ParslSettings
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.loop import run_loop
from latf_openmm.sampling.stage import SimulationSettings, Stage, run_stage
from latf_openmm.systems.lj7 import LJ7Settings

pytest.importorskip("parsl")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_possible(), reason="no Slurm to be started"),
]

ON_SLURM = ParslSettings(
    provider="slurm", workers_per_node=2, cores_per_node=2, heartbeat=1, walltime="00:10:00"
)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    torch.set_num_threads(1)
    with local_slurm(tmp_path_factory.mktemp("slurm")) as conf:
        os.environ["SLURM_CONF"] = str(conf)
        yield conf
        del os.environ["SLURM_CONF"]


def n_jobs(logs: Path) -> int:
    """Jobs of which there is an output."""
    return len(list(logs.rglob("submit_scripts/parsl.*.stdout")))


def lj7(folder: Path) -> Stage:
    settings = SimulationSettings(
        timestep=0.005,
        friction=1.0,
        frame_interval=200,
        segment_frames=100,
        temperatures=[0.2, 0.3],
        walkers=2,
        frames=2000,
        platform="Reference",
    )
    return Stage(LJ7Settings(), settings, None, {}, 5, folder)


def test_a_loop_on_slurm_is_the_same(slurm: Path, small_run: RunFolder, tmp_path: Path) -> None:
    run = run_loop(small_config().model_copy(update={"execution": ON_SLURM}), tmp_path / "run")
    assert len(run.complete_rounds()) == len(small_run.complete_rounds()) == 2
    for index in range(2):
        expected, seen = small_run.round(index), run.round(index)
        same_results(expected.simulation, seen.simulation)
        for name in ("model/model.safetensors", "decision.json"):
            assert (expected.path / name).read_bytes() == (seen.path / name).read_bytes(), name
    assert n_jobs(run.path / "execution") >= 1


def test_a_job_that_ends_leaves_no_trace(slurm: Path, tmp_path: Path) -> None:
    """As its walltime would end it: the tasks go on in another job, from their last whole segment."""
    quiet, ended = lj7(tmp_path / "quiet"), lj7(tmp_path / "ended")
    run_stage(quiet)
    cancelled: list[str] = []

    def end() -> None:
        deadline = time.monotonic() + 120.0
        while not cancelled and time.monotonic() < deadline:
            if all(task.segment(0).is_dir() for task in ended.tasks()):
                cancelled.extend(jobs(slurm))
                for job in cancelled:
                    cancel(slurm, job)
            time.sleep(0.05)

    ender = threading.Thread(target=end)
    with ON_SLURM.workers(tmp_path / "execution") as executor:
        ender.start()
        run_stage(ended, executor=executor)
    ender.join()
    assert len(cancelled) == 1
    same_results(quiet.folder, ended.folder)
    assert n_jobs(tmp_path / "execution") == 2
