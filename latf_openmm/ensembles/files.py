"""What an ensemble of structures leaves on disk."""

from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pandas as pd

from latf_openmm.ensembles.ensemble import Estimate, StructureEnsemble
from latf_openmm.errors import DataError
from latf_openmm.frames.formats import FormatName, write_trajectory
from latf_openmm.frames.trajectory import energies_known
from latf_openmm.model.checkpoint import versions
from latf_openmm.periodic import gather_molecules
from latf_openmm.storage import atomic_file, write_json, write_manifest, write_text


def write_structures(
    ensemble: StructureEnsemble,
    topology: mdtraj.Topology,
    folder: Path,
    structures: int,
    seed: int,
    trajectory: FormatName = "dcd",
    source: dict[str, Any] | None = None,
) -> None:
    """Write an ensemble of structures into a folder.

    ``frames.parquet`` (every frame that has a weight: where it is, its temperature, energy, state, z and weight);
    ``ensemble.FORMAT`` with ``ensemble.pdb`` (`structures` frames that stand for the ensemble
    without weights); ``state_N.pdb`` (one structure of each state); ``populations.csv``; ``ensemble.json`` (method,
    effective sizes, populations, energy and heat capacity with errors, warnings, `source`, versions);
    ``manifest.json`` with the hashes of all of them.

    Parameters
    ----------
    trajectory
        Format of the structures.
    source
        What they were made from, for the record.

    Raises
    ------
    DataError
        If the folder has such files already.
    """
    record = folder / "ensemble.json"
    if record.exists():
        raise DataError(f"{record}: already there")
    with atomic_file(folder / "frames.parquet") as temporary:
        frames_table(ensemble).to_parquet(temporary, index=False)
    chosen = gather_molecules(ensemble.trajectory(structures, topology, seed))
    with atomic_file(folder / f"ensemble.{trajectory}") as temporary:
        write_trajectory(chosen, temporary, trajectory)
    write_structure(chosen[0], folder / "ensemble.pdb")
    write_text(folder / "populations.csv", populations_table(ensemble).to_csv(index=False))
    for state, frame in ensemble.representatives().items():
        structure = ensemble.pool.structures(np.array([frame]), topology)
        write_structure(structure, folder / f"state_{state}.pdb")
    summary = describe(ensemble) | {
        "source": source or {},
        "versions": versions(),
        "structures": structures,
        "seed": seed,
    }
    write_json(record, summary)
    write_manifest(folder)


def write_structure(structure: mdtraj.Trajectory, path: Path) -> None:
    """Write a PDB file; molecules are whole and beside each other."""
    with atomic_file(path) as temporary:
        gather_molecules(structure).save_pdb(str(temporary))


def populations_table(ensemble: StructureEnsemble) -> pd.DataFrame:
    """One row for each state: population, error, effective samples."""
    rows = [
        {
            "state": state,
            "population": population.value,
            "error": population.error,
            "effective_samples": ensemble.n_effective_in(ensemble.pool.states == state),
        }
        for state, population in enumerate(ensemble.populations())
    ]
    return pd.DataFrame(rows)


def frames_table(ensemble: StructureEnsemble) -> pd.DataFrame:
    """One row for each frame that has a weight."""
    pool = ensemble.pool
    columns: dict[str, Any] = {
        "run": np.array([walker.run for walker in pool.walkers])[pool.owner],
        "walker": np.array([walker.walker for walker in pool.walkers])[pool.owner],
        "frame": pool.frame,
        "temperature": pool.temperatures(),
        "potential_energy": pool.energies(),
        "state": pool.states,
    }
    columns |= {f"z{i}": pool.z[:, i] for i in range(pool.z.shape[1])}
    table = pd.DataFrame(columns | {"weight": ensemble.weights})
    return table[table["weight"] > 0].reset_index(drop=True)


def describe(ensemble: StructureEnsemble) -> dict[str, Any]:
    """Return the numbers that a reader needs to judge an ensemble."""
    numbers: dict[str, Any] = {
        "temperature": ensemble.temperature,
        "method": ensemble.method,
        "description": ensemble.description,
        "reliability": ensemble.reliability,
        "effective_sample_size": ensemble.ess,
        "effective_samples": ensemble.n_effective,
        "largest_weight": ensemble.largest_weight,
        "populations": [_pair(estimate) for estimate in ensemble.populations()],
        "warnings": list(ensemble.warnings),
    }
    if energies_known(ensemble.pool.trajectories):
        numbers["mean_energy"] = _pair(ensemble.energy())
        numbers["heat_capacity"] = _pair(ensemble.heat_capacity())
    return numbers


def _pair(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "error": estimate.error}
