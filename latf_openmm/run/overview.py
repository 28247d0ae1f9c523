"""Where a run is: what is complete, what comes next, and the card of a run in a notebook."""

from latf_openmm.display import Table, card, with_error
from latf_openmm.errors import LatfError, first_line
from latf_openmm.run.activity import activity_of
from latf_openmm.run.configured import ConfiguredRun
from latf_openmm.run.ending import plan_lines
from latf_openmm.run.records import DecisionRecord, RoundRecord
from latf_openmm.run.rounds import RoundFolder

_ERROR = "error over tolerance"
"""Column of the diagnostics of a decision."""


def next_steps(run: ConfiguredRun, rounds: list[RoundFolder]) -> list[str]:
    """Lines on what comes next.

    Parameters
    ----------
    rounds
        The complete ones.
    """
    activity = activity_of(run)
    state = "complete" if activity is None else activity.unfinished()
    return [*(plan_lines(run, run.config.loop, rounds[-1]) if rounds else []), state]


def run_card(run: ConfiguredRun) -> str:
    """HTML of a run from its records; nothing is computed, and what is damaged is named."""
    title, facts = f"Run {run.path}", {"system": run.config.system.label}
    try:
        rounds = run.complete_rounds()
        records = [folder.summary() for folder in rounds]
        decision = rounds[-1].read_decision() if rounds else None
        notes = [line[0].upper() + line[1:] for line in next_steps(run, rounds)]
    except LatfError as error:
        return card(title, facts, notes=[f"Its records cannot be read: {first_line(error)}"])
    return card(title, facts | _facts(run, records, decision), _tables(run, records), notes)


def _facts(run: ConfiguredRun, records: list[RoundRecord], decision: DecisionRecord | None) -> dict[str, str]:
    label, config = run.scale.label, run.config
    targets = decision.diagnostics.get("targets", []) if decision is not None else []
    errors = ", ".join(f"{row[_ERROR]:.2g} at {label(row['temperature'])}" for row in targets)
    return {
        "rounds": f"{len(records)} of {config.loop.rounds} complete",
        "simulated at": ", ".join(label(t) for t in config.simulation.temperatures),
        "generated at": ", ".join(label(t) for t in config.generate.temperatures),
        "frames": f"{records[-1].frames:,}" if records else "",
        "errors over tolerance": errors,
    }


def _tables(run: ConfiguredRun, records: list[RoundRecord]) -> list[Table]:
    """Rounds, and the populations after the last one."""
    if not records:
        return []
    header = ["round", "bias", "frames in all", "states", "simulated", "wall time"]
    rows = [
        [
            str(record.round),
            "yes" if record.biased else "no",
            f"{record.frames:,}",
            str(record.n_states),
            run.scale.duration(record.simulated_ps)
            + (", imported" if run.round(record.round).imported() else ""),
            f"{record.seconds.total:.0f} s",
        ]
        for record in records
    ]
    last = records[-1]
    names = ["state", *(f"share at {run.scale.label(row.temperature)}" for row in last.populations)]
    shares = [
        [str(state), *(with_error(row.populations[state], row.errors[state]) for row in last.populations)]
        for state in range(last.n_states)
    ]
    return [Table(header, rows), Table(names, shares)]
