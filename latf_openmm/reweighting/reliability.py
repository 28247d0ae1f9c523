"""The only place that says how many effective (uncorrelated) samples are enough, and for what."""

from typing import Literal

Reliability = Literal["good", "fair", "poor"]
"""Verdict on an estimate: to be relied on within its error, to be looked at, not to be relied on."""

RELIABILITY_WORDS: dict[Reliability, str] = {
    "good": "populations and energies can be relied on within their errors",
    "fair": "look at the errors and the warnings before you rely on it",
    "poor": "do not rely on it",
}
"""Reliabilities for people."""

GOOD_SAMPLES = 100.0
"""Effective samples from which an ensemble is good."""

FAIR_SAMPLES = 30.0
"""Effective samples from which an ensemble is fair; a bootstrap of fewer says little of its errors."""

AMPLE_SAMPLES = 1000.0
"""Effective samples from which annealing brings nothing."""

MIN_LADDER_SAMPLES = 50.0
"""Effective samples of a temperature that a flow is trained at, at least."""

MIN_SEEN_SAMPLES = 3.0
"""Effective samples from which something is seen at all, such as a state or one side of a difference."""

MIN_MEASURED_SAMPLES = 10.0
"""Effective samples at a temperature from which its overlap with others is measured, not modelled."""

MIN_FRAMES = 10
"""Frames of a run, at least."""

MIN_ANCESTORS = 10.0
"""Effective ancestors of annealed walkers, at least."""

MIN_OVERLAP = 0.03
"""Relative overlap from which two runs are connected (Klimovich, Shirts and Mobley, 2015)."""

MAX_TEMPERATURE_FACTOR = 2.0
"""Factor beyond the simulated temperatures that nothing is claimed from."""


def reliability_of(n_effective: float) -> Reliability:
    """Return the reliability of an ensemble with so many effective samples."""
    if n_effective >= GOOD_SAMPLES:
        return "good"
    return "fair" if n_effective >= FAIR_SAMPLES else "poor"
