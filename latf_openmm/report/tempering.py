"""Moves of walkers among temperatures: the figure, and lines for people."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from latf_openmm import plotting
from latf_openmm.frames.moves import temperature_paths
from latf_openmm.frames.walkers import WalkerFrames
from latf_openmm.run.records import RoundRecord, TemperingRecord
from latf_openmm.units import TemperatureScale


def moves_figure(
    walkers: Sequence[WalkerFrames], record: RoundRecord, scale: TemperatureScale
) -> Figure | None:
    """Draw the ways of a few walkers, the time of all at each temperature, and the acceptance between neighbours.

    Parameters
    ----------
    walkers, record
        Of one round; None is returned where its walkers stayed at their temperatures.
    """
    paths = temperature_paths(walkers)
    if record.tempering is None or not paths:
        return None
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    way, time, acceptance = figure.subplots(1, 3, width_ratios=[2, 1, 1])
    plotting.temperature_paths(paths, scale, ax=way)
    plotting.temperature_shares(paths, record.temperatures, scale, ax=time)
    plotting.acceptance(record.tempering, record.temperatures, scale, ax=acceptance)
    return figure


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
