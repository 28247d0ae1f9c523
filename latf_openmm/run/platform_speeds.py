"""Speeds of OpenMM's platforms for a system, tried for a second each.

What computes on the processor is measured by processor time, since wall time would say how busy the machine is at this
moment, and would pass over platforms with many threads, of which one always waits. Let M be the processor time of the
calling thread and P that of all others, which work side by side in N threads while it waits. With nothing else at work
the time of a step is then about

    M + P / N.

What threads wait for each other is left out, so small systems may be somewhat slower with many threads. Accelerators
are measured by wall time: processor time says nothing of them.
"""

import os
import time
from collections.abc import Mapping

import openmm
from openmm import unit

from latf_openmm.errors import ConfigError
from latf_openmm.sampling.contexts import PlatformChoice
from latf_openmm.systems import BuiltSystem

_SMALL = 60
"""Most atoms for which the Reference platform is tried."""
_TRIAL = 1.0
"""Wall time of a trial [s]."""
_PROCESSOR = ("CPU", "Reference")
"""Platforms that compute on the processor."""
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
    steps, clock = 0, _Clock()
    while clock.wall < _TRIAL:
        integrator.step(20)
        context.getState(energy=True)
        steps += 20
    return steps / (clock.alone(_threads(context)) if platform in _PROCESSOR else clock.wall)


def _threads(context: openmm.Context) -> int:
    """Return how many threads work side by side."""
    platform = context.getPlatform()
    if "Threads" not in platform.getPropertyNames():
        return 1
    return max(1, int(platform.getPropertyValue(context, "Threads")))


class _Clock:
    """Times since it was made."""

    def __init__(self) -> None:
        self._wall, self._all, self._caller = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), time.thread_time()

    @property
    def wall(self) -> float:
        """Wall time [s]."""
        return time.perf_counter() - self._wall

    def alone(self, threads: int) -> float:
        """Wall time with nothing else at work, about, where the other threads of this process share theirs [s]."""
        wall, every, caller = self._now()
        wall, every, caller = wall - self._wall, every - self._all, caller - self._caller
        # Not more than it was; clocks of the processor are coarse on some systems.
        return min(wall, max(caller + max(0.0, every - caller) / threads, 1e-3 * wall))
