"""The two-dimensional three-hole potential: one particle in an external field, reduced units."""

from typing import ClassVar, Literal

import numpy as np
import openmm
from numpy.typing import NDArray
from pydantic import Field

from latf_openmm.systems.base import (
    BuiltSystem,
    SystemSettings,
    WeightedConfigurations,
    flat_force,
    particle_topology,
)
from latf_openmm.units import REDUCED, TemperatureScale

_EXPRESSION = (
    "3*exp(-x^2-(y-1/3)^2) - 3*exp(-x^2-(y-5/3)^2) - 5*exp(-(x-1)^2-y^2) - 5*exp(-(x+1)^2-y^2)"
    " + 0.2*x^4 + 0.2*(y-1/3)^4"
)
"""The potential as an OpenMM expression, in reduced units."""


def three_hole_potential(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """V(x, y) in reduced units, the potential of Metzner, Schütte and Vanden-Eijnden (2006).

    Examples
    --------
    >>> round(float(three_hole_potential(np.array(1.0), np.array(0.0))), 2)
    -3.97
    """
    return np.asarray(
        3 * np.exp(-(x**2) - (y - 1 / 3) ** 2)
        - 3 * np.exp(-(x**2) - (y - 5 / 3) ** 2)
        - 5 * np.exp(-((x - 1) ** 2) - y**2)
        - 5 * np.exp(-((x + 1) ** 2) - y**2)
        + 0.2 * x**4
        + 0.2 * (y - 1 / 3) ** 4
    )


class ThreeHoleSettings(SystemSettings):
    """One particle in the three-hole potential; the z coordinate is held by `flatness` z^2."""

    batched: ClassVar[bool] = True
    title: ClassVar[str] = "2-D three-hole potential, one particle, reduced units"

    kind: Literal["three_hole"] = "three_hole"
    flatness: float = Field(100.0, gt=0, description="constant of the z^2 restraint [energy/length^2]")

    @property
    def scale(self) -> TemperatureScale:
        """Reduced temperature."""
        return REDUCED

    def build(self, copies: int = 1) -> BuiltSystem:
        """Independent particles; starts alternate between the two deep wells and the shallow one."""
        system = openmm.System()
        force = openmm.CustomExternalForce(_EXPRESSION)
        force.setName("ThreeHole")
        for index in range(copies):
            system.addParticle(1.0)
            force.addParticle(index, [])
        system.addForce(force)
        system.addForce(flat_force(self.flatness, copies))
        wells = np.array([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.6, 0.0]])
        positions = wells[np.arange(copies) % 3][:, None, :]
        return BuiltSystem("three_hole", particle_topology(1, "HOL"), system, positions, REDUCED)

    def exact_ensemble(self, temperature: float) -> WeightedConfigurations:
        """Grid quadrature over [-3.2, 3.2] x [-2.9, 3.5] with spacing 0.005."""
        x, y = np.meshgrid(_middles(-3.2, 3.2), _middles(-2.9, 3.5))
        energy = three_hole_potential(x, y).ravel()
        weights = np.exp(-(energy - energy.min()) / REDUCED.kT(temperature))
        positions = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)[:, None, :]
        return WeightedConfigurations(positions, weights / weights.sum())


def _middles(low: float, high: float, spacing: float = 0.005) -> NDArray[np.float64]:
    n = round((high - low) / spacing)
    return np.asarray(low + spacing * (np.arange(n) + 0.5), dtype=np.float64)
