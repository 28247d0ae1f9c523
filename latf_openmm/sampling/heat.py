"""Heat of one segment: whether its atoms have the temperature of the thermostat."""

import logging

import numpy as np

from latf_openmm.errors import SimulationError
from latf_openmm.sampling.dynamics import GroupTask
from latf_openmm.sampling.segments import SegmentFrames
from latf_openmm.units import TemperatureScale

log = logging.getLogger(__name__)
_DEVIATION, _ERRORS = 0.03, 4.0
"""Deviation of a segment's mean kinetic temperature that is too large: relative, and beyond that standard errors."""


class TooHotError(SimulationError):
    """The kinetic temperature is not that of the thermostat, but higher by the fraction `excess`."""

    def __init__(self, message: str, excess: float) -> None:
        super().__init__(message)
        self.excess = excess


def check_heat(
    task: GroupTask,
    scale: TemperatureScale,
    freedom: float,
    frames: SegmentFrames,
    slower: int,
) -> None:
    """Raise `TooHotError` where the atoms are hotter than the thermostat by more than chance; say if cooler.

    Parameters
    ----------
    task, scale
        The group, and its scale of temperature.
    freedom
        Degrees of freedom of a walker.
    frames
        Of the segment.
    slower
        Steps in place of one.
    """
    dynamics = task.dynamics
    # Kinetic energy forgets faster than by the friction alone.
    forgotten = min(1.0, dynamics.friction * dynamics.timestep * dynamics.frame_interval)
    error = np.sqrt(2.0 / (freedom * frames.kinetic.size * forgotten))
    excess = float((frames.kinetic / frames.kelvin).mean()) - 1.0
    if abs(excess) <= _DEVIATION + _ERRORS * error:
        return
    label, asked = scale.label, float(frames.temperatures.mean())
    several = " (means over walkers)" if np.ptp(frames.kelvin) > 0 else ""
    text = (
        f"the kinetic temperature is {label(float(f'{(1.0 + excess) * asked:.4g}'))} where the thermostat has "
        f"{label(asked)}{several}, with time steps of {dynamics.timestep / slower:g} ps"
    )
    if excess > 0:
        raise TooHotError(text, excess)
    log.warning("%s: %s; something in the System takes heat away", task.folder, text)
