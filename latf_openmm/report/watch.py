"""A run that goes on, as a table that is drawn anew every few seconds: what ``latf-openmm status --watch`` shows."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from latf_openmm.errors import LatfError
from latf_openmm.report.moves import acceptance_text
from latf_openmm.report.status import simulated_text, speed_text
from latf_openmm.run.activity import Activity, activity_of
from latf_openmm.run.ending import plan_lines
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.heartbeat import SILENCE
from latf_openmm.run.records import RoundRecord, TemperingRecord
from latf_openmm.storage import CONFIG
from latf_openmm.units import duration

_TRIES = 3
"""Looks in a row that fail before a run counts as damaged: files come while they are read."""
_WIDTH = 30
"""Of a bar."""


def watch_run(folder: Path, console: Console, every: float = 3.0, patience: float = SILENCE) -> None:
    """Show a run until it has ended, or nobody has worked on it for a while; it is read, never locked or written.

    Parameters
    ----------
    folder
        Of the run.
    console
        Where it is drawn; what is not a terminal gets the last table only.
    every
        Seconds between looks.
    patience
        Seconds without a command that works on it.

    Raises
    ------
    ConfigError
        If it is not the folder of a run.
    DataError
        If a file of it is damaged.
    """
    failures, last = 0, time.monotonic()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            try:
                run = RunFolder.open(folder, builds=False)
                activity = activity_of(run)
                live.update(run_table(run, activity), refresh=True)
                failures = 0
            except (LatfError, OSError):
                failures += 1
                if failures == _TRIES or not (folder / CONFIG).is_file():
                    raise
                activity = None
            if failures == 0 and activity is None:
                return
            if activity is not None and activity.heartbeat is not None:
                last = time.monotonic()
            if time.monotonic() - last >= patience:
                return
            time.sleep(every)


def run_table(run: RunFolder, activity: Activity | None) -> RenderableType:
    """Return what is known of a run at this moment, to be drawn on a terminal."""
    folders = run.complete_rounds()
    rounds = [folder.summary() for folder in folders]
    title = Text(f"{run.path}: {run.config.system.label}, ", "bold")
    title.append(f"{len(rounds)} of {run.config.loop.rounds} rounds complete", "bold")
    parts: list[RenderableType] = [title, _now(run, activity, rounds)]
    if rounds:
        parts += [Text(), _rounds(run, rounds), Text(), _errors(run, rounds[-1])]
        parts += [Text(line) for line in plan_lines(run, run.config.loop, folders[-1])]
    return Group(*parts)


def _now(run: RunFolder, activity: Activity | None, rounds: Sequence[RoundRecord]) -> Table:
    """Present step of a run."""
    table = Table.grid(padding=(0, 2))
    if activity is None:
        table.add_row("now", Text("complete", "green"))
        return table
    bias = "with the bias" if activity.biased else "without a bias"
    now = activity.place if activity.step == "simulating" else activity.sentence()  # frames have a bar
    table.add_row("now", Text(now, "bold cyan"))
    if activity.heartbeat is None:
        table.add_row("", Text("no command works on it now", "yellow"))
    label = run.scale.label
    table.add_row("temperatures", ", ".join(label(t) for t in activity.settings.temperatures) + f", {bias}")
    if activity.n_frames:
        table.add_row("frames", _amount(activity.frames, activity.n_frames))
        table.add_row("simulated", f"{simulated_text(activity, run.scale)}, of all walkers")
    if speed := speed_text(activity, run.scale):
        table.add_row("speed", speed)
    beat = activity.heartbeat
    if beat is not None and beat.step and activity.step != "simulating":
        table.add_row(beat.step, _amount(beat.done, beat.total))
    if text := acceptance_text(activity.tempering):
        table.add_row("moves so far", text)
    if beat is not None:
        table.add_row("time left", _time_left(run, activity, rounds))
    return table


def _amount(done: float, total: float) -> Table:
    """A bar and its numbers."""
    table = Table.grid(padding=(0, 1))
    numbers = f"{done:,.0f} of {total:,.0f} ({100 * done / total if total else 0:.0f} %)"
    table.add_row(ProgressBar(total=total or 1.0, completed=min(done, total), width=_WIDTH), numbers)
    return table


def _time_left(run: RunFolder, activity: Activity, rounds: Sequence[RoundRecord]) -> str:
    """Time left of this step, and of the rounds after this one, as long as those before took."""
    seconds = activity.seconds_left
    said = "not known yet" if seconds is None else f"{duration(seconds)} of {activity.part}"
    later = 0 if activity.round is None else run.config.loop.rounds - activity.round - 1
    timed = [record.seconds.total for record in rounds if not run.round(record.round).imported()]
    if later and timed:
        said += f"; then up to {later} more {'round' if later == 1 else 'rounds'}, each about {duration(timed[-1])}"
    return said


def _rounds(run: RunFolder, rounds: Sequence[RoundRecord]) -> Table:
    """Results of the rounds that are complete."""
    moved = any(record.tempering is not None for record in rounds)
    names = ["round", "bias", "frames in all", "states", "change [nats]", "simulation", "training"]
    table = Table(*names, *(["acceptance", "round trips"] if moved else []))
    for record in rounds:
        change = max((row.frames for row in record.change), default=None)
        cells = [
            str(record.round),
            "yes" if record.biased else "no",
            f"{record.frames:,}",
            str(record.n_states),
            "–" if change is None else f"{change:.4f}",
            "imported" if run.round(record.round).imported() else duration(record.seconds.simulate),
            duration(record.seconds.train),
        ]
        table.add_row(*cells, *(_move_cells(record.tempering) if moved else []))
    return table


def _move_cells(tempering: TemperingRecord | None) -> list[str]:
    """Acceptance between neighbouring temperatures, and round trips."""
    if tempering is None:
        return ["–", "–"]
    known = [value for value in tempering.acceptance if value is not None]
    return [f"{min(known):.2g} to {max(known):.2g}" if known else "–", str(tempering.round_trips)]


def _errors(run: RunFolder, record: RoundRecord) -> Table:
    """Errors at the temperatures wanted that the last decision rests on; else those of the simulated ones."""
    label = run.scale.label
    targets = run.round(record.round).read_decision().diagnostics.get("targets")
    if not targets:
        table = Table("simulated at", "largest error of a population")
        for row in record.populations:
            table.add_row(label(row.temperature), f"{max(row.errors):.2g}")
        return table
    names = ("largest error of a population", "error of the energy (kT)")
    table = Table("wanted at", "effective samples", *names, "error over tolerance")
    for target in targets:
        error = float(target["error over tolerance"])
        cells = [
            f"{float(target['effective samples']):,.0f}",
            *(f"{float(target[name]):.2g}" for name in names),
        ]
        table.add_row(
            label(float(target["temperature"])),
            *cells,
            Text(f"{error:.3g}", "green" if error <= 1 else "yellow"),
        )
    return table
