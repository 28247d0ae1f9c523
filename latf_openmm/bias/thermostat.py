"""The temperature that a Context keeps, beside the one that a bias was made for."""

import logging

import openmm
from openmm import unit

from latf_openmm.bias.placement import current_integrator
from latf_openmm.units import GAS_CONSTANT, KELVIN

log = logging.getLogger(__name__)
_RELATIVE = 1e-3
"""Difference of temperatures that is not one."""


def thermostat_temperature(context: openmm.Context) -> float | None:
    """Temperature of the integrator, or of a thermostat in the System [K]; None where there is none, or several."""
    integrator = current_integrator(context)
    if isinstance(integrator, openmm.CustomIntegrator):
        names = [integrator.getGlobalVariableName(i) for i in range(integrator.getNumGlobalVariables())]
        return integrator.getGlobalVariableByName("kT") / GAS_CONSTANT if "kT" in names else None
    if hasattr(integrator, "getTemperature"):
        try:
            return float(integrator.getTemperature().value_in_unit(unit.kelvin))
        except openmm.OpenMMException:  # Nose-Hoover without, or with several chains
            return None
    if any(isinstance(force, openmm.AndersenThermostat) for force in context.getSystem().getForces()):
        return float(context.getParameter(openmm.AndersenThermostat.Temperature()))
    return None


def compare_temperatures(context: openmm.Context, kT: float | None) -> None:
    """Warn where the thermostat of a Context is not at the temperature of its bias.

    Parameters
    ----------
    context
        With the bias.
    kT
        Thermal energy that the bias is for [kJ/mol]; None: any.
    """
    kelvin = thermostat_temperature(context)
    if kT is None or kelvin is None or abs(KELVIN.kT(kelvin) - kT) <= _RELATIVE * kT:
        return
    log.warning(
        "the simulation is at %.5g K (kT = %.4g kJ/mol), and its bias was made for %.5g K (%.4g kJ/mol): what is added "
        "to it is weighed for the wrong temperature; give bias_context or cv_context that of the simulation, or "
        "BiasUpdater walker_kT",
        kelvin,
        KELVIN.kT(kelvin),
        kT / GAS_CONSTANT,
        kT,
    )
