"""Where a run is, in lines for the command line."""

from collections.abc import Iterator
from pathlib import Path

from rich.markup import escape

from latf_openmm.report.tempering import moves_text
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.overview import next_steps


def status_lines(folder: Path) -> Iterator[str]:
    """State and results of a run, one line at a time (rich markup)."""
    run = RunFolder.open(folder, builds=False)
    rounds = run.complete_rounds()
    total = run.config.loop.rounds
    yield f"{folder}: {run.config.system.kind}, {len(rounds)} of {total} rounds complete"
    for record in rounds:
        summary = record.summary()
        yield (
            f"  round {record.index}: {'biased' if summary.biased else 'unbiased'}, {summary.frames} frames "
            f"in all, {summary.n_states} states; simulation {summary.seconds.simulate:.0f} s, "
            f"training {summary.seconds.train:.0f} s"
        )
        if moved := moves_text(summary):
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
    for reason in rounds[-1].read_decision().reasons if rounds else []:
        yield f"  next: {escape(reason)}"
    for line in next_steps(run, rounds):
        yield f"  {escape(line)}"
