"""Free energy of a state over another."""

import mdtraj

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.observables.base import Measured, Observable
from latf_openmm.reweighting.reliability import MIN_SEEN_SAMPLES


class FreeEnergy(Observable):
    """Free energy -kT ln(p_b / p_a) of the second state over the first [kJ/mol]."""

    kind = "free_energy"
    unit = "kJ/mol"
    n_states = 2

    def measure(self, ensemble: StructureEnsemble, topology: mdtraj.Topology) -> Measured:
        """Return its estimate in an ensemble."""
        start, end = (ensemble.pool.states == state for state in self.states)
        difference = ensemble.free_energy_difference(start, end)
        seen = all(ensemble.n_effective_in(mask) >= MIN_SEEN_SAMPLES for mask in (start, end))
        return Measured(ensemble.free_energy_statistic(start, end), difference, seen)
