"""Moves of walkers among temperatures: the figure, and lines for people."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from latf_openmm.frames.moves import temperature_paths
from latf_openmm.frames.walkers import WalkerFrames
from latf_openmm.report.figures import state_colour
from latf_openmm.run.records import RoundRecord, TemperingRecord
from latf_openmm.units import TemperatureScale

_SHOWN = 4
"""Walkers whose way is drawn."""


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
    temperatures = np.array(sorted(record.temperatures))
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    way, time, acceptance = figure.subplots(1, 3, width_ratios=[2, 1, 1])
    for colour, (number, path) in enumerate(list(paths.items())[:_SHOWN]):
        way.step(
            np.arange(len(path)),
            path,
            where="post",
            lw=0.8,
            color=state_colour(colour),
            label=f"walker {number}",
        )
    way.set(xlabel="frame", ylabel=scale.axis_label)
    way.legend(frameon=False, fontsize=8, ncols=2)
    places = np.arange(len(temperatures))
    shares = np.array([(path[:, None] == temperatures).mean(axis=0) for path in paths.values()])
    time.plot(places, shares.T, "-", lw=0.6, color="0.7")
    time.plot(places, shares.mean(axis=0), "o-", color=state_colour(0), label="mean of all walkers")
    time.axhline(1 / len(temperatures), lw=0.8, ls=":", color="0.4")
    time.set(ylabel="share of a walker's frames", ylim=(0, None))
    time.legend(frameon=False, fontsize=8)
    values = [np.nan if value is None else value for value in record.tempering.acceptance]
    acceptance.bar(places[:-1] + 0.5, values, color=state_colour(0), width=0.7)
    acceptance.set(ylabel="acceptance between neighbours", ylim=(0, 1))
    for axis in (time, acceptance):
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axis.xaxis.set_major_formatter(lambda x, _: _name(x, temperatures))
        axis.set(xlim=(-0.5, len(temperatures) - 0.5), xlabel=scale.axis_label)
    return figure


def _name(place: float, temperatures: Sequence[float] | np.ndarray) -> str:
    """Name of a temperature by its place; empty between them."""
    whole_number = round(place)
    inside = abs(place - whole_number) < 1e-6 and 0 <= whole_number < len(temperatures)
    return f"{temperatures[whole_number]:g}" if inside else ""


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
