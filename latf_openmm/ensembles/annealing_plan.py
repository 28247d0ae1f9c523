"""Plans of annealing: the temperature to start from, and the temperatures that one population goes through."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.errors import ConfigError
from latf_openmm.reweighting.reliability import MAX_TEMPERATURE_FACTOR
from latf_openmm.sampling.annealing import AnnealingSettings, expected_changes
from latf_openmm.sampling.propagator import SETTLE
from latf_openmm.units import TemperatureScale

_GRID = 200
"""Temperatures that may be started from."""

_KEPT = 0.8
"""Share of the effective samples of the simulated temperature next to it that a start has, at least."""

_COOLER = 3.0
"""Times that the hotter side may be farther, and is still preferred."""


@dataclass(frozen=True)
class AnnealingPath:
    """One population annealed from a start through temperatures in one direction.

    Attributes
    ----------
    start
        Temperature whose reweighted frames it begins with.
    targets
        Temperatures it is to reach, in order.
    """

    start: float
    targets: tuple[float, ...]


class AnnealingPlan:
    """Temperatures to anneal from, by the frames that there are.

    Parameters
    ----------
    reweighter
        Frames and model.
    settings
        How walkers are annealed.
    scale
        Of the temperatures.

    Raises
    ------
    ConfigError
        If potential energies of the frames are not known.
    """

    def __init__(self, reweighter: Reweighter, settings: AnnealingSettings, scale: TemperatureScale) -> None:
        if reweighter.weighting is None:
            raise ConfigError("method: annealing needs the potential energies of the frames")
        self.reweighter, self.settings, self.scale = reweighter, settings, scale
        self.simulated = [float(t) for t in reweighter.weighting.mbar.simulated]
        self._reach: dict[float, float] = {}

    def far(self, temperature: float) -> str | None:
        """Return what to say of a temperature that is too far from all simulated ones; None of others."""
        if (
            min(self.simulated) / MAX_TEMPERATURE_FACTOR
            <= temperature
            <= max(self.simulated) * MAX_TEMPERATURE_FACTOR
        ):
            return None
        label = self.scale.label(temperature)
        return (
            f"{label} is farther than a factor of {MAX_TEMPERATURE_FACTOR:g} from every simulated temperature"
        )

    def start(self, temperature: float) -> float:
        """Return the temperature to start from.

        On the hotter side, if there is one, the temperature nearest to the one wanted that at least 80 % of the
        effective samples reach that the simulated one there has; likewise on the colder side, where there is no
        hotter one or it is three times farther in ln T. Cooling loses states that the start has; heating can
        only find new ones as fast as the walkers move.
        """
        sides = [
            self._nearest(temperature, [t for t in self.simulated if t >= temperature * (1 - 1e-9)]),
            self._nearest(temperature, [t for t in self.simulated[::-1] if t <= temperature * (1 + 1e-9)]),
        ]
        hot, cold = sides
        if hot is None or cold is None:
            side = cold if hot is None else hot
            assert side is not None
            return side
        far = math.log(hot / temperature) > _COOLER * math.log(temperature / cold)
        return cold if far else hot

    def _nearest(self, temperature: float, simulated: list[float]) -> float | None:
        if not simulated:
            return None
        base = simulated[0]
        enough, nearest = _KEPT * self._reached(base), base
        low, high = sorted((temperature, base))
        between = [t for t in self._grid if low <= t <= high]
        for candidate in sorted(between, key=lambda t: abs(math.log(t / base))):
            if self._reached(candidate) < enough:
                break
            nearest = candidate
        return nearest

    @cached_property
    def _grid(self) -> list[float]:
        low, high = min(self.simulated), max(self.simulated)
        return [float(t) for t in np.geomspace(low, high, _GRID)]

    def _reached(self, temperature: float) -> float:
        if temperature not in self._reach:
            self._reach[temperature] = self.reweighter.reach(temperature)
        return self._reach[temperature]

    def paths(self, temperatures: Sequence[float]) -> list[AnnealingPath]:
        """Put temperatures together that one population can go through."""
        groups: dict[tuple[float, bool], list[float]] = {}
        for temperature in temperatures:
            start = self.start(temperature)
            groups.setdefault((start, temperature > start), []).append(temperature)
        return [
            AnnealingPath(start, tuple(sorted(targets, reverse=not up)))
            for (start, up), targets in groups.items()
        ]

    def words(self, path: AnnealingPath) -> str:
        """Say it to people."""
        targets = ", ".join(map(self.scale.label, path.targets))
        return (
            f"{self.settings.walkers} walkers are annealed from {self.scale.label(path.start)} to {targets}"
        )

    def evaluations(self, path: AnnealingPath) -> int:
        """Force evaluations of one copy that a path will take, about."""
        energy = self.reweighter.pool.energies()
        weights = self.reweighter.weights(path.start)
        variance = float(weights @ (energy - weights @ energy) ** 2)
        capacity = variance / self.scale.kT(path.start) ** 2
        changes = expected_changes(path.start, path.targets[-1], capacity, self.settings.overlap)
        rounds = changes + self.settings.frames * len(path.targets)
        return rounds * (self.settings.steps + SETTLE) * self.settings.walkers
