"""What the driver itself costs: stages of many walkers whose tasks do nothing.

    python -m benchmarks.driver [--engine threads|parsl] [WALKERS ...]

Each walker is a task of `run_stage` on an executor with four threads: a pool of this process, or Parsl with its
bookkeeping but without workers in other processes. A task makes the folders of its segments, so that progress is told
from the file system as in a real run. The molecule is alanine dipeptide, each walker with a start structure of its own.
"""

import argparse
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from latf_openmm.sampling import group_runs
from latf_openmm.sampling.dynamics import SetTask
from latf_openmm.sampling.stage import SimulationSettings, Stage, run_stage
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings

_SEGMENTS = 2


def start() -> None:
    """Wait for the first worker."""


def do_nothing(task: SetTask) -> None:
    for group in task.groups:
        for index in range(task.n_segments):
            group.segment(index).mkdir(parents=True)


@contextmanager
def engine(name: str, folder: Path) -> Iterator[Executor]:
    if name == "threads":
        with ThreadPoolExecutor(4) as pool:
            yield pool
        return
    from parsl.concurrent import ParslPoolExecutor
    from parsl.config import Config
    from parsl.dataflow.dflow import DataFlowKernel
    from parsl.executors import ThreadPoolExecutor as ParslThreads

    logging.getLogger("parsl").setLevel(logging.WARNING)
    config = Config([ParslThreads(max_threads=4)], run_dir=str(folder), initialize_logging=False)
    kernel = DataFlowKernel(config)
    try:
        yield ParslPoolExecutor(dfk=kernel)
    finally:
        kernel.cleanup()


def peak() -> float:
    """Most memory so far [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, walkers: int) -> str:
    system = AlanineDipeptideSettings()
    settings = SimulationSettings(
        timestep=0.002,
        friction=1.0,
        frame_interval=100,
        segment_frames=10,
        temperatures=[300.0],
        walkers=walkers,
        frames=10 * _SEGMENTS,
    )
    starts = {300.0: np.repeat(system.build(1).positions[:1], walkers, axis=0)}
    group_runs.run_exclusively = do_nothing
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(system, settings, None, starts, 1, Path(folder) / "stage")
        with engine(name, Path(folder) / "parsl") as executor:
            executor.submit(start).result()
            before, begin, used = peak(), time.perf_counter(), time.process_time()
            run_stage(stage, executor=executor)
            seconds, used = time.perf_counter() - begin, time.process_time() - used
    return (
        f"| {name} | {walkers} | {seconds:.2f} | {used:.2f} | {1e3 * used / walkers:.2f} | {peak():.0f} "
        f"| {peak() - before:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("walkers", nargs="*", type=int, default=[100, 1000, 10_000])
    parser.add_argument("--engine", choices=["threads", "parsl"], action="append")
    parser.add_argument("--here", action="store_true", help="one measurement in this process")
    args = parser.parse_args()
    engines = args.engine or ["threads", "parsl"]
    if args.here:
        print(measure(engines[0], args.walkers[0]))
        return
    print(
        "| engine | walkers | seconds | CPU seconds | CPU ms a walker | peak memory, MB | of it more than before |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in engines:
        for walkers in args.walkers:  # memory is told by process
            subprocess.run([sys.executable, __file__, "--here", "--engine", name, str(walkers)], check=True)


if __name__ == "__main__":
    main()
