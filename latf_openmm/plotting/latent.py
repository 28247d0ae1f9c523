"""Frames in collective variables."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from latf_openmm.ensembles.pool import Pool
from latf_openmm.plotting.axes import COLOURS, axes_or_new, state_colour
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]

_LIMITS = (0.0005, 0.9995)
"""Quantiles of the frames between which axes reach."""


def latent_frames(pool: Pool, *, limit: int = 12_000, ax: Axes | None = None) -> Axes:
    """Draw frames in the first two collective variables, or the histogram of the one there is, by state.

    Parameters
    ----------
    pool
        The frames.
    limit
        Frames that are drawn, at most.
    ax
        Axes to draw into; default: a new figure.
    """
    ax = axes_or_new(ax)
    chosen = np.random.default_rng(0).permutation(len(pool.z))[:limit]
    z, states = pool.z[chosen], pool.states[chosen]
    size = float(np.clip(120 / np.sqrt(len(z)), 1.2, 5.0))
    for state in range(pool.n_states):
        points, colour = z[states == state], state_colour(state)
        if len(points) == 0:
            continue
        if z.shape[1] == 1:
            ax.hist(points[:, 0], bins=80, range=(z.min(), z.max()), color=colour, alpha=0.8)
            continue
        ax.plot(points[:, 0], points[:, 1], ".", ms=size, mew=0, color=colour, rasterized=True)
        _number(ax, state, np.median(points[:, :2], axis=0))
    if z.shape[1] > 1:
        low, high = np.quantile(pool.z[:, :2], _LIMITS, axis=0)
        pad = 0.08 * (high - low)
        ax.set(xlim=(low[0] - pad[0], high[0] + pad[0]), ylim=(low[1] - pad[1], high[1] + pad[1]))
    ax.set(xlabel="z0", ylabel="frames" if z.shape[1] == 1 else "z1")
    return ax


def _number(ax: Axes, state: int, centre: Array) -> None:
    """Number of a state in a circle."""
    box = {"boxstyle": "circle,pad=0.25", "fc": "white", "ec": state_colour(state)}
    place = (float(centre[0]), float(centre[1]))
    ax.annotate(str(state), place, bbox=box, ha="center", va="center", fontsize=9, color="black")


def walker_trace(
    pool: Pool, run: str, scale: TemperatureScale, *, limit: int = 3, ax: Axes | None = None
) -> Axes:
    """Draw the first collective variable of a few walkers against time.

    Parameters
    ----------
    pool
        The frames.
    run
        Walkers of which run and temperature, as ``pool.walkers[0].run``.
    scale
        Of the temperatures; tells the unit of time.
    limit
        Walkers that are drawn, at most.
    ax
        Axes to draw into; default: a new figure.
    """
    ax = axes_or_new(ax, 6.4, 2.6)
    members = [index for index, walker in enumerate(pool.walkers) if walker.run == run][:limit]
    for colour, index in enumerate(members):
        time = pool.walkers[index].table["time_ps"]
        ax.plot(time, pool.z[pool.of_walker(index), 0], lw=0.5, color=COLOURS[colour % len(COLOURS)])
    low, high = np.quantile(pool.z[:, 0], _LIMITS)
    ax.set(xlabel="time [ps]" if scale.name == "K" else "time (reduced)", ylabel="z0", ylim=(low, high))
    return ax
