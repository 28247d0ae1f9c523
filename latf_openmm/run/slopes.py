"""Forces at the frames of a run, and slopes of its collective variables, for weights that forces correct."""

import copy

import mdtraj
import numpy as np
import openmm
import torch
from numpy.typing import NDArray

from latf_openmm.ensembles.pool import Pool
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.errors import ConfigError
from latf_openmm.features.coordination import CoordinationSettings
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.reweighting.identities import Slopes
from latf_openmm.reweighting.moves import moves_of, slopes_along
from latf_openmm.run.config import RunConfig
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import pool_of_rounds
from latf_openmm.sampling.contexts import PlatformChoice
from latf_openmm.systems import shared_system

Array = NDArray[np.float64]


def reweighter_of_round(run: RunFolder, index: int, forces: bool = False) -> Reweighter:
    """Return what makes ensembles of the frames of all rounds up to one, under its model.

    Parameters
    ----------
    forces
        Whether forces at the frames correct weights.

    Raises
    ------
    ConfigError
        If forces cannot: see `slopes_of_pool`.
    """
    if forces:
        _check_forces(run.config)
    trained, pool = run.trained(index), pool_of_rounds(run, index)
    slopes = slopes_of_pool(run.config, trained, pool) if forces else None
    return Reweighter(trained, pool, run.config.seed, slopes)


def _check_forces(config: RunConfig) -> None:
    """Raise `ConfigError` where forces at the frames cannot correct weights."""
    if not config.system.simulated:
        reason = f"system.kind: {config.system.kind} has atoms without forces"
    elif shared_system(config.system).periodic:
        reason = f"system.kind: {config.system.kind} has a periodic box, in which they do not"
    elif any(isinstance(feature, CoordinationSettings) for feature in config.features):
        reason = "features: sorted coordination numbers have kinks, where slopes are lost"
    else:
        return
    raise ConfigError(f"forces: they are to correct weights, and {reason}; leave --forces out")


def slopes_of_pool(config: RunConfig, trained: TrainedModel, pool: Pool) -> Slopes:
    """Return slopes of the collective variables along all moves of the system at all frames.

    One evaluation of the forces a frame, and two of the collective variables for each move.

    Raises
    ------
    ConfigError
        If the system has no forces or a periodic box, or collective variables are of sorted coordination numbers, which
        have kinks.
    """
    _check_forces(config)
    system = shared_system(config.system).system
    topology = shared_system(config.system).mdtraj_topology()
    context = PlatformChoice.chosen("Reference").context(system)
    features = copy.deepcopy(trained.feature_module()).double()
    model = copy.deepcopy(trained.model).double()
    moves, box = moves_of(topology), torch.empty(0, dtype=torch.float64)

    @torch.no_grad()
    def variables(positions: Array) -> Array:
        return np.asarray(model.encode(features(torch.from_numpy(positions), box)).numpy(), dtype=np.float64)

    parts = []
    for walker in pool.walkers:
        for piece in walker.chunks(topology):
            positions = piece.xyz.astype(np.float64)
            parts.append(slopes_along(moves, variables, positions, _forces(context, piece)))
    return Slopes(
        np.concatenate([part.z for part in parts]),
        np.concatenate([part.metric for part in parts]),
        np.concatenate([part.curvature for part in parts]),
        np.concatenate([part.work for part in parts]),
    )


def _forces(context: openmm.Context, piece: mdtraj.Trajectory) -> Array:
    """Forces without bias, shape (n_frames, n_atoms, 3) [kJ/mol/nm]."""
    forces = np.empty(piece.xyz.shape)
    for row, positions in zip(forces, piece.xyz.astype(np.float64), strict=True):
        context.setPositions(positions)
        row[:] = context.getState(forces=True).getForces(asNumpy=True)._value
    return forces
