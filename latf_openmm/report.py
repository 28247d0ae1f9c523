"""The report of a run: one HTML page with its pictures, and the status lines of the command line."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from rich.markup import escape

from latf_openmm import plots
from latf_openmm.analysis.free_energy import (
    Array,
    LatentGrid,
    flow_populations,
    flow_probability,
    free_energy_rmse,
    jensen_shannon,
)
from latf_openmm.analysis.generate import temperature_warning
from latf_openmm.analysis.pool import Pool
from latf_openmm.analysis.reference import Reference, find_reference
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.run_folder import RunFolder
from latf_openmm.storage import whole_file, whole_folder, write_json, write_text
from latf_openmm.training.lag_scan import LagScan
from latf_openmm.workflow import settled


def write_report(run: RunFolder, index: int) -> Path:
    """Write ``report/index.html`` of one round, with its PNG files and ``comparison.json``; return the page."""
    folder, rounds = run.path / "report", [one.summary() for one in run.complete_rounds()]
    trained, pool = run.trained(index), run.pool(index)
    references = _references(run, trained, index)
    grid = LatentGrid.around(np.concatenate([pool.z, *(r.z for r in references.values() if r.halves)]))
    flow = {t: flow_probability(trained.model, t, grid) for t in run.temperatures()}
    rows = [_compare(run, trained, grid, t, p, references.get(t)) for t, p in flow.items()]
    figures = {
        "training": plots.training_curves(run.round(index).history()),
        "plane": plots.latent_plane(pool, trained.model.n_states),
        "free_energy": _surfaces(flow, grid, rows, references),
        "populations": _populations(run, trained, index, references),
        "traces": plots.walker_traces(pool, run.scale),
    }
    plans = [folder.read_decision() for folder in run.complete_rounds()[: index + 1]]
    if any(plans):
        figures["decisions"] = plots.decisions(run.config.simulation.temperatures, plans, run.scale)
    for name, figure in figures.items():
        _save(figure, folder / f"{name}.png")
    write_json(folder / "comparison.json", rows)
    environment = Environment(
        loader=PackageLoader("latf_openmm", "templates"), autoescape=True, undefined=StrictUndefined
    )
    page = folder / "index.html"
    write_text(
        page, environment.get_template("report.html").render(_facts(run, trained, pool, rounds, index, rows))
    )
    return page


def write_lag_scan(scan: LagScan, folder: Path) -> None:
    """Write ``lag_scan.json``, ``lag_scan.parquet`` and ``lag_scan.png`` into a new folder."""
    with whole_folder(folder) as temporary:
        write_json(temporary / "lag_scan.json", asdict(scan))
        rows = pd.DataFrame([asdict(row) for row in scan.rows])
        rows.to_parquet(temporary / "lag_scan.parquet", index=False)
        _save(plots.lag_scan(scan), temporary / "lag_scan.png")


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _references(run: RunFolder, trained: TrainedModel, index: int) -> dict[float, Reference]:
    validation = run.validation_pool(index)
    found = {}
    for temperature in run.temperatures():
        reference = find_reference(run.config.system, trained, validation, temperature)
        if reference is not None:
            found[temperature] = reference
    return found


def _compare(
    run: RunFolder,
    trained: TrainedModel,
    grid: LatentGrid,
    temperature: float,
    p: Array,
    reference: Reference | None,
) -> dict[str, Any]:
    """One row of the comparison: how far the flow is from the reference at one temperature."""
    row: dict[str, Any] = {
        "temperature": temperature,
        "label": run.scale.label(temperature),
        "simulated": temperature in run.config.simulation.temperatures,
        "reference": None,
    }
    if reference is None:
        return row
    q = reference.probability(grid)
    populations, errors = flow_populations(trained.model, temperature, 20_000)
    off = np.abs(populations - reference.populations)
    sigma = np.sqrt(errors**2 + reference.errors**2)
    return row | {
        "reference": reference.kind,
        "jensen_shannon": jensen_shannon(p, q),
        "floor": reference.floor(grid),
        "rmse_kt": free_energy_rmse(p, q),
        "population_error": float(off.max()),
        "population_sigma": float(sigma[off.argmax()]),
    }


def _surfaces(
    flow: dict[float, Array],
    grid: LatentGrid,
    rows: list[dict[str, Any]],
    references: dict[float, Reference],
) -> Figure:
    surfaces = []
    for row in rows:
        temperature = row["temperature"]
        reference = references.get(temperature)
        note = f"JS {row['jensen_shannon']:.3f}" if reference else ""
        surfaces.append(
            plots.Surface(
                f"{row['label']} ({'simulated' if row['simulated'] else 'generated'})",
                flow[temperature],
                None if reference is None else reference.probability(grid),
                note,
            )
        )
    return plots.free_energy_surfaces(surfaces, grid)


def _populations(
    run: RunFolder, trained: TrainedModel, index: int, references: dict[float, Reference]
) -> Figure:
    wanted = run.temperatures()
    scan = np.linspace(wanted[0], wanted[-1], 25) if len(wanted) > 1 else np.array(wanted)
    found = [flow_populations(trained.model, float(temperature), 10_000) for temperature in scan]
    flow = plots.Populations(scan, *(np.array(column) for column in zip(*found, strict=True)))
    measured = run.round(index).summary()["populations"]
    frames = plots.Populations(
        np.array([row["temperature"] for row in measured]),
        np.array([row["populations"] for row in measured]),
        np.array([row["errors"] for row in measured]),
    )
    reference = None
    if references:
        chosen = sorted(references)
        reference = plots.Populations(
            np.array(chosen),
            np.array([references[t].populations for t in chosen]),
            np.array([references[t].errors for t in chosen]),
        )
    return plots.population_curves(flow, frames, reference, run.scale)


def _facts(
    run: RunFolder,
    trained: TrainedModel,
    pool: Pool,
    rounds: list[dict[str, Any]],
    index: int,
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    marker = run.validated
    return {
        "title": run.config.system.kind,
        "system": type(run.config.system).title,
        "round": index,
        "rounds": rounds,
        "rows": rows,
        "label": run.scale.label,
        "n_states": trained.model.n_states,
        "states_settled": trained.provenance["states_settled"],
        "n_frames": len(pool.z),
        "biased": any(row["biased"] for row in rounds),
        "validation_seconds": json.loads(marker.read_text())["seconds"] if marker.is_file() else None,
        "warnings": [w for row in rows if (w := temperature_warning(trained, row["temperature"]))]
        + [f"dropped: {why}" for row in rounds for why in row.get("dropped", {}).values()],
        "versions": rounds[-1]["versions"],
        "features": trained.feature_module().names,
        "reduction": trained.provenance.get("reduction"),
        "plans": [folder.read_decision() for folder in run.complete_rounds()[: index + 1]],
    }


def status_lines(folder: Path) -> Iterator[str]:
    """Where a run is and what it has found, one line at a time (rich markup)."""
    run = RunFolder.open(folder)
    rounds = run.complete_rounds()
    total = run.config.loop.rounds
    yield f"{folder}: {run.config.system.kind}, {len(rounds)} of {total} rounds complete"
    for record in rounds:
        summary = record.summary()
        seconds = summary["seconds"]
        yield (
            f"  round {record.index}: {'biased' if summary['biased'] else 'unbiased'}, {summary['frames']} frames "
            f"in all, {summary['n_states']} states; simulation {seconds['simulate']:.0f} s, "
            f"training {seconds['train']:.0f} s"
        )
        for why in summary.get("dropped", {}).values():
            yield f"    dropped: {escape(why)}"
        for row in summary["effective_sample_size"]:
            if row["run"].startswith(f"{record.index:03d}/") and summary["biased"]:
                yield (
                    f"    {run.scale.label(row['temperature'])}: effective sample size {row['effective']:.0f} "
                    f"of {row['frames']} biased frames"
                )
        for row in summary["change"]:
            yield f"    {run.scale.label(row['temperature'])}: change since the last round {row['frames']:.4f} nats"
    for reason in rounds[-1].read_decision().get("reasons", []) if rounds else []:
        yield f"  next: {escape(reason)}"
    why = settled(run, rounds[-1]) if rounds else None
    if why is None:
        yield f"  round {len(rounds)}: {_unfinished(run, len(rounds))}; 'latf-openmm run' continues it"
    else:
        done = run.validated.is_file() or run.config.validation is None
        yield f"  no further round: {escape(why)}"
        yield f"  {'complete' if done else 'validation runs are not complete'}; 'latf-openmm report {folder}' draws it"


def _unfinished(run: RunFolder, index: int) -> str:
    folder = run.round(index)
    if folder.model.is_dir():
        return "trained, not yet generated"
    segments = len([p for p in folder.simulation.glob("T*/segment_*") if p.suffix == ""])
    return f"simulating, {segments} segments on disk" if segments else "not started"
