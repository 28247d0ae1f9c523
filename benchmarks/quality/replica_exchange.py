"""Replica exchange of one molecule over temperatures, in one process: the truth for the dipeptide.

OpenMM 8.5 has no sampler of its own for it. Neighbours try to exchange after every saved frame, even and odd
pairs in turn; what is written at a temperature follows the temperature, not the replica.
"""

from pathlib import Path

import numpy as np
import openmm
from numpy.typing import NDArray

from latf_openmm.systems import SystemSettings

Array = NDArray[np.float64]


def run_replica_exchange(
    settings: SystemSettings,
    temperatures: list[float],
    frames: int,
    interval: int,
    timestep: float,
    friction: float,
    seed: int,
    file: Path,
) -> None:
    """Write ``T<temperature>`` (frames, atoms, 3) [nm], ``U<temperature>`` [kJ/mol] and the acceptance to `file`.

    Parameters
    ----------
    temperatures
        Ascending, in the scale of `settings`.
    frames, interval
        Frames kept at each temperature, and steps between them.
    timestep, friction
        In ps and 1/ps.
    """
    built = settings.build()
    beta = np.array([1.0 / built.scale.kT(t) for t in temperatures])
    contexts = [
        _context(built.system, built.scale.kelvin(t), timestep, friction, seed + i)
        for i, t in enumerate(temperatures)
    ]
    rng = np.random.default_rng(seed)
    for context, t in zip(contexts, temperatures, strict=True):
        context.setPositions(built.positions[0])
        context.setVelocitiesToTemperature(built.scale.kelvin(t), seed)
        context.getIntegrator().step(20 * interval)
    xyz = np.empty((len(temperatures), frames, built.n_atoms, 3), np.float32)
    energy = np.empty((len(temperatures), frames))
    tried, accepted = np.zeros(len(temperatures) - 1), np.zeros(len(temperatures) - 1)
    for frame in range(frames):
        for index, context in enumerate(contexts):
            context.getIntegrator().step(interval)
            state = context.getState(positions=True, energy=True)
            xyz[index, frame] = state.getPositions(asNumpy=True)._value
            energy[index, frame] = state.getPotentialEnergy()._value
        tried[frame % 2 :: 2] += 1
        for low in exchanging(beta, energy[:, frame], frame % 2, rng):
            accepted[low] += 1
            _exchange(contexts[low], contexts[low + 1], np.sqrt(beta[low] / beta[low + 1]))
    arrays: dict[str, NDArray[np.floating]] = {"acceptance": accepted / np.maximum(tried, 1)}
    for index, t in enumerate(temperatures):
        arrays |= {f"T{t:g}": xyz[index], f"U{t:g}": energy[index]}
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.rename(file)


def exchanging(beta: Array, energy: Array, first: int, rng: np.random.Generator) -> list[int]:
    """Return which temperatures exchange replicas with the next one.

    Parameters
    ----------
    beta
        1/kT of each temperature, ascending in temperature, shape (n_temperatures,).
    energy
        Of the replica at each temperature, shape (n_temperatures,).
    first
        0 or 1: whether even or odd temperatures try with their next one.
    """
    lows = np.arange(first, len(beta) - 1, 2)
    gains = (beta[lows] - beta[lows + 1]) * (energy[lows] - energy[lows + 1])
    return lows[np.log(rng.random(len(lows))) < gains].tolist()


def _context(
    system: openmm.System, kelvin: float, timestep: float, friction: float, seed: int
) -> openmm.Context:
    integrator = openmm.LangevinMiddleIntegrator(kelvin, friction, timestep)
    integrator.setRandomNumberSeed(seed)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))


def _exchange(low: openmm.Context, high: openmm.Context, scale: float) -> None:
    """Swap positions; velocities are carried along and rescaled to the new temperature."""
    a, b = (c.getState(positions=True, velocities=True) for c in (low, high))
    velocities = [s.getVelocities(asNumpy=True)._value for s in (a, b)]
    low.setPositions(b.getPositions())
    high.setPositions(a.getPositions())
    low.setVelocities(velocities[1] / scale)
    high.setVelocities(velocities[0] * scale)
