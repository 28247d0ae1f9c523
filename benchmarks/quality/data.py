"""Frames for training and truths to compare with, made once and kept in a work folder."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.cases import Array, Regime, SystemCase
from benchmarks.quality.replica_exchange import run_replica_exchange
from latf_openmm.features import Features, build_features, resolve_features
from latf_openmm.frames.trajectory import FeatureTrajectory, featurise, thermal_square_speeds
from latf_openmm.frames.walkers import read_stage
from latf_openmm.sampling.stage import Stage, run_stage
from latf_openmm.systems.three_hole import three_hole_potential

_TRUTH_SEEDS = (101, 202)


@dataclass(frozen=True)
class Truth:
    """Samples of the true distribution at one temperature.

    Attributes
    ----------
    features
        Shape (n, n_features).
    energy
        Potential energy, shape (n,).
    half
        0 or 1: which of two independent sets of runs, shape (n,).
    """

    features: Array
    energy: NDArray[np.float64]
    half: NDArray[np.int64]


def features_of(case: SystemCase) -> Features:
    topology = case.settings.build(1).mdtraj_topology()
    return build_features(resolve_features(list(case.features), topology)).double()


def training_data(case: SystemCase, regime: Regime, seed: int, work: Path) -> list[FeatureTrajectory]:
    """Unbiased frames of one regime, simulated with `seed` unless they are in `work` already."""
    name = "-".join(f"{t:g}" for t in regime.temperatures)
    file = work / case.name / f"{name}_{regime.walkers}x{regime.frames}_every{regime.interval}_seed{seed}.npz"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        _simulate(case, regime, seed, file)
    with np.load(file) as data:
        rows = range(int(data["n"]))
        return [
            FeatureTrajectory(
                features=data[f"features{i}"],
                temperature=float(data[f"temperature{i}"]),
                frame_interval=case.timestep * regime.interval,
                potential_energy=data[f"energy{i}"],
                log_weights=np.zeros(len(data[f"energy{i}"])),
                run=f"T{float(data[f'temperature{i}']):g}",
                name=f"walker {i}",
                scale=case.settings.scale,
                square_speeds=data.get(f"speeds{i}"),
            )
            for i in rows
        ]


def _simulate(case: SystemCase, regime: Regime, seed: int, file: Path) -> None:
    folder = file.with_suffix(".run")
    stage = Stage(case.settings, case.simulation(regime, 1), None, {}, seed, folder)
    run_stage(stage)
    built, module = case.settings.build(1), features_of(case)
    topology = built.mdtraj_topology()
    arrays: dict[str, NDArray[np.generic] | int | float] = {}
    walkers = read_stage(folder)
    for i, walker in enumerate(walkers):
        xyz, kT = walker.load(topology).xyz, case.settings.scale.kT(walker.temperature)
        arrays[f"features{i}"] = featurise(module, xyz)
        arrays[f"speeds{i}"] = thermal_square_speeds(module, xyz, None, built.masses, kT)
        arrays[f"energy{i}"] = walker.table["potential_energy"].to_numpy()
        arrays[f"temperature{i}"] = walker.temperature
    _write(file, arrays | {"n": len(walkers)})
    shutil.rmtree(folder)


def _write(file: Path, arrays: dict[str, NDArray[np.generic] | int | float]) -> None:
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, **arrays)  # type: ignore[arg-type]
    partial.rename(file)


def truth(case: SystemCase, temperature: float, work: Path) -> Truth:
    """Exact samples where the system has a quadrature, else long unbiased runs or replica exchange."""
    file = work / case.name / f"truth_{temperature:g}.npz"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        if case.settings.exact_ensemble(temperature) is not None:
            make = _exact_truth
        else:
            make = _cluster_truth if case.settings.batched else _molecule_truth
        halves = [make(case, temperature, seed, work) for seed in _TRUTH_SEEDS]
        _write(
            file,
            {
                "features": np.concatenate([half[0] for half in halves]),
                "energy": np.concatenate([half[1] for half in halves]),
                "half": np.repeat([0, 1], [len(half[0]) for half in halves]),
            },
        )
    with np.load(file) as data:
        return Truth(data["features"], data["energy"], data["half"])


def _exact_truth(
    case: SystemCase, temperature: float, seed: int, work: Path
) -> tuple[Array, NDArray[np.float64]]:
    """Independent samples of the three-hole potential: points of a quadrature, moved within their cells."""
    rng = np.random.default_rng([seed, round(1000 * temperature)])
    exact = case.settings.exact_ensemble(temperature)
    assert exact is not None
    spacing = np.diff(np.unique(exact.positions[:, 0, 0])).min()
    chosen = rng.choice(len(exact.weights), 200_000, p=exact.weights)
    positions = exact.positions[chosen]
    positions[:, :, :2] += rng.uniform(-0.5 * spacing, 0.5 * spacing, positions[:, :, :2].shape)
    features = featurise(features_of(case), positions)
    planar = three_hole_potential(*features.astype(np.float64).T)
    # The z coordinate of the simulated particle, 100 z^2, is Gaussian and independent.
    return features, planar + 0.5 * case.settings.scale.kT(temperature) * rng.standard_normal(
        len(planar)
    ) ** 2


def _cluster_truth(
    case: SystemCase, temperature: float, seed: int, work: Path
) -> tuple[Array, NDArray[np.float64]]:
    regime = Regime((temperature,), 50, 4000, 100, 1)
    runs = training_data(case, regime, seed, work)
    return np.concatenate([r.features for r in runs]), np.concatenate([r.potential_energy for r in runs])


def _molecule_truth(
    case: SystemCase, temperature: float, seed: int, work: Path
) -> tuple[Array, NDArray[np.float64]]:
    file = work / case.name / f"replica_exchange_seed{seed}.npz"
    if not file.is_file():
        run_replica_exchange(
            case.settings, list(case.temperatures), 40_000, 125, case.timestep, case.friction, seed, file
        )
    with np.load(file) as data:
        xyz, energy = data[f"T{temperature:g}"][1000:], data[f"U{temperature:g}"][1000:]
    return featurise(features_of(case), xyz), energy
