"""Training of the model of a round, here or on a worker."""

import logging
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.progress import Progress

from latf_openmm.features import resolve_features
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.model.checkpoint import TrainedModel, save_model, versions
from latf_openmm.periodic import molecules_of
from latf_openmm.run.config import RunConfig
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import featurise_walkers
from latf_openmm.run.rounds import RoundFolder
from latf_openmm.sampling.processes import carried
from latf_openmm.storage import (
    atomic_folder,
    exclusive,
    remove_locks,
)
from latf_openmm.systems import shared_system
from latf_openmm.training.feature_selection import select_features
from latf_openmm.training.fit import TrainingResult, fit
from latf_openmm.training.kept_lags import forget_lags, lags_beside

log = logging.getLogger(__name__)


def train_here(
    run: RunFolder, folder: RoundFolder, trajectories: list[FeatureTrajectory], progress: Progress | None
) -> None:
    """Train the model of a round in this process, unless it is there."""
    if folder.model.is_dir():
        forget_lags(folder.model)  # an interruption may have come before
        return
    train_model(run.config, trajectories, folder.model, run.config.seed + folder.index, progress)


def train_on_worker(run: RunFolder, folder: RoundFolder, executor: Executor) -> None:
    """Train the model of a round on a worker, unless it is there."""
    if not folder.model.is_dir():
        executor.submit(carried, train_round, run.path.absolute(), folder.index).result()
        remove_locks(folder.path)


def train_round(path: Path, index: int) -> None:
    """Train the model of a round whose simulations are complete, on a worker.

    Parameters
    ----------
    path
        Of the run.
    index
        Of the round.
    """
    torch.set_num_threads(1)  # as after the simulations of a run in one process: the model is the same
    run = RunFolder.open(path, builds=False)  # there was consent where this task comes from
    folder = run.round(index)
    with exclusive(folder.model):
        if not folder.model.is_dir():
            train_here(run, folder, featurise_walkers(run.config, run.walkers(index), run.path), None)


def train_model(
    config: RunConfig,
    trajectories: list[FeatureTrajectory],
    folder: Path,
    seed: int,
    progress: Progress | None = None,
) -> TrainedModel:
    """Train on trajectories with all descriptors; write the model folder with its history and what was left out."""
    topology = shared_system(config.system).mdtraj_topology()
    resolved = resolve_features(config.features, topology)
    features, fewer, selection = select_features(resolved, trajectories, config.feature_selection)
    log.info("%s: %s", folder, selection)
    result = fit(fewer, config.model, config.training, seed, progress, lags_beside(folder))
    trained = TrainedModel(
        result.model,
        tuple(features),
        tuple(str(atom) for atom in topology.atoms),
        config.system.scale.name,
        tuple(sorted({t.temperature for t in trajectories})),
        _provenance(result, trajectories, seed) | {"feature_selection": str(selection)},
        selection.columns,
        tuple(molecules_of(topology).tolist()),
    )
    with atomic_folder(folder) as temporary:
        save_model(trained, temporary)
        history = pd.DataFrame([asdict(epoch) for epoch in result.history])
        history.to_parquet(temporary / "history.parquet", index=False)
        selection.table.to_csv(temporary / "descriptors.csv", index=False)
    forget_lags(folder)
    return trained


def _provenance(result: TrainingResult, trajectories: list[FeatureTrajectory], seed: int) -> dict[str, Any]:
    return {
        "versions": versions(),
        "seed": seed,
        "frames": sum(t.n_frames for t in trajectories),
        "states_settled": result.settled,
        "populations": result.populations,
        "ladder": result.ladder,
        "consistency": result.consistency,
        "lag": result.lag,
        "lag_scan": None if result.lag_scan is None else asdict(result.lag_scan),
    }
