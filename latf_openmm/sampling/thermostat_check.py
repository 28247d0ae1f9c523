"""Thermostat check: whether walkers had the temperature of their thermostat."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latf_openmm.frames.walkers import WalkerFrames
from latf_openmm.reweighting.estimators import statistical_inefficiency

_DEVIATION, _ERRORS = 0.02, 4.0
"""Deviation of the mean kinetic temperature that is reported: relative, and in standard errors."""


@dataclass(frozen=True)
class ThermostatDeviation:
    """Walkers of one run that were hotter or cooler than their thermostat.

    Attributes
    ----------
    run, temperature
        Its name, and the temperature of the thermostat.
    kinetic, error
        Mean kinetic temperature and its standard error, in the same scale.
    biased
        Whether a bias acted.
    """

    run: str
    temperature: float
    kinetic: float
    error: float
    biased: bool

    @property
    def consequence(self) -> str:
        """Consequence for energies, and advice."""
        if self.kinetic < self.temperature:
            return "too low: something in the System, such as a force with friction, takes heat away"
        if self.biased:
            return "too high: take a shorter simulation.timestep, a softer bias, or a larger bias.pace"
        return "too high: take a shorter simulation.timestep"


def thermostat_deviations(walkers: Sequence[WalkerFrames]) -> list[ThermostatDeviation]:
    """Return runs whose mean kinetic temperature is off by 2 % and by four standard errors.

    A bias that is stiff for the time step heats what it acts on; a force with friction, or a second thermostat, cools.
    Potential energies are wrong then, in all weights as well, and nothing else tells. Runs of earlier versions have no
    kinetic temperatures.
    """
    deviations = []
    for run in sorted({walker.run for walker in walkers}):
        of_run = [w for w in walkers if w.run == run and "kinetic_temperature" in w.table]
        if not of_run:
            continue
        series = [w.table["kinetic_temperature"].to_numpy(dtype=np.float64)[:, None] for w in of_run]
        values = np.concatenate(series)
        error = float(values.std() * np.sqrt(statistical_inefficiency(series) / len(values)))
        mean, temperature = float(values.mean()), of_run[0].temperature
        if abs(mean - temperature) > max(_DEVIATION * temperature, _ERRORS * error):
            biased = any((w.table["bias_energy"] != 0).any() for w in of_run)
            deviations.append(ThermostatDeviation(run, temperature, mean, error, biased))
    return deviations
