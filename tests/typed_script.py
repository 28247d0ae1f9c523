"""A user's script, checked by `mypy --strict` in `make lint` and never run: public names have types."""

from pathlib import Path

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import assert_type

import latf_openmm as latf


def learn_and_bias(folder: Path) -> None:
    config = latf.load_config("lj7/fast")
    assert_type(config, latf.RunConfig)
    run = latf.run_loop(config, folder)
    assert_type(run, latf.RunFolder)
    trained = run.trained(1)
    context = latf.bias_context(trained, 0.3)
    assert_type(context, latf.BiasContext)
    bias = latf.OpesSettings(barrier=4.0).build(context)
    cv = latf.latent_cv(trained)
    updater = latf.BiasUpdater(cv, bias)
    assert_type(updater.bias.offset(), float)
    ensembles = latf.ensembles_at(run, 1, [0.3, 0.4])
    weights: NDArray[np.float64] = ensembles[0].weights
    assert weights.sum() > 0


def learn_from_descriptors(structure: mdtraj.Trajectory, temperature: float) -> float:
    settings = latf.resolve_features([latf.TorsionSettings(angles=["phi", "psi"])], structure.topology)
    features = latf.build_features(settings)
    latf.FeatureCV(features, torch.nn.Linear(features.n_features, 2), structure.n_atoms)
    n = structure.n_frames
    trajectory = latf.FeatureTrajectory(
        features=np.zeros((n, features.n_features), dtype=np.float32),
        temperature=temperature,
        frame_interval=1.0,
        potential_energy=np.zeros(n),
        log_weights=np.zeros(n),
    )
    with latf.make_progress() as progress:
        result = latf.fit([trajectory], latf.ModelSettings(), latf.TrainingSettings(lag=5), 1, progress)
    return sum(result.populations)


def import_trajectories(folder: Path) -> latf.RunFolder:
    trajectories = [latf.ImportedTrajectory(Path("md.xtc"), 300.0)]
    try:
        return latf.import_run(latf.load_config("my.yaml"), trajectories, folder)
    except latf.ConfigError as error:
        raise SystemExit(str(error)) from error
