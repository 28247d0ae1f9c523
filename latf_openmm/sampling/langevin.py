"""Langevin dynamics of walkers at temperatures of their own, in one Context."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from latf_openmm.errors import ConfigError
from latf_openmm.units import KELVIN, plain


def langevin_integrator(
    kelvin: Sequence[float] | NDArray[np.float64], friction: Any, timestep: Any
) -> openmm.CustomIntegrator:
    """Return `openmm.LangevinMiddleIntegrator`'s steps with a temperature for each particle.

    Parameters
    ----------
    kelvin
        One temperature for each particle [K].
    friction
        In 1/ps, or an OpenMM quantity.
    timestep
        In ps, or an OpenMM quantity.

    Raises
    ------
    ConfigError
        If a number is not above 0.

    Notes
    -----
    The steps: kick, constraints, half a drift, friction and noise, half a drift, constraints (Zhang et al., J. Phys.
    Chem. A 2019). As a CustomIntegrator they take longer: on the CPU platform 40 microseconds more for 166 atoms.
    Another time step is set by `latf_openmm.sampling.langevin.set_timestep`, not by the integrator's own `setStepSize`.
    """
    numbers = {
        "friction": plain(friction, unit.picosecond**-1, "friction"),
        "timestep": plain(timestep, unit.picosecond, "timestep"),
    }
    numbers |= {f"kelvin[{index}]": float(temperature) for index, temperature in enumerate(kelvin)}
    for name, value in numbers.items():
        if not value > 0:
            raise ConfigError(f"{name}: must be above 0, got {value:g}")
    integrator = openmm.CustomIntegrator(numbers["timestep"])
    integrator.addGlobalVariable("friction", numbers["friction"])
    integrator.addGlobalVariable("a", 0.0)
    integrator.addGlobalVariable("b", 0.0)
    set_timestep(integrator, numbers["timestep"])
    integrator.addPerDofVariable("kT", 0.0)
    set_temperatures(integrator, kelvin)
    integrator.addPerDofVariable("before", 0.0)
    integrator.addUpdateContextState()
    integrator.addComputePerDof("v", "v + dt*f/m")
    integrator.addConstrainVelocities()
    integrator.addComputePerDof("x", "x + 0.5*dt*v")
    integrator.addComputePerDof("v", "a*v + b*sqrt(kT/m)*gaussian")
    integrator.addComputePerDof("x", "x + 0.5*dt*v")
    integrator.addComputePerDof("before", "x")
    integrator.addConstrainPositions()
    integrator.addComputePerDof("v", "v + (x - before)/dt")
    return integrator


def set_temperatures(
    integrator: openmm.CustomIntegrator, kelvin: Sequence[float] | NDArray[np.float64]
) -> None:
    """Change the temperature of each particle [K] of an integrator that `langevin_integrator` made."""
    values = [openmm.Vec3(*[KELVIN.kT(temperature)] * 3) for temperature in kelvin]
    integrator.setPerDofVariableByName("kT", values)


def set_timestep(integrator: openmm.Integrator, timestep: float) -> None:
    """Change the time step [ps] of any integrator, also of one that `langevin_integrator` made."""
    integrator.setStepSize(timestep)
    if isinstance(integrator, openmm.CustomIntegrator):
        decay = float(np.exp(-integrator.getGlobalVariableByName("friction") * timestep))
        integrator.setGlobalVariableByName("a", decay)
        integrator.setGlobalVariableByName("b", float(np.sqrt(1.0 - decay * decay)))


def draw_velocities(context: openmm.Context, kelvin: NDArray[np.float64], seed: int) -> None:
    """Draw velocities at a temperature for each particle [K], equal for particles that constraints connect."""
    reference = float(kelvin.max())
    context.setVelocitiesToTemperature(reference, seed)
    if (kelvin != reference).any():
        state = context.getState(velocities=True)
        drawn = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)
        context.setVelocities(drawn * np.sqrt(kelvin / reference)[:, None])
