"""A population of weighted walkers at one temperature: its weights at another, its resampling, its file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from latf_openmm.reweighting.weights import normalised_weights, systematic
from latf_openmm.storage import read_arrays, write_arrays
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]
_RESAMPLE_BELOW = 0.5
"""Effective part of the walkers below which they are resampled."""


@dataclass(frozen=True)
class Population:
    """Walkers that, with their weights, stand for one temperature.

    Attributes
    ----------
    temperature
        In the scale of the system.
    positions
        Shape (n, n_atoms, 3) [nm].
    boxes
        Shape (n, 3, 3) [nm], or None.
    energies
        Potential energies, at constant pressure U + pV, shape (n,) [kJ/mol].
    log_weights
        Up to a constant; shape (n,).
    ancestors
        Which start each came from, shape (n,).
    changes
        Changes of temperature so far.
    recorded
        Whether frames of them were kept at this temperature.
    """

    temperature: float
    positions: Array
    boxes: Array | None
    energies: Array
    log_weights: Array
    ancestors: NDArray[np.int64]
    changes: int = 0
    recorded: bool = False

    def __len__(self) -> int:
        return len(self.energies)

    @property
    def weights(self) -> Array:
        """Weights that sum to one, shape (n,)."""
        return normalised_weights(self.log_weights)

    def selected(self, rows: NDArray[np.int64], log_weights: Array) -> "Population":
        """Return these walkers with these weights."""
        return replace(
            self,
            positions=self.positions[rows],
            boxes=None if self.boxes is None else self.boxes[rows],
            energies=self.energies[rows],
            log_weights=log_weights,
            ancestors=self.ancestors[rows],
        )

    def save(self, path: Path) -> None:
        """Write to a file that exists only when it is complete."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        write_arrays(path, {name: value for name, value in arrays.items() if value is not None})

    @staticmethod
    def load(path: Path) -> "Population":
        """Read what `save` wrote.

        Raises
        ------
        DataError
            If it is damaged.
        """
        data = read_arrays(path)
        return Population(
            float(data["temperature"]),
            data["positions"],
            data.get("boxes"),
            data["energies"],
            data["log_weights"],
            data["ancestors"],
            int(data["changes"]),
            bool(data["recorded"]),
        )


def next_temperature(population: Population, target: float, scale: TemperatureScale, overlap: float) -> float:
    """Return the temperature nearest to `target` that the walkers can go to in one change.

    Parameters
    ----------
    overlap
        Effective share (sum w v)^2 / (sum w v^2) of the walkers that the gained weights v leave, at least (Zhou,
        Johansen and Aston, J. Comput. Graph. Stat. 2016).
    """
    now, end = 1.0 / scale.kT(population.temperature), 1.0 / scale.kT(target)
    weights = population.weights
    u = population.energies - weights @ population.energies

    def missing(share: float) -> float:
        gained = -share * (end - now) * u
        v = np.exp(gained - gained.max())
        return float((weights @ v) ** 2 / (weights @ v**2)) - overlap

    if missing(1.0) >= 0:
        return target
    share = brentq(missing, 0.0, 1.0, xtol=1e-6)
    beta = now + max(share, 1e-4) * (end - now)
    return float(1.0 / (beta * scale.boltzmann))


def changed(population: Population, temperature: float, scale: TemperatureScale) -> Population:
    """Return the walkers with the weights they have at another temperature."""
    gained = (1.0 / scale.kT(population.temperature) - 1.0 / scale.kT(temperature)) * population.energies
    logs = population.log_weights + gained
    return replace(
        population,
        temperature=temperature,
        log_weights=logs - logs.max(),
        changes=population.changes + 1,
        recorded=False,
    )


def resampled(population: Population, log_lookahead: Array, rng: np.random.Generator) -> Population:
    """Return walkers resampled by weight times lookahead where few have most of that, else the same ones.

    By systematic resampling; a walker that was drawn keeps the weight 1 / lookahead.
    """
    chances = normalised_weights(population.log_weights + log_lookahead)
    n = len(population)
    if 1.0 / (chances**2).sum() >= _RESAMPLE_BELOW * n:
        return population
    rows = systematic(chances, n, rng)
    return population.selected(rows, -log_lookahead[rows])
