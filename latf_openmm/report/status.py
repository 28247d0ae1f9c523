"""State of a run, in lines for the command line."""

from collections.abc import Iterator
from pathlib import Path

from rich.markup import escape

from latf_openmm.report.cost import duration
from latf_openmm.report.tempering import moves_text
from latf_openmm.run.activity import Activity, activity_of
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.overview import settled
from latf_openmm.run.rounds import RoundFolder


def status_lines(folder: Path) -> Iterator[str]:
    """State and results of a run, one line at a time (rich markup)."""
    run = RunFolder.open(folder, builds=False)
    rounds = run.complete_rounds()
    total = run.config.loop.rounds
    yield f"{folder}: {run.config.system.kind}, {len(rounds)} of {total} rounds complete"
    for record in rounds:
        yield from _round_lines(run, record)
    for reason in rounds[-1].read_decision().reasons if rounds else []:
        yield f"  decision: {escape(reason)}"
    settled_by = settled(run, rounds[-1]) if rounds else None
    if settled_by is not None:
        yield f"  no further round: {escape(settled_by)}"
    activity = activity_of(run)
    yield "  complete" if activity is None else f"  {escape(unfinished_text(activity, run))}"


def _round_lines(run: RunFolder, record: RoundFolder) -> Iterator[str]:
    """Results of one complete round."""
    summary = record.summary()
    yield (
        f"  round {record.index}: {'biased' if summary.biased else 'unbiased'}, {summary.frames} frames "
        f"in all, {summary.n_states} states; simulation {summary.seconds.simulate:.0f} s, "
        f"training {summary.seconds.train:.0f} s"
    )
    if moved := moves_text(summary.tempering):
        yield f"    {moved}"
    elif run.config.simulation.tempering is not None:
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


def unfinished_text(activity: Activity, run: RunFolder) -> str:
    """One line: "this run is not finished: round 2, simulating, 3,200 of 10,000 frames, 41 ns/day"."""
    said = activity.unfinished()
    if activity.heartbeat is None:
        return f"{said}; no command works on it now"
    if speed := speed_text(activity, run):
        said += f", {speed}"
    if activity.seconds_left is not None:
        said += f", {duration(activity.seconds_left)} left of this"
    return said


def speed_text(activity: Activity, run: RunFolder) -> str:
    """Speed of a simulation that goes on; empty where there is none."""
    if activity.steps_per_second is None:
        return ""
    return run.scale.speed(activity.steps_per_second, activity.settings.timestep)


def next_command(folder: Path) -> str:
    """Return the command that follows for a run: the one that continues it, or draws its report."""
    run = RunFolder.open(folder, builds=False)
    activity = activity_of(run)
    if activity is None:
        return f"latf-openmm report {folder}"
    if activity.heartbeat is not None:
        return f"latf-openmm status {folder} --watch"
    return f"latf-openmm run {folder / 'config.yaml'} --output {folder}"
