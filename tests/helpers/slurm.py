"""A Slurm of one node, this machine, with a munge of its own; everything ends with it."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
"""Programs of the packages munge and slurm-wlm."""
_PATIENCE = 30.0
"""Seconds until the node has to be idle."""
_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=bf_interval=1
KillWait=2
OverTimeLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def is_possible() -> bool:
    """Whether Slurm's programs are installed, and daemons may be started: by root."""
    return os.geteuid() == 0 and all(shutil.which(name) for name in PROGRAMS)


@contextmanager
def local_slurm(folder: Path, cores: int = 2) -> Iterator[Path]:
    """Start Slurm; yield its configuration, for ``SLURM_CONF``; end its daemons and what they run."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf, host = folder / "slurm.conf", socket.gethostname().split(".")[0]
    conf.write_text(_CONF.format(host=host, folder=folder, ports=_free_ports(2), cores=cores))
    munge = [f"--{name}={folder}/munge.{name}" for name in ("pid-file", "log-file", "seed-file")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.sock", f"--key-file={key}", *munge],
        ["slurmctld", "-D", "-f", str(conf)],
        ["slurmd", "-D", "-N", host, "-f", str(conf)],
    ]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("wb") as out:
                daemons.append(subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT))
            time.sleep(1.0)
        _wait_for_the_node(conf)
        yield conf
        _run(conf, "scancel", "--user=root")
        time.sleep(3.0)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=30)


def jobs(conf: Path) -> list[str]:
    """Ids of the jobs that run."""
    return _run(conf, "squeue", "--noheader", "--states=RUNNING", "--format=%A").split()


def cancel(conf: Path, job: str) -> None:
    """End a job, as its walltime or a node that fails would."""
    _run(conf, "scancel", job)


def _run(conf: Path, *command: str) -> str:
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def _wait_for_the_node(conf: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while "idle" not in _run(conf, "sinfo", "--noheader", "--format=%t"):
        assert time.monotonic() < deadline, (conf.parent / "slurmd.out").read_text()
        time.sleep(0.5)


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
