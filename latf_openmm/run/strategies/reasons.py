"""Reasons of the active strategy, in words."""

from collections.abc import Mapping, Sequence

from latf_openmm.run.strategies.base import RoundState
from latf_openmm.run.strategies.error_model import Target
from latf_openmm.run.strategies.plans import Outlook, Plan
from latf_openmm.units import TemperatureScale

_HARDLY = 0.01
"""Expected number of events below which no number is said."""


def next_text(scale: TemperatureScale, worst: Target, plan: Plan) -> str:
    """Say where the next round simulates; `worst` is the temperature wanted where the error is largest."""
    when = "again, which walkers move among" if plan.moving else "next"
    return (
        f"{', '.join(scale.label(t) for t in plan.temperatures)} {when}: the error is largest at "
        f"{scale.label(worst.temperature)}, {worst.error:.2g} times the tolerance"
    )


def plan_text(
    scale: TemperatureScale, best: Outlook, every: Sequence[Outlook], visits: Mapping[float, float]
) -> str:
    """Say why walkers move or stay.

    Parameters
    ----------
    best, every
        The plan that was chosen, and all.
    visits
        Entries expected of a walker that stays into its rarest state without a bias, by temperature.
    """
    others = ", ".join(f"{o.error:.3g} if {o.plan.name}" for o in every if o is not best)
    rarest = min(visits, key=lambda t: visits[t])
    alone = f"{_number(visits[rarest])} times a round"
    trips = max(outlook.trips for outlook in every)
    if best.plan.moving:
        why = f"alone a walker at {scale.label(rarest)} is expected to enter its rarest state {alone}"
    else:
        why = (
            f"a walker that moves is expected to make {_number(trips)} round trips, alone at {scale.label(rarest)} to "
            f"enter its rarest state {alone}"
        )
    return f"{best.plan.name}: expected error {best.error:.3g} of the tolerance, {others}: {why}"


def _number(expected: float) -> str:
    """Expected number of events of one walker."""
    return f"{expected:.2g}" if expected >= _HARDLY else f"less than {_HARDLY:g}"


def bias_text(round_state: RoundState, plan: Plan, expected: Mapping[float, float]) -> str:
    """Say which walkers feel the bias; `expected` entries of a walker into its rarest state, by temperature."""
    label = round_state.scale.label
    said = ", ".join(f"{expected[t]:.2g} at {label(t)}" for t in plan.temperatures)
    if not round_state.can_bias:
        return f"no bias is configured; entries into the rarest state expected of a walker: {said}"
    where = ", ".join(label(t) for t in plan.biased) or "nowhere"
    return f"bias {where}: without it a walker is expected to enter its rarest state so often: {said}"
