"""Inspection of a System that somebody else's script made, before any work: handled, or refused in one line.

Walkers get Langevin dynamics at their own temperatures, one bias in a force group of its own, and the isotropic
barostat of the System if it has one. Whatever in a System contradicts this would give other ensembles than the ones
asked for without any sign.
"""

import copy
import logging

import openmm
from openmm import unit

from latf_openmm.errors import ConfigError, warn_once
from latf_openmm.force_groups import BIAS_NAME, free_force_group
from latf_openmm.systems.copies import masses_of

log = logging.getLogger(__name__)

_OTHER_DYNAMICS = {
    "DrudeForce": "its Drude particles need a DrudeLangevinIntegrator",
    "RPMDMonteCarloBarostat": "it needs an RPMDIntegrator",
}
"""Forces that are right with integrators only that walkers do not use, and why."""
_RESTRAINTS = ("CustomCVForce", "CustomExternalForce", "CustomCentroidBondForce", "RMSDForce")
"""Forces that force fields do not use: biases and restraints."""
_TERMS = {
    "CustomBondForce": "getNumBonds",
    "CustomAngleForce": "getNumAngles",
    "CustomTorsionForce": "getNumTorsions",
    "CustomCompoundBondForce": "getNumBonds",
}
"""Forces that force fields use, too, and what gives their number of terms: an umbrella has one or two."""
_FEW = 2
"""Largest number of terms of a force that is taken for a restraint."""


def inspected(system: openmm.System, source: str) -> openmm.System:
    """Return the System to simulate: without a thermostat of its own, otherwise as it is.

    Parameters
    ----------
    system
        Not changed.
    source
        Key and file it comes from, for messages.

    Raises
    ------
    ConfigError
        If it holds what cannot be simulated rightly: particles that need another integrator, a barostat that is not
        supported or has no box, a bias, forces in all groups, or nothing that moves.
    """
    for force in system.getForces():
        _check_force(force, source)
    try:
        barostat = barostat_of(system)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    if barostat is not None and not system.usesPeriodicBoundaryConditions():
        raise ConfigError(
            f"{source}: it holds a MonteCarloBarostat, but none of its forces is periodic; remove the barostat, or "
            "use periodic boundary conditions"
        )
    _check_motion(system, source)
    _say_restraints(system, source)
    free_force_group(system, source)
    return _without_thermostats(system, source)


def _check_force(force: openmm.Force, source: str) -> None:
    kind = type(force).__name__
    if kind in _OTHER_DYNAMICS:
        raise ConfigError(
            f"{source}: it holds a {kind}: {_OTHER_DYNAMICS[kind]}, expected a System for Langevin dynamics"
        )
    if force.getName() == BIAS_NAME:
        raise ConfigError(
            f"{source}: it holds a bias ({BIAS_NAME!r}) that frames would not be reweighted for; expected the System "
            "as it was before add_bias"
        )


def _say_restraints(system: openmm.System, source: str) -> None:
    """Warn of forces that look like a bias or a restraint: their energies are those of the system."""
    names = [_described(force) for force in system.getForces() if _is_restraint(force)]
    if names:
        warn_once(
            log,
            f"{source}: it holds {', '.join(names)}, which no force field has: a bias, as of metadynamics, or a "
            "restraint counts as energy of the system, and ensembles are those with it; remove it if they should not "
            "be",
        )


def _is_restraint(force: openmm.Force) -> bool:
    kind = type(force).__name__
    return kind in _RESTRAINTS or (kind in _TERMS and 0 < getattr(force, _TERMS[kind])() <= _FEW)


def _described(force: openmm.Force) -> str:
    """Kind of a force, its own name and its global parameters."""
    kind, name = type(force).__name__, force.getName()
    count = force.getNumGlobalParameters() if hasattr(force, "getNumGlobalParameters") else 0
    said = [repr(name)] * (name != kind) + [force.getGlobalParameterName(i) for i in range(count)]
    return f"a {kind}" + (f" ({', '.join(said)})" if said else "")


def _check_motion(system: openmm.System, source: str) -> None:
    masses = masses_of(system)
    if not (masses > 0).any():
        raise ConfigError(f"{source}: no particle has a mass, so nothing would move")
    frozen = masses == 0
    for index in range(system.getNumConstraints() if frozen.any() else 0):
        first, second, _ = system.getConstraintParameters(index)
        if frozen[first] != frozen[second]:
            raise ConfigError(
                f"{source}: a constraint connects particles {first} and {second}, of which one has mass 0; OpenMM "
                "cannot simulate this: remove the constraint, or let both move"
            )
    if degrees_of_freedom(system) <= 0:
        raise ConfigError(f"{source}: constraints and CMMotionRemover leave no degree of freedom")


def _without_thermostats(system: openmm.System, source: str) -> openmm.System:
    places = [i for i, force in enumerate(system.getForces()) if isinstance(force, openmm.AndersenThermostat)]
    if not places:
        return system
    temperature = system.getForce(places[0]).getDefaultTemperature().value_in_unit(unit.kelvin)
    warn_once(
        log,
        f"{source}: its AndersenThermostat ({temperature:g} K) is left out; walkers have Langevin dynamics at their "
        "own temperatures",
    )
    changed = copy.deepcopy(system)
    for place in reversed(places):
        changed.removeForce(place)
    return changed


def has_motion_remover(system: openmm.System) -> bool:
    """Return whether the System's centre of mass is kept at rest."""
    return any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces())


def degrees_of_freedom(system: openmm.System) -> int:
    """Return the number of degrees of freedom that have kinetic energy.

    As `openmm.app.StateDataReporter` counts: three for each particle with mass, one less for each constraint between
    such, three less with a `CMMotionRemover`. Constraints between frozen particles (mass 0) take nothing away.
    """
    moving = masses_of(system) > 0
    constrained = 0
    for index in range(system.getNumConstraints()):
        first, second, _ = system.getConstraintParameters(index)
        constrained += bool(moving[first] or moving[second])
    return 3 * int(moving.sum()) - constrained - 3 * has_motion_remover(system)


def barostat_of(system: openmm.System) -> openmm.MonteCarloBarostat | None:
    """Return the System's barostat, if it has one that acts; of OpenMM's kinds the isotropic one is supported.

    Raises
    ------
    ConfigError
        If it has another kind, since what it adds to the energy of a state is not only pV, or several.
    """
    barostats = [force for force in system.getForces() if "Barostat" in type(force).__name__]
    acting = [force for force in barostats if force.getFrequency() > 0]
    if not acting:
        return None
    if not isinstance(acting[0], openmm.MonteCarloBarostat):
        raise ConfigError(
            f"{type(acting[0]).__name__} is not supported; use MonteCarloBarostat, or constant volume"
        )
    if len(acting) > 1:
        raise ConfigError(f"it holds {len(acting)} barostats, expected one")
    return acting[0]


def pressure_of(system: openmm.System) -> float | None:
    """Pressure of the System's barostat [kJ/mol/nm^3], None where it has none."""
    barostat = barostat_of(system)
    if barostat is None:
        return None
    pressure = barostat.getDefaultPressure() * unit.AVOGADRO_CONSTANT_NA
    return float(pressure.value_in_unit(unit.kilojoule_per_mole / unit.nanometer**3))
