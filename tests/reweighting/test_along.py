"""The certificate along z: residuals inside a state, on frames drawn from the exact densities of two basins."""

import numpy as np
import pytest

from benchmarks.gap.two_basins import STIFFNESS, energy, right_share
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.along import DensityStep, density_steps
from latf_openmm.reweighting.consistency import Certificate, certificate
from latf_openmm.reweighting.temperatures import Basins
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.units import KELVIN, REDUCED

BARRIER = 2.0


def drawn(
    temperatures: tuple[float, ...],
    seed: int,
    bath: int = 0,
    cold_right: float | None = None,
    frames: int = 150,
) -> tuple[list[FeatureTrajectory], np.ndarray]:
    """Ten walkers at each temperature of independent frames, and which are in the right basin.

    `cold_right`: share of the right basin at the first temperature; None: in equilibrium.
    """
    rng, trajectories = np.random.default_rng(seed), []
    grid = np.linspace(-2.5, 2.5, 5001)
    stiff = 1 + STIFFNESS / (1 + np.exp(-8 * grid))
    for temperature in temperatures:
        density = np.exp(-energy(grid, np.zeros_like(grid), BARRIER) / temperature) / np.sqrt(stiff)
        if cold_right is not None and temperature == temperatures[0]:
            right = grid > 0
            density[right] *= cold_right / (1 - cold_right) * density[~right].sum() / density[right].sum()
        at = rng.choice(len(grid), (10, frames), p=density / density.sum())
        x, y = grid[at], rng.normal(size=at.shape) * np.sqrt(temperature / stiff[at])
        u = energy(x, y, BARRIER) + 0.5 * temperature * (rng.chisquare(bath, at.shape) if bath else 0.0)
        trajectories += [
            FeatureTrajectory(
                np.stack([x[i], y[i]], axis=1).astype(np.float32),
                temperature,
                1.0,
                u[i],
                np.zeros(frames),
                run=f"T{temperature:g}",
                scale=REDUCED,
            )
            for i in range(10)
        ]
    return trajectories, np.concatenate([t.features[:, 0] > 0 for t in trajectories])


def weighting(labelled: bool, *args: object, **options: object) -> TemperatureWeighting:
    """Weights with the basins as states, or both as one."""
    trajectories, right = drawn(*args, **options)  # type: ignore[arg-type]
    z = np.concatenate([t.features for t in trajectories]).astype(np.float64)
    states = right.astype(np.int64) if labelled else np.zeros(len(z), dtype=np.int64)
    return TemperatureWeighting(trajectories, Basins(z, states, 2 if labelled else 1))


CASES = {"overlap": ((1.0, 1.5), 0), "no overlap": ((1.0, 2.0), 300), "three": ((1.0, 1.5, 2.0), 200)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("labelled", [False, True])
def test_runs_in_proportion_are_hardly_ever_named(case: str, labelled: bool) -> None:
    temperatures, bath = CASES[case]
    named = [
        any(step.off for step in density_steps(weighting(labelled, temperatures, seed, bath)))
        for seed in range(12)
    ]
    assert sum(named) <= 2  # of a chance of 0.01 each


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("labelled", [False, True])
def test_calibration_of_many_runs(case: str, labelled: bool) -> None:
    temperatures, bath = CASES[case]
    named = [
        any(step.off for step in density_steps(weighting(labelled, temperatures, seed, bath)))
        for seed in range(1000, 1100)
    ]
    assert sum(named) <= 5


@pytest.mark.parametrize("case", CASES)
def test_basins_in_one_state_that_are_not_in_proportion_are_named(case: str) -> None:
    """The right basin has 0.5 of the cold frames in place of 0.13: states as labelled do not show it."""
    temperatures, bath = CASES[case]
    assert right_share(1.0, BARRIER) == pytest.approx(0.128, abs=0.001)
    found = certificate(weighting(False, temperatures, 3, bath, cold_right=0.5, frames=1500 if bath else 400))
    assert not found.off and found.wrong
    step = next(step for step in found.densities if step.off)
    assert step.temperatures == temperatures[:2]
    texts = [text for text in found.texts(REDUCED) if text.startswith("state 0 between T = 1 and T =")]
    assert len(texts) == 1 and "times what the energies say" in texts[0]
    # More right than energies say at the lower temperature, or less left.
    assert (step.residual < 0) == (step.z[0] > 0)


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_a_basin_that_cold_walkers_never_saw_is_named(share: float) -> None:
    """No frame of it at the lower temperature, so no residual of two ends: too few for what the other one says."""
    found = density_steps(weighting(False, (1.0, 1.5), 1, 0, cold_right=share))
    (step,) = found
    assert step.off
    assert (step.z[0] > 0) == (share < 0.5)
    assert step.residual > np.log(3)


def test_labelled_basins_are_named_as_states_and_are_right_inside() -> None:
    found = certificate(weighting(True, (1.0, 1.5), 3, 0, cold_right=0.5, frames=400))
    assert not any(step.off for step in found.densities)
    assert len(found.densities) == 2


def test_one_temperature_and_few_frames_are_not_tested() -> None:
    assert density_steps(weighting(False, (1.0,), 0)) == ()
    assert density_steps(weighting(False, (1.0, 1.5), 0, frames=2)) == ()
    trajectories, _ = drawn((1.0, 1.5), 0)
    assert density_steps(TemperatureWeighting(trajectories)) == ()


def test_the_sentence_names_state_temperatures_place_factor_and_errors() -> None:
    step = DensityStep((300.0, 400.0), 2, (0.3, 1.2), -np.log(2.1), np.log(2.1) / 4, 0.001)
    assert step.off
    assert step.text(KELVIN) == (
        "state 2 between 300 K and 400 K: the density at z = (0.3, 1.2), at 300 K over that at 400 K, is 2.1 times "
        "what the energies say (4 standard errors): not sampled in proportion inside the state"
    )
    assert not DensityStep((300.0, 400.0), 2, (0.3,), 0.1, 0.01, 1e-6).off  # a factor of 1.1
    assert not DensityStep((300.0, 400.0), 2, (0.3,), 1.0, 0.5, 0.3).off
    assert Certificate((), (), (step,)).wrong
    assert not Certificate((), ()).wrong
