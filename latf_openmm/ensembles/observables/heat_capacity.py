"""Heat capacity from the variance of the energy."""

import mdtraj

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.observables.base import Measured, Observable
from latf_openmm.reweighting.replicates import Statistic


class HeatCapacity(Observable):
    """Configurational heat capacity (<U^2> - <U>^2) / (kT)^2 [k_B]."""

    kind = "heat_capacity"
    unit = "k_B"

    def measure(self, ensemble: StructureEnsemble, topology: mdtraj.Topology) -> Measured:
        """Return its estimate in an ensemble."""
        u = ensemble.energies() / ensemble.kT
        return Measured(Statistic.variance(u), ensemble.heat_capacity())
