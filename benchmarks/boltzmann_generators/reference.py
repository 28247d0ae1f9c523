"""The reference: two parallel tempering runs that begin in different basins.

    python -m benchmarks.boltzmann_generators.reference --work WORK --chunks 1000

Each chunk is 0.2 ns at each of ten temperatures; the run with fewer is extended next, until both have so many. What is
there is kept: the same command again goes on.
"""

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.boltzmann_generators.parallel_tempering import Length, chunk_files, extend, torsions_of
from benchmarks.boltzmann_generators.target import TEMPERATURES, TORSIONS, positions, structure

Array = NDArray[np.float64]
RUNS = {"extended": 101, "left-handed": 202}
"""Runs, and their seeds."""
EQUILIBRATION = 5
"""Chunks at the begin of each run that are left out."""
_LEFT = 1.0
"""Torsion phi that the second run begins with [rad]."""


def start_of(run: str) -> Array:
    """Positions that all replicas of a run begin with, shape (n_temperatures, n_atoms, 3) [nm]."""
    xyz = positions()
    if run == "left-handed":
        xyz = _turned(xyz, _LEFT)
    return np.repeat(xyz[None], len(TEMPERATURES), axis=0)


def _turned(xyz: Array, phi: float) -> Array:
    """Turn what lies behind the bond from nitrogen to the central carbon until phi [rad] is as asked for."""
    nitrogen, carbon = TORSIONS["phi"][1:3]
    behind = [a.index for a in structure().topology.atoms() if a.index >= carbon]
    angle = phi - float(torsions_of(xyz[None])[0, 0])
    axis = xyz[carbon] - xyz[nitrogen]
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    turn = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
    turned = xyz.copy()
    turned[behind] = xyz[carbon] + (xyz[behind] - xyz[carbon]) @ turn.T
    return turned


@dataclass(frozen=True)
class Samples:
    """Frames at one temperature.

    Attributes
    ----------
    angles
        (phi, psi), shape (n, 2) [rad].
    energy
        Shape (n,) [kJ/mol].
    """

    angles: NDArray[np.float32]
    energy: NDArray[np.float32]


def samples_of(folder: Path, level: int, left_out: int = EQUILIBRATION) -> Samples:
    """Frames of a run at one of `target.TEMPERATURES`, chunks at the begin left out."""
    angles, energy = [], []
    for file in chunk_files(folder)[left_out:]:
        with np.load(file) as data:
            angles.append(data["torsions"][level, :, :2])
            energy.append(data["energy"][level].astype(np.float32))
    return Samples(np.concatenate(angles), np.concatenate(energy))


def folder_of(work: Path, run: str) -> Path:
    """Folder of a run."""
    return work / "reference" / run.replace("-", "_")


def simulate(work: Path, chunks: int, length: Length) -> None:
    """Extend the runs until each has so many chunks."""
    while True:
        done = {run: len(chunk_files(folder_of(work, run))) for run in RUNS}
        run = min(done, key=lambda name: done[name])
        if done[run] >= chunks:
            return
        began = time.perf_counter()
        extend(folder_of(work, run), RUNS[run], lambda run=run: start_of(run), length)  # type: ignore[misc]
        seconds = time.perf_counter() - began
        print(f"{run}: chunk {done[run] + 1}, {length.evaluations / seconds:,.0f} steps/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--chunks", type=int, default=250, help="of each run, 2 million steps each")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    (arguments.work / "pid").write_text(f"{os.getpid()}\n")
    simulate(arguments.work, arguments.chunks, Length())


if __name__ == "__main__":
    main()
