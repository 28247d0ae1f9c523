"""Which descriptors are left out, and that a model of fewer is used as any other."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import SMALL_TRAINING
from numpy.typing import NDArray

from latf_openmm.features import build_features, resolve_features
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.frames.trajectory import FeatureTrajectory, featurise
from latf_openmm.run.config import load_config
from latf_openmm.run.frames import pool_of_rounds, pool_of_walkers, run_features
from latf_openmm.run.loop import run_loop
from latf_openmm.systems.chignolin import ChignolinSettings
from latf_openmm.training.feature_selection import (
    FeatureSelectionSettings,
    select_descriptors,
    select_features,
)

N = 4000


def autoregressive(memory: float, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    x = np.zeros(N)
    for t in range(1, N):
        x[t] = memory * x[t - 1] + np.sqrt(1 - memory**2) * rng.normal()
    return x


def trajectory(columns: list[NDArray[np.float64]], temperature: float = 300.0) -> FeatureTrajectory:
    return FeatureTrajectory(
        np.stack(columns, axis=1).astype(np.float32), temperature, 1.0, np.arange(N, dtype=float), np.zeros(N)
    )


def test_dead_redundant_and_fast_descriptors_are_left_out() -> None:
    slow, medium, fast = (autoregressive(m, i) for i, m in enumerate((0.999, 0.99, 0.1)))
    noise = 0.02 * autoregressive(0.0, 7)
    columns = [fast, slow, np.full(N, 3.0), medium, -2 * slow + noise, 1e-5 * medium]
    names = list("abcdef")
    settings = FeatureSelectionSettings(applies_above=1, max_features=2)
    found = select_descriptors([trajectory(columns)], names, settings)
    fate = dict(zip(found.table["name"], found.table["fate"], strict=True))
    assert fate == {"a": "fast", "b": "kept", "c": "dead", "d": "kept", "e": "redundant", "f": "dead"}
    assert found.kept == (1, 3)
    assert found.table.set_index("name").loc["e", "of"] == "b"
    np.testing.assert_allclose(found.table["slowness"][[1, 3]], [0.999**40, 0.99**40], atol=0.15)
    assert str(found) == "2 of 6 descriptors kept (2 dead, 1 redundant, 1 fast)"


def test_few_descriptors_are_all_kept() -> None:
    columns = [np.zeros(N), autoregressive(0.9, 1)]
    found = select_descriptors([trajectory(columns)], ["a", "b"], FeatureSelectionSettings())
    assert found.kept == (0, 1)
    assert str(found) == "2 of 2 descriptors kept"


def test_what_differs_between_temperatures_only_is_not_slow() -> None:
    """A distance that grows with temperature and forgets within a frame is no slow variable."""
    jump, slow = autoregressive(0.0, 1), autoregressive(0.999, 2)
    hot = trajectory([jump + 50.0, slow], 400.0)
    found = select_descriptors(
        [trajectory([jump, slow]), hot],
        ["jump", "slow"],
        FeatureSelectionSettings(applies_above=1, max_features=2),
    )
    assert found.table["slowness"][0] < 0.1 < 0.8 < found.table["slowness"][1]


def test_reduced_features_give_the_same_numbers() -> None:
    built = ChignolinSettings().build()
    topology = built.mdtraj_topology()
    resolved = resolve_features(
        [DistanceSettings(selection="name CA or name CB"), TorsionSettings(angles=["phi", "psi"])], topology
    )
    noise = np.random.default_rng(1).normal(0, 0.02, (200, built.n_atoms, 3))
    xyz = (built.positions + np.cumsum(noise, axis=0) * 0.2).astype(np.float32)
    whole = build_features(resolved).double()
    values = featurise(whole, xyz)
    full = FeatureTrajectory(values, 300.0, 1.0, np.arange(200.0), np.zeros(200))
    settings = FeatureSelectionSettings(applies_above=50, max_features=20, max_correlation=0.9)
    fewer, (narrow,), selection = select_features(resolved, [full], settings)
    module = build_features(fewer).double()
    assert 20 <= module.n_features <= 40
    assert set(np.array(whole.names)[list(selection.kept)]) <= set(module.names)
    np.testing.assert_array_equal(narrow.features, featurise(module, xyz))
    assert module.used_atoms() is not None and len(torch.unique(module.used_atoms())) < len(
        whole.used_atoms()
    )


@pytest.mark.filterwarnings("ignore")
def test_a_loop_with_fewer_descriptors(tmp_path: Path) -> None:
    """Training, the bias of the next round, pools and a resumed run all use the reduced features."""
    data = {
        "system": {"kind": "alanine_dipeptide"},
        "simulation": {
            "temperatures": [300, 400],
            "frames": 120,
            "frame_interval": 5,
            "timestep": 0.002,
            "friction": 1.0,
        },
        "features": [{"kind": "distances", "selection": "element != H", "minimum_bonds": 3}],
        "feature_selection": {"applies_above": 10, "max_features": 6},
        "model": {"encoder_hidden": []},
        "training": SMALL_TRAINING | {"committee": 1},
        "bias": {"kind": "harmonic", "centre": [0.0, 0.0], "force_constant": 1.0},
        "generate": {"temperatures": [350], "samples": 200},
    }
    file = tmp_path / "loop.yaml"
    file.write_text(yaml.safe_dump(data))
    run = run_loop(load_config(file), tmp_path / "run")
    for index in (0, 1):
        trained = run.trained(index)
        assert trained.model.n_features == trained.feature_module().n_features == 6
        assert trained.provenance["feature_selection"].startswith(
            f"6 of {run_features(run.config).n_features} descriptors kept"
        )
        table = pd.read_csv(run.round(index).model / "descriptors.csv")
        assert (table["fate"] == "kept").sum() == 6
    pool = pool_of_rounds(run, 1)
    assert pool.z.shape == (2 * 2 * 120, 2)
    recorded = pd.read_parquet(next((run.round(1).simulation / "T300_w000").glob("*/frames.parquet")))
    biased = pool_of_walkers(run.config, run.trained(0), run.walkers(1))
    mine = biased.z[(biased.temperatures() == 300)][120:]
    np.testing.assert_allclose(recorded[["z0", "z1"]], mine, atol=1e-4)
    assert run_loop(load_config(file), tmp_path / "run").complete_rounds()
