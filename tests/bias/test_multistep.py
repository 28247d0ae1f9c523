"""The bias every n-th step, and walkers at temperatures of their own: the ensemble, the cost, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from numpy.typing import NDArray
from openmm import app, unit
from scipy.linalg import solve_discrete_lyapunov

from latf_openmm.bias.biased_system import add_bias
from latf_openmm.bias.cv import torsion_cv
from latf_openmm.bias.multistep import MultistepStepper
from latf_openmm.bias.potentials.base import AdaptiveBias, cv_context
from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.bias.reporter import LatentReporter
from latf_openmm.bias.updater import BiasUpdater
from latf_openmm.errors import ConfigError
from latf_openmm.force_groups import BIAS_GROUP
from latf_openmm.sampling.langevin import langevin_integrator
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.units import KELVIN

Array = NDArray[np.float64]
TEMPERATURE = 300.0
FRICTION = 10.0
MASS = 12.0
WELL = 2000.0  # kJ/mol/nm^2
BIAS = 6000.0
PARTICLES = 300


def well(strength: float, n: int, group: int, name: str) -> openmm.CustomExternalForce:
    force = openmm.CustomExternalForce(f"0.5*well_{name}*(x*x+y*y+z*z)")
    force.addGlobalParameter(f"well_{name}", strength)
    force.setForceGroup(group)
    for index in range(n):
        force.addParticle(index, [])
    return force


def particles(n: int = PARTICLES) -> openmm.System:
    """Independent particles in a well of two equal parts, in groups 0 and 3, with a bias."""
    system = openmm.System()
    for _ in range(n):
        system.addParticle(MASS)
    system.addForce(well(0.5 * WELL, n, 0, "a"))
    system.addForce(well(0.5 * WELL, n, 3, "b"))
    bias = well(BIAS, n, BIAS_GROUP, "c")
    bias.setName("LatentBias")
    bias.setEnergyFunction("LatentBias_scale*" + bias.getEnergyFunction())
    bias.addGlobalParameter("LatentBias_scale", 1.0)
    system.addForce(bias)
    return system


def make_context(
    system: openmm.System, timestep: float, temperature: float = TEMPERATURE, seed: int = 1
) -> openmm.Context:
    integrator = openmm.LangevinMiddleIntegrator(temperature, FRICTION, timestep)
    integrator.setRandomNumberSeed(seed)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))


def stationary(timestep: float, n: int) -> Array:
    """Exact variances of x and v of one coordinate after `n` steps: the integrator is linear here."""

    def kick(strength: float) -> Array:
        return np.array([[1.0, 0.0], [-strength * timestep / MASS, 1.0]])

    kT = KELVIN.kT(TEMPERATURE)
    a = np.exp(-FRICTION * timestep)
    drift = np.array([[1.0, 0.5 * timestep], [0.0, 1.0]])
    move = drift @ np.diag([1.0, a]) @ drift
    noise = drift @ np.diag([0.0, (1 - a * a) * kT / MASS]) @ drift.T
    matrix, total = np.eye(2), np.zeros((2, 2))
    for index in range(n):
        step = move @ kick(WELL + (n * BIAS if index == 0 else 0.0))
        matrix, total = step @ matrix, step @ total @ step.T + noise
    return np.asarray(np.diag(solve_discrete_lyapunov(matrix, total)))


@pytest.mark.parametrize("between", [0.008, 0.032])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_distribution_in_a_harmonic_well(n: int, between: float) -> None:
    # omega of the bias is 22/ps: 0.18 and 0.72 between its evaluations.
    timestep = between / n
    ctx = make_context(particles(), timestep)
    stepper = MultistepStepper(ctx, n)
    ctx.setPositions(np.zeros((PARTICLES, 3)))
    ctx.setVelocitiesToTemperature(TEMPERATURE, 1)
    stepper.step(n * int(2.0 / between))
    sums, samples = np.zeros(2), 40
    for _ in range(samples):
        stepper.step(n * max(1, int(0.2 / between)))
        state = ctx.getState(positions=True, velocities=True)
        x, v = state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value
        sums += np.array([np.mean(x**2), np.mean(v**2)]) / samples
    np.testing.assert_allclose(sums, stationary(timestep, n), rtol=0.035)
    exact = KELVIN.kT(TEMPERATURE) / np.array([WELL + BIAS, MASS])
    if between == 0.008:
        np.testing.assert_allclose(sums[0], exact[0], rtol=0.04)


def test_the_error_grows_with_the_time_between_evaluations() -> None:
    exact = KELVIN.kT(TEMPERATURE) / (WELL + BIAS)
    inflation = [stationary(0.004, n)[0] / exact - 1 for n in (1, 2, 4, 8)]
    assert abs(inflation[0]) < 1e-9  # the positions of this integrator are exact in a harmonic well
    assert inflation == sorted(inflation)
    assert inflation[-1] > 0.05


class Counter:
    """A force on nothing that counts how often it is evaluated."""

    def __init__(self, group: int) -> None:
        self.calls = 0
        self.force = openmm.PythonForce(self.compute)
        self.force.setForceGroup(group)

    def compute(self, state: openmm.State) -> tuple[float, Array]:
        self.calls += 1
        return 0.0, np.zeros((2, 3))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_what_is_evaluated_how_often(n: int) -> None:
    system, steps = particles(2), 12
    bias, others = Counter(BIAS_GROUP), [Counter(0), Counter(3)]
    bias.force.setName("LatentBias")
    for counter in (bias, *others):
        system.addForce(counter.force)
    ctx = make_context(system, 0.001)
    ctx.setPositions(np.zeros((2, 3)))
    stepper = MultistepStepper(ctx, n)
    for part in (1, 4, 2, 5):  # in whatever portions
        stepper.step(part)
    assert bias.calls == steps // n
    assert [counter.calls for counter in others] == [steps, steps]
    assert stepper.getStepSize() == 0.001 * unit.picosecond  # all else is the integrator's
    assert ctx.getParameter("LatentBias_scale") == 1.0
    bias.calls = 0
    ctx.getState(energy=True)
    assert bias.calls == 1
    assert ctx.getStepCount() == steps
    assert ctx.getState().getTime()._value == pytest.approx(steps * 0.001)


def test_a_restart_between_two_evaluations_is_exact() -> None:
    system = particles(3)

    def start() -> openmm.Context:
        return make_context(system, 0.004, seed=4)

    ctx = start()
    ctx.setPositions(np.full((3, 3), 0.1))
    ctx.setVelocitiesToTemperature(TEMPERATURE, 2)
    MultistepStepper(ctx, 3).step(10)
    checkpoint = ctx.createCheckpoint()
    # One after the other: the contexts of a process share one source of noise on Reference.
    MultistepStepper(ctx, 3).step(11)
    end = ctx.getState(positions=True).getPositions(asNumpy=True)._value
    other = start()
    other.loadCheckpoint(checkpoint)
    MultistepStepper(other, 3).step(11)
    np.testing.assert_array_equal(other.getState(positions=True).getPositions(asNumpy=True)._value, end)


def test_every_particle_at_a_temperature_of_its_own() -> None:
    kelvin = np.repeat([200.0, 300.0, 600.0], PARTICLES // 3)
    integrator = langevin_integrator(kelvin, FRICTION, 0.004)
    integrator.setRandomNumberSeed(1)
    ctx = openmm.Context(particles(), integrator, openmm.Platform.getPlatformByName("Reference"))
    ctx.setPositions(np.zeros((PARTICLES, 3)))
    integrator.step(400)
    sums, samples = np.zeros(PARTICLES), 80
    for _ in range(samples):
        integrator.step(50)
        x = ctx.getState(positions=True).getPositions(asNumpy=True)._value
        sums += (x**2).mean(axis=1) / samples
    exact = KELVIN.boltzmann * np.array([200.0, 300.0, 600.0]) / (WELL + BIAS)
    np.testing.assert_allclose(sums.reshape(3, -1).mean(axis=1), exact, rtol=0.04)


def test_constraints_hold() -> None:
    n = 100
    system = particles(n)
    for first in range(0, n, 2):
        system.addConstraint(first, first + 1, 0.15)
    integrator = langevin_integrator([TEMPERATURE] * n, FRICTION, 0.002)
    integrator.setRandomNumberSeed(1)
    ctx = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    ctx.setPositions(np.tile([[-0.075, 0.0, 0.0], [0.075, 0.0, 0.0]], (n // 2, 1)))
    ctx.setVelocitiesToTemperature(TEMPERATURE, 1)
    integrator.step(500)
    temperatures = []
    for _ in range(100):
        integrator.step(10)
        state = ctx.getState(positions=True, velocities=True, energy=True)
        bond = np.diff(state.getPositions(asNumpy=True)._value.reshape(-1, 2, 3), axis=1)[:, 0]
        relative = np.diff(state.getVelocities(asNumpy=True)._value.reshape(-1, 2, 3), axis=1)[:, 0]
        np.testing.assert_allclose(np.linalg.norm(bond, axis=1), 0.15, rtol=1e-4)
        assert np.abs((bond * relative).sum(1)).max() < 0.05  # exact after the next kick
        temperatures.append(state.getKineticEnergy()._value / (0.5 * (3 * n - n // 2) * KELVIN.boltzmann))
    assert np.mean(temperatures) == pytest.approx(TEMPERATURE, rel=0.05)


def test_one_temperature_is_the_langevin_middle_integrator() -> None:
    system = particles(5)
    ends = []
    for kind in ("native", "custom"):
        integrator = (
            openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, 0.004)
            if kind == "native"
            else langevin_integrator([TEMPERATURE] * 5, FRICTION / unit.picosecond, 4 * unit.femtosecond)
        )
        integrator.setRandomNumberSeed(1)
        ctx = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
        ctx.setPositions(np.full((5, 3), 0.2))
        ctx.setVelocities(np.zeros((5, 3)))
        integrator.step(1)  # the first kick, half a drift; the noise is another one
        ends.append(ctx.getState(positions=True).getPositions(asNumpy=True)._value.mean())
    assert ends[0] == pytest.approx(ends[1], abs=0.02)
    assert 0.1 < ends[0] < 0.2


def simulated() -> tuple[app.Simulation, Any]:
    """Alanine dipeptide with a restraint for multiple time stepping."""
    built = AlanineDipeptideSettings().build()
    cv = torsion_cv([(4, 6, 8, 14), (6, 8, 14, 16)], built.n_atoms)
    bias = HarmonicSettings(centre=[-1.4, 1.2], force_constant=20.0).build(
        cv_context(cv.periods.tolist(), 300.0)
    )
    system = add_bias(built.system, cv, bias, multistep=True)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(built.topology, system, integrator, platform)
    simulation.context.setPositions(built.positions[0])
    return simulation, cv


def test_in_the_place_of_the_integrator_of_a_simulation(tmp_path: Path) -> None:
    simulation, cv = simulated()
    simulation.minimizeEnergy(maxIterations=20)
    simulation.integrator = MultistepStepper(simulation.context, every=2)
    simulation.reporters.append(LatentReporter(tmp_path / "z.csv", 5, cv))
    simulation.step(23)
    assert simulation.currentStep == 23
    rows = np.loadtxt(tmp_path / "z.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(rows[:, 0], [5, 10, 15, 20])
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("forces", ["traced", "autograd"])
@pytest.mark.parametrize("backend", ["compiled", "torchforce", "python"])
def test_the_scale_multiplies_the_forces(backend: Any, forces: Any) -> None:
    if backend != "torchforce" and forces == "autograd":
        return
    built = AlanineDipeptideSettings().build()
    cv = torsion_cv([(4, 6, 8, 14)], built.n_atoms)
    bias = OpesSettings(sigma=0.3, barrier=20.0, pace=5).build(cv_context(cv.periods.tolist(), 300.0))
    assert isinstance(bias, AdaptiveBias)
    system = add_bias(built.system, cv, bias, multistep=True, backend=backend, forces=forces)
    ctx = make_context(system, 0.002)
    ctx.setPositions(built.positions[0])
    updater, stepper = BiasUpdater(cv, bias), MultistepStepper(ctx, 3)
    for _ in range(4):
        stepper.step(5)
        updater.update(ctx)
    found = []
    for scale in (1.0, 3.0):
        ctx.setParameter("LatentBias_scale", scale)
        state = ctx.getState(energy=True, forces=True, groups={BIAS_GROUP})
        found.append((state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value))
    energy = float(bias(updater.variables(ctx)))
    assert found[0][0] == pytest.approx(energy, rel=1e-12)
    assert found[1][0] == pytest.approx(energy if forces == "traced" else 3 * energy, rel=1e-12)
    np.testing.assert_allclose(found[1][1], 3.0 * found[0][1], rtol=1e-12)
    assert np.abs(found[0][1]).max() > 1.0


@pytest.mark.parametrize("every", [0, 1.5])
def test_steps_between_evaluations_are_an_integer(every: Any) -> None:
    with pytest.raises(ConfigError, match=f"every: expected an integer of 1 or more, got {every}"):
        MultistepStepper(make_context(particles(1), 0.002), every)


def test_a_bias_that_was_not_made_for_it() -> None:
    ctx = make_context(particles(1), 0.002)
    with pytest.raises(ConfigError, match=r"no bias of the name 'Other' .* add_bias\(..., multistep=True\)"):
        MultistepStepper(ctx, 2, name="Other")
    integrator = langevin_integrator([300.0], 1.0, 0.002)
    ctx = openmm.Context(particles(1), integrator, openmm.Platform.getPlatformByName("Reference"))
    with pytest.raises(ConfigError, match="CustomIntegrator evaluates the same forces at every step"):
        MultistepStepper(ctx, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([300.0, -1.0], 1.0, 0.002), r"kelvin\[1\]: must be above 0, got -1"),
        (([300.0], -1.0, 0.002), "friction: must be above 0, got -1"),
        (([300.0], 1.0, 0 * unit.femtosecond), "timestep: must be above 0, got 0"),
    ],
)
def test_bad_numbers(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        langevin_integrator(*given)
