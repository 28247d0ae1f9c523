"""A user's script, checked by `mypy --strict` in `make lint` and never run: public names have types."""

from pathlib import Path

import numpy as np
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


def import_trajectories(folder: Path) -> latf.RunFolder:
    trajectories = [latf.ImportedTrajectory(Path("md.xtc"), 300.0)]
    try:
        return latf.import_run(latf.load_config("my.yaml"), trajectories, folder)
    except latf.ConfigError as error:
        raise SystemExit(str(error)) from error
