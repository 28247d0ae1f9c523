"""Moves of walkers among temperatures, in lines for people."""

from latf_openmm.run.records import TemperingRecord


def moves_text(tempering: TemperingRecord | None) -> str | None:
    """One line on the moves of a round; None where walkers stayed at their temperatures."""
    if tempering is None:
        return None
    return (
        f"{tempering.walkers} walkers moved among temperatures ({tempering.kind}): {acceptance_text(tempering)} "
        "from the lowest to the highest and back"
    )


def acceptance_text(tempering: TemperingRecord | None) -> str:
    """Acceptance and round trips of moves; empty where walkers stayed at their temperatures."""
    if tempering is None:
        return ""
    known = [value for value in tempering.acceptance if value is not None]
    said = (
        f"acceptance between neighbouring temperatures {min(known):.2g} to {max(known):.2g}, "
        if known
        else ""
    )
    trips = tempering.round_trips
    return f"{said}{trips} round {'trip' if trips == 1 else 'trips'}"
