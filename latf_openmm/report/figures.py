"""The figures of the report: how Axes of `latf_openmm.plotting` are put together."""

from collections.abc import Sequence
from functools import partial

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from latf_openmm import plotting
from latf_openmm.ensembles.curves import Curve
from latf_openmm.ensembles.pool import Pool
from latf_openmm.plotting import Populations
from latf_openmm.plotting.decisions import measured_targets
from latf_openmm.run.records import DecisionRecord
from latf_openmm.training.lag_scan import LagScan
from latf_openmm.units import TemperatureScale

_CURVES_A_ROW = 3
"""Panels of a row of observables."""


def training_curves(history: pd.DataFrame) -> Figure:
    """Held-out terms of the objective and the number of states against the epoch, over all stages."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    plotting.training_curve(history, "prediction", ax=axes[0])
    plotting.training_curve(history, "divergence", show_legend=False, ax=axes[1])
    plotting.training_curve(history, "n_states", show_legend=False, ax=axes[2])
    return figure


def lag_scan(scan: LagScan) -> Figure:
    """Metastable states, held-out predictive information and implied timescales against the lag."""
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    axes = figure.subplots(1, 3)
    plotting.lag_scan(scan, "n_states", show_legend=False, ax=axes[0])
    plotting.lag_scan(scan, "information", show_legend=False, ax=axes[1])
    plotting.implied_timescales(scan, show_legend=False, ax=axes[2])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def latent_plane(pool: Pool) -> Figure:
    """Show frames in the first two collective variables (or the histogram of the one there is), by state."""
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    plotting.latent_frames(pool, ax=figure.subplots())
    return figure


def population_curves(
    flow: Populations, frames: Populations, structures: Populations, reference: Populations | None
) -> Figure:
    """State populations: the flow's curve; simulated frames, weighted structures and the reference with error bars."""
    n_states = flow.values.shape[1]
    columns = min(4, n_states)
    rows = -(-n_states // columns)
    figure = Figure(figsize=(2.7 * columns, 2.3 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for state, axis in enumerate(axes.ravel()):
        if state < n_states:
            _population_curve(axis, state, flow, frames, structures, reference)
        else:
            axis.set_visible(False)
    for axis in axes[:-1].ravel():
        axis.set_xlabel("")
    for axis in axes[:, 1:].ravel():
        axis.set_ylabel("")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols={1: 1, 2: 2}.get(columns, 4), frameon=False
    )
    return figure


def _population_curve(
    axis: Axes,
    state: int,
    flow: Populations,
    frames: Populations,
    structures: Populations,
    reference: Populations | None,
) -> None:
    """Population of one state: a band of two errors for the flow, points for the other sources."""
    draw = partial(plotting.populations, states=[state], show_legend=False, ax=axis)
    draw(flow, style="band", label="flow")
    draw(frames, marker="s", filled=False, line=False, colour="black", label="simulated frames")
    draw(structures, marker="D", line=False, colour="dimgray", label="weighted structures")
    if reference is not None:
        draw(reference, line=False, colour="black", label="reference")
    axis.set_title(f"state {state}", fontsize=9)


def walker_traces(pool: Pool, scale: TemperatureScale) -> Figure:
    """Time series of the first collective variable of a few walkers, for each run and temperature."""
    runs: dict[str, list[tuple[float, str]]] = {}
    for temperature, run in sorted({(walker.temperature, walker.run) for walker in pool.walkers}):
        runs.setdefault(run.split("/")[0], []).append((temperature, run))
    rows, columns = max(len(panels_of_round) for panels_of_round in runs.values()), len(runs)
    width = 4.2 if columns < 4 else 2.8
    figure = Figure(figsize=(width * columns + 0.5, 1.8 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    panels = [
        (axes[row, column], *panel)
        for column, name in enumerate(sorted(runs))
        for row, panel in enumerate(runs[name])
    ]
    for axis in set(axes.ravel()) - {axis for axis, *_ in panels}:
        axis.set_axis_off()
    for axis, temperature, run in panels:
        plotting.walker_trace(pool, run, scale, ax=axis)
        axis.set_title(f"round {int(run.split('/')[0])}, {scale.label(temperature)}", fontsize=9)
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
    measured = measured_targets(plans)
    figure = Figure(figsize=(11 if measured else 6, 3.4), layout="constrained")
    axes = figure.subplots(1, 2 if measured else 1, squeeze=False)[0]
    plotting.simulated_temperatures(first, plans, scale, ax=axes[0])
    if measured:
        plotting.target_errors(plans, scale, ax=axes[1])
    return figure


def observable_curves(curves: Sequence[Curve], scale: TemperatureScale, simulated: Sequence[float]) -> Figure:
    """Observables against temperature with bands of two errors; what is not to be relied on is hollow."""
    figure, axes = _panels(len(curves))
    for axis, curve in zip(axes, curves, strict=False):
        plotting.observable(curve, scale=scale, simulated=simulated, show_legend=False, ax=axis)
    known: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    _legend_above(figure, known)
    return figure


def compared_curves(
    curves: Sequence[Sequence[Curve]], scale: TemperatureScale, names: Sequence[str]
) -> Figure:
    """Observables of several runs against temperature, bands of two errors; what is not to be relied on is hollow.

    Parameters
    ----------
    curves
        Of each observable, one a run.
    names
        Of the runs.
    """
    figure, axes = _panels(len(curves))
    known: dict[str, Artist] = {}
    for axis, of_runs in zip(axes, curves, strict=False):
        for place, (curve, name) in enumerate(zip(of_runs, names, strict=True)):
            colour = plotting.state_colour(place)
            plotting.observable(curve, scale=scale, show_legend=False, colour=colour, ax=axis)
            known[name] = Line2D([], [], color=colour)
    _legend_above(figure, known)
    return figure


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, in rows."""
    columns = min(_CURVES_A_ROW, n)
    lines = -(-n // columns)
    width, height = (4.6, 3.6) if columns < _CURVES_A_ROW else (3.7, 3.1)
    figure = Figure(figsize=(width * columns, height * lines + 0.2), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for axis in axes[n:]:
        axis.set_visible(False)
    return figure, axes


def _legend_above(figure: Figure, known: dict[str, Artist]) -> None:
    figure.legend(
        list(known.values()), list(known), loc="outside upper center", ncols=3, frameon=False, fontsize=8
    )
