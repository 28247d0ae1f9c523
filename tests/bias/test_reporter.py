"""LatentReporter in an ordinary openmm.app.Simulation, added to a user's own System."""

from pathlib import Path

import numpy as np
import openmm
import pandas as pd
import pytest
import torch
from openmm import app, unit

import latf_openmm as latf
from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.errors import ConfigError
from latf_openmm.features import resolve_features
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings


def test_reporter_writes_z_and_bias(tmp_path: Path) -> None:
    built = AlanineDipeptideSettings().build()
    topology = built.mdtraj_topology()
    features = resolve_features([TorsionSettings(angles=["phi", "psi"])], topology)
    torch.manual_seed(0)
    model = LatentThermodynamicFlow(ModelSettings(), 4, 2, 300.0)
    trained = TrainedModel(model, tuple(features), tuple(map(str, topology.atoms)), "K", (300.0,))
    cv = latf.latent_cv(trained)
    context = latf.bias_context(trained, 300 * unit.kelvin)
    assert context.kT == pytest.approx(2.4943, abs=1e-3)
    bias = HarmonicSettings(centre=[0.0, 1.0], force_constant=20.0).build(context)
    system = latf.add_bias(built.system, cv, bias)
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(built.topology, system, integrator, platform)
    simulation.context.setPositions(built.positions[0])
    file = tmp_path / "z.csv"
    simulation.reporters.append(latf.LatentReporter(file, 10, cv, bias))
    simulation.step(50)
    table = pd.read_csv(file)
    assert table["step"].tolist() == [10, 20, 30, 40, 50]
    assert table["time_ps"].iloc[-1] == pytest.approx(0.1)
    expected = 10.0 * (table["z0"] ** 2 + (table["z1"] - 1.0) ** 2)
    np.testing.assert_allclose(table["bias_energy"], expected, atol=1e-4)
    state = simulation.context.getState(energy=True, groups={31})
    in_openmm = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    assert table["bias_energy"].iloc[-1] == pytest.approx(in_openmm, abs=1e-5)


def test_a_file_that_is_there_is_neither_emptied_nor_continued_unless_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built = AlanineDipeptideSettings().build()
    cv = latf.torsion_cv([(4, 6, 8, 14)], built.n_atoms)
    file = tmp_path / "z.csv"

    def job(first: int, **options: bool) -> list[int]:
        integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
        simulation = app.Simulation(
            built.topology, built.system, integrator, openmm.Platform.getPlatformByName("Reference")
        )
        simulation.context.setPositions(built.positions[0])
        simulation.currentStep = first
        simulation.reporters.append(latf.LatentReporter(file, 10, cv, **options))
        simulation.step(30)
        return [int(step) for step in pd.read_csv(file)["step"]]

    file.touch()  # as tempfile makes it
    assert job(0) == [10, 20, 30]
    with file.open("a") as cut:
        cut.write("40,0.0")  # as a kill leaves it
    before = file.read_text()
    for start in ({}, {"append": True, "overwrite": True}):
        with pytest.raises(ConfigError, match=r"z\.csv: .*append.*overwrite"):
            latf.LatentReporter(file, 10, cv, **start)
        assert file.read_text() == before
    assert job(30, append=True) == [10, 20, 30, 40, 50, 60]
    assert "steps come twice" not in caplog.text
    assert job(50, append=True) == [10, 20, 30, 40, 50, 60, 60, 70, 80]
    assert "has rows up to step 60 and goes on at step 50, so steps come twice" in caplog.text
    assert job(0, overwrite=True) == [10, 20, 30]
    file.unlink()
    assert job(0, append=True) == [10, 20, 30]


def test_a_table_of_other_variables_is_not_continued(tmp_path: Path) -> None:
    one, two = (latf.torsion_cv([(4, 6, 8, 14), (6, 8, 14, 16)][:n], 22) for n in (1, 2))
    file = tmp_path / "z.csv"
    latf.LatentReporter(file, 10, one)
    before = file.read_text()
    message = (
        r"z\.csv: cannot be continued: its first line is 'step,time_ps,z0,bias_energy,bias_offset', and the columns of "
        r"these variables are 'step,time_ps,z0,z1,bias_energy,bias_offset'"
    )
    with pytest.raises(ConfigError, match=message):
        latf.LatentReporter(file, 10, two, append=True)
    assert file.read_text() == before
    file.write_bytes(b"\x00\xff frames")
    with pytest.raises(ConfigError, match=r"z\.csv: cannot be continued: its first line is '.* frames'"):
        latf.LatentReporter(file, 10, two, append=True)
    assert file.read_bytes() == b"\x00\xff frames"


@pytest.mark.parametrize("backend", ["compiled", "torchforce", "python"])
def test_inference_mode_changes_nothing(tmp_path: Path, backend: str) -> None:
    """What is faster around `simulation.step`, reporters and an adaptive bias included; then again without."""
    built = AlanineDipeptideSettings().build()
    cv = latf.torsion_cv([(4, 6, 8, 14), (6, 8, 14, 16)], built.n_atoms)
    tables, ends = [], []
    for faster in (False, True):
        bias = OpesSettings(sigma=0.3, barrier=20.0, pace=20).build(
            latf.cv_context(cv.periods.tolist(), 300.0)
        )
        system = latf.add_bias(built.system, cv, bias, backend=backend)  # type: ignore[arg-type]
        integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
        integrator.setRandomNumberSeed(1)
        platform = openmm.Platform.getPlatformByName("Reference")
        simulation = app.Simulation(built.topology, system, integrator, platform)
        simulation.context.setPositions(built.positions[0])
        simulation.context.setVelocitiesToTemperature(300.0, 1)
        file, updater = tmp_path / f"z{faster}.csv", latf.BiasUpdater(cv, bias)
        simulation.reporters += [latf.LatentReporter(file, 10, cv, bias), updater]
        with torch.inference_mode(faster):
            simulation.step(100)
        simulation.step(100)
        updater.save(tmp_path / "bias.pt")
        latf.load_bias(bias, tmp_path / "bias.pt")
        tables.append(pd.read_csv(file))
        ends.append(bias.state)
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    torch.testing.assert_close(*ends, rtol=0, atol=0)
    assert int(updater.bias.updates) == 10


def test_a_reporter_after_the_updater_of_its_bias_is_refused(tmp_path: Path) -> None:
    """At a step of both it would write the bias with the kernel that was added at that very frame."""
    built = AlanineDipeptideSettings().build()
    cv = latf.torsion_cv([(4, 6, 8, 14)], built.n_atoms)
    bias = OpesSettings(sigma=0.3, barrier=20.0, pace=10).build(latf.cv_context(cv.periods.tolist(), 300.0))
    system = latf.add_bias(built.system, cv, bias)
    platform = openmm.Platform.getPlatformByName("Reference")
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    simulation = app.Simulation(built.topology, system, integrator, platform)
    simulation.context.setPositions(built.positions[0])
    reporter, updater = latf.LatentReporter(tmp_path / "z.csv", 10, cv, bias), latf.BiasUpdater(cv, bias)
    simulation.reporters += [updater, reporter]
    with pytest.raises(ConfigError, match=r"simulation\.reporters: .*put the LatentReporter first"):
        simulation.step(20)
    simulation.reporters[:] = [reporter, updater, latf.LatentReporter(tmp_path / "other.csv", 10, cv)]
    simulation.step(20)
    assert pd.read_csv(tmp_path / "z.csv")["step"].tolist() == [10, 20]


def test_public_names_exist() -> None:
    for name in latf.__all__:
        assert getattr(latf, name) is not None
    with pytest.raises(AttributeError, match="No latf_openmm attribute nothing"):
        _ = latf.nothing
