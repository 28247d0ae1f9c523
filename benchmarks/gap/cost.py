"""Time and memory of weights: a million frames, fifty temperatures, without overlap of energies.

    python -m benchmarks.gap.cost [--frames 1000000] [--temperatures 50] [--errors]

Prints one line. Frames are independent samples of two Gaussian variables of variance T, in five states by their angle,
with the energy of 1,000 more degrees of freedom. `--errors` adds the errors of all populations by the bootstrap.
"""

import argparse
import resource
import time

import numpy as np

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.temperatures import Basins
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.units import REDUCED

SIMULATED, STATES, BATH, WALKERS = (1.0, 2.0, 4.0), 5, 1000, 10


def data(n: int) -> tuple[list[FeatureTrajectory], Basins]:
    """Frames of three temperatures, ten walkers each."""
    rng = np.random.default_rng(0)
    trajectories = []
    for temperature in SIMULATED:
        for walker in range(WALKERS):
            m = n // (len(SIMULATED) * WALKERS)
            z = rng.normal(0.0, np.sqrt(temperature), (m, 2))
            energy = 0.5 * (z**2).sum(axis=1) + 0.5 * temperature * rng.chisquare(BATH, m)
            trajectories.append(
                FeatureTrajectory(
                    z.astype(np.float32),
                    temperature,
                    1.0,
                    energy,
                    np.zeros(m),
                    run=f"T{temperature:g}",
                    name=f"{walker}",
                    scale=REDUCED,
                )
            )
    z = np.concatenate([t.features for t in trajectories]).astype(np.float64)
    states = np.floor((np.arctan2(z[:, 1], z[:, 0]) / (2 * np.pi) + 0.5) * STATES).astype(np.int64)
    return trajectories, Basins(z, np.minimum(states, STATES - 1), STATES)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--temperatures", type=int, default=50)
    parser.add_argument("--errors", action="store_true")
    arguments = parser.parse_args()
    trajectories, basins = data(arguments.frames)
    start, begun = time.perf_counter(), time.process_time()
    weighting = TemperatureWeighting(trajectories, basins)
    made = time.perf_counter() - start
    inside = np.eye(STATES)[basins.states]
    for temperature in np.geomspace(0.9, 4.4, arguments.temperatures):
        if arguments.errors:
            weighting.replicates(float(temperature), weighting.mbar_share(float(temperature))).means(inside)
        else:
            weighting.weights(float(temperature))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{arguments.frames} frames, {arguments.temperatures} temperatures: {time.perf_counter() - start:.1f} s "
        f"({time.process_time() - begun:.1f} s of processor time; {made:.1f} s of it once), {peak:.2f} GB at most"
    )


if __name__ == "__main__":
    main()
