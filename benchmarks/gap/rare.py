"""Walkers in two basins that cross rarely at the lower of two temperatures, from one basin or in wrong shares."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gap.methods import Weights
from benchmarks.gap.two_basins import right_share, walkers
from latf_openmm.reweighting.consistency import certificate
from latf_openmm.reweighting.temperatures import Reweighting
from latf_openmm.reweighting.weighting import TemperatureWeighting

SIMULATED, ASKED = (1.0, 2.0), (1.0, 1.4, 2.0)
BARRIERS = (4.0, 6.0, 10.0, 14.0)
STARTS = (0.0, 0.5, 1.0)
REPEATS = 15


def cases(seed: int) -> list[dict[str, Any]]:
    """Barriers [kT at the lower temperature], shares of walkers that start on the right, and baths."""
    return [
        {"barrier": barrier, "start": start, "bath": bath, "seed": seed}
        for bath in (0, 300)
        for barrier in BARRIERS
        for start in STARTS
    ]


def rows(work: Path, barrier: float, start: float, bath: int, seed: int) -> list[dict[str, Any]]:
    """Shares of the right basin in every repeat, and whether the certificate names the lower temperature."""
    result = []
    for repeat in range(REPEATS):
        trajectories, basins = walkers(
            SIMULATED, barrier, start, bath=bath, seed=1000 * seed + 10 * repeat + int(barrier)
        )
        weighting = TemperatureWeighting(trajectories, basins, seed=repeat)
        weights = Weights(weighting, Reweighting(trajectories, weighting.inefficiency))
        found = certificate(weighting)
        named = [share.temperature for share in [*found.off, *found.rare]]
        crossings = weighting.mbar.crossings()[:, 0]
        for temperature in ASKED:
            for method, replicates in weights.at(temperature).items():
                share, error = weights.shares(replicates, basins.states == 1)
                truth = right_share(temperature, barrier)
                result.append(
                    {
                        "repeat": repeat,
                        "temperature": temperature,
                        "method": method,
                        "shares": [{"share": share, "reported": error, "truth": truth, "truth_error": 0.0}],
                        "named": SIMULATED[0] in named,
                        "crossings": [float(c) for c in np.atleast_1d(crossings)],
                        "mbar_share": weighting.mbar_share(temperature),
                    }
                )
    return result
