"""The page: everything of one round put together."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from latf_openmm.bias.potentials.base import BiasSettings
from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.latent import temperature_warning
from latf_openmm.ensembles.pool import Pool
from latf_openmm.frames.trajectory import energies_known
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.plotting.decisions import measured_targets
from latf_openmm.report import figures as plots
from latf_openmm.report.citations import works
from latf_openmm.report.comparison import Comparison, compare, find_references
from latf_openmm.report.cost import costs
from latf_openmm.report.moves import moves_text
from latf_openmm.report.pictures import Picture, populations, save_picture, surfaces
from latf_openmm.report.structures import StateStructure, scene, state_structures, write_structures
from latf_openmm.report.summary import summary
from latf_openmm.report.temperature_curves import Melting, melting
from latf_openmm.report.tempering import moves_figure
from latf_openmm.report.work import Work
from latf_openmm.reweighting.consistency import StateShare
from latf_openmm.reweighting.free_energy import LatentGrid, flow_probability
from latf_openmm.reweighting.reliability import MEANINGS
from latf_openmm.run.activity import activity_of
from latf_openmm.run.ending import settled
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.records import RoundRecord
from latf_openmm.run.rounds import RoundFolder
from latf_openmm.run.slopes import reweighter_of_round
from latf_openmm.sampling.stage import SimulationSettings
from latf_openmm.sampling.thermostat_check import thermostat_deviations
from latf_openmm.sentences import listed
from latf_openmm.storage import write_json, write_manifest, write_text
from latf_openmm.units import duration


@dataclass(frozen=True)
class _Content:
    """Everything computed for the page."""

    trained: TrainedModel
    pool: Pool
    ensembles: Sequence[StructureEnsemble]
    rows: Sequence[Comparison]
    melting: Melting
    structures: Sequence[StateStructure]
    pictures: dict[str, Picture]
    inconsistent: list[str]
    shares: Sequence[StateShare]


def write_report(run: RunFolder, index: int) -> Path:
    """Write ``report/index.html`` of one round, with its pictures and structures and ``comparison.json``.

    Returns
    -------
    Path
        The page.
    """
    folder, content = run.report.parent, _compute(run, index)
    write_structures(content.structures, folder)
    write_json(folder / "comparison.json", [asdict(row) for row in content.rows])
    environment = Environment(
        loader=PackageLoader("latf_openmm.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(run.report, environment.get_template("report.html").render(_facts(run, index, content)))
    write_manifest(folder)
    return run.report


def _compute(run: RunFolder, index: int) -> _Content:
    """Compute what the page shows, and draw its pictures."""
    reweighter = reweighter_of_round(run, index)
    trained, pool = reweighter.trained, reweighter.pool
    ensembles = [reweighter.at(temperature) for temperature in run.temperatures()]
    references = find_references(run, trained, index)
    grid = LatentGrid.around(np.concatenate([pool.z, *(r.z for r in references.values() if r.halves)]))
    flows = {t: flow_probability(trained.model, t, grid, members=True) for t in run.temperatures()}
    rows = [
        compare(run, trained, grid, flows[ensemble.temperature].mean(axis=0), ensemble, references)
        for ensemble in ensembles
    ]
    curves = melting(run, reweighter, ensembles)
    figures = {
        "plane": plots.latent_plane(pool),
        "free_energy": surfaces(flows, grid, rows, references, run.scale),
        "populations": populations(run, trained, index, ensembles, references),
        "traces": plots.walker_traces(pool, run.scale),
        **_of_the_loop(run, index),
    }
    if curves.curves:
        simulated = run.config.simulation.temperatures
        figures["curves"] = plots.observable_curves(curves.curves, run.scale, simulated)
    pictures = {name: save_picture(figure, run.report.parent, name) for name, figure in figures.items()}
    structures = state_structures(run, ensembles, trained.feature_module(), run.config.seed)
    consistency = reweighter.certificate
    findings = [*consistency.texts(run.scale), *consistency.untested(run.scale)]
    if reweighter.weighting is not None:
        findings += reweighter.weighting.not_averaged(run.scale)
    return _Content(
        trained, pool, ensembles, rows, curves, structures, pictures, findings, consistency.shares
    )


def _of_the_loop(run: RunFolder, index: int) -> dict[str, Figure]:
    """Figures of how the model came about."""
    figures = {"training": plots.training_curves(run.round(index).history())}
    folders = run.complete_rounds()[: index + 1]
    if moved := [folder for folder in folders if folder.summary().tempering is not None]:
        last = moved[-1]
        walkers = [w for w in run.walkers(last.index) if w.run.startswith(f"{last.path.name}/")]
        figure = moves_figure(walkers, last.summary(), run.scale)
        if figure is not None:
            figures["moves"] = figure
    plans = [folder.read_decision() for folder in folders]
    if len(plans) > 1 or measured_targets(plans):
        figures["decisions"] = plots.decisions(_first_temperatures(run), plans, run.scale)
    return figures


def _first_temperatures(run: RunFolder) -> list[float]:
    """Temperatures of the first round; those of a configuration are not those of imported trajectories."""
    folder = run.round(0)
    if folder.imported():
        return [row.temperature for row in folder.summary().populations]
    return list(run.config.simulation.temperatures)


def _facts(run: RunFolder, index: int, content: _Content) -> dict[str, Any]:
    """Values that the template fills in."""
    trained, rows = content.trained, content.rows
    folders = run.complete_rounds()[: index + 1]
    rounds = [folder.summary() for folder in folders]
    spent, activity = costs(run, rounds), activity_of(run)
    return {
        "unfinished": activity.sentence() if activity is not None else "",
        "title": run.config.system.label,
        "system": type(run.config.system).title,
        "round": index,
        "rounds": rounds,
        "moves": [(record.round, text) for record in rounds if (text := moves_text(record.tempering))],
        "rows": rows,
        "label": run.scale.label,
        "meanings": MEANINGS,
        "kelvin": run.scale.name == "K",
        "n_states": trained.model.n_states,
        "n_members": trained.model.n_members,
        "n_frames": len(content.pool.z),
        "states_settled": trained.provenance["states_settled"],
        "biased": any(row.biased for row in rounds),
        "summary": summary(run, trained, content.ensembles, rows, spent),
        "warnings": [*content.inconsistent, *_warnings(trained, rows, rounds), *_heat(run, content.pool)],
        "shares": content.shares,
        "ensembles": content.ensembles,
        "versions": rounds[-1].versions,
        "features": trained.feature_module().names,
        "feature_selection": trained.provenance.get("feature_selection"),
        **_decided(run, folders),
        "pictures": content.pictures,
        "melting": content.melting,
        "structures": content.structures,
        "scene": scene(content.structures) if content.structures else None,
        "costs": spent,
        "works": _works(run, folders, rounds, content),
        "duration": duration,
        "listed": listed,
        "scale": run.scale,
    }


def _decided(run: RunFolder, folders: Sequence[RoundFolder]) -> dict[str, Any]:
    """Values on what was decided after each round."""
    return {
        "plans": [folder.read_decision() for folder in folders],
        "settled": settled(run, run.config.loop, folders[-1]),
        "tempering": run.config.simulation.tempering is not None,
        "imported": [folder.index for folder in folders if folder.imported()],
    }


def _works(
    run: RunFolder, folders: Sequence[RoundFolder], rounds: Sequence[RoundRecord], content: _Content
) -> list[Work]:
    """Publications that these rounds rest on."""
    simulation = run.config.simulation
    biased = any(record.biased for record in rounds)
    moved = simulation.tempering is not None and any(record.tempering is not None for record in rounds)
    return works(
        _bias_kinds(run.config.bias) if biased else [],
        energies_known(content.pool.trajectories),
        tempering=simulation.tempering.kind if simulation.tempering is not None and moved else "",
        annealed=any((folder.path / "annealed").is_dir() for folder in folders),
        splines=run.config.model.flow.transform == "spline",
        simulated=not all(folder.imported() for folder in folders),
        plugin=biased and _wants_plugin(simulation),
    )


def _wants_plugin(simulation: SimulationSettings) -> bool:
    """Return whether openmm-torch was asked for; this machine may not have it."""
    return simulation.backend == "torchforce" or (
        simulation.backend == "auto" and simulation.forces == "autograd"
    )


def _bias_kinds(bias: BiasSettings | None) -> list[str]:
    """Kinds of a bias and of its parts."""
    if bias is None:
        return []
    parts = [kind for part in getattr(bias, "parts", ()) for kind in _bias_kinds(part)]
    return [str(getattr(bias, "kind", "")), *parts]


def _warnings(trained: TrainedModel, rows: Sequence[Comparison], rounds: Sequence[RoundRecord]) -> list[str]:
    texts = [w for row in rows if (w := temperature_warning(trained, row.temperature))]
    texts += [f"dropped: {why}" for row in rounds for why in row.dropped.values()]
    return texts + [
        f"{name}: continued {count} times without a checkpoint that was damaged, or of another machine: its frames are "
        "valid, but not the ones an undisturbed run gives"
        for row in rounds
        for name, count in row.restarts.items()
    ]


def _heat(run: RunFolder, pool: Pool) -> list[str]:
    label = run.scale.label
    return [
        f"round {int(row.run.split('/')[0])}, {label(row.temperature)}: the kinetic temperature is "
        f"{label(float(f'{row.kinetic:.4g}'))} ± {row.error:.2g}, so energies of these frames are {row.consequence}"
        for row in thermostat_deviations(pool.walkers)
    ]
