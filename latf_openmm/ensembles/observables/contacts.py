"""Native contacts."""

import mdtraj

from latf_openmm.ensembles.observables.base import Array, StructureObservable
from latf_openmm.features.contacts import native_contacts_of
from latf_openmm.frames.trajectory import featurise


class NativeContacts(StructureObservable):
    """Fraction of the contacts within the solute of the reference (Best, Hummer and Eaton, 2013).

    Raises
    ------
    ConfigError
        If the reference has none.
    """

    kind = "contacts"
    unit = "fraction"
    title = "native contacts"

    def __init__(self, name: str, reference: mdtraj.Trajectory) -> None:
        super().__init__(name, reference)
        target = self.solute(reference)
        self._features = native_contacts_of(target, range(target.n_atoms)).build().double()

    def compute(self, trajectory: mdtraj.Trajectory) -> Array:
        """Return the value in each frame of the solute, shape (n_frames,)."""
        return featurise(self._features, trajectory.xyz)[:, 0].astype("float64")
