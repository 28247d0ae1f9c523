"""The figures of the report; each function draws one and returns it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from latf_openmm.ensembles.curves import Curve
from latf_openmm.ensembles.pool import Pool
from latf_openmm.reweighting.reliability import MEANINGS
from latf_openmm.run.records import DecisionRecord
from latf_openmm.training.lag_scan import LagScan
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]
_CURVES_A_ROW = 3
"""Panels of a row of observables."""
_COLOURS = (  # of states; Okabe and Ito's, then others
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip


def state_colour(state: int) -> str:
    """Colour of a state, the same in all figures."""
    return _COLOURS[state % len(_COLOURS)]


def training_curves(history: pd.DataFrame) -> Figure:
    """Held-out terms of the objective and the number of states against the epoch, over all stages."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    epoch = np.arange(len(history))
    stages = list(dict.fromkeys(history["stage"]))
    for axis, column, label in (
        (axes[0], "prediction", "held-out  −log q(y|z)  [nats]"),
        (axes[1], "divergence", "held-out  log p(z|x) − log prior(z)  [nats]\n(flow: −log r(z))"),
        (axes[2], "n_states", "metastable states"),
    ):
        for index, stage in enumerate(stages):
            rows = (history["stage"] == stage).to_numpy()
            axis.plot(
                epoch[rows], history[column][rows], ".-", ms=3, lw=1, color=_COLOURS[index], label=stage
            )
        axis.set(xlabel="epoch", ylabel=label)
        axis.set_ylim(bottom=0 if column == "n_states" else None)
    axes[0].legend(frameon=False)
    return figure


def lag_scan(scan: LagScan) -> Figure:
    """Metastable states, held-out predictive information and implied timescales against the lag."""
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    axes = figure.subplots(1, 3)
    lags = [row.lag for row in scan.rows]
    edge = (lags[0] / 1.25, lags[-1] * 1.25)
    _by_lag(axes[0], scan, [row.n_states for row in scan.rows], "metastable states")
    axes[0].yaxis.set_major_locator(MaxNLocator(integer=True))
    _by_lag(axes[1], scan, [row.information for row in scan.rows], "predictive information  [nats]")
    _timescales(axes[2], scan, edge)
    for axis in axes:
        axis.axvline(scan.recommended, ls="--", lw=1, color="black", zorder=0, label="recommended lag")
        axis.set_xscale("log")
        axis.set(xlabel="lag  [frames]", xlim=edge)
        axis.set_xticks(lags, [str(lag) for lag in lags])
        axis.set_xticks([], minor=True)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def _by_lag(axis: Axes, scan: LagScan, values: Sequence[float], label: str) -> None:
    """One value a lag, hollow where the states had not settled."""
    lags, settled = (np.array(x) for x in zip(*((r.lag, r.settled) for r in scan.rows), strict=True))
    y, colour = np.array(values), _COLOURS[0]
    axis.plot(lags, y, "-", lw=1, color=colour)
    for rows, fill, name in ((settled, colour, "states settled"), (~settled, "white", "not settled")):
        if rows.any():
            axis.plot(lags[rows], y[rows], "o", ms=5, mfc=fill, mec=colour, label=name)
    axis.set(ylabel=label, ylim=(min(0.0, 1.12 * y.min()), 1.12 * max(y.max(), 0.01)))


def _timescales(axis: Axes, scan: LagScan, edge: tuple[float, float]) -> None:
    """Implied timescales, slowest first; below t = lag the states do not outlive the lag."""
    for index in range(max(len(row.timescales) for row in scan.rows)):
        rows = [row for row in scan.rows if len(row.timescales) > index]
        times = [row.timescales[index] for row in rows]
        colour = _COLOURS[index] if index < 3 else "0.55"
        axis.plot([row.lag for row in rows], times, ".-", ms=7 if index < 3 else 4, lw=1, color=colour)
    axis.fill_between(edge, edge, edge[0], color="0.9", lw=0, zorder=-1)
    axis.plot(edge, edge, "-", lw=1, color="0.6", zorder=-1)
    axis.text(0.97, 0.04, "shorter than the lag", ha="right", color="0.35", transform=axis.transAxes)
    several = [row for row in scan.rows if row.timescales]
    slowest = [row.timescales[0] for row in several]
    # One that is larger than the timescale itself would leave a logarithmic axis.
    errors = [min(row.error, 0.9 * row.timescales[0]) for row in several]
    axis.errorbar(
        [row.lag for row in several], slowest, errors, fmt="none", color=_COLOURS[0], lw=1, capsize=2
    )
    axis.set(
        yscale="log", ylabel="implied timescales  [frames]", ylim=(edge[0], 2 * max([*slowest, edge[1]]))
    )


def latent_plane(pool: Pool, n_states: int, limit: int = 12_000) -> Figure:
    """Show frames in the first two collective variables (or the histogram of the one there is), by state."""
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    axis = figure.subplots()
    chosen = np.random.default_rng(0).permutation(len(pool.z))[:limit]
    z, states = pool.z[chosen], pool.states[chosen]
    size = float(np.clip(120 / np.sqrt(len(z)), 1.2, 5.0))
    for state in range(n_states):
        points = z[states == state]
        if len(points) == 0:
            continue
        if z.shape[1] == 1:
            axis.hist(points[:, 0], bins=80, range=(z.min(), z.max()), color=state_colour(state), alpha=0.8)
            continue
        axis.plot(points[:, 0], points[:, 1], ".", ms=size, mew=0, color=state_colour(state), rasterized=True)
        centre = np.median(points[:, :2], axis=0)
        axis.annotate(
            str(state),
            (float(centre[0]), float(centre[1])),
            bbox={"boxstyle": "circle,pad=0.25", "fc": "white", "ec": state_colour(state)},
            ha="center",
            va="center",
            fontsize=9,
        )
    if z.shape[1] > 1:
        low, high = np.quantile(pool.z[:, :2], [0.0005, 0.9995], axis=0)
        pad = 0.08 * (high - low)
        axis.set(xlim=(low[0] - pad[0], high[0] + pad[0]), ylim=(low[1] - pad[1], high[1] + pad[1]))
    axis.set(xlabel="z0", ylabel="frames" if z.shape[1] == 1 else "z1")
    return figure


@dataclass(frozen=True)
class Populations:
    """State populations against temperature from one source: (n_temperatures,) and (n_temperatures, n_states)."""

    temperatures: Array
    values: Array
    errors: Array


def population_curves(
    flow: Populations, frames: Populations, reference: Populations | None, scale: TemperatureScale
) -> Figure:
    """State populations: the flow's curve, the simulated frames, and the reference with error bars."""
    n_states = flow.values.shape[1]
    columns = min(4, n_states)
    rows = -(-n_states // columns)
    figure = Figure(figsize=(2.7 * columns, 2.3 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for state, axis in enumerate(axes.ravel()):
        if state < n_states:
            _population_curve(axis, state, flow, {"simulated frames": frames, "reference": reference})
        else:
            axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel(scale.axis_label)
    for row in axes:
        row[0].set_ylabel("population")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _population_curve(
    axis: Axes, state: int, flow: Populations, sources: Mapping[str, Populations | None]
) -> None:
    """Population of one state: a band of two errors for the flow, points for the other sources."""
    value, twice = flow.values[:, state], 2 * flow.errors[:, state]
    axis.plot(flow.temperatures, value, color=state_colour(state), label="flow")
    axis.fill_between(
        flow.temperatures,
        np.maximum(value - twice, 0.0),
        np.minimum(value + twice, 1.0),
        color=state_colour(state),
        alpha=0.25,
        lw=0,
    )
    for label, source in sources.items():
        if source is not None:
            axis.errorbar(
                source.temperatures,
                source.values[:, state],
                2 * source.errors[:, state],
                fmt="o" if label == "reference" else "s",
                ms=4,
                color="black",
                mfc="black" if label == "reference" else "white",
                lw=1,
                capsize=2,
                label=label,
            )
    axis.set_title(f"state {state}", fontsize=9)
    axis.set_ylim(bottom=0)


def walker_traces(pool: Pool, scale: TemperatureScale, most: int = 3) -> Figure:
    """Time series of the first collective variable of a few walkers, for each run and temperature."""
    runs: dict[str, list[tuple[float, str]]] = {}
    for temperature, run in sorted({(walker.temperature, walker.run) for walker in pool.walkers}):
        runs.setdefault(run.split("/")[0], []).append((temperature, run))
    rows, columns = max(len(panels_of_round) for panels_of_round in runs.values()), len(runs)
    width = 4.2 if columns < 4 else 2.8
    figure = Figure(figsize=(width * columns + 0.5, 1.8 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    low, high = np.quantile(pool.z[:, 0], [0.0005, 0.9995])
    panels = [
        (axes[row, column], *panel)
        for column, name in enumerate(sorted(runs))
        for row, panel in enumerate(runs[name])
    ]
    for axis in set(axes.ravel()) - {axis for axis, *_ in panels}:
        axis.set_axis_off()
    for axis, temperature, run in panels:
        members = [i for i, w in enumerate(pool.walkers) if w.run == run][:most]
        for colour, index in enumerate(members):
            time = pool.walkers[index].table["time_ps"]
            axis.plot(time, pool.z[pool.of_walker(index), 0], lw=0.5, color=_COLOURS[colour])
        axis.set_title(f"round {int(run.split('/')[0])}, {scale.label(temperature)}", fontsize=9)
        axis.set(xlabel="time [ps]" if scale.name == "K" else "time (reduced)", ylim=(low, high))
        axis.label_outer()
    for row_axes in axes:
        row_axes[0].set_ylabel("z0")
    return figure


def decisions(first: Sequence[float], plans: Sequence[DecisionRecord], scale: TemperatureScale) -> Figure:
    """Temperatures of each round, and the error at the temperatures wanted after it.

    Parameters
    ----------
    first
        Temperatures of the first round.
    plans
        What was decided after each round.
    """
    measured = [
        (index, plan.diagnostics["targets"])
        for index, plan in enumerate(plans)
        if plan.diagnostics.get("targets")
    ]
    figure = Figure(figsize=(11 if measured else 6, 3.4), layout="constrained")
    axes = figure.subplots(1, 2 if measured else 1, squeeze=False)[0]
    rounds = [(first, ())] + [(plan.temperatures, plan.biased) for plan in plans]
    for index, (temperatures, biased) in enumerate(rounds):
        for temperature in temperatures:
            filled = temperature in biased
            axes[0].plot(
                index, temperature, "o", color=_COLOURS[0], mfc=_COLOURS[0] if filled else "white", ms=7
            )
    axes[0].set(xlabel="round", ylabel=scale.axis_label)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    if measured:
        for number, row in enumerate(measured[-1][1]):
            values = [rows[number]["error over tolerance"] for _, rows in measured]
            axes[1].semilogy(
                [index for index, _ in measured],
                values,
                "o-",
                color=_COLOURS[number % len(_COLOURS)],
                label=scale.label(row["temperature"]),
            )
        axes[1].axhline(1.0, color="0.6", lw=1, ls="--")
        axes[1].set(xlabel="after round", ylabel="error over tolerance")
        for plain in (axes[1].yaxis.set_major_formatter, axes[1].yaxis.set_minor_formatter):
            plain(lambda value, _: f"{value:g}")
        axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[1].legend(frameon=False, fontsize=8)
    return figure


def observable_curves(curves: Sequence[Curve], scale: TemperatureScale, simulated: Sequence[float]) -> Figure:
    """Observables against temperature with bands of two errors; what is not to be relied on is hollow."""
    columns = min(_CURVES_A_ROW, len(curves))
    lines = -(-len(curves) // columns)
    width, height = (4.6, 3.6) if columns < _CURVES_A_ROW else (3.7, 3.1)
    figure = Figure(figsize=(width * columns, height * lines + 0.2), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(curves) :]:
        axis.set_visible(False)
    for axis, curve in zip(axes, curves, strict=False):
        table = curve.table
        t, value, error = (table[name].to_numpy(dtype=float) for name in ("temperature", "value", "error"))
        axis.fill_between(t, value - 2 * error, value + 2 * error, color=_COLOURS[0], alpha=0.25, lw=0)
        axis.plot(t, value, color=_COLOURS[0], lw=1)
        for method, marker in (("reweighted", "o"), ("conditional", "^"), ("annealed", "D"), ("flow", "s")):
            for poor in (False, True):
                rows = ((table["method"] == method) & ((table["reliability"] == "poor") == poor)).to_numpy()
                label = f"{method}, {MEANINGS['poor']}" if poor else method
                face = "white" if poor else _COLOURS[0]
                if rows.any():
                    axis.plot(
                        t[rows], value[rows], marker, ms=5, mfc=face, mec=_COLOURS[0], ls="", label=label
                    )
        for temperature in simulated:
            axis.axvline(temperature, color="0.6", lw=0.8, ls=":")
        unit = curve.unit.replace("k_B", "$k_B$")
        axis.set(
            xlabel=scale.axis_label,
            ylabel=f"{curve.title} [{unit}]" if unit else curve.title,
        )
    known: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    figure.legend(
        list(known.values()), list(known), loc="outside upper center", ncols=3, frameon=False, fontsize=8
    )
    return figure
