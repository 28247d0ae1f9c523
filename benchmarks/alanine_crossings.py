"""Count how often alanine dipeptide crosses the phi barrier, without and with the learned bias.

    latf-openmm run alanine_dipeptide --output RUN      # over an hour on two cores
    python -m benchmarks.alanine_crossings RUN

A visit to phi > 0 is counted when the core 30..100 degrees is reached from the core -170..-40 degrees and left
for it again (cores, so that recrossings of the top are not counted); a walker that starts at phi > 0 counts
only from its first return. Prints, for each round and temperature, the visits reached, those also left, and
the nanoseconds simulated.
"""

import argparse
from pathlib import Path

import mdtraj
import numpy as np
from numpy.typing import NDArray

import latf_openmm as latf


def count_visits(phi: NDArray[np.floating]) -> tuple[int, int]:
    """Return how often phi > 0 was reached, and how often left again; `phi` in degrees, one walker."""
    left = (phi > -170) & (phi < -40)
    right = (phi > 30) & (phi < 100)
    cores = np.where(right, 1, np.where(left, -1, 0))
    visited = cores[cores != 0]
    changes = np.flatnonzero(np.diff(visited))
    reached = int((visited[changes] == -1).sum())
    starts_right = len(visited) > 0 and visited[0] == 1
    left_again = int((visited[changes] == 1).sum()) - int(starts_right and len(changes) > 0)
    return reached, left_again


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of an alanine_dipeptide run")
    run = latf.RunFolder.open(parser.parse_args().run)
    last = run.last_round().index
    rows: dict[tuple[str, float], list[float]] = {}
    for walker in run.walkers(last):
        trajectory = walker.load(run.topology())
        phi = np.degrees(mdtraj.compute_phi(trajectory)[1][:, 0])
        reached, left = count_visits(phi)
        nanoseconds = float(walker.table["time_ps"].iloc[-1]) / 1000
        row = rows.setdefault((walker.run, walker.temperature), [0.0, 0.0, 0.0, 0.0])
        for index, value in enumerate((reached, left, nanoseconds, float((phi > 0).mean()) * nanoseconds)):
            row[index] += value
    print("| run | T [K] | simulated [ns] | phi > 0 reached | and left | reached per ns | fraction phi > 0 |")
    print("|---|---|---|---|---|---|---|")
    for (name, temperature), (reached, left, ns, above) in sorted(rows.items()):
        print(
            f"| {name} | {temperature:g} | {ns:.1f} | {reached:.0f} | {left:.0f} | {reached / ns:.2f} "
            f"| {above / ns:.3f} |"
        )


if __name__ == "__main__":
    main()
