"""Generate at a temperature: latent samples, free energy, populations, and a first structure for each."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from latf_openmm.ensembles.pool import Pool
from latf_openmm.frames.formats import write_trajectory
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.periodic import gather_molecules
from latf_openmm.reweighting.free_energy import (
    LatentGrid,
    committee_error,
    flow_probability,
    free_energy,
    populations_of_members,
)
from latf_openmm.units import SCALES

_ERRORS_NOTE = "standard errors: spread of a committee of flows trained on bootstrap samples of the frames"
"""Meaning of the errors of a committee."""

_ONE_FLOW_NOTE = "errors are of drawing samples only: one flow alone does not know its own error"
"""Meaning of the errors of one flow."""

_NEAR = 0.1
"""A rung of the ladder within this of ln T counts as the same temperature."""


@dataclass(frozen=True)
class GeneratedEnsemble:
    """Independent samples of r_T(z) and the simulated frame nearest to each.

    Attributes
    ----------
    temperature
        In the model's scale.
    z
        Shape (n, latent_dim).
    states
        Most probable state of each sample, shape (n,).
    log_density
        log r_T(z), shape (n,).
    nearest, distance
        Index into the pool of the nearest frame, and its distance in units of each collective variable's
        standard deviation over the pool; shape (n,).
    populations, errors
        State populations and their standard errors: the spread of the committee, or of drawing n samples where
        there is one flow alone.
    warnings
        What a reader has to know before trusting the result.
    """

    temperature: float
    z: NDArray[np.float64]
    states: NDArray[np.int64]
    log_density: NDArray[np.float64]
    nearest: NDArray[np.int64]
    distance: NDArray[np.float64]
    populations: NDArray[np.float64]
    errors: NDArray[np.float64]
    warnings: tuple[str, ...]


@torch.no_grad()
def generate(
    trained: TrainedModel, pool: Pool, temperature: float, samples: int, seed: int
) -> GeneratedEnsemble:
    """Draw `samples` independent points of r_T(z) and find the nearest simulated frame of each."""
    density = trained.model.density(temperature)
    latent = density.sample(samples, torch.Generator().manual_seed(seed))
    z = latent.double().numpy()
    states = trained.model.assign(latent).numpy()
    std = pool.z.std(axis=0) + 1e-12
    distance, nearest = cKDTree(pool.z / std).query(z / std)
    share, errors = populations_of_members(states, trained.model.n_members, trained.model.n_states)
    return GeneratedEnsemble(
        temperature,
        z,
        states,
        density.log_prob(latent).double().numpy(),
        np.asarray(nearest, dtype=np.int64),
        distance,
        share,
        errors,
        _warnings(trained, temperature, distance),
    )


def _warnings(trained: TrainedModel, temperature: float, distance: NDArray[np.float64]) -> tuple[str, ...]:
    texts = [warning] if (warning := temperature_warning(trained, temperature)) else []
    if warning := distance_warning(distance):
        texts.append(warning)
    return tuple(texts)


def distance_warning(distance: NDArray[np.float64]) -> str | None:
    """Return the text a reader needs where samples are far from frames; `distance` in standard deviations."""
    far = float((distance > 0.5).mean())
    if far > 0.01:
        return f"{100 * far:.1f} % of the samples lie more than half a standard deviation from any frame"
    return None


def temperature_warning(trained: TrainedModel, temperature: float) -> str | None:
    """Return the text a reader needs about one temperature; None at and between well-covered simulated ones.

    Where the training frames could be reweighted to about this temperature the result rests on data; beyond
    the simulated range the effective sample size is named. In a gap between such temperatures it is the
    flow's interpolation. Beyond all of them the distribution is held at the last one, or, where energies are
    not known, steered by the prior alone.
    """
    label = SCALES[trained.temperature_scale].label
    low, high = min(trained.temperatures), max(trained.temperatures)
    inside = low <= temperature <= high
    ladder = np.array(trained.provenance.get("ladder") or np.empty((0, 2)), dtype=float)
    near = np.abs(np.log(temperature / ladder[:, 0])) < _NEAR
    if (near.any() and inside) or np.isclose(trained.temperatures, temperature).any():
        return None
    where = (
        "between simulated temperatures" if inside else f"outside the simulated {label(low)} to {label(high)}"
    )
    if near.any():
        return (
            f"{label(temperature)} is {where}: it rests on reweighted frames, worth about {ladder[near, 1].min():.0f} "
            "without correlation in time"
        )
    if not trained.model.sees_temperature:
        what = "the prior's guess"
    elif ladder[0, 0] <= temperature <= ladder[-1, 0]:
        what = "the flow's interpolation"
    else:
        nearest = ladder[0, 0] if temperature < ladder[0, 0] else ladder[-1, 0]
        what = f"the distribution at {label(nearest)}, the nearest temperature that frames reach"
    return f"{label(temperature)} is {where} and no frames can be reweighted to it: what is given is {what}"


def write_ensemble(
    ensemble: GeneratedEnsemble,
    trained: TrainedModel,
    pool: Pool,
    topology: mdtraj.Topology,
    folder: Path,
    max_structures: int = 1000,
) -> None:
    """Write latent samples, free energy and a summary into `folder`.

    ``latent_samples.parquet`` (z, state, log_density, the nearest frame and its distance), ``free_energy.parquet``
    (grid of the first two collective variables), ``summary.json`` (populations of the samples, warnings) and, unless
    `max_structures` is 0, ``structures.dcd`` with ``topology.pdb`` (the nearest frames of the first samples).
    """
    folder.mkdir(parents=True, exist_ok=True)
    _samples_table(ensemble, pool).to_parquet(folder / "latent_samples.parquet", index=False)
    grid = LatentGrid.around(np.concatenate([pool.z, ensemble.z]))
    free_energy_table(trained, ensemble.temperature, grid).to_parquet(
        folder / "free_energy.parquet", index=False
    )
    nearest = ensemble.nearest[:max_structures]
    if len(nearest):
        structures = gather_molecules(pool.structures(nearest, topology))
        write_trajectory(structures, folder / "structures.dcd")
        structures[0].save_pdb(str(folder / "topology.pdb"))
    summary: dict[str, Any] = {
        "temperature": ensemble.temperature,
        "temperature_scale": trained.temperature_scale,
        "samples": len(ensemble.z),
        "structures": len(nearest),
        "populations": ensemble.populations.tolist(),
        "errors": ensemble.errors.tolist(),
        "trained_at": list(trained.temperatures),
        "warnings": list(ensemble.warnings),
        "note": _ERRORS_NOTE if trained.model.n_members > 1 else _ONE_FLOW_NOTE,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def _samples_table(ensemble: GeneratedEnsemble, pool: Pool) -> pd.DataFrame:
    columns: dict[str, Any] = {f"z{i}": ensemble.z[:, i] for i in range(ensemble.z.shape[1])}
    columns |= {"state": ensemble.states, "log_density": ensemble.log_density}
    owner = pool.owner[ensemble.nearest]
    columns["nearest_run"] = np.array([walker.run for walker in pool.walkers])[owner]
    columns["nearest_walker"] = np.array([walker.walker for walker in pool.walkers])[owner]
    columns["nearest_frame"] = pool.frame[ensemble.nearest]
    columns["nearest_distance"] = ensemble.distance
    return pd.DataFrame(columns)


def free_energy_table(trained: TrainedModel, temperature: float, grid: LatentGrid) -> pd.DataFrame:
    """F_T(z) on the cell centres of `grid`: z0 (, z1), free_energy and error [kJ/mol], probability.

    The error is that of -kT ln r_T(z), whose constant is fixed by the normalisation.
    """
    kT = SCALES[trained.temperature_scale].kT(temperature)
    members = flow_probability(trained.model, temperature, grid, members=True)
    probability = members.mean(axis=0)
    error = kT * committee_error(np.log(np.maximum(members, 1e-300)))
    mesh = np.meshgrid(*grid.centres, indexing="ij")
    columns: dict[str, Any] = {f"z{i}": axis.ravel() for i, axis in enumerate(mesh)}
    values = {"free_energy": free_energy(probability, kT), "error": error, "probability": probability}
    return pd.DataFrame(columns | {name: value.ravel() for name, value in values.items()})
