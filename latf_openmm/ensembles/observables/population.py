"""Population of a metastable state."""

import mdtraj

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.observables.base import Measured, Observable, share_of


class Population(Observable):
    """Share of the frames in a state."""

    kind = "population"
    unit = "fraction"
    n_states = 1

    def measure(self, ensemble: StructureEnsemble, topology: mdtraj.Topology) -> Measured:
        """Return its estimate in an ensemble."""
        (state,) = self.states
        return share_of(ensemble, ensemble.pool.states == state)
