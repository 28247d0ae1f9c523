"""Training stays finite: any seed, little data, all latent dimensions, temperatures far away.

`pytest -m slow tests/test_robustness.py` runs 50 seeds of each system (about half an hour on one core).
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from latf_openmm.features import FeatureSettings, build_features, resolve_features
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.coordination import CoordinationSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.frames.trajectory import FeatureTrajectory, featurise
from latf_openmm.frames.walkers import read_stage
from latf_openmm.model.latf import ModelSettings
from latf_openmm.sampling.stage import SimulationSettings, Stage, run_stage
from latf_openmm.systems import SystemSettings
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.systems.lj7 import LJ7Settings
from latf_openmm.systems.three_hole import ThreeHoleSettings
from latf_openmm.training.fit import fit
from latf_openmm.training.settings import TrainingSettings

SYSTEMS: dict[str, tuple[SystemSettings, list[FeatureSettings], list[float], float]] = {
    "three_hole": (ThreeHoleSettings(), [CoordinateSettings(axes="xy")], [0.7, 1.3], 0.01),
    "lj7": (LJ7Settings(), [CoordinationSettings(r0=1.5)], [0.2, 0.5], 0.005),
    "alanine_dipeptide": (
        AlanineDipeptideSettings(),
        [TorsionSettings(angles=["phi", "psi"]), DistanceSettings(selection="element != H", minimum_bonds=3)],
        [400.0, 600.0],
        0.002,
    ),
}
SHORT = TrainingSettings(
    lag=1, restarts=1, refinements=5, epochs_states=2, epochs_joint=2, epochs_flow=3, committee=2
)
QUICK = SHORT.model_copy(update={"initial_states": 20, "refinements": 2, "pairs_per_epoch": 5000})


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory):
    """Few frames of a system at two temperatures, simulated once."""

    @lru_cache(maxsize=3)
    def simulate(name: str) -> list[FeatureTrajectory]:
        return _simulate(name, tmp_path_factory.mktemp(name))

    return simulate


def _simulate(name: str, folder: Path) -> list[FeatureTrajectory]:
    system, features, temperatures, timestep = SYSTEMS[name]
    settings = SimulationSettings(
        temperatures=temperatures,
        walkers=4 if system.batched else 1,
        frames=60 if system.batched else 240,
        frame_interval=50,
        timestep=timestep,
        friction=1.0,
        equilibration=200,
    )
    run_stage(Stage(system, settings, None, {}, 1, folder))
    topology = system.build(1).mdtraj_topology()
    module = build_features(resolve_features(features, topology)).double()
    return [
        FeatureTrajectory(
            featurise(module, walker.load(topology).xyz),
            walker.temperature,
            50 * timestep,
            walker.table["potential_energy"].to_numpy(),
            np.zeros(len(walker.table)),
            run=walker.run,
            scale=system.scale,
        )
        for walker in read_stage(folder)
    ]


def check_finite(
    trajectories: list[FeatureTrajectory], model: ModelSettings, seed: int, training: TrainingSettings = QUICK
) -> None:
    """Train, then ask for parameters, densities and samples at temperatures near and far."""
    result = fit(trajectories, model, training, seed)
    fitted = result.model
    assert all(torch.isfinite(value).all() for value in fitted.state_dict().values())
    assert all(np.isfinite([e.train_loss, e.prediction, e.divergence]).all() for e in result.history)
    low = fitted.reference_temperature
    for temperature in (0.2 * low, low, 1.3 * low, 10 * low):
        density = fitted.density(temperature)
        z = density.sample(2000, torch.Generator().manual_seed(seed))
        assert z.shape == (2000, model.latent_dim)
        assert torch.isfinite(z).all()
        assert torch.isfinite(density.log_prob(z)).all()


@pytest.mark.parametrize(
    "name", ["lj7", *(pytest.param(n, marks=pytest.mark.slow) for n in SYSTEMS if n != "lj7")]
)
def test_little_data_give_a_finite_model(name: str, frames) -> None:
    check_finite(frames(name), ModelSettings(), seed=1)


@pytest.mark.parametrize("latent_dim", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_any_latent_dimension(latent_dim: int, frames) -> None:
    check_finite(frames("lj7"), ModelSettings(latent_dim=latent_dim), seed=1)


def test_prior_only_form(frames) -> None:
    flow = ModelSettings().flow.model_copy(update={"context": "none"})
    trajectories = frames("lj7")
    result = fit(trajectories, ModelSettings(flow=flow), QUICK.model_copy(update={"energies": "ignore"}), 1)
    assert result.ladder == []
    assert not result.model.sees_temperature


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("name", SYSTEMS)
def test_fifty_seeds(name: str, seed: int, frames) -> None:
    check_finite(frames(name), ModelSettings(encoder_hidden=[16] if seed % 2 else []), seed, SHORT)
