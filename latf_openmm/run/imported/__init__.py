"""Trajectories that a user has already, as the first round of a run."""

from latf_openmm.run.imported.run import import_run
from latf_openmm.run.imported.trajectories import ImportedTrajectory

__all__ = ["ImportedTrajectory", "import_run"]
