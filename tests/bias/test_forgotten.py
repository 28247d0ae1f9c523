"""Parts of a biased script that were forgotten, or do not fit, are said once in plain words."""

import logging
from collections.abc import Callable
from pathlib import Path

import openmm
import pytest
from openmm import app, unit

import latf_openmm as latf
from latf_openmm.bias.potentials.base import AdaptiveBias
from latf_openmm.bias.thermostat import thermostat_temperature

PACE = 5
FORGOTTEN = "nothing has been added to the adaptive bias"
OTHER_TEMPERATURE = "its bias was made for"


def particles(n: int = 4) -> openmm.System:
    system = openmm.System()
    well = openmm.CustomExternalForce("100*(x^2 + y^2 + z^2)")
    for index in range(n):
        system.addParticle(12.0)
        well.addParticle(index, [])
    system.addForce(well)
    return system


def topology(n: int = 4) -> app.Topology:
    result = app.Topology()
    residue = result.addResidue("X", result.addChain())
    for index in range(n):
        result.addAtom(f"C{index}", app.element.carbon, residue)
    return result


CV = latf.distance_cv([(0, 1)], 4)
START = [[0.0, 0, 0], [0.3, 0, 0], [0, 0.3, 0], [0, 0, 0.3]]


def opes(kelvin: float = 300.0) -> AdaptiveBias:
    settings = latf.OpesSettings(barrier=20, sigma=0.05, pace=PACE)
    return settings.build(latf.cv_context(CV.periods.tolist(), kelvin))


def simulation(
    bias: AdaptiveBias, integrator: openmm.Integrator | None = None, backend: str = "compiled"
) -> app.Simulation:
    integrator = integrator or openmm.LangevinMiddleIntegrator(300, 1, 0.001)
    system = latf.add_bias(particles(), CV, bias, backend=backend)  # type: ignore[arg-type]
    result = app.Simulation(topology(), system, integrator, openmm.Platform.getPlatformByName("Reference"))
    result.context.setPositions(START)
    return result


@pytest.mark.parametrize("backend", ["compiled", "python"])
def test_a_forgotten_updater_is_said_once(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    script = simulation(opes(), backend=backend)
    script.minimizeEnergy()
    script.step(3 * PACE)
    assert FORGOTTEN not in caplog.text
    script.step(10 * PACE)
    assert caplog.text.count(FORGOTTEN) == 1
    assert f"its pace is {PACE}: append latf_openmm.BiasUpdater(cv, bias)" in caplog.text


@pytest.mark.parametrize("backend", ["compiled", "torchforce"])
def test_a_reporter_says_so_too_whatever_the_backend(
    backend: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """TorchForce does not know of steps."""
    bias = opes()
    script = simulation(bias, backend=backend)
    script.reporters.append(latf.LatentReporter(tmp_path / "z.csv", PACE, CV, bias))
    script.step(3 * PACE)
    assert FORGOTTEN not in caplog.text
    script.step(10 * PACE)
    assert caplog.text.count(FORGOTTEN) == 1


@pytest.mark.parametrize("backend", ["compiled", "python"])
def test_nothing_is_said_of_a_bias_that_is_updated(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    bias = opes()
    script = simulation(bias, backend=backend)
    script.reporters.append(latf.BiasUpdater(CV, bias))
    script.step(10 * PACE)
    assert not caplog.records
    frozen = latf.add_bias(particles(), CV, latf.frozen(bias), backend=backend)  # type: ignore[arg-type]
    context = openmm.Context(frozen, openmm.VerletIntegrator(0.001))
    context.setPositions(START)
    context.getIntegrator().step(10 * PACE)
    assert not caplog.records


def test_an_equilibration_before_the_first_update_is_not_a_forgotten_updater(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where the bias is restored in between."""
    bias = opes()
    updater = latf.BiasUpdater(CV, bias)
    updater.reset()
    script = simulation(bias)
    script.step(10 * PACE)
    script.reporters.append(updater)
    script.step(PACE)
    assert int(bias.updates) == 1
    assert not caplog.records


def test_a_bias_that_has_nothing_to_add_is_not_a_forgotten_one(caplog: pytest.LogCaptureFixture) -> None:
    """A restraint that has arrived, in a script that goes on later."""
    settings = latf.MovingHarmonicSettings(start=[0.3], end=[0.4], force_constant=10.0, steps=PACE, pace=PACE)
    bias = settings.build(latf.cv_context([0.0], 300.0))
    assert isinstance(bias, AdaptiveBias)
    first = simulation(bias)
    first.reporters.append(latf.BiasUpdater(CV, bias))
    first.step(3 * PACE)
    bias.restore(bias.snapshot())
    later = simulation(bias)
    later.reporters.append(latf.BiasUpdater(CV, bias))
    later.step(10 * PACE)
    assert int(bias.sent) == 1
    assert not caplog.records


def nose_hoover() -> openmm.Integrator:
    return openmm.NoseHooverIntegrator(350, 1, 0.001)


def every_group() -> openmm.Integrator:
    return openmm.MTSLangevinIntegrator(350 * unit.kelvin, 1, 0.001, [(0, 1), (31, 1)])


def compound() -> openmm.Integrator:
    integrator = openmm.CompoundIntegrator()
    integrator.addIntegrator(openmm.LangevinMiddleIntegrator(300, 1, 0.001))
    integrator.addIntegrator(openmm.LangevinMiddleIntegrator(350, 1, 0.001))
    integrator.setCurrentIntegrator(1)
    return integrator


@pytest.mark.parametrize(
    "make",
    [lambda: openmm.LangevinMiddleIntegrator(350, 1, 0.001), nose_hoover, every_group, compound],
    ids=["Langevin", "Nose-Hoover", "MTS", "compound"],
)
def test_another_temperature_than_that_of_the_bias_is_said_once(
    make: Callable[[], openmm.Integrator], caplog: pytest.LogCaptureFixture
) -> None:
    bias = opes()
    script = simulation(bias, make())
    assert thermostat_temperature(script.context) == pytest.approx(350.0, rel=1e-6)
    script.reporters.append(latf.BiasUpdater(CV, bias))
    script.step(4 * PACE)
    assert caplog.text.count(OTHER_TEMPERATURE) == 1
    assert "the simulation is at 350 K (kT = 2.91 kJ/mol), and its bias was made for 300 K" in caplog.text


def test_a_thermostat_of_the_system_counts_and_no_thermostat_does_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for kelvin in (None, 350.0):
        bias = opes()
        system = latf.add_bias(particles(), CV, bias)
        if kelvin is not None:
            system.addForce(openmm.AndersenThermostat(kelvin, 1.0))
        context = openmm.Context(system, openmm.VerletIntegrator(0.001))
        context.setPositions(START)
        assert thermostat_temperature(context) == kelvin
        latf.BiasUpdater(CV, bias).update(context)
        assert caplog.text.count(OTHER_TEMPERATURE) == (kelvin is not None)


def test_temperatures_that_fit_are_not_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for kelvin, walker_kT in ((300.0, None), (350.0, [350 * 0.00831446])):
            bias = opes()
            script = simulation(bias, openmm.LangevinMiddleIntegrator(kelvin, 1, 0.001))
            script.reporters.append(latf.BiasUpdater(CV, bias, walker_kT=walker_kT))
            script.step(2 * PACE)
    assert not caplog.records
