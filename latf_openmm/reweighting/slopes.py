"""A test of integrator and thermostat: whether energies are distributed as their temperatures say.

At two temperatures, with b = 1 / k_B T, the densities p of the energy obey, inside any metastable state,

    ln p_2(U) - ln p_1(U) = constant - (b_2 - b_1) U ,

whatever the density of states. The likeliest slope is that of a logistic regression of the temperature on the energy
(Shirts, J. Chem. Theory Comput. 9, 909 (2013)); here with a constant for each state, so that shares that are not in
proportion have no part. A thermostat at another temperature, a time step that heats, or energies in another unit give
another slope. It needs overlap of the energies. At constant pressure it is the same of U + pV.

`physical_validation` (Merz and Shirts) has the same estimator for two plain series. It knows no walkers, no weights of
biased frames and no states, and takes errors from one series as if it were one walker's; so the estimator is here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, stdtr

from latf_openmm.reweighting.blocks import redrawn_freedom
from latf_openmm.reweighting.connected import bhattacharyya
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.units import TemperatureScale, factor_of_calories

Array = NDArray[np.float64]

_LEAST = 20.0
"""Effective samples of a state at both temperatures from which it has a part."""
_OVERLAP = 0.05
"""Overlap (Bhattacharyya's) of the energies from which a slope is estimated."""
_BINS = 400
"""Bins of the energy."""
_SOLVED = 40
"""Bootstrap samples."""
_STEPS, _TOLERANCE = 100, 1e-8
"""Newton's steps, at most, and the change where they end."""
_CHANCE = 0.01
"""Chance of any slope that is said in a run that is right."""
_LARGEST = 0.05
"""Deviation of a slope, over what it should be, up to which nothing is said."""
_NEAR = 1.15
"""Factor within which a ratio is taken for that of kilocalories."""


@dataclass(frozen=True)
class SlopeStep:
    """Slope of ln p_2(U) / p_1(U) of two neighbouring temperatures, over what it has to be.

    Attributes
    ----------
    temperatures
        Both.
    ratio, error
        Slope over b_1 - b_2, which is one, and its error; not numbers where energies do not overlap.
    chance
        Of as large a deviation at any pair of temperatures of a run that is right.
    """

    temperatures: tuple[float, float]
    ratio: float
    error: float
    chance: float

    @property
    def tested(self) -> bool:
        """True where energies overlap."""
        return bool(np.isfinite(self.ratio))

    @property
    def off(self) -> bool:
        """True where energies are not those of these temperatures."""
        return self.tested and self.chance < _CHANCE and abs(self.ratio - 1.0) > _LARGEST

    def text(self, scale: TemperatureScale) -> str:
        """For people."""
        first, second = (scale.label(t) for t in self.temperatures)
        if not self.tested:
            return f"energies at {first} and {second} hardly overlap: their temperatures cannot be tested by them"
        text = (
            f"energies at {first} and {second} are distributed as if 1/kT differed by {self.ratio:.3g} ± "
            f"{self.error:.1g} times what it does"
        )
        if not self.off:
            return text
        if factor_of_calories(self.ratio, _NEAR) is not None:
            return f"{text}: they are in kilocalories per mole, or taken for them"
        return (
            f"{text}: one lacks the temperature of its thermostat, or they are not the energies of the frames"
        )


def slope_steps(weighting: TemperatureWeighting) -> tuple[SlopeStep, ...]:
    """Return the slopes of all neighbouring simulated temperatures."""
    mbar = weighting.mbar
    pairs = range(len(mbar.simulated) - 1)
    steps = [_slope_step(weighting, k) for k in pairs]
    n = sum(step.tested for step in steps)
    return tuple(SlopeStep(s.temperatures, s.ratio, s.error, min(1.0, n * s.chance)) for s in steps)


def _slope_step(weighting: TemperatureWeighting, k: int) -> SlopeStep:
    """The slope of temperatures k and k + 1, with the chance of it alone."""
    mbar = weighting.mbar
    pair = float(mbar.simulated[k]), float(mbar.simulated[k + 1])
    energies = mbar.energies_of_states()
    both = np.minimum(energies.counts[k], energies.counts[k + 1])
    overlaps = bhattacharyya(energies.means[k : k + 2], energies.variances[k : k + 2])[0]
    used = np.flatnonzero((both >= _LEAST) & (overlaps >= _OVERLAP))
    if len(used) == 0:
        return SlopeStep(pair, np.nan, np.nan, 1.0)
    table = _Table(weighting, k, used)
    expected = float(mbar.betas[k] - mbar.betas[k + 1])
    start = table.solve(
        table.counts(np.exp(mbar.log_w)), np.append(np.zeros(len(used)), expected * table.width)
    )
    samples = weighting.resamples[:_SOLVED]
    redrawn = [table.solve(table.counts(np.exp(s.log_w)), start)[-1] for s in samples]
    freedom = min(redrawn_freedom(weighting.blocks, mbar.level, (k, k + 1)), _SOLVED - 1)
    ratio = start[-1] / (expected * table.width)
    error = float(np.std(redrawn, ddof=1) / (expected * table.width) * np.sqrt((freedom + 1) / freedom))
    chance = 2.0 * float(stdtr(freedom, -abs(ratio - 1.0) / max(error, 1e-12)))
    return SlopeStep(pair, float(ratio), error, chance)


class _Table:
    """Frames of two temperatures in bins of the energy and some states."""

    def __init__(self, weighting: TemperatureWeighting, k: int, used: NDArray[np.int64]) -> None:
        mbar = weighting.mbar
        self.rows = np.flatnonzero(np.isin(mbar.level, (k, k + 1)) & np.isin(mbar.states, used))
        energy = mbar.energy[self.rows]
        self.width, self.n_states = float(energy.std()), len(used)
        edges = np.linspace(energy.min(), energy.max(), _BINS + 1)
        bins = np.clip(np.searchsorted(edges, energy, side="right") - 1, 0, _BINS - 1)
        centres = 0.5 * (edges[1:] + edges[:-1])
        self.x = (centres - energy.mean()) / self.width
        self.shape = (2, self.n_states, _BINS)
        state = np.searchsorted(used, mbar.states[self.rows])
        self.flat = ((mbar.level[self.rows] - k) * self.n_states + state) * _BINS + bins

    def counts(self, weights: Array) -> Array:
        """Weight of the frames at each temperature in each state and bin."""
        counts = np.bincount(self.flat, weights[self.rows], int(np.prod(self.shape)))
        return np.asarray(counts.reshape(self.shape), dtype=np.float64)

    def solve(self, counts: Array, start: Array) -> Array:
        """Constants of the states, and the slope per `width`, that make temperatures likeliest (Newton's method)."""
        values, total = start.copy(), counts.sum(axis=0)
        for _ in range(_STEPS):
            share = expit(values[:-1, None] + values[-1] * self.x)
            off, bend = counts[1] - total * share, total * share * (1 - share)
            slope = np.append(off.sum(axis=1), (off * self.x).sum())
            curvature = np.diag(np.append(bend.sum(axis=1), (bend * self.x**2).sum()) + 1e-9)
            curvature[:-1, -1] = curvature[-1, :-1] = (bend * self.x).sum(axis=1)
            step = np.clip(np.linalg.solve(curvature, slope), -1.0, 1.0)
            values += step
            if np.abs(step).max() < _TOLERANCE:
                break
        return values
