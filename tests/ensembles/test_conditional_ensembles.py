"""Ensembles by conditional energies: oscillators, exact at every temperature, in a bath that takes the overlap away."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.ensembles import DIM, beyond, pool_of, trained, walk

from latf_openmm.ensembles.pool import Pool
from latf_openmm.ensembles.reweighter import Reweighter, ensemble_at
from latf_openmm.errors import ConfigError

BATH = 3000


def bathed(temperatures: tuple[float, ...] = (1.0, 2.0), n: int = 3000, bath: int = BATH) -> Pool:
    rng = np.random.default_rng(0)
    walks = [walk(t, n, 10 * i + j, 0.0, 0.5) for i, t in enumerate(temperatures) for j in range(4)]
    return pool_of(
        *(
            replace(w, potential_energy=w.potential_energy + 0.5 * w.temperature * rng.chisquare(bath, n))
            for w in walks
        )
    )


@pytest.fixture(scope="module")
def reweighter() -> Reweighter:
    return Reweighter(trained(), bathed())


@pytest.mark.parametrize("temperature", [0.85, 1.3, 1.6, 2.4])
def test_populations_and_energies_between_and_beyond(reweighter: Reweighter, temperature: float) -> None:
    ensemble = reweighter.at(temperature)
    assert ensemble.method == "conditional"
    share = ensemble.populations()[1]
    assert abs(share.value - beyond(temperature)) < 3 * share.error
    assert share.error < 0.05
    energy, exact = ensemble.energy(), 0.5 * (BATH + DIM) * temperature
    assert energy.value == pytest.approx(exact, rel=0.004)
    assert ensemble.heat_capacity().value == pytest.approx(0.5 * (BATH + DIM), rel=0.1)
    square = ensemble.expectation(ensemble.pool.z[:, 1] ** 2)
    assert square.value == pytest.approx(temperature, rel=0.1)


def test_between_temperatures_it_is_relied_on_beyond_them_less(reweighter: Reweighter) -> None:
    assert reweighter.at(1.4).reliability == "good"
    assert reweighter.at(1.4).warnings == ()
    beyond_them = reweighter.at(2.4)
    assert beyond_them.reliability == "fair"
    assert any("beyond the simulated temperatures" in text for text in beyond_them.warnings)


def test_far_beyond_nothing_is_claimed(reweighter: Reweighter) -> None:
    assert reweighter.at(8.0).method == "flow"
    forced = reweighter.at(8.0, "conditional")
    assert forced.reliability == "poor"


def test_simulated_temperatures_are_reweighted(reweighter: Reweighter) -> None:
    ensemble = reweighter.at(1.0)
    assert ensemble.method == "reweighted"
    assert ensemble.energies()[0] == reweighter.pool.energies()[0]


def test_variables_that_hardly_overlap_are_named() -> None:
    walks = [walk(t, 2000, j, 0.0, 0.5) for t in (0.01, 4.0) for j in range(3)]
    ensemble = Reweighter(trained(temperatures=(0.01, 4.0)), pool_of(*walks)).at(0.2, "conditional")
    assert ensemble.reliability == "poor"
    assert "hardly overlap" in ensemble.verdict


def test_what_conditional_energies_lack_is_named() -> None:
    with pytest.raises(ConfigError, match="need two simulated temperatures, there is T = 1 alone"):
        ensemble_at(trained(), bathed((1.0,)), 1.3, "conditional")
    few = pool_of(*[walk(t, 90, j, 0.0, 0.5) for j, t in enumerate((1.0, 2.0))])
    with pytest.raises(ConfigError, match="need 200 frames with energies, there are 180"):
        ensemble_at(trained(), few, 1.3, "conditional")
    short = pool_of(walk(1.0, 400, 0, 0.0, 0.5), walk(2.0, 4, 1, 0.0, 0.5))
    with pytest.raises(ConfigError, match=r"10 frames of a state at each temperature.*; T = 2 has \d"):
        ensemble_at(trained(), short, 1.3, "conditional")


def test_a_wrong_unit_is_named_and_lowers_the_reliability() -> None:
    pool = bathed(bath=300)
    wrong = [replace(t, potential_energy=t.potential_energy / 4.184) for t in pool.trajectories]
    ensemble = ensemble_at(trained(), pool_of(*wrong), 1.3)
    assert any("kcal/mol" in text for text in ensemble.warnings)
    assert ensemble.reliability != "good"


def test_structures_are_the_frames(reweighter: Reweighter) -> None:
    drawn = reweighter.at(1.5).draw(500)
    temperatures = reweighter.pool.temperatures()[drawn]
    assert 0.25 < (temperatures == 1.0).mean() < 0.42  # linear in 1/kT: a third
