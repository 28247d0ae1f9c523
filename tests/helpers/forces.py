"""Helpers of several test files, made for those of forces."""

from typing import Any

import openmm

ACCELERATORS = ("CUDA", "HIP", "OpenCL")


TOLERANCE = dict.fromkeys(ACCELERATORS, 1e-4)  # of forces, relative; elsewhere 1e-6


_PROPERTIES = {"CPU": {"Threads": "1"}, **{name: {"Precision": "double"} for name in ACCELERATORS}}


def _works(platform: str) -> bool:
    system = openmm.System()
    system.addParticle(1.0)
    try:
        found = openmm.Platform.getPlatformByName(platform)
        openmm.Context(system, openmm.VerletIntegrator(0.001), found, _PROPERTIES.get(platform, {}))
    except openmm.OpenMMException:
        return False
    return True


PLATFORMS = [name for name in ("Reference", "CPU", *ACCELERATORS) if _works(name)]


def make_context(system: openmm.System, platform: str, integrator: Any = None) -> openmm.Context:
    return openmm.Context(
        system,
        integrator or openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatformByName(platform),
        _PROPERTIES.get(platform, {}),
    )
