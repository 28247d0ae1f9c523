"""The bias every n-th step: the ensemble, how often it is evaluated, what is refused."""

from typing import Any

import numpy as np
import openmm
import pytest
from numpy.typing import NDArray
from openmm import unit
from scipy.linalg import solve_discrete_lyapunov

from latf_openmm.errors import ConfigError
from latf_openmm.md.biased_system import BIAS_GROUP
from latf_openmm.md.multistep import force_groups, multistep_integrator
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
    system.addForce(well(BIAS, n, BIAS_GROUP, "c"))
    return system


def make_context(system: openmm.System, integrator: openmm.Integrator) -> openmm.Context:
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
    integrator = multistep_integrator(particles(), TEMPERATURE, FRICTION, timestep, n)
    assert integrator.getStepSize()._value == pytest.approx(timestep)
    integrator.setRandomNumberSeed(1)
    ctx = make_context(particles(), integrator)
    ctx.setPositions(np.zeros((PARTICLES, 3)))
    ctx.setVelocitiesToTemperature(TEMPERATURE, 1)
    integrator.step(n * int(2.0 / between))
    sums, samples = np.zeros(2), 40
    for _ in range(samples):
        integrator.step(n * max(1, int(0.2 / between)))
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
    for counter in (bias, *others):
        system.addForce(counter.force)
    integrator = multistep_integrator(system, TEMPERATURE, FRICTION, 0.001, n)
    ctx = make_context(system, integrator)
    ctx.setPositions(np.zeros((2, 3)))
    integrator.step(steps)
    assert bias.calls == steps // n
    assert [counter.calls for counter in others] == [steps, steps]
    assert ctx.getStepCount() == steps
    assert ctx.getState().getTime()._value == pytest.approx(steps * 0.001)


def test_a_restart_between_two_evaluations_is_exact() -> None:
    system = particles(3)

    def start() -> openmm.Context:
        integrator = multistep_integrator(system, TEMPERATURE, FRICTION, 0.004, 3)
        integrator.setRandomNumberSeed(4)
        return make_context(system, integrator)

    ctx = start()
    ctx.setPositions(np.full((3, 3), 0.1))
    ctx.setVelocitiesToTemperature(TEMPERATURE, 2)
    ctx.getIntegrator().step(10)
    checkpoint = ctx.createCheckpoint()
    # One after the other: the contexts of a process share one source of noise on Reference.
    ctx.getIntegrator().step(11)
    end = ctx.getState(positions=True).getPositions(asNumpy=True)._value
    other = start()
    other.loadCheckpoint(checkpoint)
    other.getIntegrator().step(11)
    np.testing.assert_array_equal(other.getState(positions=True).getPositions(asNumpy=True)._value, end)


def test_every_particle_at_a_temperature_of_its_own() -> None:
    kelvin = np.repeat([200.0, 300.0, 600.0], PARTICLES // 3)
    integrator = multistep_integrator(particles(), kelvin, FRICTION, 0.004, 2)
    integrator.setRandomNumberSeed(1)
    ctx = make_context(particles(), integrator)
    ctx.setPositions(np.zeros((PARTICLES, 3)))
    integrator.step(400)
    sums, samples = np.zeros(PARTICLES), 80
    for _ in range(samples):
        integrator.step(50)
        x = ctx.getState(positions=True).getPositions(asNumpy=True)._value
        sums += (x**2).mean(axis=1) / samples
    exact = KELVIN.boltzmann * np.array([200.0, 300.0, 600.0]) / (WELL + BIAS)
    np.testing.assert_allclose(sums.reshape(3, -1).mean(axis=1), exact, rtol=0.04)


@pytest.mark.parametrize("n", [1, 2])
def test_virtual_sites_are_where_they_belong(n: int) -> None:
    """A bias on the middle of a rigid pair, against the same force on its ends."""
    variances = []
    for virtual in (True, False):
        system = openmm.System()
        for mass in (MASS, MASS, 0.0):
            system.addParticle(mass)
        system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
        system.addConstraint(0, 1, 0.1)
        force = openmm.CustomCompoundBondForce(
            3,
            f"0.5*{BIAS}*pointdistance({'x3,y3,z3' if virtual else '(x1+x2)/2,(y1+y2)/2,(z1+z2)/2'},0,0,0)^2",
        )
        force.addBond([0, 1, 2], [])
        force.setForceGroup(BIAS_GROUP)
        system.addForce(force)
        integrator = multistep_integrator(system, TEMPERATURE, FRICTION, 0.002, n)
        integrator.setRandomNumberSeed(1)
        ctx = make_context(system, integrator)
        ctx.setPositions([[-0.05, 0, 0], [0.05, 0, 0], [0, 0, 0]])
        ctx.setVelocitiesToTemperature(TEMPERATURE, 1)
        middles = []
        for _ in range(300):
            integrator.step(5)
            x = ctx.getState(positions=True).getPositions(asNumpy=True)._value
            np.testing.assert_allclose(x[2], x[:2].mean(axis=0), atol=1e-12)
            middles.append(x[2])
        variances.append(middles)
    np.testing.assert_allclose(variances[0], variances[1], atol=1e-6)


def test_constraints_hold() -> None:
    n = 100
    system = particles(n)
    for first in range(0, n, 2):
        system.addConstraint(first, first + 1, 0.15)
    integrator = multistep_integrator(system, TEMPERATURE, FRICTION, 0.002, 4)
    integrator.setRandomNumberSeed(1)
    ctx = make_context(system, integrator)
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


def test_quantities_are_understood() -> None:
    system = particles(1)
    plain = multistep_integrator(system, 300.0, 2.0, 0.002, 4)
    quantities = multistep_integrator(
        system, 300.0 * unit.kelvin, 0.002 / unit.femtosecond, 2.0 * unit.femtosecond, 4
    )
    assert plain.getStepSize() == quantities.getStepSize() == 0.002 * unit.picosecond
    for name in ("a", "b", "kT"):
        assert plain.getGlobalVariableByName(name) == pytest.approx(quantities.getGlobalVariableByName(name))


def test_every_group_in_use_is_found() -> None:
    system = particles(2)
    nonbonded = openmm.NonbondedForce()
    nonbonded.setForceGroup(5)
    system.addForce(nonbonded)
    assert force_groups(system) == {0, 3, 5, BIAS_GROUP}
    nonbonded = system.getForce(3)
    nonbonded.setReciprocalSpaceForceGroup(7)
    assert force_groups(system) == {0, 3, 5, 7, BIAS_GROUP}


@pytest.mark.parametrize("group", [0, BIAS_GROUP])
def test_a_bias_alone(group: int) -> None:
    system = openmm.System()
    system.addParticle(MASS)
    system.addForce(well(BIAS, 1, group, "c"))
    integrator = multistep_integrator(system, TEMPERATURE, FRICTION, 0.002, 4, group)
    ctx = make_context(system, integrator)
    ctx.setPositions([[0.1, 0.0, 0.0]])
    integrator.step(100)
    assert 0 < ctx.getState(energy=True).getPotentialEnergy()._value < 100


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "never": ({"bias_every": 0}, "bias_every: expected an integer of 1 or more, got 0"),
    "half": ({"bias_every": 1.5}, "bias_every: expected an integer of 1 or more, got 1.5"),
    "cold": ({"temperature": 0.0}, "temperature: must be above 0, got 0"),
    "some cold": ({"temperature": [300.0, -1.0]}, "temperature: must be above 0, got -1"),
    "one too few": ({"temperature": [300.0]}, "temperature: 1 values for the 2 particles"),
    "frictionless": ({"friction": -1.0}, "friction: must be above 0, got -1"),
    "no time": ({"timestep": 0 * unit.femtosecond}, "timestep: must be above 0, got 0"),
    "no bias": ({"group": 30}, "no force in group 30, where the bias should be; groups: 0, 3, 31"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case: str) -> None:
    change, expected = BAD[case]
    arguments = {"temperature": 300.0, "friction": 2.0, "timestep": 0.002, "bias_every": 2} | change
    with pytest.raises(ConfigError, match=expected):
        multistep_integrator(particles(2), **arguments)


def test_nothing_in_the_system() -> None:
    with pytest.raises(ConfigError, match=r"no force in group 31, .*groups: none"):
        multistep_integrator(openmm.System(), 300.0, 2.0, 0.002, 2)
