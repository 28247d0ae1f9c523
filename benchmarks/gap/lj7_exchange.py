"""LJ7 with a bath by replica exchange with as many force evaluations as the runs that the other methods use.

Replicas are copies in one Context, at temperatures from the lowest simulated to the highest asked, evenly in ln T. The
bath is exact: its energy is drawn from its distribution at each attempt to exchange. All frames of all replicas
together are weighted by MBAR; errors are from blocks in time, which hold the frames of all temperatures.
"""

from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from benchmarks.gap.lj7 import FRAMES, REGIME, TEMPERATURES, Reference, bath_energy, every, model_of
from benchmarks.gap.methods import DRAWS, EXCHANGE, share_of
from benchmarks.quality.cases import LJ7
from benchmarks.quality.data import features_of, training_data
from benchmarks.quality.methods import Frames
from benchmarks.quality.replica_exchange import exchanging
from latf_openmm.frames.trajectory import FeatureTrajectory, featurise
from latf_openmm.model.latf import LatentThermodynamicFlow
from latf_openmm.reweighting.blocks import redrawn_blocks
from latf_openmm.reweighting.inefficiency import run_inefficiencies
from latf_openmm.reweighting.replicates import Replicates
from latf_openmm.reweighting.temperatures import Reweighting
from latf_openmm.reweighting.weights import normalised_weights
from latf_openmm.sampling.langevin import draw_velocities, langevin_integrator
from latf_openmm.systems.lj7 import N_PARTICLES, LJ7Settings

Array = NDArray[np.float64]

REPLICAS = {0: 4, 200: 10, 1000: 20, 5000: 42}
"""Replicas for each bath, such that neighbours exchange in 20 to 40 % of the attempts."""
_INTERVAL = 40
"""Steps between attempts to exchange."""
_BLOCKS = 20
"""Blocks in time."""


@dataclass(frozen=True)
class Exchanged:
    """Frames at each temperature, with the energies of a bath.

    Attributes
    ----------
    trajectories
        One for each temperature, all of the same length.
    acceptance
        Of the attempts of each two neighbours.
    """

    trajectories: list[FeatureTrajectory]
    acceptance: Array


def cases(seed: int) -> list[dict[str, Any]]:
    """Baths."""
    return [{"bath": bath, "seed": seed} for bath in REPLICAS]


def rows(work: Path, bath: int, seed: int) -> list[dict[str, Any]]:
    """Divergence and populations at every temperature, for all numbers of frames."""
    model = model_of(work, training_data(LJ7, REGIME, seed, work), seed)
    run = exchange(bath, seed)
    result = []
    for frames in FRAMES:
        step = max(1, run.trajectories[0].n_frames * REPLICAS[bath] // (2 * frames))
        kept = Exchanged([every(t, step) for t in run.trajectories], run.acceptance)
        facts = {"part": "lj7", "frames": frames, "replicas": REPLICAS[bath]}
        result += [{**row, **facts} for row in _estimates(kept, model, work)]
    return result


def _estimates(run: Exchanged, model: LatentThermodynamicFlow, work: Path) -> list[dict[str, Any]]:
    """Rows of MBAR over all frames."""
    data = Frames.of(run.trajectories, model, LJ7.plane)
    inefficiency = run_inefficiencies(run.trajectories, data.z.astype(np.float64))
    mbar = Reweighting(run.trajectories, inefficiency)
    block = np.arange(run.trajectories[0].n_frames) * _BLOCKS // run.trajectories[0].n_frames
    block = np.tile(block, len(run.trajectories))
    groups, rng = np.zeros(_BLOCKS, dtype=np.int64), np.random.default_rng(7)
    counts = redrawn_blocks(groups, DRAWS, rng)
    factors = [mbar.factors(mbar.resample(times, rng)) for times in counts[block].T]
    acceptance = run.acceptance.tolist()
    result = []
    for temperature in TEMPERATURES:
        reference = Reference(temperature, model, work)
        weights = normalised_weights(mbar.log_weights(temperature))
        replicates = Replicates(np.array(factors, np.float32), weights)
        row = reference.row(EXCHANGE, data, weights, acceptance=acceptance)
        row["shares"] = reference.shares(data.states, partial(share_of, replicates, groups=groups))
        result.append(row)
    return result


def exchange(bath: int, seed: int) -> Exchanged:
    """Replica exchange with the force evaluations of the runs, equilibration included."""
    n, rng = REPLICAS[bath], np.random.default_rng([seed, bath])
    temperatures = np.geomspace(REGIME.temperatures[0], TEMPERATURES[-1], n)
    built = LJ7.settings.build(n)
    kelvin = np.repeat([built.scale.kelvin(t) for t in temperatures], N_PARTICLES)
    integrator = langevin_integrator(kelvin, LJ7.friction, LJ7.timestep)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(built.system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setPositions(built.positions.reshape(-1, 3))
    draw_velocities(context, kelvin, seed)
    integrator.step(LJ7.equilibration)
    steps = 2 * REGIME.walkers * (REGIME.frames * REGIME.interval + LJ7.equilibration)
    attempts = (steps // n - LJ7.equilibration) // _INTERVAL
    xyz, energy, accepted = [], [], np.zeros(n - 1)
    for attempt in range(attempts):
        integrator.step(_INTERVAL)
        state = context.getState(positions=True, velocities=True)
        positions = state.getPositions(asNumpy=True)._value.reshape(n, N_PARTICLES, 3)
        total = cluster_energies(positions) + bath_energy(temperatures, bath, n, rng)
        xyz.append(positions.astype(np.float32))
        energy.append(total)
        lows = exchanging(1.0 / temperatures, total, attempt % 2, rng)
        accepted[lows] += 1
        _swap(context, state, np.sqrt(temperatures), lows)
    acceptance = accepted / (attempts / 2)
    return Exchanged(_trajectories(temperatures, np.array(xyz), np.array(energy)), acceptance)


def cluster_energies(positions: Array) -> Array:
    """Energies of clusters, shape (n,) of positions (n, particles, 3), as the System has them."""
    settings = LJ7.settings
    assert isinstance(settings, LJ7Settings)
    first, second = np.array(list(combinations(range(N_PARTICLES), 2))).T
    inverse = 1.0 / ((positions[:, first] - positions[:, second]) ** 2).sum(axis=2) ** 3
    centroid = positions.mean(axis=1, keepdims=True)
    out = np.maximum(np.linalg.norm(positions - centroid, axis=2) - settings.wall_radius, 0.0)
    wall = 0.5 * settings.wall_strength * (out**2).sum(axis=1)
    flat = settings.flatness * (positions[:, :, 2] ** 2).sum(axis=1)
    return np.asarray(4 * (inverse**2 - inverse).sum(axis=1) + wall + flat)


def _swap(context: openmm.Context, state: openmm.State, speeds: Array, lows: list[int]) -> None:
    """Exchange replicas with the next ones; velocities are scaled with the square root of the temperature."""
    if not lows:
        return
    order = np.arange(len(speeds))
    for low in lows:
        order[[low, low + 1]] = low + 1, low
    shape = (len(speeds), N_PARTICLES, 3)
    positions = state.getPositions(asNumpy=True)._value.reshape(shape)[order]
    velocities = state.getVelocities(asNumpy=True)._value.reshape(shape)[order]
    velocities = velocities * (speeds / speeds[order])[:, None, None]
    context.setPositions(positions.reshape(-1, 3))
    context.setVelocities(velocities.reshape(-1, 3))


def _trajectories(temperatures: Array, xyz: NDArray[np.float32], energy: Array) -> list[FeatureTrajectory]:
    """One for each temperature, of frames (n_frames, n_temperatures, ...)."""
    module, zeros = features_of(LJ7), np.zeros(len(energy))
    return [
        FeatureTrajectory(
            featurise(module, xyz[:, i]),
            float(temperature),
            LJ7.timestep * _INTERVAL,
            energy[:, i],
            zeros,
            run=f"T{temperature:g}",
            name=f"replica exchange {temperature:g}",
            scale=LJ7.settings.scale,
        )
        for i, temperature in enumerate(temperatures)
    ]
