"""How long steps take on a machine with nothing else at work.

What computes on the processor is measured by processor time, since wall time would say how busy the machine is at this
moment, and would pass over platforms with many threads, of which one always waits. Let M be the processor time of the
calling thread and P that of all others, which work side by side in N threads while it waits. With nothing else at work
the time of a step is then about

    M + P / N.

What threads wait for each other is left out, so small systems may be somewhat slower with many threads. Accelerators
are measured by wall time: processor time says nothing of them.
"""

import time

import openmm

_PROCESSOR = ("CPU", "Reference")
"""Platforms that compute on the processor."""


def threads_of(context: openmm.Context) -> int:
    """Return how many threads of the processor work side by side."""
    platform = context.getPlatform()
    if "Threads" not in platform.getPropertyNames():
        return 1
    return max(1, int(platform.getPropertyValue(context, "Threads")))


class Clock:
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

    def undisturbed(self, context: openmm.Context) -> float:
        """Wall time with nothing else at work of what was computed in a Context [s]."""
        on_processor = context.getPlatform().getName() in _PROCESSOR
        return self.alone(threads_of(context)) if on_processor else self.wall
