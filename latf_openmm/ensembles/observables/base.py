"""Interface of observables: of an ensemble as a whole, or of single structures."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import mdtraj
import numpy as np
from numpy.typing import ArrayLike, NDArray

from latf_openmm.ensembles.ensemble import Estimate, Mask, StructureEnsemble
from latf_openmm.ensembles.pool import Pool
from latf_openmm.errors import ConfigError
from latf_openmm.features.solute import solute_atoms
from latf_openmm.periodic import gather_molecules
from latf_openmm.reweighting.replicates import Statistic

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """An observable in one ensemble.

    Attributes
    ----------
    statistic
        Its function of the weights.
    estimate
        Value with error.
    seen
        Whether there are enough effective samples to say it.
    is_share
        Whether it is the share of some of the frames.
    """

    statistic: Statistic
    estimate: Estimate
    seen: bool = True
    is_share: bool = False


class Observable(ABC):
    """One observable; subclasses are found by their `kind`.

    Attributes
    ----------
    kind
        Name by which it is asked for.
    unit
        Of its values; empty where it is not known.
    title
        Name for people; empty: that of the kind.
    n_states
        Number of states that follow the name, as in ``population:0``.

    Parameters
    ----------
    name
        As it was asked for, states included.
    reference
        One structure of the system, with its topology.
    """

    kind: ClassVar[str]
    unit: ClassVar[str] = ""
    title: ClassVar[str] = ""
    n_states: ClassVar[int] = 0

    def __init__(self, name: str, reference: mdtraj.Trajectory) -> None:
        self.name = name

    @classmethod
    def form(cls) -> str:
        """Name with what has to follow it."""
        return ":".join([cls.kind, *["STATE"] * cls.n_states])

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Return whether a name asks for this observable."""
        return name == cls.kind or (cls.n_states > 0 and name.startswith(f"{cls.kind}:"))

    @property
    def states(self) -> list[int]:
        """States that the name has."""
        return [int(state) for state in self.name.split(":")[1:]]

    def check(self, n_states: int) -> None:
        """Raise `ConfigError` if the name has states that a model of `n_states` does not have."""
        if self.n_states == 0:
            return
        states = self.name.split(":")[1:]
        if len(states) != self.n_states or not all(s.isdigit() and int(s) < n_states for s in states):
            words = "a state" if self.n_states == 1 else "two states"
            raise ConfigError(f"--observable: {self.name}: expected {words} from 0 to {n_states - 1}")

    @abstractmethod
    def measure(self, ensemble: StructureEnsemble, topology: mdtraj.Topology) -> Measured:
        """Return its estimate in an ensemble; `topology` is that of one copy of the system."""


class StructureObservable(Observable):
    """An observable of single structures: a function of a trajectory, which gives one number a frame.

    Attributes
    ----------
    of_solute
        Whether it is computed of the solute alone, without box, its molecules whole and beside each other: then
        water, ions and images cannot change it. Otherwise of all atoms with the box.
    """

    of_solute: ClassVar[bool] = True

    def __init__(self, name: str, reference: mdtraj.Trajectory) -> None:
        super().__init__(name, reference)
        self._atoms = solute_atoms(reference.topology)
        self._known: dict[int, tuple[Pool, Array]] = {}

    @abstractmethod
    def compute(self, trajectory: mdtraj.Trajectory) -> ArrayLike:
        """Return the value in each frame, shape (n_frames,), of the solute alone where it is `of_solute`."""

    def solute(self, trajectory: mdtraj.Trajectory) -> mdtraj.Trajectory:
        """Return the solute alone, its molecules whole and beside each other."""
        return gather_molecules(trajectory.atom_slice(self._atoms))

    def __call__(self, trajectory: mdtraj.Trajectory) -> Array:
        """Return the value in each frame of a trajectory with all atoms, shape (n_frames,).

        Raises
        ------
        ConfigError
            If it fails, or the values are not finite numbers, one for each frame.
        """
        try:
            values = self.compute(self.solute(trajectory) if self.of_solute else trajectory)
            numbers = np.asarray(values, dtype=np.float64)
        except Exception as error:  # of whoever wrote the function
            raise ConfigError(
                f"--observable: {self.name} failed ({type(error).__name__}: {error})"
            ) from error
        wrong = f"shape {numbers.shape}" if numbers.shape != (trajectory.n_frames,) else ""
        if not wrong and not np.isfinite(numbers).all():
            wrong = "values not finite"
        if wrong:
            raise ConfigError(
                f"--observable: {self.name} returns {wrong} for {trajectory.n_frames} frames; "
                "expected one number a frame"
            )
        return numbers

    def measure(self, ensemble: StructureEnsemble, topology: mdtraj.Topology) -> Measured:
        """Return its mean in an ensemble; the frames of a pool are read once."""
        pool = ensemble.pool
        if id(pool) not in self._known:
            self._known[id(pool)] = pool, ensemble.observe(self, topology)
        return mean_of(ensemble, self._known[id(pool)][1])


def mean_of(ensemble: StructureEnsemble, values: Array) -> Measured:
    """Return the mean of values of all frames (n_frames,); of zeros and ones, the share of the ones."""
    if ((values == 0) | (values == 1)).all():
        return share_of(ensemble, values == 1)
    return Measured(Statistic.mean(values), ensemble.expectation(values))


def share_of(ensemble: StructureEnsemble, chosen: Mask) -> Measured:
    """Return the share of the chosen frames (n_frames,)."""
    return Measured(Statistic.mean(chosen), ensemble.fraction(chosen), ensemble.seen(chosen), is_share=True)
