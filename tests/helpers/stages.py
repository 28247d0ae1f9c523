"""Helpers of several test files, made for those of simulation."""

from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pandas as pd
import torch
from numpy.typing import NDArray
from openmm import unit

from latf_openmm.bias.potentials import BiasSettings
from latf_openmm.features import FeatureSettings, build_features, resolve_features
from latf_openmm.frames.walkers import WalkerFrames, read_stage
from latf_openmm.model.checkpoint import TrainedModel, save_model
from latf_openmm.model.flow import FlowSettings
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.sampling.dynamics import BiasSource
from latf_openmm.sampling.stage import SimulationSettings, Stage, run_stage
from latf_openmm.systems import SystemSettings
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.systems.lj7 import LJ7Settings
from latf_openmm.systems.three_hole import ThreeHoleSettings

Array = NDArray[np.float64]


HOLES, LJ7, DIPEPTIDE = ThreeHoleSettings(), LJ7Settings(), AlanineDipeptideSettings()


def write_model(
    folder: Path, system: SystemSettings, features: list[FeatureSettings], temperature: float
) -> Path:
    """A model of random encoder with an untrained flow."""
    topology = system.build(1).mdtraj_topology()
    resolved = tuple(resolve_features(features, topology))
    torch.manual_seed(0)
    n_features = build_features(resolved).n_features
    settings = ModelSettings(flow=FlowSettings(layers=2, hidden=[8]))
    model = LatentThermodynamicFlow(settings, n_features, 2, temperature).eval()
    atoms = tuple(str(atom) for atom in topology.atoms)
    save_model(TrainedModel(model, resolved, atoms, system.scale.name, (temperature,)), folder)
    return folder


def simulation(**changes: Any) -> SimulationSettings:
    few: dict[str, Any] = {
        "timestep": 0.01,
        "friction": 1.0,
        "frame_interval": 5,
        "segment_frames": 10,
        "temperatures": [1.0],
        "walkers": 3,
        "frames": 30,
    }
    return SimulationSettings(**(few | changes))


def make_stage(
    folder: Path,
    bias: BiasSource | None = None,
    system: SystemSettings = HOLES,
    seed: int = 3,
    starts: dict[float, Array] | None = None,
    **changes: Any,
) -> Stage:
    return Stage(system, simulation(**changes), bias, starts or {}, seed, folder)  # type: ignore[arg-type]


def run(stage: Stage) -> list[WalkerFrames]:
    run_stage(stage)
    return read_stage(stage.folder)


def table(walkers: list[WalkerFrames]) -> pd.DataFrame:
    return pd.concat([walker.table for walker in walkers], ignore_index=True)


def same_results(first: Path, second: Path) -> None:
    """Identical tables and identical trajectory files."""
    one, other = read_stage(first), read_stage(second)
    pd.testing.assert_frame_equal(table(one), table(other), check_exact=True)
    for a, b in zip(one, other, strict=True):
        assert [path.name for path in a.files] == [path.name for path in b.files]
        for left, right in zip(a.files, b.files, strict=True):
            np.testing.assert_array_equal(load(left).xyz, load(right).xyz)


def load(path: Path) -> mdtraj.Trajectory:
    return mdtraj.load(str(path), top=mdtraj.load_topology(str(path.parents[2] / "topology.pdb")))


def source(model: Path, bias: BiasSettings) -> BiasSource:
    return BiasSource(model=model, bias=bias)  # type: ignore[arg-type]


def single_energies(system: SystemSettings, xyz: Array) -> Array:
    """Potential energy of frames of one copy, by a System of its own."""
    built = system.build(1)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(built.system, openmm.VerletIntegrator(0.001), platform)
    energies = []
    for frame in xyz:
        context.setPositions(frame.astype(float))
        energies.append(context.getState(energy=True).getPotentialEnergy())
    return np.array([value.value_in_unit(unit.kilojoule_per_mole) for value in energies])
