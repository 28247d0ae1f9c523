"""Can this machine bias OpenMM with torch? Children are asked, so that a crash is an answer too.

`run_doctor` starts children (``python -m latf_openmm.doctor.probes``), judges their answers and knows the traps of
the packages' versions.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from latf_openmm.doctor.findings import Check, DoctorReport
from latf_openmm.doctor.probes import BACKENDS
from latf_openmm.doctor.versions import (
    GET_CUDA,
    GET_OPENMM,
    GET_TORCH,
    GET_TORCHFORCE,
    Versions,
    installed_versions,
    known_problems,
)

ACCELERATORS = ("CUDA", "OpenCL", "HIP", "Metal")
"""Platforms whose failure is no more than a warning where another one works."""

MAX_CHILDREN = 2
"""Each child holds a torch and an OpenMM; more at a time would also compete for the processor."""


@dataclass(frozen=True)
class ProbeResult:
    """Answer of a child, or how it died."""

    ok: bool
    detail: str
    data: Mapping[str, Any] = field(default_factory=dict)


def probe_command(name: str, platform: str) -> list[str]:
    """Command line of the child that runs one probe."""
    return [sys.executable, "-m", "latf_openmm.doctor.probes", "--probe", name, "--platform", platform]


def _environment() -> dict[str, str]:
    """Environment in which the child finds the modules this process finds, in the same order."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - a plain string
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def run_probe(name: str, platform: str = "Reference", *, timeout: float = 60.0) -> ProbeResult:
    """Run one probe in its own process; its crash, hang or babble is a failed result, never an exception.

    Parameters
    ----------
    name
        A key of `latf_openmm.doctor.probes.PROBES`.
    platform
        OpenMM platform on which to evaluate.
    timeout
        Seconds after which the child is killed.
    """
    try:
        done = _run(probe_command(name, platform), timeout)
    except subprocess.TimeoutExpired:
        return ProbeResult(False, f"no answer within {timeout:g} s; killed")
    except OSError as error:
        return ProbeResult(False, f"could not be started: {error}")
    return _read(done)


def _run(command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
    )


def _read(done: subprocess.CompletedProcess[str]) -> ProbeResult:
    """Understand a finished child: its last line of output is the answer (libraries print before it)."""
    line = done.stdout.strip().rpartition("\n")[2]
    if done.returncode != 0:
        when = " at exit, after its answer" if line.startswith('{"ok":') else ""
        return ProbeResult(False, _death(done.returncode) + when + _last_words(done.stderr))
    try:
        answer = json.loads(line)
        return ProbeResult(bool(answer["ok"]), str(answer["detail"]), answer)
    except (ValueError, KeyError, TypeError):
        return ProbeResult(False, "gave no readable answer" + _last_words(done.stdout or done.stderr))


def _death(code: int) -> str:
    if code > 0:
        return f"the process ended with exit code {code}"
    try:
        return f"the process crashed with {signal.Signals(-code).name}"
    except ValueError:
        return f"the process was killed by signal {-code}"


def _last_words(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip() and "simtk.openmm" not in line]
    return f": {lines[-1][:200]}" if lines else ""  # openmmtorch itself causes the warning about simtk


def run_doctor(timeout: float = 60.0) -> DoctorReport:
    """Examine this installation; takes 10 to 20 s on two cores.

    Parameters
    ----------
    timeout
        Seconds allowed to each probe.
    """
    versions = installed_versions()
    wanted = [name for name in BACKENDS if name != "TorchForce" or versions.torchforce_wheels]
    probes = ["machine", "openmmtorch"] if "TorchForce" in wanted else ["machine"]
    machine, *plugin = _probe_all([(name, "Reference") for name in probes], timeout)
    missing = _missing_backends(machine, plugin)
    platforms = machine.data.get("platforms", ["Reference", "CPU"])
    results = _probe_backends([name for name in wanted if name not in missing], platforms, timeout)
    usable = tuple(t for t, r in results.items() if t[1] != "xml" and r.ok and results[t[0], "xml"].ok)
    checks = (
        *_version_checks(versions),
        *_machine_checks(machine),
        *(Check(name, "warning" if usable else "failed", *why) for name, why in missing.items()),
        *(_judge(backend, where, result, bool(usable)) for (backend, where), result in results.items()),
    )
    return DoctorReport(checks, tuple(known_problems(versions)), usable)


def _probe_backends(
    backends: Iterable[str], platforms: Iterable[str], timeout: float
) -> dict[tuple[str, str], ProbeResult]:
    """Results by (backend, platform), and by (backend, "xml") for the round trip."""
    tasks = [(backend, where) for backend in backends for where in (*platforms, "xml")]
    probes = [(f"{name}-xml", "Reference") if where == "xml" else (name, where) for name, where in tasks]
    return dict(zip(tasks, _probe_all(probes, timeout), strict=True))


def _probe_all(probes: Iterable[tuple[str, str]], timeout: float) -> list[ProbeResult]:
    with ThreadPoolExecutor(MAX_CHILDREN) as pool:
        return list(pool.map(lambda probe: run_probe(*probe, timeout=timeout), probes))


def _missing_backends(machine: ProbeResult, plugin: Sequence[ProbeResult]) -> dict[str, tuple[str, str]]:
    """Backends that cannot even be made: name -> (detail, way out)."""
    missing = {}
    for result in plugin:
        if not result.ok:
            missing["TorchForce"] = (f"not available: {result.detail}", GET_TORCHFORCE)
    if not machine.data.get("python_force", True):
        for name in ("compiled", "PythonForce"):
            missing[name] = ("not available: this OpenMM has no PythonForce", GET_OPENMM)
    return missing


def _version_checks(versions: Versions) -> list[Check]:
    names = ("python", "latf_openmm", "torch", "openmm", "mdtraj", "numpy", "llvmlite")
    checks = []
    for name in names:
        version = getattr(versions, name)
        checks.append(Check(name, "ok" if version else "warning", version or "not installed"))
    wheels = ", ".join(f"{name} {version}" for name, version in versions.torchforce_wheels)
    return [
        *checks,
        Check("TorchForce wheel", "ok", wheels or "not installed; compiled biases do not need it"),
    ]


def _machine_checks(machine: ProbeResult) -> list[Check]:
    if not machine.ok:
        return [Check("OpenMM platforms", "failed", machine.detail)]
    gpu, platforms = machine.data["gpu"], machine.data["platforms"]
    cuda = f"{gpu or 'no GPU'} (torch built for CUDA {machine.data['cuda'] or 'none'})"
    check = Check("OpenMM platforms", "ok", ", ".join(platforms))
    if gpu and "CUDA" not in platforms:
        detail = f"{check.detail}; torch sees a GPU, but OpenMM has no CUDA platform"
        check = Check(check.name, "warning", detail, GET_CUDA)
    return [Check("torch CUDA", "ok", cuda), check, plugin_check(machine.data["failures"])]


def plugin_check(failures: Sequence[str]) -> Check:
    """Judge OpenMM's plugin load failures; a missing GPU driver is normal, a missing torch is not."""
    name = "OpenMM plugins"
    if not failures:
        return Check(name, "ok", "all loaded")
    reasons = [re.sub(r"^Error loading library \S+: ", "", failure) for failure in failures]
    # The dynamic linker often repeats the plugin's own path, which may itself hold the word torch.
    symbols = [re.sub(r"^\S+: (?=undefined symbol|symbol lookup)", "", reason) for reason in reasons]
    torchish = [reason for reason in symbols if re.search(r"torch|c10", reason, re.IGNORECASE)]
    if torchish:
        way_out = (
            "import torch (or latf_openmm) before openmm; if you do, the wheel does not fit this torch: "
        )
        return Check(name, "warning", torchish[0], way_out + f"{GET_TORCH}; {GET_TORCHFORCE}")
    wanted = sorted({reason.partition(":")[0] for reason in symbols})
    return Check(name, "ok", f"{len(failures)} not loaded, for want of {', '.join(wanted)}")


def _judge(backend: str, where: str, result: ProbeResult, can_bias: bool) -> Check:
    """Turn a result into a check; a broken accelerator is no more than a warning if something else works."""
    name = f"{backend} XML round trip" if where == "xml" else f"{backend} on {where}"
    if result.ok:
        return Check(name, "ok", result.detail)
    if where not in ACCELERATORS:
        return Check(name, "failed", result.detail)
    way_out = "bias on a platform that passes"
    if backend == "TorchForce":
        way_out += f"; for CUDA: {GET_CUDA}"
    return Check(name, "warning" if can_bias else "failed", result.detail, way_out)
