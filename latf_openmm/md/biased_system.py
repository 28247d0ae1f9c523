"""Put a bias into a System: always into a deep copy, in a force group of its own."""

import copy
from typing import Any

import openmm
from openmm import unit

from latf_openmm.errors import ModelError
from latf_openmm.md.backends import make_force
from latf_openmm.md.bias import Bias
from latf_openmm.md.bias_energy import BiasEnergy
from latf_openmm.md.cv import CollectiveVariables

BIAS_GROUP = 31


def add_bias(
    system: openmm.System,
    cv: CollectiveVariables,
    bias: Bias,
    *,
    n_copies: int = 1,
    group: int = BIAS_GROUP,
    **force_options: Any,
) -> openmm.System:
    """Return a copy of `system` with the bias V(cv(positions)) as one force.

    Parameters
    ----------
    system
        Not changed.
    cv, bias
        Collective variables, and the potential on them.
    n_copies
        Independent copies that `system` holds, one after the other.
    group
        Force group of the bias, so that its energy can be asked for alone.
    force_options
        Passed to `make_force`: ``backend``, ``forces``, ``multistep``, ``name``.

    Raises
    ------
    ModelError
        If `system` does not have the number of particles the collective variables were made for, or its box
        is smaller than twice a cutoff.
    """
    expected = n_copies * cv.n_atoms
    if system.getNumParticles() != expected:
        raise ModelError(
            f"the collective variables are for {cv.n_atoms} atoms x {n_copies} copies = {expected} particles, "
            f"the System has {system.getNumParticles()}"
        )
    _check_box(system)
    periodic = bool(system.usesPeriodicBoundaryConditions())
    force = make_force(BiasEnergy(cv, bias, n_copies), periodic=periodic, **force_options)
    force.setForceGroup(group)
    biased = copy.deepcopy(system)
    biased.addForce(force)
    return biased


def _check_box(system: openmm.System) -> None:
    """Raise `ModelError` where a cutoff does not fit into the System's default box."""
    if not system.usesPeriodicBoundaryConditions():
        return
    vectors = system.getDefaultPeriodicBoxVectors()
    width = min(vectors[axis][axis].value_in_unit(unit.nanometer) for axis in range(3))
    for force in system.getForces():
        if not (hasattr(force, "getCutoffDistance") and force.usesPeriodicBoundaryConditions()):
            continue
        cutoff = force.getCutoffDistance().value_in_unit(unit.nanometer)
        if 2 * cutoff > width:
            raise ModelError(
                f"the box is {width:g} nm wide, less than twice the cutoff of {force.getName()} ({cutoff:g} nm)"
            )
