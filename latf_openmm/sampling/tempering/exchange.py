"""Exchange: walkers at two temperatures change places."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from latf_openmm.sampling.tempering.base import Attempt, Moves, TemperingSettings, Walkers
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
_ATTEMPTS = 20
"""Attempts of one move between all pairs, for each walker, at most."""


class ExchangeSettings(TemperingSettings):
    """Replica exchange: walkers at two temperatures change places (Sugita and Okamoto, Chem. Phys. Lett. 1999).

    The Metropolis criterion has the bias of both ends. Each of `walkers` at the lowest temperature makes one set with
    one walker at every other temperature; sets of molecules run on several processes, those of model systems in one
    Context, where all their walkers exchange.
    """

    kind: Literal["exchange"] = "exchange"
    pairs: Literal["neighbours", "all"] = Field(
        "all",
        description="many attempts between all pairs of temperatures (Chodera and Shirts 2011), or neighbours in turn",
    )
    between_walkers: ClassVar[bool] = True

    def moves(self, temperatures: Sequence[float], scale: TemperatureScale, n_moves: int) -> "Exchanges":
        """Return what exchanges walkers."""
        return Exchanges(self.pairs)


class Exchanges(Moves):
    """Exchanges between walkers.

    Parameters
    ----------
    pairs
        Neighbouring temperatures, or all.
    """

    def __init__(self, pairs: Literal["neighbours", "all"]) -> None:
        self.pairs = pairs

    def move(self, walkers: Walkers, number: int, rng: np.random.Generator) -> list[Attempt]:
        """Exchange walkers, neighbouring temperatures in turn or all pairs.

        Returned are the attempts between neighbouring temperatures.
        """
        kT, temperatures = walkers.kT, walkers.temperatures
        reduced = (walkers.energies()[None, :] + walkers.bias_energies()) / kT[:, None]
        levels = np.unique(temperatures, return_inverse=True)[1]
        order, attempts = np.arange(len(kT)), []
        for a, b in self._pairs(temperatures, number, rng):
            i, j = order[a], order[b]
            gain = reduced[a, i] + reduced[b, j] - reduced[a, j] - reduced[b, i]
            probability = math.exp(min(0.0, gain))
            accepted = bool(rng.random() < probability)
            if accepted:
                order[a], order[b] = j, i
            if abs(levels[a] - levels[b]) == 1:
                ends = float(temperatures[a]), float(temperatures[b])
                attempts.append(Attempt(int(a), *ends, probability, accepted))
        walkers.exchange(order)
        return attempts

    def state(self) -> dict[str, Any]:
        """Return nothing: exchanges learn nothing."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on."""

    def _pairs(
        self, temperatures: Array, number: int, rng: np.random.Generator
    ) -> Sequence[tuple[int, int]] | Indices:
        """Places to be tried one after the other."""
        n, levels = len(temperatures), np.unique(temperatures)
        if self.pairs == "all":
            first = rng.integers(n, size=min(n**3, _ATTEMPTS * n))
            second = (first + rng.integers(1, n, size=len(first))) % n
            different = temperatures[first] != temperatures[second]
            return np.column_stack([first, second])[different]
        pairs: list[tuple[int, int]] = []
        start = number % 2 if len(levels) > 2 else 0
        for low, high in zip(levels[start:-1:2], levels[start + 1 :: 2], strict=False):
            places = [rng.permutation(np.flatnonzero(temperatures == t)) for t in (low, high)]
            pairs += [(int(a), int(b)) for a, b in zip(*places, strict=False)]
        return pairs
