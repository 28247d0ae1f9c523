"""Speeds of OpenMM's platforms for a system, tried for a second each; see `latf_openmm.sampling.clock`."""

import os
from collections.abc import Mapping

import openmm
from openmm import unit

from latf_openmm.errors import ConfigError
from latf_openmm.sampling.clock import Clock
from latf_openmm.sampling.contexts import PlatformChoice
from latf_openmm.systems import BuiltSystem

_SMALL = 60
"""Most atoms for which the Reference platform is tried."""
_TRIAL = 1.0
"""Wall time of a trial [s]."""
_PROCESSES = 4
"""Most walkers that are simulated at a time, where each takes one core."""


def walkers_at_a_time(platform: str) -> int:
    """Return how many walkers are simulated at a time; all platforms but Reference take the machine for one."""
    return max(1, min(_PROCESSES, os.cpu_count() or 1)) if platform == "Reference" else 1


def platform_speeds(built: BuiltSystem) -> dict[str, float]:
    """Return the steps a second of one walker on each platform that works here.

    Raises
    ------
    ConfigError
        If none does.
    """
    wanted = ["CUDA", "HIP", "OpenCL", "CPU", *(["Reference"] if built.n_atoms <= _SMALL else [])]
    available = {openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())}
    speeds = {}
    for name in wanted:
        if name in available:
            try:
                speeds[name] = _speed(built, name)
            except openmm.OpenMMException:
                continue  # a driver without a device
    if not speeds:
        raise ConfigError("no OpenMM platform can simulate this system here; see latf-openmm doctor")
    return speeds


def speeds_text(speeds: Mapping[str, float]) -> str:
    """Return the speeds in words, the highest first.

    Examples
    --------
    >>> speeds_text({"Reference": 812.4, "CPU": 12345.6})
    'CPU 12,346, Reference 812'
    """
    ordered = sorted(speeds, key=lambda name: -speeds[name])
    return ", ".join(f"{name} {speeds[name]:,.0f}" for name in ordered)


def _speed(built: BuiltSystem, platform: str) -> float:
    """Steps a second of one walker."""
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)
    context = PlatformChoice(platform).context(built.system, integrator)
    context.setPositions(built.positions[0] * unit.nanometer)
    openmm.LocalEnergyMinimizer.minimize(context, 100.0, 50)
    context.setVelocitiesToTemperature(300.0, 1)
    integrator.step(10)
    steps, clock = 0, Clock()
    while clock.wall < _TRIAL:
        integrator.step(20)
        context.getState(energy=True)
        steps += 20
    return steps / clock.undisturbed(context)
