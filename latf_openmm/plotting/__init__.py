"""Figures of what this package computes, as functions that draw into an Axes of matplotlib and return it.

Each takes `ax`, the Axes to draw into; without one it makes a figure of its own by ``matplotlib.pyplot``. Axes have
labels with units: kelvin and kJ/mol, or reduced units where the system has reduced temperatures. Bars and
bands are of two standard errors. The report of a run is drawn by these functions.
"""

from latf_openmm.plotting.axes import state_colour
from latf_openmm.plotting.decisions import simulated_temperatures, target_errors
from latf_openmm.plotting.free_energy import free_energy_error, free_energy_profile, free_energy_surface
from latf_openmm.plotting.latent import latent_frames, walker_trace
from latf_openmm.plotting.populations import Populations, populations
from latf_openmm.plotting.tempering import acceptance, round_trips, temperature_paths, temperature_shares
from latf_openmm.plotting.thermodynamics import heat_capacity, mean_energy, observable
from latf_openmm.plotting.training import implied_timescales, lag_scan, training_curve

__all__ = [
    "Populations",
    "acceptance",
    "free_energy_error",
    "free_energy_profile",
    "free_energy_surface",
    "heat_capacity",
    "implied_timescales",
    "lag_scan",
    "latent_frames",
    "mean_energy",
    "observable",
    "populations",
    "round_trips",
    "simulated_temperatures",
    "state_colour",
    "target_errors",
    "temperature_paths",
    "temperature_shares",
    "training_curve",
    "walker_trace",
]
