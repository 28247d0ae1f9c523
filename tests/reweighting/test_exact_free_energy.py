"""Free energies known exactly, by molecular dynamics with each bias that is built on the fly (short runs)."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

_FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "biasing" / "exact.py"


@pytest.fixture(scope="module")
def exact() -> ModuleType:
    """The benchmark; its own runs are longer."""
    spec = importlib.util.spec_from_file_location("exact_free_energies", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def allowed(limit: float, steps: int) -> float:
    """What may be lacking [kT]; the limit is that of 40 000 steps, and errors fall with the root of their number."""
    return float(limit * np.sqrt(40_000 / steps))


@pytest.mark.parametrize("steps", [16_000, pytest.param(40_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ["OPES", pytest.param("OPES explore", marks=pytest.mark.slow)])
def test_double_well(exact: ModuleType, method: str, steps: int) -> None:
    case = exact.double_well()
    (found,) = exact.sample(case, case.methods()[method], seed=1, steps=steps)
    rms, largest = exact.deviation(case, found)
    assert rms < allowed(0.1, steps)
    assert largest < allowed(0.25, steps)


@pytest.mark.slow
def test_double_well_with_metadynamics(exact: ModuleType) -> None:
    """The next test has a short one."""
    test_double_well(exact, "metadynamics", 40_000)


@pytest.mark.parametrize(
    ("method", "steps"),
    [
        ("metadynamics", 16_000),
        pytest.param("metadynamics", 40_000, marks=pytest.mark.slow),
        pytest.param("OPES", 40_000, marks=pytest.mark.slow),
    ],
)
def test_walkers_at_two_temperatures_share_a_bias(exact: ModuleType, method: str, steps: int) -> None:
    case, temperatures = exact.double_well(), [1.0, 1.6]
    found = exact.sample(case, case.methods()[method], seed=2, steps=steps, temperatures=temperatures)
    for histogram, temperature in zip(found, temperatures, strict=True):
        assert exact.deviation(case, histogram, temperature)[0] < allowed(0.13, steps)
    # Each has the free energy of its own temperature, not that of the other.
    assert exact.deviation(case, found[0], 1.6)[0] > 0.5


@pytest.mark.slow
def test_three_holes(exact: ModuleType) -> None:
    case = exact.three_hole()
    (found,) = exact.sample(case, case.methods()["metadynamics"], seed=1, steps=80_000)
    assert exact.deviation(case, found)[0] < 0.13


@pytest.mark.slow
@pytest.mark.parametrize("name", ["double_well", "three_hole"])
@pytest.mark.parametrize("method", ["metadynamics", "OPES", "OPES explore"])
def test_within_a_tenth_of_kt(exact: ModuleType, name: str, method: str) -> None:
    case = getattr(exact, name)()
    (found,) = exact.sample(case, case.methods()[method], seed=3, steps=exact.STEPS)
    assert exact.deviation(case, found)[0] < 0.1
