"""Put a bias into a System."""

from typing import Any

import openmm
from openmm import unit

from latf_openmm.bias.cv import CollectiveVariables
from latf_openmm.bias.force import make_force
from latf_openmm.bias.force.bias_energy import BiasEnergy
from latf_openmm.bias.placement import with_bias
from latf_openmm.bias.potentials import Bias
from latf_openmm.errors import ModelError


def add_bias(
    system: openmm.System,
    cv: CollectiveVariables,
    bias: Bias,
    *,
    n_copies: int = 1,
    group: int | None = None,
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
        Force group of the bias, so that its energy can be asked for alone; None: the highest that no force is in,
        31 where it is free.
    force_options
        Passed to `make_force`: ``backend``, ``forces``, ``multistep``, ``name``.

    Raises
    ------
    ModelError
        If `system` does not have the number of particles the collective variables were made for, or its box
        is smaller than twice a cutoff.
    ConfigError
        If the group is not free, or the System already has a force of that name or a global parameter that starts
        with it.

    Notes
    -----
    An integrator that lists the groups it integrates has to list this one too. Where the forces of `system` are in
    several groups, a warning says so; `LatentReporter`, `BiasUpdater` and `MultistepStepper` refuse to work with an
    integrator that leaves the bias out.
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
    return with_bias(system, force, group)


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
