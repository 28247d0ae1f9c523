"""Parallel tempering in chunks that are written one by one: the reference, independent of the package's loop.

A chunk begins with the replicas that the one before ended with and has random numbers of its own, so that a run that is
interrupted goes on with the same numbers as one that is not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
import openmm
from numpy.typing import NDArray

from benchmarks.boltzmann_generators.target import (
    FRICTION,
    GAS_CONSTANT,
    TEMPERATURES,
    TIMESTEP,
    TORSIONS,
    make,
    structure,
)
from benchmarks.quality.replica_exchange import exchanging

Array = NDArray[np.float64]
KEPT = 500
"""Of so many frames, one is kept as positions."""
_CENTRE = (8, 6, 14, 10)
"""The central carbon, and nitrogen, carbonyl carbon and methyl carbon around it: its handedness."""


@dataclass(frozen=True)
class Length:
    """Length of a chunk.

    Attributes
    ----------
    frames
        At each temperature.
    interval
        Steps between frames.
    exchange
        Replicas try to exchange after so many frames.
    """

    frames: int = 10_000
    interval: int = 20
    exchange: int = 5

    @property
    def evaluations(self) -> int:
        """Force evaluations of all replicas."""
        return len(TEMPERATURES) * self.frames * self.interval


@dataclass
class Replicas:
    """One Context a replica, and which is at which temperature.

    Attributes
    ----------
    contexts
        They stay where they are; temperatures move.
    at
        Replica at each temperature, shape (n_temperatures,).
    """

    contexts: list[openmm.Context]
    at: NDArray[np.int64]

    @staticmethod
    def begin(positions: Array, velocities: Array | None, seed: NDArray[np.unsignedinteger]) -> "Replicas":
        """Place replicas in the order of their temperatures; velocities are drawn where none are given."""
        system = make()[0]
        contexts = []
        for index, temperature in enumerate(TEMPERATURES):
            integrator = openmm.LangevinMiddleIntegrator(temperature, FRICTION, TIMESTEP)
            integrator.setRandomNumberSeed(int(seed[index] >> 1) or 1)
            context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
            context.setPositions(positions[index])
            if velocities is None:
                openmm.LocalEnergyMinimizer.minimize(context, maxIterations=200)
                context.setVelocitiesToTemperature(temperature, int(seed[index] >> 1) or 1)
            else:
                context.setVelocities(velocities[index])
            contexts.append(context)
        return Replicas(contexts, np.arange(len(TEMPERATURES)))

    def exchange(self, low: int) -> None:
        """Let the replicas at a temperature and the next change places, velocities rescaled."""
        pair = (low, low + 1)
        scale = np.sqrt(TEMPERATURES[low + 1] / TEMPERATURES[low])
        self.at[[low, low + 1]] = self.at[[low + 1, low]]
        for level, factor in zip(pair, (1.0 / scale, scale), strict=True):
            context = self.contexts[self.at[level]]
            velocities = context.getState(velocities=True).getVelocities(asNumpy=True)._value
            context.setVelocities(velocities * factor)
            context.getIntegrator().setTemperature(TEMPERATURES[level])

    def states(self) -> tuple[Array, Array]:
        """Positions [nm] and velocities [nm/ps] in the order of temperatures, shape (n_temperatures, n_atoms, 3)."""
        states = [self.contexts[i].getState(positions=True, velocities=True) for i in self.at]
        return (
            np.array([state.getPositions(asNumpy=True)._value for state in states]),
            np.array([state.getVelocities(asNumpy=True)._value for state in states]),
        )


def run_chunk(replicas: Replicas, length: Length, rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    """Return what is recorded of one chunk.

    Returns
    -------
    dict
        ``torsions`` (n_temperatures, frames, 4) [rad], ``energy`` [kJ/mol], ``left`` (whether the central carbon is as
        in L-alanine) and ``replica``, shape (n_temperatures, frames); ``xyz`` of some frames [nm]; ``accepted``, the
        part of exchanges of neighbours; ``positions`` and ``velocities`` of the end.
    """
    beta = 1.0 / (GAS_CONSTANT * np.array(TEMPERATURES))
    n = len(TEMPERATURES)
    xyz = np.empty((n, length.frames, replicas.contexts[0].getSystem().getNumParticles(), 3), np.float32)
    energy, replica = np.empty((n, length.frames)), np.empty((n, length.frames), np.uint8)
    tried, accepted = np.zeros(n - 1), np.zeros(n - 1)
    for frame in range(length.frames):
        for level, index in enumerate(replicas.at):
            context = replicas.contexts[index]
            context.getIntegrator().step(length.interval)
            state = context.getState(positions=True, energy=True)
            xyz[level, frame] = state.getPositions(asNumpy=True)._value
            energy[level, frame] = state.getPotentialEnergy()._value
            replica[level, frame] = index
        attempt, rest = divmod(frame + 1, length.exchange)
        if rest == 0:
            tried[attempt % 2 :: 2] += 1
            for low in exchanging(beta, energy[:, frame], attempt % 2, rng):
                accepted[low] += 1
                replicas.exchange(low)
    positions, velocities = replicas.states()
    return {
        "torsions": torsions_of(xyz),
        "left": handedness(xyz) > 0,
        "energy": energy.astype(np.float32),
        "replica": replica,
        "xyz": xyz[:, ::KEPT],
        "accepted": accepted / np.maximum(tried, 1),
        "positions": positions,
        "velocities": velocities,
    }


def torsions_of(xyz: NDArray[np.floating]) -> NDArray[np.float32]:
    """Torsions in the order of `TORSIONS` [rad], by positions (..., n_atoms, 3) [nm]."""
    flat = np.asarray(xyz, np.float32).reshape(-1, *xyz.shape[-2:])
    trajectory = mdtraj.Trajectory(flat, mdtraj.Topology.from_openmm(structure().topology))
    angles = mdtraj.compute_dihedrals(trajectory, list(TORSIONS.values()), periodic=False)
    return np.asarray(angles, np.float32).reshape(*xyz.shape[:-2], len(TORSIONS))


def handedness(xyz: NDArray[np.floating]) -> NDArray[np.floating]:
    """Volume that the bonds of the central carbon span, shape (...) [nm^3]: positive in L-alanine."""
    centre, *others = (xyz[..., atom, :] for atom in _CENTRE)
    a, b, c = (other - centre for other in others)
    return np.asarray((a * np.cross(b, c)).sum(-1))


def chunk_files(folder: Path) -> list[Path]:
    """Chunks that are there, in order."""
    return sorted(folder.glob("chunk_*.npz"))


def extend(folder: Path, seed: int, start: Callable[[], Array], length: Length) -> Path:
    """Add one chunk to a run.

    Parameters
    ----------
    folder
        Of the run.
    seed
        Of the run.
    start
        Positions of all replicas at its begin, shape (n_temperatures, n_atoms, 3) [nm].
    length
        Of the chunk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = chunk_files(folder)
    number = len(done)
    sequence = np.random.SeedSequence([seed, number])
    seeds, rng = sequence.generate_state(len(TEMPERATURES)), np.random.default_rng(sequence)
    if done:
        with np.load(done[-1]) as data:
            replicas = Replicas.begin(data["positions"], data["velocities"], seeds)
    else:
        replicas = Replicas.begin(start(), None, seeds)
    arrays = run_chunk(replicas, length, rng)
    file = folder / f"chunk_{number:05d}.npz"
    partial = file.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    partial.rename(file)
    return file
