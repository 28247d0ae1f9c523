"""Van 't Hoff's analysis of a share against temperature: midpoint and enthalpy of a transition between two states."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latf_openmm.ensembles.curves import Curve
from latf_openmm.ensembles.ensemble import Estimate
from latf_openmm.reweighting.reliability import MEANINGS
from latf_openmm.sentences import listed
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SHARES = (0.05, 0.95)
"""Shares between which a temperature is used: outside, the logarithm of their ratio is mostly noise."""
_TEMPERATURES = 3
"""Temperatures that are needed: a line through two is not tested by anything."""
_MIDDLE = (0.1, 0.9)
"""Shares between which a temperature says most of the slope."""
_LARGE = 0.1
"""Error of a share from which a point says little of the slope."""
_SIGNIFICANT = 3.0
"""Errors that the enthalpy is away from zero, at least, for a transition to be told from none."""
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
    reservations
        Why it is to be looked at before it is relied on; empty where nothing is known against it.
    """

    midpoint: Estimate
    enthalpy: Estimate
    temperatures: int
    reservations: tuple[str, ...] = ()

    def text(self, scale: TemperatureScale) -> str:
        """Say it, with what speaks against it."""
        unit = " kJ/mol" if scale.name == "K" else ""
        but = f"; with reservation, since {listed(self.reservations)}" if self.reservations else ""
        return (
            f"van 't Hoff fit of {self.temperatures} temperatures: one half at T = {self.midpoint}{scale.suffix}, "
            f"enthalpy of leaving {self.enthalpy}{unit}{but}"
        )


def two_state_text(curve: Curve, scale: TemperatureScale) -> str:
    """Say the fit of a share, with what speaks against it, or why there is none; empty for what is not a share."""
    if not curve.is_share:
        return ""
    fit = two_state(curve, scale)
    return f"no van 't Hoff fit, since {_why_none(curve)}" if fit is None else fit.text(scale)


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
    used = _used(curve, replicates)
    if used.sum() < _TEMPERATURES:
        return None
    share, spread = table["value"].to_numpy(dtype=np.float64)[used], _logit(replicates[used]).std(axis=1)
    beta = 1.0 / np.array([scale.kT(t) for t in table["temperature"].to_numpy(dtype=np.float64)[used]])
    midpoints, enthalpies = _fit(beta, _logit(np.column_stack([share, replicates[used]])), 1.0 / spread)
    temperature = midpoints / scale.kT(1.0)
    if not np.isfinite(temperature[0]) or temperature[0] <= 0:
        return None
    fit = TwoState(
        Estimate(float(temperature[0]), float(np.nanstd(temperature[1:], ddof=1))),
        Estimate(float(enthalpies[0]), float(enthalpies[1:].std(ddof=1))),
        int(used.sum()),
    )
    return replace(fit, reservations=tuple(_reservations(fit, table, used)))


def _between(table: pd.DataFrame, shares: tuple[float, float]) -> Mask:
    """Return the temperatures whose share is between two."""
    share = table["value"].to_numpy(dtype=np.float64)
    return np.asarray((share > shares[0]) & (share < shares[1]))


def _poor(table: pd.DataFrame) -> Mask:
    return (table["reliability"] == "poor").to_numpy()


def _used(curve: Curve, replicates: Array) -> Mask:
    """Return the temperatures that a fit can use."""
    changes = _logit(replicates).std(axis=1) > 0
    return np.asarray(_between(curve.table, _SHARES) & ~_poor(curve.table) & changes)


def _why_none(curve: Curve) -> str:
    """Say why there is no fit of a share."""
    if curve.replicates is None:
        return (
            "a temperature rests on the flow alone, so errors of several temperatures together are not known"
        )
    n, poor = int(_used(curve, curve.replicates).sum()), _between(curve.table, _SHARES) & _poor(curve.table)
    if n < _TEMPERATURES:
        more = f" ({poor.sum()} more {MEANINGS['poor']})" if poor.any() else ""
        low, high = _SHARES
        return f"{n} temperatures have a share between {low:g} and {high:g}{more}; {_TEMPERATURES} are needed"
    return "no temperature with a share of one half follows from these"


def _reservations(fit: TwoState, table: pd.DataFrame, used: Mask) -> list[str]:
    """Say why a fit is to be looked at before it is relied on."""
    said, at = [], table["temperature"].to_numpy(dtype=np.float64)[used]
    middle = int((used & _between(table, _MIDDLE)).sum())
    if middle < _TEMPERATURES:
        said.append(f"only {middle} of them have a share between {_MIDDLE[0]:g} and {_MIDDLE[1]:g}")
    if poor := int((_between(table, _SHARES) & _poor(table)).sum()):
        said.append(
            f"{poor} more in its range {'is' if poor == 1 else 'are'} {MEANINGS['poor']} and left out"
        )
    if (error := float(table["error"].to_numpy(dtype=np.float64)[used].mean())) > _LARGE:
        said.append(f"errors of the shares are large, {error:.2g} in the mean")
    if not at.min() <= fit.midpoint.value <= at.max():
        said.append("one half is beyond its temperatures")
    if not abs(fit.enthalpy.value) >= _SIGNIFICANT * fit.enthalpy.error:
        said.append("the enthalpy is less than three errors from zero")
    return said


def _logit(share: Array) -> Array:
    """Logarithm of (1 - p) / p."""
    clipped = np.clip(share, _CLIP, 1 - _CLIP)
    return np.log((1 - clipped) / clipped)


def _fit(beta: Array, logits: Array, weights: Array) -> tuple[Array, Array]:
    """Thermal energy at which each line (a column) is zero, and minus its slope."""
    slope, intercept = np.polyfit(beta, logits, 1, w=weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return -slope / intercept, -slope
