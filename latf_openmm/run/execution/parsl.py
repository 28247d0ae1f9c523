"""Workers of Parsl's high-throughput executor: processes of this machine, or on the nodes of Slurm jobs."""

import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from latf_openmm.errors import BackendError, ConfigError, LatfError, first_line
from latf_openmm.run.execution import interchange
from latf_openmm.run.execution.base import ExecutionSettings, Resumable

if TYPE_CHECKING:
    from parsl.config import Config
    from parsl.providers.base import ExecutionProvider

_WALLTIME = re.compile(r"\d{1,4}:[0-5]\d:[0-5]\d")
"""Hours, minutes and seconds of a Slurm job."""
_OF_SLURM = ("partition", "account", "cores_per_node", "scheduler_options")
"""Settings that only Slurm has."""
_MAX_SILENCE = 120
"""Seconds that a busy machine, network or scheduler may take to answer."""
_IDLE = 120.0
"""Seconds without any task after which blocks are given back."""


def _walltime(value: Any) -> Any:
    """YAML reads 12:00:00 without quotes as a number of seconds."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 60:
        return f"{value // 3600:02d}:{value // 60 % 60:02d}:{value % 60:02d}"
    if not isinstance(value, str) or not _WALLTIME.fullmatch(value):
        raise ValueError(f"expected hours:minutes:seconds, as in '24:00:00', got {value!r}")
    hours, minutes, _ = value.split(":")
    if int(hours) == int(minutes) == 0:
        raise ValueError(f"expected at least a minute, got {value!r}")
    return value


class ParslSettings(ExecutionSettings):
    """Groups of walkers and trainings are tasks of workers, one group a worker.

    A block is what is asked for at once: one machine, or one Slurm job of `nodes_per_block` nodes. Blocks come as tasks
    wait, up to `max_blocks`, and all but `min_blocks` are given back when there has been no task for two minutes.
    """

    kind: Literal["parsl"] = "parsl"
    provider: Literal["local", "slurm"] = Field("local", description="this machine, or jobs of Slurm")
    workers_per_node: int | None = Field(
        None, ge=1, le=1024, description="tasks at the same time; default: one for each GPU, one without GPUs"
    )
    gpus_per_node: int | None = Field(None, ge=1, le=64, description="each worker sees one; none: CPU only")
    nodes_per_block: int = Field(1, ge=1, le=10_000, description="nodes of one job")
    init_blocks: int = Field(1, ge=0, le=10_000, description="blocks at the start")
    min_blocks: int = Field(0, ge=0, le=10_000, description="blocks that are kept when nothing is to be done")
    max_blocks: int = Field(1, ge=1, le=10_000, description="blocks at most")
    walltime: Annotated[str, BeforeValidator(_walltime)] = Field("01:00:00", description="of a Slurm job")
    partition: str | None = Field(None, description="of Slurm")
    account: str | None = Field(None, description="of Slurm")
    cores_per_node: int | None = Field(None, ge=1, description="asked of Slurm; default: whole nodes")
    scheduler_options: str = Field("", description="more #SBATCH lines")
    worker_init: str = Field("", description="shell lines before the workers start, such as module load")
    retries: int = Field(
        3,
        ge=0,
        le=100,
        description="times a task whose worker was lost is started again without a segment more",
    )
    heartbeat: int = Field(
        30,
        ge=1,
        le=3600,
        description="seconds between signs of life, in which a lost worker is noticed; a node is lost after four, at "
        "least two minutes, without one",
    )

    @model_validator(mode="after")
    def _fits(self) -> "ParslSettings":
        if not self.min_blocks <= self.init_blocks <= self.max_blocks:
            raise ValueError(
                "expected min_blocks <= init_blocks <= max_blocks, got "
                f"{self.min_blocks}, {self.init_blocks} and {self.max_blocks}"
            )
        if self.gpus_per_node and self.workers_on_node % self.gpus_per_node:
            raise ValueError(
                f"workers_per_node: {self.workers_on_node} is no multiple of gpus_per_node, {self.gpus_per_node}"
            )
        if self.provider == "local":
            if self.max_blocks > 1 or self.nodes_per_block > 1:
                raise ValueError(
                    "provider 'local' is one machine; expected max_blocks 1 and nodes_per_block 1, got "
                    f"{self.max_blocks} and {self.nodes_per_block}"
                )
            for name in _OF_SLURM:
                if getattr(self, name):
                    raise ValueError(f"{name}: only for provider 'slurm', got {getattr(self, name)!r}")
        return self

    def shell_lines(self) -> tuple[str, ...]:
        """Return the lines, and the names that stand in the scripts of jobs."""
        given = (self.worker_init, self.scheduler_options, self.partition, self.account)
        return tuple(text for text in given if text)

    @property
    def is_local(self) -> bool:
        """Return whether the workers are on this machine."""
        return self.provider == "local"

    @property
    def workers_on_node(self) -> int:
        """Workers on each node."""
        return self.workers_per_node or self.gpus_per_node or 1

    def check(self) -> None:
        """Raise `ConfigError` where Parsl is not installed."""
        try:
            import parsl  # noqa: F401
        except ImportError:
            raise ConfigError(
                "execution.kind: 'parsl' needs the package parsl, which is not installed; "
                "expected after: pip install 'latf-openmm[cluster]'"
            ) from None

    @contextmanager
    def workers(self, folder: Path) -> Iterator[Executor]:
        """Start Parsl; yield its executor; end all workers.

        Raises
        ------
        ConfigError
            If Parsl is not installed.
        BackendError
            If workers cannot be had, or were lost again and again.
        """
        self.check()
        from parsl.concurrent import ParslPoolExecutor
        from parsl.dataflow.dflow import DataFlowKernel
        from parsl.errors import ParslError
        from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

        logging.getLogger("parsl").setLevel(logging.WARNING)
        try:
            kernel = DataFlowKernel(self.parsl_config(folder))
            try:
                yield ParslPoolExecutor(dfk=kernel)
            finally:
                kernel.cleanup()  # does not wait for tasks
        except (ParslError, ManagerLost, WorkerLost) as error:
            raise BackendError(
                f"execution: {first_line(error)} (logs: {folder}); what is complete stays, the same command continues"
            ) from error

    def parsl_config(self, folder: Path) -> "Config":
        """Return Parsl's configuration; nothing is started.

        Parameters
        ----------
        folder
            For logs and scripts.
        """
        self.check()
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
        from parsl.jobs.error_handlers import windowed_error_handler

        # By this interpreter: its folder need not be in PATH.
        pool = f"{shlex.quote(sys.executable)} -m parsl.executors.high_throughput.process_worker_pool"
        executor = HighThroughputExecutor(
            label="workers",
            provider=self._provider(),
            launch_cmd=DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", pool, 1),
            interchange_launch_cmd=[sys.executable, interchange.__file__, str(os.getpid())],
            max_workers_per_node=self.workers_on_node,
            cores_per_worker=1e-6,  # as many workers as were asked for, on any number of cores
            available_accelerators=self.workers_on_node if self.gpus_per_node else (),
            heartbeat_period=self.heartbeat,
            heartbeat_threshold=max(4 * self.heartbeat, _MAX_SILENCE),
            block_error_handler=windowed_error_handler,
        )
        return Config(
            executors=[executor],
            run_dir=str(folder.absolute()),
            retries=self.retries,
            retry_handler=RetryCost(self.retries),
            strategy="simple",  # htex_auto_scale cancels blocks that have not connected yet, again and again
            max_idletime=_IDLE,
            initialize_logging=False,
        )

    def _provider(self) -> "ExecutionProvider":
        from parsl.launchers import SingleNodeLauncher, SrunLauncher
        from parsl.providers import LocalProvider, SlurmProvider

        blocks: dict[str, Any] = {
            "nodes_per_block": self.nodes_per_block,
            "init_blocks": self.init_blocks,
            "min_blocks": self.min_blocks,
            "max_blocks": self.max_blocks,
            "worker_init": self.worker_init,
            "cmd_timeout": _MAX_SILENCE,
        }
        if self.provider == "local":
            return LocalProvider(**blocks)
        cores = f" --cpus-per-task={self.cores_per_node}" if self.cores_per_node else ""
        single = self.nodes_per_block == 1
        return SlurmProvider(
            **blocks,
            partition=self.partition,
            account=self.account,
            gpus_per_node=self.gpus_per_node,
            cores_per_node=self.cores_per_node,
            exclusive=self.cores_per_node is None,
            scheduler_options=self.scheduler_options,
            walltime=self.walltime,
            launcher=SingleNodeLauncher() if single else SrunLauncher(overrides=f"--cpu-bind=none{cores}"),
        )


class RetryCost:
    """Cost of a failure in retries of a task.

    An error raised on purpose would come again: all of them. A lost worker: one, or none where the task had gone on
    since it was last lost, as where jobs end by their walltime.
    """

    def __init__(self, retries: int) -> None:
        self.retries = retries
        self.complete: dict[int, int] = {}

    def __call__(self, error: Exception, record: Mapping[str, Any]) -> float:
        """Return the cost; `record` is Parsl's of the task."""
        if isinstance(error, LatfError):
            return self.retries + 1.0
        task = next((given for given in record["args"] if isinstance(given, Resumable)), None)
        complete = 0 if task is None else task.n_complete()
        before = self.complete.get(record["id"], 0)
        self.complete[record["id"]] = complete
        return 0.0 if complete > before else 1.0
