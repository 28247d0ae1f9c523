"""Root mean square deviation from a structure."""

import mdtraj
import numpy as np
from numpy.typing import ArrayLike

from latf_openmm.ensembles.observables.base import StructureObservable
from latf_openmm.features.solute import heavy_atoms, solute_atoms, trace_atoms


class Rmsd(StructureObservable):
    """RMSD [nm] from the reference after superposition.

    Of alpha carbons and C4' atoms of nucleic acids; of all heavy atoms of the solute where these are fewer than three.
    """

    kind = "rmsd"
    unit = "nm"

    def __init__(self, name: str, reference: mdtraj.Trajectory) -> None:
        super().__init__(name, reference)
        topology = reference.topology
        atoms = trace_atoms(topology)
        if len(atoms) < 3:
            atoms = heavy_atoms(topology)
        self._chosen = np.searchsorted(solute_atoms(topology), atoms)
        self._target = self.solute(reference)

    def compute(self, trajectory: mdtraj.Trajectory) -> ArrayLike:
        """Return the value in each frame of the solute, shape (n_frames,)."""
        distances: ArrayLike = mdtraj.rmsd(trajectory, self._target, atom_indices=self._chosen)
        return distances
