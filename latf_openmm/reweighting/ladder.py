"""A ladder of temperatures that all frames are weighted to, as far as they reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.frames.trajectory import FeatureTrajectory, energies_known
from latf_openmm.reweighting.reliability import MIN_LADDER_SAMPLES
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.reweighting.weights import canonical_weights, effective_sample_size

_STRETCH = 2.5
"""Factor beyond the simulated temperatures that rungs reach, at most."""
_HALVINGS = 12
"""Steps of the bisection for the end of the ladder."""

Counts = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class TemperatureLadder:
    """Temperatures, and the weights of all frames at each.

    Attributes
    ----------
    temperatures
        Ascending, shape (n_rungs,).
    weights
        Each row sums to one, shape (n_rungs, n_frames).
    sample_sizes
        Effective sample size at each temperature, shape (n_rungs,).
    """

    temperatures: NDArray[np.float64]
    weights: NDArray[np.float32]
    sample_sizes: NDArray[np.float64]

    def draw(
        self, multiplicity: Counts, n: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Draw frames by weight times multiplicity, the same number at each temperature.

        Parameters
        ----------
        multiplicity
            How often each frame is in the sample drawn from, for example in a bootstrap sample; (n_frames,).

        Returns
        -------
        indices, temperatures
            `n` of each, in random order; temperatures where no frame has any weight are left out.
        """
        indices, temperatures = [], []
        each = -(-n // len(self.temperatures))
        for temperature, weights in zip(self.temperatures, self.weights, strict=True):
            cumulative = np.cumsum((weights * multiplicity).astype(np.float64))
            if cumulative[-1] <= 0:
                continue
            places = np.searchsorted(cumulative, rng.random(each) * cumulative[-1], side="right")
            indices.append(np.minimum(places, len(cumulative) - 1))
            temperatures.append(np.full(each, temperature))
        if not indices:
            raise DataError("all frames have zero weight at every temperature of the ladder")
        index, at = np.concatenate(indices), np.concatenate(temperatures)
        order = rng.permutation(len(index))
        order = order[:n] if len(order) >= n else rng.choice(order, n)
        return index[order], at[order]


def own_temperatures(trajectories: Sequence[FeatureTrajectory]) -> TemperatureLadder:
    """Return the ladder of the simulated temperatures alone: every frame counts at its own, as in the paper."""
    weights = np.concatenate(canonical_weights(trajectories))
    owner = np.concatenate([np.full(t.n_frames, t.temperature) for t in trajectories])
    simulated = np.unique(owner)
    rows = np.where(owner == simulated[:, None], weights, 0.0)
    sizes = [effective_sample_size(np.log(np.maximum(weights[owner == t], 1e-300))) for t in simulated]
    shares = rows / rows.sum(axis=1, keepdims=True)
    return TemperatureLadder(simulated, shares.astype(np.float32), np.array(sizes))


def build_ladder(
    trajectories: Sequence[FeatureTrajectory],
    rungs: int,
    minimum: float,
) -> TemperatureLadder | None:
    """Return the ladder around the simulated temperatures by MBAR alone, or None where energies are not known.

    Parameters
    ----------
    rungs
        Temperatures tried, evenly in ln T over the range the frames reach: from the lowest simulated one down
        and from the highest up, as far as the effective sample size allows and at most by a factor of 2.5.
        The simulated ones are always kept.
    minimum
        Least effective sample size of a rung, as a fraction of the smallest one of the simulated temperatures;
        but never below 50.
    """
    if not energies_known(trajectories):
        return None
    return ladder_of(TemperatureWeighting(trajectories), rungs, minimum)


def ladder_of(weighting: TemperatureWeighting, rungs: int, minimum: float) -> TemperatureLadder:
    """Return the ladder of frames whose weights are known, as `build_ladder` does."""
    simulated = weighting.mbar.simulated
    enough = max(MIN_LADDER_SAMPLES, minimum * min(weighting.sample_size(float(t)) for t in simulated))
    low = _reach(weighting, simulated[0], simulated[0] / _STRETCH, enough)
    high = _reach(weighting, simulated[-1], simulated[-1] * _STRETCH, enough)
    tried = np.union1d(np.geomspace(low, high, rungs), simulated) if high > low else simulated
    sizes = np.array([weighting.sample_size(float(t)) for t in tried])
    keep = np.isin(tried, simulated) | (sizes >= enough)
    weights = np.empty((int(keep.sum()), len(weighting.mbar.energy)), np.float32)
    for row, temperature in zip(weights, tried[keep], strict=True):
        row[:] = weighting.weights(float(temperature))
    return TemperatureLadder(tried[keep], weights, sizes[keep])


def _reach(weighting: TemperatureWeighting, start: float, furthest: float, enough: float) -> float:
    """The temperature furthest from `start`, towards `furthest`, where frames are still enough; by bisection."""
    if weighting.sample_size(furthest) >= enough:
        return furthest
    inside, outside = np.log(start), np.log(furthest)
    for _ in range(_HALVINGS):
        middle = 0.5 * (inside + outside)
        if weighting.sample_size(float(np.exp(middle))) >= enough:
            inside = middle
        else:
            outside = middle
    return float(np.exp(inside))
