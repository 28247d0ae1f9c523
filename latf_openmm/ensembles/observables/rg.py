"""Radius of gyration."""

import mdtraj
import numpy as np

from latf_openmm.ensembles.observables.base import Array, StructureObservable


class RadiusOfGyration(StructureObservable):
    """Radius of gyration of the solute [nm], weighted by the masses of the elements.

    Sites without element weigh nothing, unless there is nothing else: then all weigh the same.
    """

    kind = "rg"
    unit = "nm"
    title = "radius of gyration, mass-weighted"

    def compute(self, trajectory: mdtraj.Trajectory) -> Array:
        """Return the value in each frame of the solute, shape (n_frames,)."""
        masses = np.array([atom.element.mass for atom in trajectory.topology.atoms])
        weights = masses / masses.sum() if masses.sum() > 0 else np.full(len(masses), 1.0 / len(masses))
        xyz = trajectory.xyz.astype(np.float64)
        centre = np.einsum("a,fai->fi", weights, xyz)
        return np.asarray(np.sqrt(np.einsum("a,fai->f", weights, (xyz - centre[:, None]) ** 2)))
