"""Hydrogen bonds."""

import mdtraj
from numpy.typing import ArrayLike

from latf_openmm.ensembles.observables.base import StructureObservable


class HydrogenBonds(StructureObservable):
    """Hydrogen bonds within the solute (Wernet and Nilsson, 2005)."""

    kind = "hbonds"
    unit = "bonds"
    title = "hydrogen bonds"

    def compute(self, trajectory: mdtraj.Trajectory) -> ArrayLike:
        """Return the value in each frame of the solute, shape (n_frames,)."""
        bonds = mdtraj.wernet_nilsson(trajectory, exclude_water=False, periodic=False)
        return [len(frame) for frame in bonds]
