"""Tempering of every kind: its settings, the walkers that it moves, and what it says of its moves.

Between moves walkers follow Langevin dynamics, each in a place of the stage that has one temperature and perhaps a
bias. A move changes which walker is at which temperature, so that the joint distribution of walkers and temperatures
stays what it is. A walker x at the inverse temperature beta in a place with the bias V has the reduced energy

    u = beta (U(x) + p vol(x) + V(z(x))).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import erfc, erfcinv

from latf_openmm.settings import Settings
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

ENOUGH = 0.2
"""Acceptance between neighbouring temperatures that is enough."""

_NEVER = 1e-12
"""Acceptance that stands for none."""


class Walkers(Protocol):
    """Walkers of one stage between which temperatures move; in what Contexts they are does not matter."""

    @property
    def temperatures(self) -> Array:
        """Temperature of each place, in the scale of the system, shape (n,)."""

    @property
    def kT(self) -> Array:  # noqa: N802 - the field's own name
        """Thermal energy of each place [kJ/mol], shape (n,)."""

    def energies(self) -> Array:
        """U + pV of the walker in each place, without bias, shape (n,) [kJ/mol]."""

    def bias_energies(self) -> Array:
        """Bias of each place for the walker in each place, shape (n_places, n_walkers) [kJ/mol]."""

    def exchange(self, walkers: Indices) -> None:
        """Put into each place the walker that is in the place given, shape (n,), with velocities of the place."""

    def set_temperatures(self, temperatures: Array) -> None:
        """Give each place a temperature, and its walker velocities of it."""


@dataclass(frozen=True)
class Attempt:
    """One attempted move.

    Attributes
    ----------
    walker
        Place of the walker.
    before, after
        Temperatures between which it was to move.
    probability
        Of acceptance.
    accepted
        Whether it moved.
    """

    walker: int
    before: float
    after: float
    probability: float
    accepted: bool


class Moves(ABC):
    """Moves of walkers, with all that they have learned."""

    @abstractmethod
    def move(self, walkers: Walkers, number: int, rng: np.random.Generator) -> list[Attempt]:
        """Make the move of this number, from 0 on."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what has been learned, for a JSON file."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""


class TemperingSettings(Settings, ABC):
    """Settings of one kind of tempering; subclasses add a literal ``kind`` and live in one file each."""

    kind: str
    interval: int = Field(
        10,
        ge=1,
        description="frames between moves; pairs of frames that a model learns from do not reach over a move",
    )
    between_walkers: ClassVar[bool]
    """True where walkers of all temperatures have to be simulated side by side."""

    def moves_before(self, frame: int) -> bool:
        """Return whether walkers move before a frame, counted from the beginning of the stage."""
        return frame > 0 and frame % self.interval == 0

    @abstractmethod
    def moves(self, temperatures: Sequence[float], scale: TemperatureScale, n_moves: int) -> Moves:
        """Return what moves walkers.

        Parameters
        ----------
        temperatures
            Of the stage, in the scale of the system.
        n_moves
            Moves that the stage will make.
        """


def expected_acceptance(kT: Sequence[float] | Array, energies: Sequence[float] | Array) -> float:
    """Acceptance of exchanges between two temperatures, from the mean energies at both.

    erfc(sqrt(d) / 2) with d = (1/kT_a - 1/kT_b) (<U>_b - <U>_a), for normal distributions whose variances fit to the
    slope of the mean energy (Kofke, J. Chem. Phys. 2002; Rathore et al., J. Chem. Phys. 2005).

    Parameters
    ----------
    kT, energies
        Thermal energy and mean of U + pV at both [kJ/mol].
    """
    return float(erfc(np.sqrt(_distance(kT, energies)) / 2))


def temperatures_needed(kT: Sequence[float] | Array, energies: Sequence[float] | Array) -> int:
    """Return how many temperatures, both ends among them, exchange with an acceptance that is `ENOUGH`.

    Parameters
    ----------
    kT, energies
        As for `expected_acceptance`.
    """
    steps = np.sqrt(_distance(kT, energies)) / (2 * erfcinv(ENOUGH))
    return int(np.ceil(steps)) + 1


def moves_of_a_round_trip(acceptances: Sequence[float] | Array) -> float:
    """Moves of a walker from the lowest temperature to the highest and back, where neighbours exchange in turn.

    2 K (1 + sum((1 - a) / a)) for K temperatures, where energies forget between moves (Syed, Bouchard-Cote,
    Deligiannidis and Doucet, J. R. Stat. Soc. B 2022); half of it for two, which try at every move.

    Parameters
    ----------
    acceptances
        Between neighbouring temperatures, shape (n_temperatures - 1,).
    """
    accepted = np.maximum(acceptances, _NEVER)
    moves = (len(accepted) + 1) * (1 + float(((1 - accepted) / accepted).sum()))
    return moves if len(accepted) == 1 else 2 * moves


def _distance(kT: Sequence[float] | Array, energies: Sequence[float] | Array) -> float:
    return max(0.0, float((1 / kT[0] - 1 / kT[1]) * (energies[1] - energies[0])))
