"""Slopes of a run's collective variables: those of its frames, and forces correct its weights."""

import numpy as np
import pytest

from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.errors import ConfigError
from latf_openmm.features.coordination import CoordinationSettings
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import pool_of_rounds
from latf_openmm.run.slopes import slopes_of_pool


def test_slopes_of_a_run(small_run: RunFolder) -> None:
    trained, pool = small_run.trained(0), pool_of_rounds(small_run, 0)
    slopes = slopes_of_pool(small_run.config, trained, pool)
    np.testing.assert_allclose(slopes.z, pool.z, atol=1e-3)
    assert (np.linalg.eigvalsh(slopes.metric) > -1e-9).all()
    assert np.isfinite(slopes.curvature).all() and np.isfinite(slopes.work).all()
    temperature = float(pool.temperatures().min())
    ensembles = [Reweighter(trained, pool, 0, s).at(temperature, "reweighted") for s in (None, slopes)]
    for ensemble in ensembles:
        assert (ensemble.weights >= 0).all()
        np.testing.assert_allclose(ensemble.weights.sum(), 1.0)
    assert ensembles[1].energy().error < 1.2 * ensembles[0].energy().error


def test_kinks_are_refused(small_run: RunFolder) -> None:
    config = small_run.config.model_copy(update={"features": [CoordinationSettings(atoms=[0, 1], r0=1.0)]})
    with pytest.raises(ConfigError, match="kinks"):
        slopes_of_pool(config, small_run.trained(0), pool_of_rounds(small_run, 0))
