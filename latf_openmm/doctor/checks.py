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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from latf_openmm import __version__
from latf_openmm.doctor.probes import BACKENDS

Status = Literal["ok", "warning", "failed"]
STYLES: Mapping[Status, str] = {"ok": "green", "warning": "yellow", "failed": "bold red"}
ACCELERATORS = ("CUDA", "OpenCL", "HIP", "Metal")
TORCHFORCE_WHEELS = (
    "acellera-openmmtorch-cpu",
    "acellera-openmmtorch-cu12",
    "acellera-openmmtorch-cu13",
    "openmmtorch",
)
MAX_CHILDREN = 2
"""Each child holds a torch and an OpenMM; more at a time would also compete for the processor."""

GET_CUDA = 'pip install "latf-openmm[cuda12]" or "latf-openmm[cuda13]", by the CUDA your torch is built for'
GET_TORCHFORCE = 'pip install "latf-openmm[cpu]" (with a GPU: "latf-openmm[cuda12]" or "latf-openmm[cuda13]")'
GET_TORCH = 'pip install "torch>=2.10,<2.13"'
GET_OPENMM = 'pip install "openmm>=8.5,<8.6"'


@dataclass(frozen=True)
class Check:
    """One thing looked at: what it is, how it is, what was seen, and what to do about it (may be empty)."""

    name: str
    status: Status
    detail: str
    way_out: str = ""


@dataclass(frozen=True)
class Versions:
    """Installed versions; None where a package is not installed.

    Parameters
    ----------
    torchforce_wheels
        (distribution, version) of every installed wheel that brings the module ``openmmtorch``.
    """

    python: str
    latf_openmm: str
    torch: str | None
    openmm: str | None
    mdtraj: str | None
    numpy: str | None
    torchforce_wheels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DoctorReport:
    """Everything the doctor saw.

    Parameters
    ----------
    checks
        All checks, in the order in which people read them.
    problems
        Combinations of versions known to be bad, whether or not a check ran into them.
    usable
        (backend, platform) pairs all of whose checks passed.
    """

    checks: tuple[Check, ...]
    problems: tuple[Check, ...] = ()
    usable: tuple[tuple[str, str], ...] = ()

    @property
    def can_bias(self) -> bool:
        """Return whether at least one backend passes on at least one platform."""
        return bool(self.usable)

    @property
    def exit_code(self) -> int:
        """0 if biasing works, 1 if not."""
        return 0 if self.can_bias else 1

    @property
    def verdict(self) -> str:
        """One line that says whether, and with what, this machine can bias."""
        if not self.can_bias:
            line = "Biasing does not work here: neither TorchForce nor PythonForce passes on any platform."
            advice = [check.way_out for check in (*self.problems, *self.checks) if check.way_out]
            return f"{line} Start with: {advice[0]}" if advice else line
        parts = []
        for backend in BACKENDS:
            platforms = [platform for name, platform in self.usable if name == backend]
            parts.append(f"{backend} on {', '.join(platforms)}" if platforms else f"{backend} is not usable")
        return f"Biasing works: {'; '.join(parts)}."


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed_versions() -> Versions:
    """Read the versions from the installed distributions; imports nothing."""
    wheels = ((name, _version(name)) for name in TORCHFORCE_WHEELS)
    return Versions(
        python=".".join(map(str, sys.version_info[:3])),
        latf_openmm=__version__,
        torch=_version("torch"),
        openmm=_version("openmm"),
        mdtraj=_version("mdtraj"),
        numpy=_version("numpy"),
        torchforce_wheels=tuple((name, version) for name, version in wheels if version is not None),
    )


def _release(version: str | None) -> tuple[int, int] | None:
    """Major and minor number; a pre-release counts as its release, since it has the same traps."""
    match = re.match(r"(\d+)\.(\d+)", version or "")
    return (int(match[1]), int(match[2])) if match else None


def _older(version: str | None, limit: tuple[int, int]) -> bool:
    release = _release(version)
    return release is not None and release < limit


def _reaches(version: str | None, limit: tuple[int, int]) -> bool:
    release = _release(version)
    return release is not None and release >= limit


_Trap = tuple[Callable[[Versions], bool], str, str, str]
_TRAPS: tuple[_Trap, ...] = (
    (
        lambda v: None in (v.torch, v.openmm, v.mdtraj, v.numpy),
        "a required package is missing",
        "torch, openmm, mdtraj and numpy are all needed",
        GET_TORCHFORCE,
    ),
    (
        lambda v: _reaches(v.torch, (2, 13)),
        "torch >= 2.13",
        "every TorchForce evaluation fails with an internal assertion (PythonForce works)",
        GET_TORCH,
    ),
    (
        lambda v: _older(v.torch, (2, 10)),
        "torch < 2.10",
        "the TorchForce wheels are built for torch 2.10 to 2.12 and do not load",
        GET_TORCH,
    ),
    (
        lambda v: _reaches(v.openmm, (8, 6)),
        "openmm >= 8.6",
        "the interpreter crashes when a System that holds a TorchForce is serialised or put into a "
        "CustomCVForce (PythonForce works)",
        GET_OPENMM,
    ),
    (lambda v: _older(v.openmm, (8, 5)), "openmm < 8.5", "there is no PythonForce", GET_OPENMM),
    (
        lambda v: "openmmtorch" in dict(v.torchforce_wheels),
        "the official openmmtorch wheel",
        "it needs the CUDA 12 libraries even to be imported",
        f"pip uninstall openmmtorch; {GET_TORCHFORCE}",
    ),
    (
        lambda v: not v.torchforce_wheels,
        "no TorchForce wheel",
        "only the slower PythonForce backend is available",
        GET_TORCHFORCE,
    ),
    (
        lambda v: len(v.torchforce_wheels) > 1,
        "several TorchForce wheels",
        "they overwrite each other's files",
        f"pip uninstall {' '.join(TORCHFORCE_WHEELS)}; then only one of: {GET_TORCHFORCE}",
    ),
)


def known_problems(versions: Versions) -> list[Check]:
    """Name the bad combinations of versions and the way out of each.

    Examples
    --------
    >>> wheels = (("acellera-openmmtorch-cpu", "1.10"),)
    >>> [problem] = known_problems(Versions("3.11.4", "0.1.0", "2.13.0", "8.5.2", "1.11", "2.4", wheels))
    >>> problem.name, problem.way_out
    ('torch >= 2.13', 'pip install "torch>=2.10,<2.13"')
    """
    return [Check(name, "warning", detail, out) for holds, name, detail, out in _TRAPS if holds(versions)]


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
    machine, plugin = _probe_all([("machine", "Reference"), ("openmmtorch", "Reference")], timeout)
    missing = _missing_backends(machine, plugin)
    platforms = machine.data.get("platforms", ["Reference", "CPU"])
    results = _probe_backends([name for name in BACKENDS if name not in missing], platforms, timeout)
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


def _missing_backends(machine: ProbeResult, plugin: ProbeResult) -> dict[str, tuple[str, str]]:
    """Backends that cannot even be made: name -> (detail, way out)."""
    missing = {}
    if not plugin.ok:
        missing["TorchForce"] = (f"not available: {plugin.detail}", GET_TORCHFORCE)
    if not machine.data.get("python_force", True):
        missing["PythonForce"] = ("not available: this OpenMM does not have it", GET_OPENMM)
    return missing


def _version_checks(versions: Versions) -> list[Check]:
    names = ("python", "latf_openmm", "torch", "openmm", "mdtraj", "numpy")
    checks = []
    for name in names:
        version = getattr(versions, name)
        checks.append(Check(name, "ok" if version else "warning", version or "not installed"))
    wheels = ", ".join(f"{name} {version}" for name, version in versions.torchforce_wheels)
    return [*checks, Check("TorchForce wheel", "ok" if wheels else "warning", wheels or "not installed")]


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


def render(report: DoctorReport, console: Console) -> None:
    """Print the checks as a table, then what to do, then the verdict on a line of its own."""
    table = Table("Check", "Status", "Detail")
    for check in report.checks:
        status = Text(check.status, STYLES[check.status])
        table.add_row(Text(check.name), status, Text(check.detail))  # Text: "[cpu]" is not markup
    console.print(table)
    _advise("Known problems", report.problems, console)
    known = {problem.way_out for problem in report.problems}
    others = [check for check in report.checks if check.status != "ok" and check.way_out not in known]
    _advise("What to do", [check for check in others if check.way_out], console)
    console.print(Text(report.verdict, STYLES["ok" if report.can_bias else "failed"]), soft_wrap=True)


def _advise(title: str, checks: Sequence[Check], console: Console) -> None:
    if checks:
        console.print(Text(title, "bold"))
    for check in checks:
        console.print(Text(f"  {check.name}: {check.detail}\n    -> {check.way_out}"), soft_wrap=True)
