"""The page: everything of one round put together."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.latent import temperature_warning
from latf_openmm.ensembles.pool import Pool
from latf_openmm.ensembles.reweighter import EnsembleMaker
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.report import figures as plots
from latf_openmm.report.citations import works
from latf_openmm.report.comparison import Comparison, compare, find_references
from latf_openmm.report.cost import costs, duration
from latf_openmm.report.pictures import Picture, populations, save_picture, surfaces
from latf_openmm.report.structures import StateStructure, scene, state_structures, write_structures
from latf_openmm.report.summary import listed, summary, time_label
from latf_openmm.report.temperature_curves import Melting, melting
from latf_openmm.reweighting.free_energy import LatentGrid, flow_probability
from latf_openmm.reweighting.ladder import energies_known
from latf_openmm.run.folder import RunFolder
from latf_openmm.sampling.thermostat_check import thermostat_deviations
from latf_openmm.storage import write_json, write_manifest, write_text


@dataclass(frozen=True)
class _Found:
    """What was computed for the page."""

    trained: TrainedModel
    pool: Pool
    ensembles: Sequence[StructureEnsemble]
    rows: Sequence[Comparison]
    melting: Melting
    structures: Sequence[StateStructure]
    pictures: dict[str, Picture]


def write_report(run: RunFolder, index: int) -> Path:
    """Write ``report/index.html`` of one round, with its pictures and structures and ``comparison.json``.

    Returns
    -------
    Path
        The page.
    """
    folder, found = run.path / "report", _find(run, index)
    write_structures(found.structures, folder)
    write_json(folder / "comparison.json", [asdict(row) for row in found.rows])
    environment = Environment(
        loader=PackageLoader("latf_openmm.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = folder / "index.html"
    write_text(page, environment.get_template("report.html").render(_facts(run, index, found)))
    write_manifest(folder)
    return page


def _find(run: RunFolder, index: int) -> _Found:
    """Compute what the page shows, and draw its pictures."""
    trained, pool = run.trained(index), run.pool(index)
    maker = EnsembleMaker(trained, pool, run.config.seed)
    ensembles = [maker.at(temperature) for temperature in run.temperatures()]
    references = find_references(run, trained, index)
    grid = LatentGrid.around(np.concatenate([pool.z, *(r.z for r in references.values() if r.halves)]))
    flows = {t: flow_probability(trained.model, t, grid, members=True) for t in run.temperatures()}
    rows = [
        compare(run, trained, grid, flows[one.temperature].mean(axis=0), one, references) for one in ensembles
    ]
    curves = melting(run, maker, ensembles)
    figures = {
        "plane": plots.latent_plane(pool, trained.model.n_states),
        "free_energy": surfaces(flows, grid, rows, references),
        "populations": populations(run, trained, index, references),
        "traces": plots.walker_traces(pool, run.scale),
        **_of_the_loop(run, index),
    }
    if curves.curves:
        simulated = run.config.simulation.temperatures
        figures["curves"] = plots.observable_curves(curves.curves, run.scale, simulated)
    pictures = {name: save_picture(figure, run.path / "report", name) for name, figure in figures.items()}
    structures = state_structures(run, ensembles, run.config.seed)
    return _Found(trained, pool, ensembles, rows, curves, structures, pictures)


def _of_the_loop(run: RunFolder, index: int) -> dict[str, Figure]:
    """Figures of how the model came about."""
    figures = {"training": plots.training_curves(run.round(index).history())}
    plans = [one.read_decision() for one in run.complete_rounds()[: index + 1]]
    if any(plans):
        figures["decisions"] = plots.decisions(run.config.simulation.temperatures, plans, run.scale)
    return figures


def _facts(run: RunFolder, index: int, found: _Found) -> dict[str, Any]:
    """What the template fills in."""
    trained, rows = found.trained, found.rows
    folders = run.complete_rounds()[: index + 1]
    rounds = [one.summary() for one in folders]
    spent = costs(run, rounds)
    return {
        "title": run.config.system.kind,
        "system": type(run.config.system).title,
        "round": index,
        "rounds": rounds,
        "rows": rows,
        "label": run.scale.label,
        "kelvin": run.scale.name == "K",
        "n_states": trained.model.n_states,
        "n_members": trained.model.n_members,
        "n_frames": len(found.pool.z),
        "states_settled": trained.provenance["states_settled"],
        "biased": any(row["biased"] for row in rounds),
        "summary": summary(run, trained, found.ensembles, rows, spent),
        "warnings": [*_warnings(trained, rows, rounds), *_heat(run, found.pool)],
        "versions": rounds[-1]["versions"],
        "features": trained.feature_module().names,
        "feature_selection": trained.provenance.get("feature_selection"),
        "plans": [one.read_decision() for one in folders],
        "pictures": found.pictures,
        "melting": found.melting,
        "structures": found.structures,
        "scene": scene(found.structures) if found.structures else None,
        "costs": spent,
        "works": works(getattr(run.config.bias, "kind", None), energies_known(found.pool.trajectories)),
        "duration": duration,
        "listed": listed,
        "time_label": time_label,
    }


def _warnings(
    trained: TrainedModel, rows: Sequence[Comparison], rounds: Sequence[dict[str, Any]]
) -> list[str]:
    texts = [w for row in rows if (w := temperature_warning(trained, row.temperature))]
    texts += [f"dropped: {why}" for row in rounds for why in row.get("dropped", {}).values()]
    return texts + [
        f"{name}: continued {count} times without a checkpoint that was damaged, or of another machine: its frames are "
        "valid, but not the ones an undisturbed run gives"
        for row in rounds
        for name, count in row["restarts"].items()
    ]


def _heat(run: RunFolder, pool: Pool) -> list[str]:
    label = run.scale.label
    return [
        f"round {int(one.run.split('/')[0])}, {label(one.temperature)}: the kinetic temperature is "
        f"{label(float(f'{one.kinetic:.4g}'))} ± {one.error:.2g}, so energies of these frames are {one.consequence}"
        for one in thermostat_deviations(pool.walkers)
    ]
