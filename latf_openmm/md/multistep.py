"""Langevin dynamics with the bias only every few steps, and with walkers at temperatures of their own."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import openmm
from openmm import unit

from latf_openmm.errors import ConfigError
from latf_openmm.md.biased_system import BIAS_GROUP
from latf_openmm.units import KELVIN, plain


def multistep_integrator(
    system: openmm.System,
    temperature: Any,
    friction: Any,
    timestep: Any,
    bias_every: int,
    group: int = BIAS_GROUP,
) -> openmm.CustomIntegrator:
    """Return a Langevin integrator that evaluates the bias at every `bias_every`-th step.

    The steps are those of `openmm.LangevinMiddleIntegrator` (kick, constraints, half a drift, friction and noise,
    half a drift, constraints); at every `bias_every`-th of them the kick has `bias_every` times the force of the
    bias, at the others none of it. So a step costs one evaluation of everything else, always, and
    `openmm.MTSLangevinIntegrator`, which needs one more for each evaluation of the slow force, costs more where
    the bias is the cheap part. Steps are counted as ever: by reporters, the pace of an adaptive bias, barostats.

    Parameters
    ----------
    system
        A System that `add_bias` returned.
    temperature
        In kelvin, or an OpenMM quantity; or one number [K] for each particle.
    friction
        In 1/ps, or an OpenMM quantity.
    timestep
        In ps, or an OpenMM quantity.
    bias_every
        Steps between evaluations of the bias; 1: at every step, like all other forces.
    group
        Force group of the bias.

    Raises
    ------
    ConfigError
        If no force is in that group, or one of the numbers makes no sense.

    Notes
    -----
    A stiff bias limits the time between its evaluations: with curvature k and omega^2 = k sum_i |dz/dx_i|^2 / m_i
    it is unstable above omega * time of about 2. ``docs/benchmarks/biasing.md`` has what was measured.
    """
    if not isinstance(bias_every, Integral) or bias_every < 1:
        raise ConfigError(f"bias_every: expected an integer of 1 or more, got {bias_every!r}")
    kelvin = _temperatures(system, temperature)
    numbers = {"friction": plain(friction, unit.picosecond**-1), "timestep": plain(timestep, unit.picosecond)}
    for name, value in numbers.items():
        if not value > 0:
            raise ConfigError(f"{name}: must be above 0, got {value:g}")
    groups = force_groups(system)
    if group not in groups:
        there = ", ".join(map(str, sorted(groups))) or "none"
        raise ConfigError(
            f"the System has no force in group {group}, where the bias should be; groups: {there}"
        )
    return _integrator(kelvin, numbers["friction"], numbers["timestep"], int(bias_every), group)


def _temperatures(system: openmm.System, temperature: Any) -> list[float]:
    """One temperature for all particles, or one each [K]."""
    if isinstance(temperature, Sequence) or (isinstance(temperature, np.ndarray) and temperature.ndim):
        kelvin = [float(one) for one in temperature]
        if len(kelvin) != system.getNumParticles():
            raise ConfigError(
                f"temperature: {len(kelvin)} values for the {system.getNumParticles()} particles of the System"
            )
    else:
        kelvin = [plain(temperature, unit.kelvin)]
    for one in kelvin:
        if not one > 0:
            raise ConfigError(f"temperature: must be above 0, got {one:g}")
    return kelvin


def _integrator(
    kelvin: list[float], friction: float, timestep: float, every: int, group: int
) -> openmm.CustomIntegrator:
    made = openmm.CustomIntegrator(timestep)
    decay = float(np.exp(-friction * timestep))
    made.addGlobalVariable("a", decay)
    made.addGlobalVariable("b", float(np.sqrt(1.0 - decay * decay)))
    if len(kelvin) == 1:
        made.addGlobalVariable("kT", KELVIN.kT(kelvin[0]))
    else:
        made.addPerDofVariable("kT", 0.0)
        made.setPerDofVariableByName("kT", [openmm.Vec3(*[KELVIN.kT(one)] * 3) for one in kelvin])
    made.addPerDofVariable("before", 0.0)
    made.addUpdateContextState()
    if every > 1:
        made.setIntegrationForceGroups(set(range(32)) - {group})  # what is called f below
        made.addGlobalVariable("every", float(every))
        made.addGlobalVariable("phase", 0.0)
        made.beginIfBlock("phase = 0")
        made.addComputePerDof("v", f"v + dt*every*f{group}/m")
        made.endBlock()
        made.addComputeGlobal("phase", "select(step(phase + 1.5 - every), 0, phase + 1)")
    made.addComputePerDof("v", "v + dt*f/m")
    made.addConstrainVelocities()
    made.addComputePerDof("x", "x + 0.5*dt*v")
    made.addComputePerDof("v", "a*v + b*sqrt(kT/m)*gaussian")
    made.addComputePerDof("x", "x + 0.5*dt*v")
    made.addComputePerDof("before", "x")
    made.addConstrainPositions()
    made.addComputePerDof("v", "v + (x - before)/dt")
    return made


def force_groups(system: openmm.System) -> set[int]:
    """Force groups in use, those of reciprocal-space sums included."""
    groups = set()
    for force in system.getForces():
        groups.add(force.getForceGroup())
        if isinstance(force, openmm.NonbondedForce) and force.getReciprocalSpaceForceGroup() >= 0:
            groups.add(force.getReciprocalSpaceForceGroup())
    return groups
