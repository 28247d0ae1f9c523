"""Seven Lennard-Jones particles in two dimensions, reduced units, with a stated confining wall."""

from itertools import combinations
from typing import ClassVar, Literal

import numpy as np
import openmm
from pydantic import Field

from latf_openmm.systems.base import BuiltSystem, SystemSettings, flat_force, particle_topology
from latf_openmm.units import REDUCED, TemperatureScale

N_PARTICLES = 7
"""Number of particles of the cluster."""


class LJ7Settings(SystemSettings):
    """The 2-D LJ7 cluster: epsilon = sigma = mass = 1, all 21 pairs as bonds.

    The wall 0.5 k (d - R)^2 acts on each particle's distance d from the cluster's own centroid where
    d > R. It keeps the cluster from evaporating at the higher temperatures, and it is part of the physics:
    another radius is another system.
    """

    batched: ClassVar[bool] = True
    title: ClassVar[str] = "2-D cluster of seven Lennard-Jones particles, reduced units"

    kind: Literal["lj7"] = "lj7"
    wall_radius: float = Field(2.0, gt=1.2, description="radius R of the confining wall [sigma]")
    wall_strength: float = Field(100.0, gt=0, description="wall constant k [epsilon/sigma^2]")
    flatness: float = Field(100.0, gt=0, description="constant of the z^2 restraint [epsilon/sigma^2]")

    @property
    def scale(self) -> TemperatureScale:
        """Reduced temperature."""
        return REDUCED

    def build(self, copies: int = 1) -> BuiltSystem:
        """Independent clusters, each started as the hexagon with a particle in its middle."""
        system = openmm.System()
        pairs = openmm.CustomBondForce("4*(r^(-12) - r^(-6))")
        pairs.setName("LennardJones")
        for copy in range(copies):
            for _ in range(N_PARTICLES):
                system.addParticle(1.0)
            for i, j in combinations(range(N_PARTICLES), 2):
                pairs.addBond(copy * N_PARTICLES + i, copy * N_PARTICLES + j, [])
        system.addForce(pairs)
        system.addForce(self._wall(copies))
        system.addForce(flat_force(self.flatness, copies * N_PARTICLES))
        angle = np.arange(6) * np.pi / 3
        hexagon = np.zeros((N_PARTICLES, 3))
        hexagon[1:, 0], hexagon[1:, 1] = 1.115 * np.cos(angle), 1.115 * np.sin(angle)
        positions = np.repeat(hexagon[None], copies, axis=0)
        return BuiltSystem("lj7", particle_topology(N_PARTICLES, "LJ7"), system, positions, REDUCED)

    def _wall(self, copies: int) -> openmm.CustomCentroidBondForce:
        wall = openmm.CustomCentroidBondForce(2, "0.5*wall_strength*max(0, distance(g1,g2) - wall_radius)^2")
        wall.setName("Wall")
        wall.addGlobalParameter("wall_strength", self.wall_strength)
        wall.addGlobalParameter("wall_radius", self.wall_radius)
        for copy in range(copies):
            members = list(range(copy * N_PARTICLES, (copy + 1) * N_PARTICLES))
            centroid = wall.addGroup(members)
            for particle in members:
                wall.addBond([wall.addGroup([particle]), centroid], [])
        return wall
