"""Reasons of the active strategy, in words."""

from latf_openmm.run.strategies.base import RoundState


def next_text(round_state: RoundState, worst: float, error: float, chosen: tuple[float, ...]) -> str:
    """Say where the next round simulates.

    Parameters
    ----------
    worst, error
        Temperature wanted where the error is largest, and this error over the tolerance.
    """
    label = round_state.scale.label
    when = "again, which walkers move among" if round_state.moving else "next"
    return (
        f"{', '.join(label(t) for t in chosen)} {when}: the error is largest at {label(worst)}, {error:.2g} times the "
        "tolerance"
    )


def bias_text(
    round_state: RoundState,
    chosen: tuple[float, ...],
    biased: tuple[float, ...],
    expected: dict[float, float],
) -> str:
    """Say which walkers feel the bias; `expected` entries of a walker into its rarest state, by temperature."""
    label = round_state.scale.label
    said = ", ".join(f"{expected[t]:.2g} at {label(t)}" for t in chosen)
    if not round_state.can_bias:
        return f"no bias is configured; entries into the rarest state expected of a walker: {said}"
    where = ", ".join(label(t) for t in biased) or "nowhere"
    return f"bias {where}: without it a walker is expected to enter its rarest state so often: {said}"
