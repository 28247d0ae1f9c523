"""How a model came about: losses, and the choice of the lag."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from latf_openmm.plotting.axes import COLOURS, axes_or_new, legend
from latf_openmm.training.lag_scan import LagScan

Quantity = Literal["prediction", "divergence", "n_states"]
"""Column of a history that can be drawn."""

_QUANTITIES: dict[str, str] = {
    "prediction": "held-out  −log q(y|z)  [nats]",
    "divergence": "held-out  log p(z|x) − log prior(z)  [nats]\n(flow: −log r(z))",
    "n_states": "metastable states",
}
"""Labels of the columns of a history."""


def training_curve(
    history: pd.DataFrame,
    quantity: Quantity = "prediction",
    *,
    show_legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a held-out term of the objective, or the number of states, against the epoch, by stage of the training.

    Parameters
    ----------
    history
        One row for each epoch, as ``run.last_round().history()``.
    quantity
        ``prediction``, ``divergence`` or ``n_states``.
    show_legend
        Whether to draw one.
    ax
        Axes to draw into; default: a new figure.
    """
    ax, epoch = axes_or_new(ax), np.arange(len(history))
    for index, stage in enumerate(dict.fromkeys(history["stage"])):
        rows = (history["stage"] == stage).to_numpy()
        colour = COLOURS[index % len(COLOURS)]
        ax.plot(epoch[rows], history[quantity][rows], ".-", ms=3, lw=1, color=colour, label=stage)
    ax.set(xlabel="epoch", ylabel=_QUANTITIES[quantity])
    ax.set_ylim(bottom=0 if quantity == "n_states" else None)
    legend(ax, show_legend)
    return ax


def lag_scan(
    scan: LagScan,
    quantity: Literal["n_states", "information"] = "information",
    *,
    show_legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw metastable states or held-out predictive information against the lag; hollow where states had not settled.

    Parameters
    ----------
    scan
        Of lag times.
    quantity
        ``n_states`` or ``information``.
    show_legend
        Whether to draw one.
    ax
        Axes to draw into; default: a new figure.
    """
    ax, colour = axes_or_new(ax), COLOURS[0]
    lags, settled = (np.array(x) for x in zip(*((r.lag, r.settled) for r in scan.rows), strict=True))
    y = np.array([getattr(row, quantity) for row in scan.rows], dtype=float)
    ax.plot(lags, y, "-", lw=1, color=colour)
    for rows, fill, name in ((settled, colour, "states settled"), (~settled, "white", "not settled")):
        if rows.any():
            ax.plot(lags[rows], y[rows], "o", ms=5, mfc=fill, mec=colour, label=name)
    label = "metastable states" if quantity == "n_states" else "predictive information  [nats]"
    ax.set(ylabel=label, ylim=(min(0.0, 1.12 * y.min()), 1.12 * max(y.max(), 0.01)))
    if quantity == "n_states":
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    _lag_axis(ax, scan)
    legend(ax, show_legend)
    return ax


def implied_timescales(scan: LagScan, *, show_legend: bool = True, ax: Axes | None = None) -> Axes:
    """Draw implied timescales against the lag, slowest first; below t = lag the states do not outlive the lag.

    Parameters
    ----------
    scan
        Of lag times.
    show_legend
        Whether to draw one.
    ax
        Axes to draw into; default: a new figure.
    """
    ax, edge = axes_or_new(ax), _edge(scan)
    for index in range(max(len(row.timescales) for row in scan.rows)):
        rows = [row for row in scan.rows if len(row.timescales) > index]
        times = [row.timescales[index] for row in rows]
        colour = COLOURS[index] if index < 3 else "0.55"
        ax.plot([row.lag for row in rows], times, ".-", ms=7 if index < 3 else 4, lw=1, color=colour)
    ax.fill_between(edge, edge, edge[0], color="0.9", lw=0, zorder=-1)
    ax.plot(edge, edge, "-", lw=1, color="0.6", zorder=-1)
    ax.text(0.97, 0.04, "shorter than the lag", ha="right", color="0.35", transform=ax.transAxes)
    several = [row for row in scan.rows if row.timescales]
    slowest = [row.timescales[0] for row in several]
    # One that is larger than the timescale itself would leave a logarithmic axis.
    errors = [min(row.error, 0.9 * row.timescales[0]) for row in several]
    ax.errorbar([row.lag for row in several], slowest, errors, fmt="none", color=COLOURS[0], lw=1, capsize=2)
    top = 2 * max([*slowest, edge[1]])
    ax.set(yscale="log", ylabel="implied timescales  [frames]", ylim=(edge[0], top))
    _lag_axis(ax, scan)
    legend(ax, show_legend)
    return ax


def _edge(scan: LagScan) -> tuple[float, float]:
    """Ends of the axis of lags."""
    return scan.rows[0].lag / 1.25, scan.rows[-1].lag * 1.25


def _lag_axis(ax: Axes, scan: LagScan) -> None:
    """Logarithmic axis of the lags that were tried, with the recommended one."""
    lags: Sequence[int] = [row.lag for row in scan.rows]
    ax.axvline(scan.recommended, ls="--", lw=1, color="black", zorder=0, label="recommended lag")
    ax.set_xscale("log")
    ax.set(xlabel="lag  [frames]", xlim=_edge(scan))
    ax.set_xticks(lags, [str(lag) for lag in lags])
    ax.set_xticks([], minor=True)
