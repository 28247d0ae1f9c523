"""Van 't Hoff's analysis of a share against temperature: midpoint and enthalpy of a transition between two states."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latf_openmm.ensembles.curves import Curve
from latf_openmm.ensembles.ensemble import Estimate
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]

_SHARES = (0.05, 0.95)
"""Shares between which a temperature is used: outside, the logarithm of their ratio is mostly noise."""
_TEMPERATURES = 3
"""Temperatures that are needed: a line through two is not tested by anything."""
_CLIP = 1e-4
"""Shares of bootstrap samples are kept so far from zero and one."""


@dataclass(frozen=True)
class TwoState:
    """A transition as if there were two states whose heat capacities are equal.

    Attributes
    ----------
    midpoint
        Temperature at which the share is one half.
    enthalpy
        Of leaving what the share is of [kJ/mol]; positive where the share falls with temperature.
    temperatures
        Number of temperatures in the fit.
    """

    midpoint: Estimate
    enthalpy: Estimate
    temperatures: int

    def text(self, scale: TemperatureScale) -> str:
        """Say it."""
        unit = " kJ/mol" if scale.name == "K" else ""
        return (
            f"van 't Hoff fit of {self.temperatures} temperatures: one half at T = {self.midpoint}{scale.suffix}, "
            f"enthalpy of leaving {self.enthalpy}{unit}"
        )


def two_state(curve: Curve, scale: TemperatureScale) -> TwoState | None:
    """Fit ln((1 - p) / p) = -H / kT + S / k to a share p, weighted by the spread over bootstrap samples.

    None for a curve that is not of a share, without errors, or with fewer than three temperatures at which the share
    is between 0.05 and 0.95 and not of poor reliability; or where shares do not change.

    Parameters
    ----------
    curve
        Of a population, or of a function that is 0 or 1.
    scale
        Of its temperatures.

    Notes
    -----
    Temperatures are fitted as if they were independent, so weights are not the best ones; the errors are the spread of
    the fit over the bootstrap samples, which are the same at all temperatures.
    """
    table, replicates = curve.table, curve.replicates
    if not curve.is_share or replicates is None:
        return None
    share = table["value"].to_numpy(dtype=np.float64)
    spread = _logit(replicates).std(axis=1)
    relied = (table["reliability"] != "poor").to_numpy()
    used = (share > _SHARES[0]) & (share < _SHARES[1]) & relied & (spread > 0)
    if used.sum() < _TEMPERATURES:
        return None
    beta = 1.0 / np.array([scale.kT(t) for t in table["temperature"].to_numpy(dtype=np.float64)[used]])
    logits = _logit(np.column_stack([share[used], replicates[used]]))
    midpoints, enthalpies = _fit(beta, logits, 1.0 / spread[used])
    temperature = midpoints / scale.kT(1.0)
    if not np.isfinite(temperature[0]) or temperature[0] <= 0:
        return None
    return TwoState(
        Estimate(float(temperature[0]), float(np.nanstd(temperature[1:], ddof=1))),
        Estimate(float(enthalpies[0]), float(enthalpies[1:].std(ddof=1))),
        int(used.sum()),
    )


def _logit(share: Array) -> Array:
    """Logarithm of (1 - p) / p."""
    clipped = np.clip(share, _CLIP, 1 - _CLIP)
    return np.log((1 - clipped) / clipped)


def _fit(beta: Array, logits: Array, weights: Array) -> tuple[Array, Array]:
    """Thermal energy at which each line (a column) is zero, and minus its slope."""
    slope, intercept = np.polyfit(beta, logits, 1, w=weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return -slope / intercept, -slope
