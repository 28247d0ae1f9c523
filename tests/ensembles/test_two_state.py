"""Van 't Hoff's analysis of shares that are known exactly."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from latf_openmm.ensembles.curves import Curve
from latf_openmm.ensembles.two_state import TwoState, two_state
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
