"""Decisions of the loop: temperatures of each round, and the errors they follow from."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from latf_openmm.plotting.axes import COLOURS, axes_or_new, legend
from latf_openmm.run.records import DecisionRecord
from latf_openmm.units import TemperatureScale


def simulated_temperatures(
    first: Sequence[float],
    plans: Sequence[DecisionRecord],
    scale: TemperatureScale,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw the temperatures of each round that ran; filled where walkers felt the bias.

    Parameters
    ----------
    first
        Temperatures of the first round.
    plans
        What was decided after each round; the last one is of a round that did not run, and is not drawn.
    scale
        Of the temperatures.
    ax
        Axes to draw into; default: a new figure.
    """
    ax, colour = axes_or_new(ax), COLOURS[0]
    rounds = [(first, ())] + [(plan.temperatures, plan.biased) for plan in plans[:-1]]
    for index, (temperatures, biased) in enumerate(rounds):
        for temperature in temperatures:
            face = colour if temperature in biased else "white"
            ax.plot(index, temperature, "o", color=colour, mfc=face, ms=7)
    ax.set(xlabel="round", ylabel=scale.axis_label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def measured_targets(plans: Sequence[DecisionRecord]) -> list[tuple[int, list[dict[str, float]]]]:
    """Rounds after which errors at the temperatures wanted were measured, with their rows."""
    return [
        (index, plan.diagnostics["targets"])
        for index, plan in enumerate(plans)
        if plan.diagnostics.get("targets")
    ]


def target_errors(
    plans: Sequence[DecisionRecord],
    scale: TemperatureScale,
    *,
    show_legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the error over its tolerance at each temperature wanted, after each round.

    Parameters
    ----------
    plans, scale, ax
        As for `simulated_temperatures`; of the active strategy.
    show_legend
        Whether to draw one.
    """
    ax, measured = axes_or_new(ax), measured_targets(plans)
    rounds = [index for index, _ in measured]
    for number, row in enumerate(measured[-1][1] if measured else ()):
        values = [rows[number]["error over tolerance"] for _, rows in measured]
        colour = COLOURS[number % len(COLOURS)]
        ax.semilogy(rounds, values, "o-", color=colour, label=scale.label(row["temperature"]))
    ax.axhline(1.0, color="0.6", lw=1, ls="--")
    ax.set(xlabel="after round", ylabel="error over tolerance")
    for plain in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        plain(lambda value, _: f"{value:g}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(ax, show_legend)
    return ax
