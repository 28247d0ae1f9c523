"""Alanine dipeptide in implicit solvent from 300 and 600 K, all walkers started in C7eq: the share of C7ax.

At 300 K hardly any walker crosses. The states are the two basins of phi, the collective variables sines and cosines of
phi and psi. The truth at 300 K is the reference surface of `benchmarks/biasing`; at the others, runs in which that
surface as a fixed bias makes phi and psi nearly free, undone by weights.
"""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from benchmarks.biasing.reference import static_bias
from benchmarks.biasing.samplers import KT, TEMPERATURE
from benchmarks.biasing.surfaces import EDGES, FLOOR, REFERENCE
from benchmarks.gap.methods import Weights
from benchmarks.quality.cases import DIPEPTIDE, Regime
from benchmarks.quality.data import features_of, training_data
from latf_openmm.frames.trajectory import featurise
from latf_openmm.reweighting.consistency import certificate
from latf_openmm.reweighting.temperatures import Basins, Reweighting
from latf_openmm.reweighting.weighting import TemperatureWeighting

Array = NDArray[np.float64]

ASKED = (300.0, 400.0, 450.0)
REPEATS = 4
"""Sets of walkers, each with noise of its own."""
_REGIMES = (Regime((300.0,), 10, 1000, 50, 2), Regime((600.0,), 10, 1000, 250, 2))
"""Ten walkers of 0.2 ns at 300 K, and of 1 ns at 600 K."""
_C7AX = (0.0, 150.0)
"""Of phi [degrees]."""
_TRUTH_SEEDS, _TRUTH_FRAMES, _TRUTH_INTERVAL = (11, 12), 25_000, 50
"""Runs with the flattening bias, and their frames and steps between them."""
_TRUTH_BLOCKS = 10
"""Blocks of each of these runs, for their error."""


def cases(seed: int) -> list[dict[str, Any]]:
    """All repeats of a seed together."""
    return [{"seed": seed}]


def rows(work: Path, seed: int) -> list[dict[str, Any]]:
    """Share of C7ax in every repeat, and whether the certificate names 300 K."""
    truths = {temperature: truth(temperature, work) for temperature in ASKED}
    result = []
    for repeat in range(REPEATS):
        made = (training_data(DIPEPTIDE, regime, 100 * seed + repeat, work) for regime in _REGIMES)
        trajectories = list(chain.from_iterable(made))
        features = np.concatenate([t.features for t in trajectories]).astype(np.float64)
        inside = _inside(features)
        basins = Basins(features[:, :4], inside.astype(np.int64), 2, _REGIMES[0].lag)
        weighting = TemperatureWeighting(trajectories, basins, seed=repeat)
        weights = Weights(weighting, Reweighting(trajectories, weighting.inefficiency))
        found = certificate(weighting)
        named = {share.temperature for share in [*found.off, *found.rare]}
        facts = {
            "repeat": repeat,
            "named": ASKED[0] in named,
            "crossings": weighting.mbar.crossings()[:, 1].tolist(),
        }
        for temperature in ASKED:
            exact, error = truths[temperature]
            for method, replicates in weights.at(temperature).items():
                share, reported = weights.shares(replicates, inside)
                known = {"share": share, "reported": reported, "truth": exact, "truth_error": error}
                result.append(
                    {
                        **facts,
                        "temperature": temperature,
                        "method": method,
                        "shares": [known],
                        "mbar_share": weighting.mbar_share(temperature),
                    }
                )
    return result


def truth(temperature: float, work: Path) -> tuple[float, float]:
    """Share of C7ax at a temperature and its error, from blocks of all runs."""
    if temperature == TEMPERATURE:
        return _of_surface()
    inside, outside = [], []
    for seed in _TRUTH_SEEDS:
        file = work / DIPEPTIDE.name / f"flattened_{temperature:g}_seed{seed}.npz"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            _flattened(temperature, seed, file)
        with np.load(file) as data:
            chosen, weights = data["inside"], np.exp(data["log_weights"] - data["log_weights"].max())
        for rows in np.array_split(np.arange(len(chosen)), _TRUTH_BLOCKS):
            inside.append(weights[rows] @ chosen[rows])
            outside.append(weights[rows] @ ~chosen[rows])
    a, b = np.array(inside), np.array(outside)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(a), (500, len(a)))
    redone = a[drawn].sum(axis=1) / (a[drawn] + b[drawn]).sum(axis=1)
    return float(a.sum() / (a + b).sum()), float(redone.std(ddof=1))


def _of_surface() -> tuple[float, float]:
    """Share of C7ax at 300 K by the reference surface of phi and psi, which is known to 0.02 kcal/mol."""
    density = np.exp(-np.loadtxt(REFERENCE, delimiter=",") / KT).sum(axis=1)
    phi = np.degrees(0.5 * (EDGES[1:] + EDGES[:-1]))
    share = float(density[(phi > _C7AX[0]) & (phi < _C7AX[1])].sum() / density.sum())
    return share, share * (1 - share) * FLOOR * 4.184 / KT


def _flattened(temperature: float, seed: int, file: Path) -> None:
    """Write which frames are in C7ax and their log weights, of a run whose phi and psi are nearly free."""
    built = DIPEPTIDE.settings.build(1).with_own_system()
    surface = np.loadtxt(REFERENCE, delimiter=",")
    corners = sum(np.roll(surface, shift, axis=(0, 1)) for shift in ((0, 0), (0, 1), (1, 0), (1, 1))) / 4
    force = static_bias(-np.pad(corners, (0, 1), mode="wrap").T)
    force.setForceGroup(1)
    built.system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(temperature, DIPEPTIDE.friction, DIPEPTIDE.timestep)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(built.system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setPositions(built.positions[0])
    openmm.LocalEnergyMinimizer.minimize(context)
    context.setVelocitiesToTemperature(temperature, seed)
    integrator.step(DIPEPTIDE.equilibration)
    xyz = np.empty((_TRUTH_FRAMES, built.n_atoms, 3), np.float32)
    bias = np.empty(_TRUTH_FRAMES)
    for frame in range(_TRUTH_FRAMES):
        integrator.step(_TRUTH_INTERVAL)
        xyz[frame] = context.getState(positions=True).getPositions(asNumpy=True)._value
        bias[frame] = context.getState(energy=True, groups={1}).getPotentialEnergy()._value
    inside = _inside(featurise(features_of(DIPEPTIDE), xyz).astype(np.float64))
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, inside=inside, log_weights=bias / DIPEPTIDE.settings.scale.kT(temperature))
    partial.rename(file)


def _inside(features: Array) -> NDArray[np.bool_]:
    """Whether frames are in C7ax."""
    phi = DIPEPTIDE.plane.project(features)[:, 0]
    return (phi > _C7AX[0]) & (phi < _C7AX[1])
