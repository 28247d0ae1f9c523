"""Commands at any temperature: generate, observe, states."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from latf_openmm.cli.application import app
from latf_openmm.cli.curves import print_curve, print_two_state
from latf_openmm.cli.messages import say_next
from latf_openmm.cli.options import (
    DCD,
    ComparableOption,
    ForcesOption,
    Format,
    Method,
    MethodOption,
    MinutesOption,
    ObservableOption,
    ReferenceOption,
    RoundOption,
    RunArgument,
    TemperaturesOption,
    TrustOption,
)
from latf_openmm.display import with_error
from latf_openmm.reweighting.reliability import Reliability, reliability_text

if TYPE_CHECKING:
    from latf_openmm.ensembles.ensemble import StructureEnsemble
    from latf_openmm.run.states import StateSummary

_MAX_TEMPERATURES = 1000
"""Temperatures that one command computes, at most."""


@app.command()
def generate(
    folder: RunArgument,
    temperature: Annotated[list[float], typer.Option("--temperature", "-T", help="May be repeated.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write; one subfolder a temperature.")
    ],
    samples: Annotated[int, typer.Option(min=100, help="Latent samples at each temperature.")] = 20_000,
    structures: Annotated[int, typer.Option(min=1, help="Structures at each temperature.")] = 1000,
    round_index: RoundOption = None,
    method: MethodOption = Method.AUTO,
    minutes: MinutesOption = 15.0,
    forces: ForcesOption = False,
    trajectory: Annotated[Format, typer.Option("--format", help="Of the structures.")] = DCD,
    trust: TrustOption = False,
) -> None:
    """Generate at any temperature: latent samples, F_T(z), populations, structures with weights.

    Where too few frames reach a temperature, walkers are simulated there; the same command continues after an
    interruption. Ends with code 3 where the structures at a temperature are not to be relied on (reliability "poor").
    """
    from latf_openmm.progress import make_progress
    from latf_openmm.run.folder import RunFolder
    from latf_openmm.run.generated import generate_ensembles

    run = RunFolder.open(folder, trust)
    with make_progress() as progress:
        results = generate_ensembles(
            run,
            temperature,
            output,
            round_index=round_index,
            samples=samples,
            structures=structures,
            method=method.value,
            minutes=minutes,
            forces=forces,
            trajectory=trajectory.value,
            progress=progress,
        )
    console, said = Console(), set[str]()
    for result in results:
        console.print(f"{result.folder}: {run.scale.label(result.structures.temperature)}", highlight=False)
        _print_ensemble(console, result.structures)
        _print_warnings(console, tuple(text for text in result.warnings if text not in said))
        if repeated := sum(text in said for text in result.warnings):
            console.print(f"  {repeated} of the warnings above hold here too", highlight=False)
        said.update(result.warnings)
    _end(folder, [r.structures.temperature for r in results if r.structures.reliability == "poor"], "observe")


@app.command()
def observe(
    folder: RunArgument,
    temperatures: TemperaturesOption,
    observable: ObservableOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    reference: ReferenceOption = None,
    midpoint: Annotated[
        float | None, typer.Option(help="Value whose crossing is the transition; default: the maximum.")
    ] = None,
    round_index: RoundOption = None,
    method: MethodOption = Method.AUTO,
    minutes: MinutesOption = 15.0,
    forces: ForcesOption = False,
    trust: TrustOption = False,
) -> None:
    """Observables against temperature, with errors: a table and a figure.

    Ends with code 3 where a value is not to be relied on (reliability "poor").
    """
    from latf_openmm.progress import make_progress
    from latf_openmm.report.observed import check_unwritten, write_observed
    from latf_openmm.run.folder import RunFolder
    from latf_openmm.run.observed import observe as observe_run

    run = RunFolder.open(folder, trust)
    check_unwritten(output)
    values = parse_temperatures(temperatures)
    with make_progress() as progress:
        observed = observe_run(
            run,
            values,
            observable,
            reference=reference,
            round_index=round_index,
            method=method.value,
            minutes=minutes,
            forces=forces,
            progress=progress,
        )
    write_observed(observed, output)
    console = Console()
    for curve in observed.curves:
        print_curve(console, curve, midpoint, observed.scale)
    console.print(f"{output}: a table for each observable, observables.png", highlight=False, soft_wrap=True)
    _print_reliabilities(console, observed.reliabilities)
    _print_warnings(console, observed.warnings)
    _end(folder, observed.poor, "states")


@app.command()
def compare(
    folder: RunArgument,
    others: Annotated[list[Path], typer.Argument(help="Folders of other runs of the same system.")],
    temperatures: TemperaturesOption,
    observable: ComparableOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    reference: Annotated[
        Path | None, typer.Option(help="PDB file for rmsd and contacts; default: the first system's start.")
    ] = None,
    method: MethodOption = Method.REWEIGHTED,
    trust: TrustOption = False,
) -> None:
    """Compare observables of runs of a system, as from different starts, in units of their errors.

    Each run is compared with the first. They agree where all differences are less than three errors. Ends with code 3
    where they do not, or where values are not to be relied on (reliability "poor").
    """
    from latf_openmm.report.observed import check_unwritten, write_compared
    from latf_openmm.run.compared import compare_runs
    from latf_openmm.run.folder import RunFolder

    paths = [folder, *others]
    runs = [RunFolder.open(path, trust) for path in paths]
    check_unwritten(output)
    compared = compare_runs(
        runs[0],
        runs[1],
        parse_temperatures(temperatures),
        observable,
        reference=reference,
        more=runs[2:],
        method=method.value,
    )
    write_compared(compared, list(map(str, paths)), output)
    console = Console()
    _print_warnings(console, compared.warnings)
    for curve in compared.curves:
        which = f"{folder} and {paths[curve.place]}: " if len(paths) > 2 else ""
        console.print(f"{which}{curve.text()}", highlight=False, markup=False, soft_wrap=True)
        sides = ((folder, curve.first), (paths[curve.place], curve.second))
        for name, side in sides if curve.place == 1 else sides[1:]:
            print_two_state(console, f"  {name}", side, compared.first.scale)
    console.print(f"{output}: a table for each observable, observables.png", highlight=False, soft_wrap=True)
    if compared.agree and not compared.poor:
        say_next(f"latf-openmm report {folder}")
        return
    if compared.warnings and not compared.poor:
        say_next(f"latf-openmm report {folder}; the difference may be that of the systems, see the warning")
        raise typer.Exit(3)
    rounds = 2 + min(run.chosen_round(None) for run in runs)
    say_next(
        f"latf-openmm run CONFIG --rounds {rounds} --output FOLDER, for each: a further round, and compare again"
    )
    raise typer.Exit(3)


@app.command()
def states(
    folder: RunArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    temperature: Annotated[
        float | None, typer.Option("--temperature", "-T", help="Default: the lowest simulated.")
    ] = None,
    observable: Annotated[
        list[str] | None,
        typer.Option(
            help="As for observe, of those that are of structures, averaged in each state; may be repeated."
        ),
    ] = None,
    reference: ReferenceOption = None,
    round_index: RoundOption = None,
    method: MethodOption = Method.AUTO,
    minutes: MinutesOption = 15.0,
    trust: TrustOption = False,
) -> None:
    """Metastable states: populations, lifetimes, what structures in each look like, one structure of each."""
    from latf_openmm.progress import make_progress
    from latf_openmm.run.folder import RunFolder
    from latf_openmm.run.states import summarise_states
    from latf_openmm.storage import check_output

    run = RunFolder.open(folder, trust)
    check_output(output, folder=True)
    with make_progress() as progress:
        summary = summarise_states(
            run,
            temperature,
            observable or (),
            reference=reference,
            round_index=round_index,
            method=method.value,
            minutes=minutes,
            progress=progress,
        )
    summary.write(output)
    console = Console()
    _print_states(console, summary)
    _print_warnings(console, summary.ensemble.warnings)
    console.print(f"{output}: states.csv, one structure of each state", highlight=False, soft_wrap=True)
    at = summary.ensemble.temperature
    _end(folder, [at] if summary.ensemble.reliability == "poor" else [], "report")


@app.command()
def explain(
    folder: RunArgument,
    temperature: Annotated[list[float], typer.Option("--temperature", "-T", help="May be repeated.")],
    round_index: RoundOption = None,
    forces: ForcesOption = False,
    trust: TrustOption = False,
) -> None:
    """Say what the answer at a temperature rests on, what speaks against it, and what would improve it.

    From the frames there are; nothing is simulated. Ends with code 3 where an answer is not to be relied on.
    """
    from latf_openmm.run.explained import explain as explain_run
    from latf_openmm.run.folder import RunFolder
    from latf_openmm.storage import CONFIG

    run = RunFolder.open(folder, trust)
    console, poor = Console(), False
    for value in temperature:
        explanation = explain_run(run, value, round_index=round_index, forces=forces)
        for sentence in explanation.sentences():
            console.print(sentence, highlight=False, markup=False)
        console.print()
        poor |= explanation.ensemble.reliability == "poor"
    rounds = run.chosen_round(None) + 2
    say_next(f"latf-openmm run {folder / CONFIG} --rounds {rounds} --output {folder}, which adds a round")
    if poor:
        raise typer.Exit(3)


_FOLLOWING = {
    "observe": "--temperatures FIRST:LAST:STEP --observable energy --output OBSERVED",
    "states": "--output STATES",
    "report": "",
}
"""Options of the commands that come next."""


def _end(folder: Path, poor: Sequence[float], command: str) -> None:
    """Say what to do next; end with code 3 where the answer at a temperature is not to be relied on."""
    if not poor:
        say_next(f"latf-openmm {command} {folder} {_FOLLOWING[command]}".rstrip())
        return
    at = " ".join(f"-T {temperature:g}" for temperature in poor)
    say_next(f"latf-openmm explain {folder} {at}, which says what would make it better")
    raise typer.Exit(3)


def parse_temperatures(text: str) -> list[float]:
    """Numbers of ``first:last:step`` (both ends included) or of a list with commas."""
    from latf_openmm.errors import ConfigError

    try:
        numbers = [float(part) for part in text.replace(",", ":").split(":")]
    except ValueError:
        numbers = []
    if any(math.isinf(number) for number in numbers):
        numbers = []
    if ":" in text:
        if len(numbers) != 3 or not (0 < numbers[0] < numbers[1] and numbers[2] > 0):
            raise ConfigError(f"--temperatures: {text!r}: expected FIRST:LAST:STEP, ascending and above 0")
        first, last, step = numbers
        if (last - first) / step > _MAX_TEMPERATURES:
            raise ConfigError(
                f"--temperatures: {text!r}: expected at most {_MAX_TEMPERATURES} temperatures, a larger STEP"
            )
        return [float(f"{first + i * step:.10g}") for i in range(int((last - first) / step + 1e-9) + 1)]
    if not numbers or not all(number > 0 for number in numbers):
        raise ConfigError(
            f"--temperatures: {text!r}: expected FIRST:LAST:STEP or numbers above 0 with commas"
        )
    return sorted(set(numbers))


def _print_ensemble(console: Console, ensemble: "StructureEnsemble") -> None:
    """Say how an ensemble of structures was made, and what it gives."""
    from latf_openmm.frames.trajectory import energies_known

    console.print(
        f"  structures: {ensemble.description}; {ensemble.verdict}; "
        f"{ensemble.n_effective:.0f} effective samples ({ensemble.ess:.0f} without correlation in time), "
        f"largest weight {100 * ensemble.largest_weight:.2g} %",
        highlight=False,
    )
    mark = " (poor)" if ensemble.reliability == "poor" else ""
    lines = [f"state {state}: {population}" for state, population in enumerate(ensemble.populations())]
    if energies_known(ensemble.pool.trajectories):
        lines.append(f"mean potential energy: {ensemble.energy()} kJ/mol")
        lines.append(f"heat capacity: {ensemble.heat_capacity()} k_B (configurational)")
    for line in lines:
        console.print(f"  {line}{mark}", highlight=False)


def _print_states(console: Console, summary: "StateSummary") -> None:
    unit, names = "ps" if summary.scale.name == "K" else "reduced", summary.observables
    poor = " (poor)" if summary.ensemble.reliability == "poor" else ""
    title = f"{summary.scale.label(summary.ensemble.temperature)}{poor}"
    observed = [f"{name}: mean (spread)" for name in names]
    shown = Table("state", "population", f"lifetime [{unit}]", *observed, title=title)
    for row in summary.table.to_dict("records"):
        life = with_error(row["lifetime_ps"], row["lifetime_error"]) if row["lifetime_ps"] > 0 else "-"
        cells = [f"{row[name]:.3g} ({row[f'{name}_spread']:.2g})" for name in names]
        shown.add_row(str(int(row["state"])), with_error(row["population"], row["error"]), life, *cells)
    console.print(shown)
    for state, words in summary.words.items():
        console.print(f"state {state}: {words}", highlight=False, markup=False, soft_wrap=True)
    text = f"{summary.ensemble.description}; {summary.ensemble.verdict}"
    console.print(text, highlight=False, soft_wrap=True)


def _print_reliabilities(console: Console, reliabilities: Sequence[Reliability]) -> None:
    """Say what the words in the column of a table mean."""
    for reliability in reliabilities:
        console.print(reliability_text(reliability), highlight=False)


def _print_warnings(console: Console, warnings: "tuple[str, ...]") -> None:
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
