"""Frames of a run under its features and models."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latf_openmm.ensembles.pool import Pool, encode, pool_of
from latf_openmm.features import Features, build_features, resolve_features
from latf_openmm.frames.trajectory import FeatureTrajectory, featurise, new_features, thermal_square_speeds
from latf_openmm.frames.walkers import WalkerFrames, read_stage
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.periodic import frame_cells, molecules_of
from latf_openmm.run.config import RunConfig
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.rounds import check_segments
from latf_openmm.systems import shared_system


def pool_of_rounds(run: RunFolder, last: int) -> Pool:
    """All frames of the rounds up to and including `last`, under the model of that round."""
    return pool_of_walkers(run.config, run.trained(last), run.walkers(last))


def validation_pool(run: RunFolder, last: int) -> Pool | None:
    """Return the validation frames under the model of round `last`, or None when there are none."""
    if run.config.validation is None or not run.validated.is_file():
        return None
    check_segments(run.validated, run.validation)
    return pool_of_walkers(run.config, run.trained(last), read_stage(run.validation))


def pool_of_walkers(config: RunConfig, trained: TrainedModel, walkers: Sequence[WalkerFrames]) -> Pool:
    """Walkers under a model; their positions and descriptors are read in pieces and not kept."""
    features, topology = trained.feature_module(), shared_system(config.system).mdtraj_topology()
    trajectories, encoded = [], []
    for walker in walkers:
        pieces = [
            encode(trained, featurise(features, piece.xyz, frame_cells(piece)))
            for piece in walker.chunks(topology)
        ]
        encoded.append((np.concatenate([z for z, _ in pieces]), np.concatenate([s for _, s in pieces])))
        nothing = np.empty((len(walker.table), 0), np.float32)
        trajectories.append(_feature_trajectory(walker, nothing, config))
    return pool_of(walkers, trajectories, encoded, trained.model.n_states)


def run_features(config: RunConfig) -> Features:
    """Build the module of all descriptors of a run, in double precision; a model may use fewer."""
    topology = shared_system(config.system).mdtraj_topology()
    resolved = resolve_features(config.features, topology)
    return build_features(resolved, molecules_of(topology).tolist()).double()


def featurise_walkers(
    config: RunConfig, walkers: Sequence[WalkerFrames], place: Path
) -> list[FeatureTrajectory]:
    """Featurise walkers, one at a time, into one array.

    Parameters
    ----------
    place
        Folder whose disk holds the array where it does not fit into memory.
    """
    features, built = run_features(config), shared_system(config.system)
    topology, masses = built.mdtraj_topology(), built.masses
    everything = new_features(sum(len(w.table) for w in walkers), len(features.names), place)
    trajectories, row = [], 0
    for walker in walkers:
        rows, row = everything[row : row + len(walker.table)], row + len(walker.table)
        first, speeds = 0, None
        for piece in walker.chunks(topology):
            cell = frame_cells(piece)
            rows[first : first + piece.n_frames] = featurise(features, piece.xyz, cell)
            first += piece.n_frames
            if speeds is None:
                kT = config.system.scale.kT(walker.temperature)
                speeds = thermal_square_speeds(features, piece.xyz, cell, masses, kT)
        trajectories.append(replace(_feature_trajectory(walker, rows, config), square_speeds=speeds))
    return trajectories


def featurise_stages(config: RunConfig, folders: Sequence[Path], place: Path) -> list[FeatureTrajectory]:
    """Featurise all walkers of stages that lie anywhere; `place` as in `featurise_walkers`."""
    return featurise_walkers(config, [walker for folder in folders for walker in read_stage(folder)], place)


def _feature_trajectory(
    walker: WalkerFrames, features: NDArray[np.float32], config: RunConfig
) -> FeatureTrajectory:
    simulation = config.simulation
    kT = config.system.scale.kT(walker.temperature)
    return FeatureTrajectory(
        features=features,
        temperature=walker.temperature,
        frame_interval=simulation.timestep * simulation.frame_interval,
        potential_energy=walker.energies(),
        log_weights=walker.log_weights(kT),
        windows=walker.windows(kT),
        breaks=walker.breaks,
        recorded=walker.recorded_energies(),
        paths=walker.paths(),
        scale=config.system.scale,
        run=walker.run,
        name=f"{walker.run}/walker {walker.walker}",
    )
