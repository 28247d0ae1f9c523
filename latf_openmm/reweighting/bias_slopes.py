"""A test of biases: whether frames of differently biased runs are distributed as their biases say.

Of two runs i and j with static biases V at one temperature, the densities p of D = (V_j - V_i) / k_B T obey

    ln p_j(D) - ln p_i(D) = constant - D ,

whatever the free energy. The likeliest slope is that of a logistic regression of the run on D, as in the test of
temperatures (`latf_openmm.reweighting.slopes`). A bias in another unit, one that was left out of a table, one with
another centre, or a run that is not in equilibrium gives another slope. The chance is that of the ratio of
likelihoods, so that runs count which do not overlap although by their biases they have to.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import chi2

from latf_openmm.reweighting.estimators import statistical_inefficiency
from latf_openmm.reweighting.reliability import MIN_OVERLAP
from latf_openmm.reweighting.windows import JoinedWindows
from latf_openmm.units import factor_of_calories

Array = NDArray[np.float64]

_MIN_EFFECTIVE = 10.0
"""Effective samples of a run from which it is tested."""
_FRAMES = 2000
"""Frames of a run that are looked at, at most."""
_CHANCE = 1e-3
"""Chance of any slope that is said of runs that are right."""
_LARGEST = 0.2
"""Deviation of a slope from one up to which nothing is said."""
_STEEPEST = 20.0
"""Slopes that are looked for, at most."""
_NEAR = 1.15
"""Factor within which a ratio is taken for that of kilocalories."""


@dataclass(frozen=True)
class BiasStep:
    """Slope of the logarithm of the ratio of two runs' densities against the difference of their biases.

    Attributes
    ----------
    runs
        Numbers of both.
    ratio
        Slope over what it has to be, -1 / kT.
    chance
        Of as large a deviation at any pair of runs that are right.
    """

    runs: tuple[int, int]
    ratio: float
    chance: float

    @property
    def off(self) -> bool:
        """True where frames are not distributed as biases say."""
        return self.chance < _CHANCE and abs(self.ratio - 1.0) > _LARGEST


def bias_steps(joined: JoinedWindows) -> list[BiasStep]:
    """Return the slopes of all pairs of runs that overlap, by their biases."""
    n_runs = joined.reduced.shape[1]
    frames = [np.flatnonzero(joined.run == run) for run in range(n_runs)]
    steps = []
    for i, j in combinations(range(n_runs), 2):
        if joined.overlap[i, j] >= MIN_OVERLAP:
            difference = joined.reduced[:, j] - joined.reduced[:, i]
            step = _step(difference[frames[i]], difference[frames[j]])
            steps += [] if step is None else [BiasStep((i, j), *step)]
    return [BiasStep(step.runs, step.ratio, min(1.0, len(steps) * step.chance)) for step in steps]


def ratio_of_calories(steps: list[BiasStep]) -> float | None:
    """Return by which factor biases have to be multiplied: 4.184 or its inverse; None where that is not it."""
    off = [step.ratio for step in steps if step.off]
    if not off:
        return None
    ratio = float(np.median(off))
    return factor_of_calories(ratio, _NEAR) if 2 * len(off) > len(steps) else None


def _step(first: Array, second: Array) -> tuple[float, float] | None:
    """Slope of two runs with its chance, of the differences of biases at their frames; None: too few frames."""
    values, weights = [], []
    for of_run in (first, second):
        if np.ptp(of_run) < 1e-6:
            return None
        effective = len(of_run) / statistical_inefficiency([of_run[:, None]])
        if effective < _MIN_EFFECTIVE:
            return None
        chosen = of_run[np.linspace(0, len(of_run) - 1, min(len(of_run), _FRAMES)).round().astype(int)]
        values.append(chosen)
        weights.append(np.full(len(chosen), effective / len(chosen)))
    signs = np.repeat([-1.0, 1.0], [len(values[0]), len(values[1])])
    return _slope(np.concatenate(values), signs, np.concatenate(weights))


def _slope(x: Array, signs: Array, weights: Array) -> tuple[float, float]:
    """Likeliest s with which the odds of sign + are exp(c - s x), and the chance of as large a deviation from 1."""
    middle, width = float(x.mean()), float(x.std())
    scaled = (x - middle) / width

    def loss(parameters: Array) -> tuple[float, Array]:
        odds = signs * (parameters[0] - parameters[1] * scaled)
        pull = -weights * signs * expit(-odds)
        return float(weights @ np.logaddexp(0.0, -odds)), np.array([pull.sum(), -(pull @ scaled)])

    bound = _STEEPEST * width
    fixed, free = (
        minimize(loss, [0.0, width], jac=True, method="L-BFGS-B", bounds=[(None, None), limits])
        for limits in ((width, width), (-bound, bound))
    )
    deviance = max(0.0, 2.0 * float(fixed.fun - free.fun))
    return float(free.x[1] / width), float(chi2.sf(deviance, 1))
