"""Whether a run has ended, why no round follows on a complete one, and what the next one is planned to do."""

from latf_openmm.run.limits import LoopLimits
from latf_openmm.run.paths import RunPaths
from latf_openmm.run.rounds import RoundFolder


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
