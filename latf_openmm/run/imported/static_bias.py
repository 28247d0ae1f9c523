"""A static bias found from its energies at the frames of its own run.

An umbrella potential is a quadratic function of a distance, an angle or a coordinate. Where one descriptor, or two,
give all recorded energies of a run to within a hundredth of kT, that function is the bias, at any frame. Three to six
numbers that fit hundreds of energies to rounding are not found by chance; what the fit is not sure of at the frames of
other runs is refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latf_openmm.periodic import nearest_difference, periodic_mean

Array = NDArray[np.float64]

_RESIDUAL = 0.01  # kT
_UNSURE = 0.1  # kT
_MIN_FRAMES = 30
"""Frames of a run that a bias is found from, at least."""
_MAX_PAIRED = 20
"""Descriptors that fit best alone, of which pairs are tried, at most."""


@dataclass(frozen=True)
class StaticBias:
    """A bias as a function of descriptors.

    Attributes
    ----------
    on
        Names of the descriptors.
    energies
        At all frames [kJ/mol], shape (n_frames,).
    residual
        Largest difference at the run's own frames [kJ/mol].
    """

    on: str
    energies: Array
    residual: float

    def __str__(self) -> str:
        return f"a quadratic function of {self.on}, to within {self.residual:.2g} kJ/mol at its own frames"


def find_static_bias(
    values: Mapping[str, Array],
    periods: Mapping[str, float],
    members: NDArray[np.int64],
    bias: Array,
    kT: float,
) -> StaticBias | None:
    """Return the bias as a function of one or two descriptors; None where there is none, or two that disagree.

    Parameters
    ----------
    values
        Descriptors at all frames, each of shape (n_frames,).
    periods
        Of those that are periodic.
    members
        Frames of the run, shape (n_members,).
    bias
        Recorded at them [kJ/mol], shape (n_members,).
    """
    if len(members) < _MIN_FRAMES:
        return None
    usable = {
        n: x for n, x in values.items() if np.ptp(x[members]) > 1e-9 and not hidden_period(n, x, periods)
    }
    candidates, single = list[StaticBias](), dict[str, float]()
    for name, x in usable.items():
        period = periods.get(name, 0.0)
        unwrapped = _unwrapped(x, periodic_mean(x[members], period), period)
        result, single[name] = _fit([name], [unwrapped], members, bias, kT)
        if result is not None and period > 0:  # its images are the nearest to its centre
            unwrapped = _unwrapped(x, _vertex(unwrapped[members], bias), period)
            result, _ = _fit([name], [unwrapped], members, bias, kT)
        if result is not None:
            candidates.append(result)
    if not candidates:
        for pair in _pairs(single, periods):
            result, _ = _fit(list(pair), [usable[name] for name in pair], members, bias, kT)
            if result is not None:
                candidates.append(result)
    if not candidates:
        return None
    best = min(candidates, key=lambda candidate: candidate.residual)
    for other in candidates:
        low = np.minimum(best.energies, other.energies)
        off = np.abs(best.energies - other.energies)
        if (off > _UNSURE * kT + 0.02 * np.maximum(low - bias.min(), 0.0)).any():
            return None
    return best


def _pairs(residuals: Mapping[str, float], periods: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    names = sorted((n for n in residuals if n not in periods), key=lambda name: residuals[name])[:_MAX_PAIRED]
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            yield first, second


def hidden_period(name: str, x: Array, periods: Mapping[str, float]) -> bool:
    """Return whether values look like an angle all around, of which nothing says that it is periodic."""
    if name in periods:
        return False
    ends = np.array([-x.min(), x.max()])
    return any(((0.97 * half < ends) & (ends < 1.001 * half)).all() for half in (np.pi, 180.0))


def _vertex(x: Array, bias: Array) -> float:
    """Return the place of the extremum of a quadratic function."""
    square, linear, _ = np.polyfit(x - x.mean(), bias, 2)
    return float(x.mean() - 0.5 * linear / square)


def _unwrapped(x: Array, middle: float, period: float) -> Array:
    """A descriptor as its nearest image to `middle`, where it is periodic."""
    return x if period <= 0 else middle + nearest_difference(x - middle, period)


def _fit(
    names: list[str], x: list[Array], members: NDArray[np.int64], bias: Array, kT: float
) -> tuple[StaticBias | None, float]:
    """Fit a quadratic function; return it where it is exact and sure at all frames, and its residual anyway."""
    scaled = [(values - values[members].mean()) / values[members].std() for values in x]
    terms = [np.ones_like(scaled[0]), *scaled, *(s**2 for s in scaled)]
    if len(scaled) == 2:
        terms.append(scaled[0] * scaled[1])
    design = np.stack(terms, axis=1)
    coefficients, _, rank, _ = np.linalg.lstsq(design[members], bias, rcond=None)
    off = design[members] @ coefficients - bias
    residual = float(np.abs(off).max())
    if rank < design.shape[1] or residual > _RESIDUAL * kT:
        return None, residual
    energies = design @ coefficients
    inverse = np.linalg.inv(design[members].T @ design[members])
    unsure = float(np.sqrt(np.mean(off**2))) * np.sqrt(np.einsum("ni,ij,nj->n", design, inverse, design))
    above = np.maximum(energies - bias.min(), 0.0)
    if (3 * unsure > _UNSURE * kT + 0.02 * above).any() or energies.min() < bias.min() - 20 * kT:
        return None, residual
    return StaticBias(" and ".join(names), np.asarray(energies), residual), residual
