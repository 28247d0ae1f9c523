"""Energies against the temperatures of their thermostats: oscillators of known distribution, and real dynamics."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.stages import HOLES, make_stage, run

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.consistency import certificate
from latf_openmm.reweighting.slopes import SlopeStep, slope_steps
from latf_openmm.reweighting.temperatures import Basins
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.units import KELVIN

FREEDOM = 60


def oscillators(
    temperatures: tuple[float, ...],
    labels: tuple[float, ...] | None = None,
    seed: int = 0,
    *,
    n_walkers: int = 4,
    frames: int = 800,
    correlation: float = 0.6,
    factor: float = 1.0,
) -> TemperatureWeighting:
    """Frames of oscillators at `temperatures` [K] that are called `labels`; two states by the first coordinate.

    At the first temperature the states are not in proportion: two walkers in three have only frames of one.
    """
    rng, trajectories = np.random.default_rng(seed), []
    for at, (temperature, label) in enumerate(zip(temperatures, labels or temperatures, strict=True)):
        for i in range(n_walkers):
            x = np.empty((frames, FREEDOM))
            x[0] = rng.normal(size=FREEDOM)
            noise = np.sqrt(1 - correlation**2) * rng.normal(size=x.shape)
            for n in range(1, frames):
                x[n] = correlation * x[n - 1] + noise[n]
            u = factor * 0.5 * KELVIN.kT(temperature) * (x**2).sum(axis=1)
            z = x[:, :1] if at or i % 3 == 0 else np.abs(x[:, :1])
            trajectories.append(
                FeatureTrajectory(
                    z.astype(np.float32),
                    label,
                    1.0,
                    u,
                    np.zeros(frames),
                    run=f"T{label:g}",
                    name=f"{label} {i}",
                )
            )
    z = np.concatenate([t.features for t in trajectories]).astype(np.float64)
    return TemperatureWeighting(trajectories, Basins(z, (z[:, 0] > 0).astype(np.int64), 2))


def test_right_runs_are_hardly_ever_named() -> None:
    """Sixty runs of two pairs; errors are those of the slopes."""
    named, deviations = 0, []
    for seed in range(60):
        steps = slope_steps(oscillators((300.0, 320.0, 345.0), seed=seed, frames=300))
        named += any(step.off for step in steps)
        deviations += [(step.ratio - 1.0) / step.error for step in steps]
    assert named <= 2
    assert 0.8 < np.std(deviations) < 1.25
    assert abs(np.mean(deviations)) < 0.35


@pytest.mark.parametrize("seed", range(5))
def test_a_run_at_another_temperature_than_its_thermostat_is_named(seed: int) -> None:
    """310 K called 300 K: 1/kT differs from that of 330 K by 0.64 of what it should."""
    found = certificate(oscillators((310.0, 330.0), (300.0, 330.0), seed, frames=3000))
    (step,) = found.slopes
    exact = (1 / 310 - 1 / 330) / (1 / 300 - 1 / 330)
    assert step.off and found.wrong
    assert step.ratio == pytest.approx(exact, abs=4 * step.error)
    assert any("one lacks the temperature of its thermostat" in text for text in found.texts(KELVIN))


@pytest.mark.parametrize("factor", [4.184, 1 / 4.184])
def test_energies_in_kilocalories_are_named(factor: float) -> None:
    found = certificate(oscillators((300.0, 320.0), factor=factor, seed=1))
    (step,) = found.slopes
    assert step.ratio == pytest.approx(1 / factor, rel=0.4)
    assert any("kilocalories" in text for text in found.texts(KELVIN))


def test_without_overlap_it_says_so() -> None:
    found = certificate(oscillators((300.0, 1400.0), seed=2))
    (step,) = found.slopes
    assert not step.tested and not step.off
    assert found.untested(KELVIN) == [
        "energies at 300 K and 1400 K hardly overlap: their temperatures cannot be tested by them"
    ]
    assert not any("overlap" in text for text in found.texts(KELVIN))
    assert SlopeStep((300.0, 310.0), 1.02, 0.001, 1e-9).text(KELVIN).endswith("times what it does")


def test_dynamics_of_a_stage(tmp_path: Path) -> None:
    """A particle in three holes: right where temperatures are those of the thermostat, named where one is not."""
    walkers = run(
        make_stage(
            tmp_path / "stage",
            temperatures=[1.0, 1.4],
            walkers=10,
            frames=400,
            frame_interval=40,
            equilibration=400,
        )
    )
    topology = HOLES.build(1).mdtraj_topology()
    right = [
        FeatureTrajectory(
            walker.load(topology).xyz[:, 0, :2].astype(np.float32),
            walker.temperature,
            0.4,
            walker.table["potential_energy"].to_numpy(),
            np.zeros(len(walker.table)),
            run=walker.run,
            scale=HOLES.scale,
        )
        for walker in walkers
    ]
    z = np.concatenate([t.features for t in right]).astype(np.float64)
    basins = Basins(z, np.zeros(len(z), dtype=np.int64), 1)
    (step,) = slope_steps(TemperatureWeighting(right, basins))
    assert step.tested and not step.off and step.error < 0.2
    wrong = [replace(t, temperature=0.8) if t.temperature == 1.0 else t for t in right]
    (step,) = slope_steps(TemperatureWeighting(wrong, basins))
    assert step.off and step.ratio < 0.8
