"""Mean potential energy."""

import mdtraj

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.observables.base import Measured, Observable, mean_of


class Energy(Observable):
    """Mean potential energy [kJ/mol]."""

    kind = "energy"
    unit = "kJ/mol"

    def measure(self, ensemble: StructureEnsemble, topology: mdtraj.Topology) -> Measured:
        """Return its estimate in an ensemble."""
        return mean_of(ensemble, ensemble.energies())
