"""Force backends: BiasEnergy -> openmm.Force; one file for each."""

from latf_openmm.bias.force.base import BACKEND_NAMES, choose_backend, make_force, stepping

__all__ = ["BACKEND_NAMES", "choose_backend", "make_force", "stepping"]
