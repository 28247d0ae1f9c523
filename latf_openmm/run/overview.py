"""Where a run is: what is complete, what comes next, and the card of a run in a notebook."""

from typing import TYPE_CHECKING

from latf_openmm.display import Table, card, with_error
from latf_openmm.errors import LatfError, first_line
from latf_openmm.run.limits import LoopLimits
from latf_openmm.run.paths import RunPaths
from latf_openmm.run.records import DecisionRecord, RoundRecord
from latf_openmm.run.rounds import RoundFolder

if TYPE_CHECKING:
    from latf_openmm.run.folder import RunFolder

_ERROR = "error over tolerance"
"""Column of the diagnostics of a decision."""


def ended(run: RunPaths, loop: LoopLimits, validates: bool) -> bool:
    """Return whether no task is left, of the rounds and of the validation runs, where there are some."""
    complete = run.complete_rounds()[: loop.rounds]
    validated = not validates or run.validated.is_file()
    return validated and bool(complete) and settled(run, loop, complete[-1]) is not None


def settled(run: RunPaths, loop: LoopLimits, folder: RoundFolder) -> str | None:
    """Why no round has to follow a complete one; None where one has to."""
    if folder.index + 1 >= loop.rounds:
        if loop.rounds == 1:
            return "the only round of the configuration is complete"
        return f"all {loop.rounds} rounds of the configuration are complete"
    decision = folder.read_decision()
    if decision.stop:
        return decision.reasons[-1]
    rounds = [run.round(index) for index in range(folder.index + 1)]
    summaries = [entry.summary() for entry in rounds]
    if loop.max_simulated_ns is not None and (budget := _budget_used(rounds, loop.max_simulated_ns)):
        return budget
    hours = sum(summary.seconds.total for summary in summaries) / 3600
    if loop.max_wall_hours is not None and hours >= loop.max_wall_hours:
        return f"{hours:.3g} hours were used, loop.max_wall_hours is {loop.max_wall_hours:g}"
    change = summaries[-1].change
    if (
        loop.convergence_threshold is not None
        and change
        and all(row.frames < loop.convergence_threshold for row in change)
    ):
        return f"the distribution changed less than {loop.convergence_threshold:g} nats at every temperature"
    return None


def _budget_used(rounds: list[RoundFolder], most: float) -> str:
    """Say that rounds have simulated as much as they may [ns]; empty where they have not."""
    simulated = [folder.summary().simulated_ps for folder in rounds if not folder.imported()]
    spent = sum(simulated) / 1000
    if spent < most:
        return ""
    but = "" if len(simulated) == len(rounds) else ", imported trajectories not counted"
    return f"{spent:.3g} ns were simulated{but}, loop.max_simulated_ns is {most:g}"


def plan_lines(run: RunPaths, loop: LoopLimits, folder: RoundFolder) -> list[str]:
    """Lines on the plan that was made after a complete round; where no round follows, why, and how one more would be.

    Raises
    ------
    DataError
        If a record is damaged.
    """
    reasons, settled_by = folder.read_decision().reasons, settled(run, loop, folder)
    if settled_by is None:
        return [f"next round: {reason}" for reason in reasons]
    planned = "; ".join(reason for reason in reasons if reason != settled_by)
    further = [f"one more round would be planned so: {planned}"] if planned else []
    return [f"no further round: {settled_by}", *further]


def next_steps(run: "RunFolder", rounds: list[RoundFolder]) -> list[str]:
    """Lines on what comes next.

    Parameters
    ----------
    rounds
        The complete ones.
    """
    from latf_openmm.run.activity import activity_of

    activity = activity_of(run)
    state = "complete" if activity is None else activity.unfinished()
    return [*(plan_lines(run, run.config.loop, rounds[-1]) if rounds else []), state]


def run_card(run: "RunFolder") -> str:
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


def _facts(run: "RunFolder", records: list[RoundRecord], decision: DecisionRecord | None) -> dict[str, str]:
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


def _tables(run: "RunFolder", records: list[RoundRecord]) -> list[Table]:
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
