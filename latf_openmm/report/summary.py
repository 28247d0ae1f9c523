"""What a run found, in plain words."""

from collections.abc import Sequence

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.report.comparison import Comparison
from latf_openmm.report.cost import Cost
from latf_openmm.reweighting.reliability import MEANINGS
from latf_openmm.run.folder import RunFolder
from latf_openmm.sentences import listed

_FEW_STATES = 4
"""States that the summary names, at most."""
_FEW_TEMPERATURES = 4
"""Temperatures asked for, between the others, at which the summary says how states are populated, at most."""
_CLOSE = 2.0
"""Standard errors within which two populations agree."""
_COMMITTEE = 3
"""Flows from which their disagreement is an error."""


def summary(
    run: RunFolder,
    trained: TrainedModel,
    ensembles: Sequence[StructureEnsemble],
    rows: Sequence[Comparison],
    spent: Sequence[Cost],
) -> list[str]:
    """Sentences on what was simulated, the states, how far the flow is from a reference, and what to trust.

    Parameters
    ----------
    ensembles, rows
        One for each temperature of the run, ascending.
    spent
        Rows of the cost table.
    """
    return [
        _simulated(run, trained, ensembles[0], spent),
        _states(run, trained, ensembles),
        _distance(rows, trained.model.n_members),
        *_trust(trained, rows),
    ]


def _simulated(
    run: RunFolder, trained: TrainedModel, ensemble: StructureEnsemble, spent: Sequence[Cost]
) -> str:
    rounds = [row for row in spent if row.name.startswith("round")]
    simulated = [row for row in rounds if not row.imported_ps]
    name = f"{run.config.system.label} ({type(run.config.system).title})"
    temperatures = listed([run.scale.label(t) for t in trained.temperatures])
    amount = run.scale.duration(sum(row.simulated_ps for row in simulated))
    counted = f"{len(simulated)} {'rounds' if len(simulated) > 1 else 'round'}"
    imported, frames = sum(row.imported_ps for row in rounds), f"{len(ensemble.pool.z):,} frames"
    if not imported:
        said = f"{name} was simulated at {temperatures} in {counted}: {amount} in all, {frames}"
    else:
        said = (
            f"Trajectories of {name} were imported, {run.scale.duration(imported)} in all, not simulated here"
        )
        said += f"; {counted} of {amount} followed" if simulated else ""
        said += f": {frames} at {temperatures}"
    if any(row.biased for row in rounds):
        return (
            f"{said}; later rounds were pushed out of known states by a bias along the learned variables, which is "
            "undone by weights."
        )
    return f"{said}, without a bias." if simulated else f"{said}."


def _states(run: RunFolder, trained: TrainedModel, ensembles: Sequence[StructureEnsemble]) -> str:
    n = trained.model.n_states
    if n == 1:
        return "The model found one metastable state only."
    said = "; ".join(_shares(ensemble) for ensemble in _named(ensembles, run.config.generate.temperatures))
    return f"The model found {n} metastable states (groups of structures that turn into each other slowly): {said}."


def _named(ensembles: Sequence[StructureEnsemble], asked: Sequence[float]) -> list[StructureEnsemble]:
    """Ensembles of the lowest and highest temperature, and of those asked for, a few at most."""
    ends = {ensembles[0].temperature, ensembles[-1].temperature}
    between = [ensemble.temperature for ensemble in ensembles if ensemble.temperature in {*asked} - ends]
    chosen = ends | set(between[:_FEW_TEMPERATURES])
    return [ensemble for ensemble in ensembles if ensemble.temperature in chosen]


def _shares(ensemble: StructureEnsemble) -> str:
    """Say which states are populated at a temperature, and, where that is not to be relied on, why."""
    shares, n = ensemble.populations(), ensemble.n_states
    order = sorted(range(n), key=lambda state: -shares[state].value)
    chosen = [state for state in order[:_FEW_STATES] if shares[state].value >= 0.01]
    words = [f"state {s} with {_percent(shares[s].value, shares[s].error)}" for s in chosen]
    most = "" if len(chosen) == n else " mostly"
    poor = f" ({ensemble.verdict})" if ensemble.reliability == "poor" else ""
    return f"at {ensemble.scale.label(ensemble.temperature)}{most} {listed(words)}{poor}"


def _percent(value: float, error: float) -> str:
    if error != error:
        return f"{100 * value:.0f} %"
    digits = 0 if error >= 0.01 else 1
    return f"{100 * value:.{digits}f} ± {100 * error:.{digits}f} %"


def _distance(rows: Sequence[Comparison], n_members: int) -> str:
    compared = [row for row in rows if row.reference is not None]
    if not compared:
        return (
            "There is no independent reference (no validation runs, no exact answer), so nothing here measures how "
            "far the flow is from the truth; bands show only how much its committee disagrees."
        )
    worst = max(compared, key=lambda row: row.population_error or 0.0)
    kind = "the exact answer" if compared[0].reference == "exact" else "independent runs"
    return (
        f"Compared with {kind}, the flow's state populations are off by at most "
        f"{100 * (worst.population_error or 0.0):.1f} percentage points (at {worst.label}), "
        f"{_expected(compared, n_members)}; its free energies are off by "
        f"{max(row.rmse_kt or 0.0 for row in compared):.2f} kT at most (root mean square below 5 kT)."
    )


def _expected(compared: Sequence[Comparison], n_members: int) -> str:
    """Say whether differences are what their errors say."""
    if n_members < _COMMITTEE:
        return f"and {'one flow' if n_members == 1 else 'two flows'} cannot say whether that is expected"
    close = [
        row for row in compared if (row.population_error or 0.0) <= _CLOSE * (row.population_sigma or 0.0)
    ]
    where = (
        "every temperature compared"
        if len(close) == len(compared)
        else f"{len(close)} of {len(compared)} temperatures"
    )
    return f"within two standard errors at {where}"


def _trust(trained: TrainedModel, rows: Sequence[Comparison]) -> list[str]:
    said = []
    for reliability, meaning in MEANINGS.items():
        labels = [row.label for row in rows if row.reliability == reliability]
        if labels:
            said.append(
                f"Structures and energies at {listed(labels)} are {meaning} (reliability {reliability})."
            )
    if not trained.provenance["states_settled"]:
        said.append(
            "The states had not settled when training ended, so their number may change with more data."
        )
    return said
