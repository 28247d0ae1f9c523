"""Whether walkers had the temperature of their thermostat."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latf_openmm.data.estimators import statistical_inefficiency
from latf_openmm.data.walkers import WalkerFrames

_HOT, _ERRORS = 0.02, 4.0


@dataclass(frozen=True)
class HotRun:
    """Walkers of one run that were hotter than their thermostat.

    Attributes
    ----------
    run, temperature
        Its name, and the temperature of the thermostat.
    kinetic, error
        Mean kinetic temperature and its standard error, in the same scale.
    """

    run: str
    temperature: float
    kinetic: float
    error: float


def hot_runs(walkers: Sequence[WalkerFrames]) -> list[HotRun]:
    """Return runs whose mean kinetic temperature is too high by 2 % and by four standard errors.

    A bias that is stiff for the time step heats what it acts on. Potential energies are too high then, in all weights
    as well, and nothing else tells. Runs of earlier versions have no kinetic temperatures.
    """
    found = []
    for run in sorted({walker.run for walker in walkers}):
        mine = [w for w in walkers if w.run == run and "kinetic_temperature" in w.table]
        if not mine:
            continue
        series = [w.table["kinetic_temperature"].to_numpy(dtype=np.float64)[:, None] for w in mine]
        values = np.concatenate(series)
        error = float(values.std() * np.sqrt(statistical_inefficiency(series) / len(values)))
        excess = float(values.mean()) - mine[0].temperature
        if excess > max(_HOT * mine[0].temperature, _ERRORS * error):
            found.append(HotRun(run, mine[0].temperature, float(values.mean()), error))
    return found
