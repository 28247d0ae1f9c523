"""Expanded ensemble: every walker visits all temperatures by itself."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import softmax

from latf_openmm.sampling.tempering.base import Attempt, Moves, TemperingSettings, Walkers
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]
_SLOW = 0.6
"""Power of the number of moves with which the gain falls at first."""
_FLAT = 0.2
"""Deviation of every share of time from equal ones, relative, from which on the gain falls with the number of moves."""


class ExpandedSettings(TemperingSettings):
    """Simulated tempering: each walker draws its temperature from the energy it has.

    Walkers need nothing of each other, so that any number of processes can run them. The weights of the temperatures
    are learned by self-adjusted mixture sampling, whose convergence is proven (Tan, J. Comput. Graph. Stat. 2017), in
    the first part of the stage, and are fixed from then on. `walkers` is how many begin at each temperature. A bias is
    the same at all temperatures, that of the lowest.
    """

    kind: Literal["expanded"] = "expanded"
    learning: float = Field(
        0.3, gt=0, lt=1, description="part of the moves in which the weights of temperatures are learned"
    )
    between_walkers: ClassVar[bool] = False

    def moves(self, temperatures: Sequence[float], scale: TemperatureScale, n_moves: int) -> "Visits":
        """Return what draws temperatures."""
        return Visits(temperatures, scale, int(np.ceil(self.learning * n_moves)))


class Visits(Moves):
    """Draws the temperature of each walker, and learns the weights with which all are visited equally.

    Parameters
    ----------
    temperatures
        In the scale of the system.
    scale
        Of temperatures.
    learned_after
        Moves after which weights are fixed.

    Attributes
    ----------
    weights
        g_k, with p(T_k | x) ~ exp(g_k - beta_k (U + pV + V)), shape (n_temperatures,); None until every temperature
        was visited.
    """

    def __init__(self, temperatures: Sequence[float], scale: TemperatureScale, learned_after: int) -> None:
        self.temperatures = np.unique(temperatures)
        self.betas = np.array([1.0 / scale.kT(t) for t in self.temperatures])
        self.learned_after = learned_after
        self.weights: Array | None = None
        self.visits = np.zeros(len(self.betas))
        self.energies = np.zeros(len(self.betas))
        self.rising = True
        self.moved, self.flat_at = 0, 0

    def move(self, walkers: Walkers, number: int, rng: np.random.Generator) -> list[Attempt]:
        """Draw temperatures; the weights come a step closer to what they should be."""
        energies = walkers.energies() + np.diagonal(walkers.bias_energies())
        levels = np.searchsorted(self.temperatures, walkers.temperatures)
        if self.weights is None:
            self._scan(walkers, energies, levels)
        if self.weights is None:
            return []
        reduced = self.betas[:, None] * energies
        shares = softmax(self.weights[:, None] - reduced, axis=0)
        drawn = (rng.random(shares.shape[1]) > np.cumsum(shares, axis=0)[:-1]).sum(axis=0)
        self._learn(shares.mean(axis=1))
        after = self.temperatures[drawn]
        walkers.set_temperatures(after)
        return [
            Attempt(i, float(self.temperatures[level]), float(t), float(1 - shares[level, i]), bool(t != was))
            for i, (level, t, was) in enumerate(zip(levels, after, self.temperatures[levels], strict=True))
        ]

    def state(self) -> dict[str, Any]:
        """Return the weights, and how far they are learned."""
        weights = None if self.weights is None else self.weights.tolist()
        return {
            "weights": weights,
            "visits": self.visits.tolist(),
            "energies": self.energies.tolist(),
            "rising": bool(self.rising),
            "moved": self.moved,
            "flat_at": self.flat_at,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.weights = None if state["weights"] is None else np.array(state["weights"])
        self.visits, self.energies = np.array(state["visits"]), np.array(state["energies"])
        self.rising = bool(state["rising"])
        self.moved, self.flat_at = int(state["moved"]), int(state["flat_at"])

    def _scan(self, walkers: Walkers, energies: Array, levels: NDArray[np.int64]) -> None:
        """Move every walker to the next temperature, up and then down, until all temperatures have an energy.

        Then the weights are those of the mean energies (Park and Pande, Phys. Rev. E 2007).
        """
        n = len(self.betas)
        np.add.at(self.energies, levels, energies)
        np.add.at(self.visits, levels, 1.0)
        if (self.visits > 0).all():
            mean = self.energies / self.visits
            steps = np.diff(self.betas) * 0.5 * (mean[1:] + mean[:-1])
            self.weights = np.concatenate([[0.0], np.cumsum(steps)])
            self.visits = np.zeros(n)
            return
        self.rising = self.rising and levels.max() < n - 1
        step = 1 if self.rising else -1
        walkers.set_temperatures(self.temperatures[np.clip(levels + step, 0, n - 1)])

    def _learn(self, shares: Array) -> None:
        """One step of self-adjusted mixture sampling, from the probabilities of all temperatures (Tan, equation 4).

        The gain falls with the power -0.6 of the number of moves until all temperatures were visited alike, then as
        its inverse, which is best.
        """
        if self.moved >= self.learned_after:
            return
        assert self.weights is not None
        self.moved += 1
        self.visits += shares
        n = len(shares)
        if not self.flat_at and self.moved > n:
            even = self.visits.sum() / n
            if (np.abs(self.visits / even - 1) < _FLAT).all():
                self.flat_at = self.moved
        gain = min(1.0 / n, self.moved**-_SLOW)
        if self.flat_at:
            gain = min(gain, 1.0 / (self.moved - self.flat_at + self.flat_at**_SLOW))
        self.weights = self.weights - gain * (shares * n - 1.0)
