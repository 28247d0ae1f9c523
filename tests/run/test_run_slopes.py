"""Slopes of a run's collective variables: those of its frames, and forces correct its weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from latf_openmm.cli import app as cli
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.errors import ConfigError
from latf_openmm.features.coordination import CoordinationSettings
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import pool_of_rounds
from latf_openmm.run.slopes import reweighter_of_round, slopes_of_pool
from latf_openmm.systems.trajectories import TrajectoriesSettings


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


def test_the_command_says_whether_forces_correct(small_run: RunFolder, tmp_path: Path) -> None:
    arguments = ("generate", str(small_run.path), "-T", "1.1", "--samples", "200", "--minutes", "0")
    descriptions = []
    for name, more in (("plain", ()), ("forces", ("--forces",))):
        result = CliRunner().invoke(cli, [*arguments, "-o", str(tmp_path / name), *more])
        assert result.exit_code in (0, 3), (result.output, result.exception)
        descriptions.append(
            json.loads((tmp_path / name / "T1.1" / "ensemble.json").read_text())["description"]
        )
    assert "forces" not in descriptions[0]
    observed = (
        "observe",
        str(small_run.path),
        "-T",
        "1.1",
        "--observable",
        "energy",
        "--minutes",
        "0",
        "--forces",
    )
    result = CliRunner().invoke(cli, [*observed, "-o", str(tmp_path / "observed")])
    assert result.exit_code in (0, 3), (result.output, result.exception)


def test_kinks_are_refused(small_run: RunFolder) -> None:
    config = small_run.config.model_copy(update={"features": [CoordinationSettings(atoms=[0, 1], r0=1.0)]})
    with pytest.raises(ConfigError, match=r"forces: .*kinks.*leave --forces out"):
        slopes_of_pool(config, small_run.trained(0), pool_of_rounds(small_run, 0))


def test_atoms_without_forces_are_refused(small_run: RunFolder, tmp_path: Path) -> None:
    """Their System says zero everywhere, which would correct weights to nonsense."""
    small_run.reference_structure().save_pdb(str(tmp_path / "solute.pdb"))
    system = TrajectoriesSettings(topology=tmp_path / "solute.pdb")
    run = RunFolder(small_run.path, small_run.config.model_copy(update={"system": system}))
    with pytest.raises(ConfigError, match=r"forces: .*system\.kind: trajectories has atoms without forces"):
        reweighter_of_round(run, 0, forces=True)
