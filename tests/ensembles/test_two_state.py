"""Van 't Hoff's analysis of shares that are known exactly."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from latf_openmm.ensembles.curves import Curve
from latf_openmm.ensembles.two_state import TwoState, two_state, two_state_text
from latf_openmm.units import KELVIN, REDUCED, TemperatureScale

ENTHALPY, MIDPOINT = 40.0, 345.0
TEMPERATURES = np.arange(300.0, 401.0, 10.0)


def share(temperatures: np.ndarray) -> np.ndarray:
    """Of the folded state."""
    beta, middle = (1 / (KELVIN.boltzmann * np.asarray(t)) for t in (temperatures, MIDPOINT))
    return 1 / (1 + np.exp(ENTHALPY * (middle - beta)))


def folded(rng: np.random.Generator | None = None, samples: int = 200) -> Curve:
    """A curve from 200 independent structures at each temperature; the exact one without `rng`."""
    exact = share(TEMPERATURES)
    value = exact if rng is None else rng.binomial(samples, exact) / samples
    draws = rng or np.random.default_rng(0)
    replicates = draws.binomial(samples, value, size=(100, len(value))).T / samples
    table = pd.DataFrame({"temperature": TEMPERATURES, "value": value, "error": replicates.std(axis=1)})
    return Curve("file.py:folded", "", table.assign(reliability="good"), replicates, is_share=True)


def fitted(curve: Curve, scale: TemperatureScale = KELVIN) -> TwoState:
    fit = two_state(curve, scale)
    assert fit is not None
    return fit


def test_an_exact_curve() -> None:
    fit = fitted(folded())
    assert fit.midpoint.value == pytest.approx(MIDPOINT, abs=1e-6)
    assert fit.enthalpy.value == pytest.approx(ENTHALPY, abs=1e-6)
    assert fit.temperatures == len(TEMPERATURES)
    assert fit.text(KELVIN).startswith("van 't Hoff fit of 11 temperatures: one half at T = 345.0 ± ")
    assert " K, enthalpy of leaving 40" in fit.text(KELVIN)
    assert fit.text(KELVIN).endswith("kJ/mol")
    assert not fitted(folded(), REDUCED).text(REDUCED).endswith("kJ/mol")


def test_errors_are_calibrated() -> None:
    fits = [fitted(folded(np.random.default_rng(seed))) for seed in range(200)]
    for name, exact in (("midpoint", MIDPOINT), ("enthalpy", ENTHALPY)):
        estimates = [getattr(fit, name) for fit in fits]
        within = np.mean([abs(one.value - exact) < 2 * one.error for one in estimates])
        assert 0.9 <= within <= 0.99


def test_no_fit_without_a_transition() -> None:
    exact = folded()
    assert two_state(replace(exact, is_share=False), KELVIN) is None
    assert two_state(replace(exact, replicates=None), KELVIN) is None
    assert two_state(replace(exact, table=exact.table.assign(reliability="poor")), KELVIN) is None
    assert exact.replicates is not None
    two = replace(exact, table=exact.table[:2], replicates=exact.replicates[:2])
    assert two_state(two, KELVIN) is None


def chosen(curve: Curve, rows: slice) -> Curve:
    """Some temperatures of a curve."""
    assert curve.replicates is not None
    return replace(curve, table=curve.table[rows].reset_index(drop=True), replicates=curve.replicates[rows])


def test_a_good_curve_has_no_reservation() -> None:
    assert fitted(folded()).reservations == ()
    assert two_state_text(folded(), KELVIN) == fitted(folded()).text(KELVIN)
    assert "reservation" not in two_state_text(folded(), KELVIN)


def test_a_weak_fit_says_why_it_is_weak() -> None:
    """Shares at 300 to 330 K are 0.89 to 0.65, so that one half is beyond, and those below are left out where poor."""
    few = chosen(folded(), slice(0, 4))
    poor = replace(few, table=few.table.assign(reliability=["poor", "good", "good", "good"]))
    said = two_state_text(poor, KELVIN)
    assert said.startswith("van 't Hoff fit of 3 temperatures: ")
    assert "; with reservation, since 1 more in its range is not to be relied on and left out" in said
    assert said.endswith(" and one half is beyond its temperatures")
    edge = chosen(folded(), slice(6, 11))  # 0.36 to 0.13
    assert fitted(edge).reservations == ("one half is beyond its temperatures",)
    middle = replace(edge, table=edge.table.assign(value=[0.3, 0.094, 0.08, 0.07, 0.06]))
    assert fitted(middle).reservations[0] == "only 1 of them have a share between 0.1 and 0.9"


def test_large_errors_are_a_reservation() -> None:
    fit = fitted(folded(samples=5))
    large, flat = fit.reservations
    assert large.startswith("errors of the shares are large, 0.1")
    assert flat == "the enthalpy is less than three errors from zero"
    assert "large" not in " ".join(fitted(folded(samples=50)).reservations)


def test_no_fit_is_given_with_a_reason() -> None:
    exact = folded()
    assert two_state_text(replace(exact, is_share=False), KELVIN) == ""
    assert two_state_text(replace(exact, replicates=None), KELVIN).startswith(
        "no van 't Hoff fit, since a temperature rests on the flow alone"
    )
    reliability = ["poor"] * 9 + ["good"] * 2
    assert two_state_text(replace(exact, table=exact.table.assign(reliability=reliability)), KELVIN) == (
        "no van 't Hoff fit, since 2 temperatures have a share between 0.05 and 0.95 (9 more not to be relied on); 3 "
        "are needed"
    )
    assert two_state_text(chosen(exact, slice(0, 2)), KELVIN) == (
        "no van 't Hoff fit, since 2 temperatures have a share between 0.05 and 0.95; 3 are needed"
    )
