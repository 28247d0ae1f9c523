"""Moves of walkers among temperatures."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from latf_openmm.frames.moves import round_trips as count_round_trips
from latf_openmm.plotting.axes import COLOURS, axes_or_new, legend, state_colour
from latf_openmm.run.records import TemperingRecord
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]


def temperature_paths(
    paths: Mapping[int, Array],
    scale: TemperatureScale,
    *,
    limit: int = 4,
    show_legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the temperature of a few walkers against the frame.

    Parameters
    ----------
    paths
        Temperature of each walker at each of its frames, by `latf_openmm.frames.moves.temperature_paths`.
    scale
        Of the temperatures.
    limit
        Walkers that are drawn, at most.
    show_legend
        Whether to draw one.
    ax
        Axes to draw into; default: a new figure.
    """
    ax = axes_or_new(ax, 6.4, 3.2)
    for colour, (number, path) in enumerate(list(paths.items())[:limit]):
        frames, tint = np.arange(len(path)), state_colour(colour)
        ax.step(frames, path, where="post", lw=0.8, color=tint, label=f"walker {number}")
    ax.set(xlabel="frame", ylabel=scale.axis_label)
    legend(ax, show_legend, columns=2)
    return ax


def temperature_shares(
    paths: Mapping[int, Array],
    temperatures: Sequence[float],
    scale: TemperatureScale,
    *,
    show_legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the share of its frames that each walker has at each temperature, and the mean of all.

    Parameters
    ----------
    paths, scale, show_legend, ax
        As for `temperature_paths`.
    temperatures
        Of the walkers.
    """
    ax, ordered = axes_or_new(ax), np.array(sorted(temperatures))
    places = np.arange(len(ordered))
    shares = np.array([(path[:, None] == ordered).mean(axis=0) for path in paths.values()])
    ax.plot(places, shares.T, "-", lw=0.6, color="0.7")
    ax.plot(places, shares.mean(axis=0), "o-", color=state_colour(0), label="mean of all walkers")
    ax.axhline(1 / len(ordered), lw=0.8, ls=":", color="0.4")
    ax.set(ylabel="share of a walker's frames", ylim=(0, None))
    legend(ax, show_legend)
    _temperature_axis(ax, ordered, scale)
    return ax


def acceptance(
    tempering: TemperingRecord,
    temperatures: Sequence[float],
    scale: TemperatureScale,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw the acceptance of exchanges between neighbouring temperatures.

    Parameters
    ----------
    tempering
        Of a round, as ``run.last_round().summary().tempering``.
    temperatures
        Of its walkers.
    scale
        Of the temperatures.
    ax
        Axes to draw into; default: a new figure.
    """
    ax, ordered = axes_or_new(ax), np.array(sorted(temperatures))
    values = [np.nan if value is None else value for value in tempering.acceptance]
    ax.bar(np.arange(len(ordered) - 1) + 0.5, values, color=state_colour(0), width=0.7)
    ax.set(ylabel="acceptance between neighbours", ylim=(0, 1))
    _temperature_axis(ax, ordered, scale)
    return ax


def round_trips(paths: Mapping[int, Array], temperatures: Sequence[float], *, ax: Axes | None = None) -> Axes:
    """Draw the number of ways from the lowest to the highest temperature and back, of each walker.

    Parameters
    ----------
    paths, temperatures, ax
        As for `temperature_shares`.
    """
    ax = axes_or_new(ax)
    trips = [count_round_trips({number: path}, temperatures) for number, path in paths.items()]
    ax.bar(list(paths), trips, color=COLOURS[0], width=0.7)
    ax.set(xlabel="walker", ylabel="round trips", ylim=(0, max([*trips, 1]) * 1.1))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return ax


def _temperature_axis(ax: Axes, temperatures: Array, scale: TemperatureScale) -> None:
    """Axis of temperatures at equal distances."""
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.xaxis.set_major_formatter(lambda x, _: _name(x, temperatures))
    ax.set(xlim=(-0.5, len(temperatures) - 0.5), xlabel=scale.axis_label)


def _name(place: float, temperatures: Array) -> str:
    """Name of a temperature by its place; empty between them."""
    number = round(place)
    inside = abs(place - number) < 1e-6 and 0 <= number < len(temperatures)
    return f"{temperatures[number]:g}" if inside else ""
