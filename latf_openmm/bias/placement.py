"""A bias in a System: always in a copy, in a force group for itself; and whether it acts there."""

import copy
import logging
import re

import openmm

from latf_openmm.errors import ConfigError
from latf_openmm.force_groups import free_force_group

log = logging.getLogger(__name__)
_FORCES = re.compile(r"\b(?:f|energy)(\d*)\b")
"""Forces or energies, of all groups or of one, in an expression of a CustomIntegrator."""


def with_bias(system: openmm.System, bias: openmm.Force, group: int | None) -> openmm.System:
    """Return a copy of a System with one more force; see `latf_openmm.bias.biased_system.add_bias`.

    Parameters
    ----------
    system
        Not changed.
    bias
        With its name.
    group
        Its force group; None: the highest that no force is in.

    Raises
    ------
    ConfigError
        If the group is not free, or the System already has a force of that name or a global parameter that starts
        with it.
    """
    _check_names(system, bias)
    bias.setForceGroup(_group_for_bias(system, group))
    biased = copy.deepcopy(system)
    for index, original in enumerate(system.getForces()):  # a copy of a bias has lost its name
        biased.getForce(index).setName(original.getName())
    biased.addForce(bias)
    return biased


def _group_for_bias(system: openmm.System, wanted: int | None) -> int:
    used = {force.getForceGroup() for force in system.getForces()}
    if wanted is None:
        group = free_force_group(system)
        if len(used) > 1:
            log.warning(
                "the forces of the System are in groups %s, the bias is in group %d: an integrator that lists its "
                "groups, such as MTSLangevinIntegrator, has to list %d too, or the bias does not act",
                ", ".join(map(str, sorted(used))),
                group,
                group,
            )
        return group
    if wanted in used:
        names = [force.getName() for force in system.getForces() if force.getForceGroup() == wanted]
        raise ConfigError(f"group: {wanted} holds {names[0]}, expected one that no force is in")
    return wanted


def _check_names(system: openmm.System, bias: openmm.Force) -> None:
    """Raise `ConfigError` where a force of the System, or its global parameters, have the names of the bias."""
    name = bias.getName()
    for force in system.getForces():
        if force.getName() == name:
            raise ConfigError(f"name: the System already has a force {name!r}; give each bias another name")
        for index in range(getattr(force, "getNumGlobalParameters", int)()):
            parameter = force.getGlobalParameterName(index)
            if parameter.startswith(f"{name}_"):
                raise ConfigError(
                    f"name: {force.getName()} has a global parameter {parameter!r}, and those of the bias start with "
                    f"{name}_; give the bias another name"
                )


def bias_group(system: openmm.System, name: str) -> int:
    """Return the force group of the bias of this name.

    Raises
    ------
    ConfigError
        If the System has none, or another force is in its group.
    """
    biases = _biases(system, name)
    group = biases[0].getForceGroup()
    names = [force.getName() for force in system.getForces() if force.getForceGroup() == group]
    others = [other for other in names if other not in {force.getName() for force in biases}]
    if others:
        raise ConfigError(
            f"the bias {name!r} shares force group {group} with {others[0]}; expected one of its own"
        )
    return group


def _biases(system: openmm.System, name: str) -> list[openmm.Force]:
    """Forces that are the bias of this name; XML, and copies by it, do not hold names of these forces."""
    for candidate in (name, "TorchForce", "PythonForce"):
        biases = [force for force in system.getForces() if force.getName() == candidate]
        if biases:
            return biases
    raise ConfigError(
        f"the System has no bias of the name {name!r}; make it with add_bias, which returns a copy of the System: "
        "simulate what it returns"
    )


def check_integrated(context: openmm.Context, name: str) -> None:
    """Check that the Context's integrator lets a bias act.

    Raises
    ------
    ConfigError
        If the integrator leaves the group out: walkers would not feel the bias, and yet be weighted for it.
    """
    integrator = current_integrator(context)
    groups = _integrated_groups(integrator)
    for group in {force.getForceGroup() for force in _biases(context.getSystem(), name)} - groups:
        said = ", ".join(map(str, sorted(groups))) or "none"
        raise ConfigError(
            f"{type(integrator).__name__} integrates force groups {said}, and the bias {name!r} is in group {group}, "
            f"so it would not act; add group {group} to the integrator's, or take one that integrates all, such as "
            "LangevinMiddleIntegrator"
        )


def current_integrator(context: openmm.Context) -> openmm.Integrator:
    """Return the integrator of a Context; of a CompoundIntegrator, the one in use."""
    integrator = context.getIntegrator()
    if isinstance(integrator, openmm.CompoundIntegrator):
        return integrator.getIntegrator(integrator.getCurrentIntegrator())
    return integrator


def _integrated_groups(integrator: openmm.Integrator) -> set[int]:
    """Groups whose forces, or energies, an integrator uses."""
    mask = integrator.getIntegrationForceGroups()
    every = {group for group in range(32) if (mask >> group) & 1}
    if not isinstance(integrator, openmm.CustomIntegrator):
        return every
    groups = set[int]()
    for index in range(integrator.getNumComputations()):
        _, _, expression = integrator.getComputationStep(index)
        for number in _FORCES.findall(expression):
            groups |= {int(number)} if number else every
    return groups
