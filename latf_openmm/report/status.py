"""State of a run, in lines for the command line; of one that has ended, from its records alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from latf_openmm.report.moves import moves_text
from latf_openmm.run.ending import plan_lines
from latf_openmm.run.outline import RunOutline
from latf_openmm.run.rounds import RoundFolder
from latf_openmm.storage import CONFIG
from latf_openmm.units import TemperatureScale, duration

if TYPE_CHECKING:
    from latf_openmm.run.activity import Activity


@dataclass(frozen=True)
class RunStatus:
    """State of a run.

    Attributes
    ----------
    lines
        State and results, one line each (rich markup).
    next_command
        That follows: the one that continues the run, watches it, or draws its report.
    """

    lines: tuple[str, ...]
    next_command: str


def run_status(folder: Path) -> RunStatus:
    """Return where a run is, and what it has found so far; its files are read only.

    Raises
    ------
    ConfigError
        If it is not the folder of a run.
    DataError
        If a file of it is damaged.
    """
    run = RunOutline(folder)
    activity = None if run.ended else _activity(folder)
    state = "complete" if activity is None else unfinished_text(activity, run.scale)
    return RunStatus((*_round_texts(run), f"  {escape(state)}"), _next_command(folder, activity))


def _activity(folder: Path) -> "Activity | None":
    """Return what a run that has not ended does; only this needs the code that simulates."""
    from latf_openmm.run.activity import activity_of
    from latf_openmm.run.folder import RunFolder

    return activity_of(RunFolder.open(folder, builds=False))


def _round_texts(run: RunOutline) -> Iterator[str]:
    """Lines on the complete rounds, and on what was decided after them."""
    rounds = run.complete_rounds()
    total = run.limits.rounds
    yield f"{escape(str(run.path))}: {escape(run.system)}, {len(rounds)} of {total} rounds complete"
    for record in rounds:
        yield from _results(run, record)
    if not rounds:
        return
    yield from (f"  {escape(line)}" for line in plan_lines(run, run.limits, rounds[-1]))
    yield f"  last model: {escape(str(rounds[-1].model))}"
    if run.report.is_file():
        yield f"  report: {escape(str(run.report))}"
    else:
        yield f"  report: none yet; latf-openmm report {escape(str(run.path))} writes {escape(str(run.report))}"


def _results(run: RunOutline, record: RoundFolder) -> Iterator[str]:
    """Results of one complete round."""
    summary = record.summary()
    simulated = "imported" if record.imported() else f"simulation {summary.seconds.simulate:.0f} s"
    yield (
        f"  round {record.index}: {'biased' if summary.biased else 'unbiased'}, {summary.frames} frames "
        f"in all, {summary.n_states} states; {simulated}, training {summary.seconds.train:.0f} s"
    )
    if moved := moves_text(summary.tempering):
        yield f"    {moved}"
    elif run.tempering:
        yield "    walkers stayed at their temperatures"
    for why in summary.dropped.values():
        yield f"    dropped: {escape(why)}"
    for row in summary.effective_sample_size:
        if row.run.startswith(f"{record.index:03d}/") and summary.biased:
            yield (
                f"    {run.scale.label(row.temperature)}: effective sample size {row.effective:.0f} "
                f"of {row.frames} biased frames"
            )
    for change in summary.change:
        yield f"    {run.scale.label(change.temperature)}: change since the last round {change.frames:.4f} nats"


def unfinished_text(activity: "Activity", scale: TemperatureScale) -> str:
    """One line: "this run is not finished: round 2, simulating, 320 of 1,000 frames of all walkers, 0.3 ns of 1 ns"."""
    said = activity.unfinished()
    if activity.step == "simulating" and activity.begun:
        said += f", {simulated_text(activity, scale)}"
    if activity.heartbeat is None:
        return f"{said}; no command works on it now"
    if speed := speed_text(activity, scale):
        said += f", {speed}"
    if activity.seconds_left is None:
        return f"{said}, time left not known yet"
    return f"{said}, {duration(activity.seconds_left)} left of {activity.part}"


def simulated_text(activity: "Activity", scale: TemperatureScale) -> str:
    """Simulated time of all walkers, done and in all: "0.3 ns of 1 ns"."""
    done, total = (scale.duration(n * activity.settings.timestep) for n in activity.steps)
    return f"{done} of {total}"


def speed_text(activity: "Activity", scale: TemperatureScale) -> str:
    """Speed of a simulation that goes on; empty where there is none."""
    if activity.steps_per_second is None:
        return ""
    return scale.speed(activity.steps_per_second, activity.settings.timestep)


def _next_command(folder: Path, activity: "Activity | None") -> str:
    if activity is None:
        return f"latf-openmm report {folder}"
    if activity.heartbeat is not None:
        return f"latf-openmm status {folder} --watch"
    return f"latf-openmm run {folder / CONFIG} --output {folder}"
