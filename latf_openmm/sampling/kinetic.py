"""Kinetic temperatures, from the part of the velocities that degrees of freedom have.

Noise and friction act on all components of the velocities. Those along constraints and, with a `CMMotionRemover`,
that of the centre of mass are taken away only later in a step, so that velocities between steps hold some of them, of
relative size 1 - exp(-2 gamma dt): 0.8 % at a friction gamma of 1/ps and a time step dt of 4 fs, 55 % at 100/ps. They
are not counted as degrees of freedom, so they are removed before kinetic energies are taken.
`openmm.State.getKineticEnergy` does not remove them.

What is left is small: the velocities of `openmm.LangevinMiddleIntegrator` are those half a step before the positions,
whose distribution in a harmonic well is exact at every time step that is stable, as that of the positions is. Alanine
dipeptide at 300 K (12 constraints, hydrogens of 1.008 amu), steps of 4 fs, mean and standard error of 1.2 ns at a
friction of 10/ps: 300.5 +- 0.3 K, and 303.7 +- 0.3 K from the velocities as they are; of 1.5 ns at 1/ps: 301.2 +- 1.9 K
and 302.0 +- 1.9 K; 300.9 +- 1.3 K and 301.2 +- 1.3 K with steps of 2 fs (1 ns). So where 600 ps at 4 fs and 1/ps read
304.6 K, 0.8 K are parts along constraints, about 0.5 K the time step, and the rest is chance: the standard error of
such a mean is 3 K.
"""

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from latf_openmm.sampling.contexts import PlatformChoice
from latf_openmm.systems.copies import masses_of
from latf_openmm.systems.inspection import degrees_of_freedom, has_motion_remover
from latf_openmm.units import GAS_CONSTANT

Array = NDArray[np.float64]
_TOLERANCE = 1e-6
"""Relative tolerance of constraints on velocities."""
_VELOCITY = unit.nanometer / unit.picosecond
"""Unit of velocities."""


class KineticTemperature:
    """Measures the kinetic temperature of each copy in a System, without touching the simulation.

    Parameters
    ----------
    system
        Of `n_copies` independent copies.

    Attributes
    ----------
    freedom
        Degrees of freedom of one copy.
    """

    def __init__(self, system: openmm.System, n_copies: int = 1) -> None:
        self.n_copies = n_copies
        self.masses = masses_of(system)
        self.freedom = degrees_of_freedom(system) / n_copies
        self.centred = has_motion_remover(system)
        self.constrained = _only_constraints(system)

    def __call__(self, state: openmm.State) -> Array:
        """Kinetic temperature of each copy, shape (n_copies,) [K]; the State has positions and velocities."""
        velocities = self.velocities(state)
        energies = (0.5 * self.masses[:, None] * velocities**2).reshape(self.n_copies, -1).sum(axis=1)
        return np.asarray(2.0 * energies / (self.freedom * GAS_CONSTANT))

    def velocities(self, state: openmm.State) -> Array:
        """Velocities without parts along constraints and of a centre of mass at rest, shape (n, 3) [nm/ps]."""
        if self.constrained is not None:
            self.constrained.setPositions(state.getPositions(asNumpy=True))
            self.constrained.setVelocities(state.getVelocities(asNumpy=True))
            self.constrained.applyVelocityConstraints(_TOLERANCE)
            state = self.constrained.getState(velocities=True)
        velocities = np.array(state.getVelocities(asNumpy=True).value_in_unit(_VELOCITY))
        moving = self.masses > 0
        if self.centred:
            velocities[moving] -= np.average(velocities[moving], axis=0, weights=self.masses[moving])
        return velocities


def _only_constraints(system: openmm.System) -> openmm.Context | None:
    """Context of the particles and their constraints, without forces; None where there are none."""
    if system.getNumConstraints() == 0:
        return None
    bare = openmm.System()
    for mass in masses_of(system):
        bare.addParticle(mass)
    for index in range(system.getNumConstraints()):
        bare.addConstraint(*system.getConstraintParameters(index))
    return PlatformChoice("Reference").context(bare)
