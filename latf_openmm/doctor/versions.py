"""Installed versions, and the combinations of them that are known to be bad."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from latf_openmm import __version__
from latf_openmm.doctor.findings import Check

TORCHFORCE_WHEELS = (
    "acellera-openmmtorch-cpu",
    "acellera-openmmtorch-cu12",
    "acellera-openmmtorch-cu13",
    "openmmtorch",
)
"""Distributions that bring the module `openmmtorch`."""

GET_CUDA = 'pip install "latf-openmm[cuda12]" or "latf-openmm[cuda13]", by the CUDA your torch is built for'
"""Command that installs GPU wheels."""
GET_TORCHFORCE = 'pip install "latf-openmm[torchforce-cpu]" (with a GPU: -cuda12 or -cuda13)'
"""Command that installs TorchForce."""
GET_TORCH = 'pip install "torch>=2.10"'
"""Command that installs a torch that works."""
FIT_TORCH = 'pip install "torch>=2.10,<2.13"'
"""Command that installs a torch that fits the TorchForce wheels."""
GET_OPENMM = 'pip install "openmm>=8.5"'
"""Command that installs an OpenMM that works."""
FIT_OPENMM = 'pip install "openmm>=8.5,<8.6"'
"""Command that installs an OpenMM that fits the TorchForce wheels."""
GET_ALL = "pip install latf-openmm"
"""Command that installs everything that is needed."""


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
    llvmlite: str | None = None
    torchforce_wheels: tuple[tuple[str, str], ...] = ()


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
        llvmlite=_version("llvmlite"),
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


def _has_plugin(versions: Versions) -> bool:
    return bool(versions.torchforce_wheels)


_Trap = tuple[Callable[[Versions], bool], str, str, str]
_TRAPS: tuple[_Trap, ...] = (
    (
        lambda v: None in (v.torch, v.openmm, v.mdtraj, v.numpy, v.llvmlite),
        "a required package is missing",
        "torch, openmm, mdtraj, numpy and llvmlite are all needed",
        GET_ALL,
    ),
    (
        lambda v: _older(v.torch, (2, 10)),
        "torch < 2.10",
        "biases cannot be recorded, and the TorchForce wheels do not load",
        GET_TORCH,
    ),
    (
        lambda v: _has_plugin(v) and _reaches(v.torch, (2, 13)),
        "torch >= 2.13 with TorchForce",
        "every TorchForce evaluation fails with an internal assertion (compiled biases work)",
        FIT_TORCH,
    ),
    (
        lambda v: _has_plugin(v) and _reaches(v.openmm, (8, 6)),
        "openmm >= 8.6 with TorchForce",
        "the interpreter crashes when a System that holds a TorchForce is read back from XML or put into a "
        "CustomCVForce (compiled biases work)",
        FIT_OPENMM,
    ),
    (lambda v: _older(v.openmm, (8, 5)), "openmm < 8.5", "there is no PythonForce", GET_OPENMM),
    (
        lambda v: "openmmtorch" in dict(v.torchforce_wheels),
        "the official openmmtorch wheel",
        "it needs the CUDA 12 libraries even to be imported",
        f"pip uninstall openmmtorch; {GET_TORCHFORCE}",
    ),
    (
        lambda v: len(v.torchforce_wheels) > 1,
        "several TorchForce wheels",
        "they overwrite each other's files",
        f"pip uninstall {' '.join(TORCHFORCE_WHEELS)}; then only one of: {GET_TORCHFORCE}",
    ),
)
"""Combinations of versions that are known to be bad: when, name, what happens, way out."""


def known_problems(versions: Versions) -> list[Check]:
    """Name the bad combinations of versions and the way out of each.

    Examples
    --------
    >>> wheels = (("acellera-openmmtorch-cpu", "1.10"),)
    >>> [problem] = known_problems(Versions("3.11.4", "0.1.0", "2.13.0", "8.5.2", "1.11", "2.4", "0.50", wheels))
    >>> problem.name, problem.way_out
    ('torch >= 2.13 with TorchForce', 'pip install "torch>=2.10,<2.13"')
    """
    return [Check(name, "warning", detail, out) for holds, name, detail, out in _TRAPS if holds(versions)]
