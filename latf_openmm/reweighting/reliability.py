"""The only place that says how many effective (uncorrelated) samples an estimate needs, and in which words.

Tests of equilibrium (`consistency`, `along`, `slopes`) and fits (`conditional`) have thresholds of their own.
"""

from typing import Literal

Reliability = Literal["good", "fair", "poor"]
"""Verdict on an estimate."""

MEANINGS: dict[Reliability, str] = {
    "good": "to be relied on within the errors",
    "fair": "to be looked at, with its errors and warnings, before it is relied on",
    "poor": "not to be relied on",
}
"""Each verdict in words; commands, figures and the report say it so."""

GOOD_SAMPLES = 100.0
"""Effective samples from which an ensemble is good."""

FAIR_SAMPLES = 30.0
"""Effective samples from which an ensemble is fair; a bootstrap of fewer says little of its errors."""

ONE_TRAJECTORY = 3.0
"""Factor on the effective samples that are needed where all frames come from one trajectory."""

MBAR_SAMPLES = 300.0
"""Effective samples from which MBAR alone is used; fewer where simulated temperatures have fewer."""

MIN_DESCRIBED_SAMPLES = 5.0
"""Effective samples of a state below which it is said how few they are."""

AMPLE_SAMPLES = 1000.0
"""Effective samples from which annealing brings nothing."""

ANNEALING_GAIN = 1.5
"""Times the effective samples of a temperature that the start of annealing has, at least, for annealing to be worth it.

Walkers know no more of the shares of slow states than the frames that they start from.
"""

MAX_ANNEALING_COST = 1.5
"""Force evaluations of annealing that nobody asked for, over those that the frames took, at most."""

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


def worst(*reliabilities: Reliability) -> Reliability:
    """Return the worst of some.

    Examples
    --------
    >>> worst("fair", "poor", "good")
    'poor'
    """
    return max(reliabilities, key=list(MEANINGS).index)


def reliability_text(reliability: Reliability) -> str:
    """Return a verdict and what it means.

    Examples
    --------
    >>> reliability_text("poor")
    'reliability poor: not to be relied on'
    """
    return f"reliability {reliability}: {MEANINGS[reliability]}"
