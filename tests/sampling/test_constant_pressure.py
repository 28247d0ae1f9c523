"""Constant pressure against the ideal gas, whose volume is known at every temperature: <V> = (N + 1) kT / p."""

from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.errors import ConfigError
from latf_openmm.model.latf import ModelSettings
from latf_openmm.run.config import LoopSettings, RunConfig
from latf_openmm.run.ensembles import ensembles_at
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import pool_of_rounds
from latf_openmm.run.loop import run_loop
from latf_openmm.sampling.stage import SimulationSettings
from latf_openmm.systems.inspection import pressure_of
from latf_openmm.systems.python_file import PythonFileSettings
from latf_openmm.training.settings import TrainingSettings
from latf_openmm.units import KELVIN

MANY, FEW, BAR = 100, 20, 160.0
GAS = f"""
import numpy as np
import openmm
from openmm import app, unit

def make(n={MANY}):
    system, topology = openmm.System(), app.Topology()
    chain = topology.addChain()
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.4)
    for i in range(n):
        system.addParticle(40.0)
        force.addParticle(0.0, 1.0, 0.0)
        topology.addAtom("AR", app.element.argon, topology.addResidue("AR", chain))
    system.addForce(force)
    edge = 3.27 * (n / {MANY}) ** (1 / 3)
    # A truncated octahedron: single precision misses OpenMM's reduced form in many of its cells.
    box = edge * np.array([[1, 0, 0], [1 / 3, 8**0.5 / 3, 0], [-1 / 3, 2**0.5 / 3, 6**0.5 / 3]])
    system.setDefaultPeriodicBoxVectors(*box)
    topology.setPeriodicBoxVectors([openmm.Vec3(*row) for row in box] * unit.nanometer)
    system.addForce(openmm.MonteCarloBarostat({BAR} * unit.bar, 111.0, 1))
    return system, topology, np.random.default_rng(0).uniform(0, edge, (n, 3))

def few():
    return make({FEW})

def membrane():
    system, topology, positions = make()
    system.removeForce(1)
    mode = openmm.MonteCarloMembraneBarostat
    system.addForce(mode(1.0, 0.0, 300.0, mode.XYIsotropic, mode.ZFree))
    return system, topology, positions
"""


def volume(kelvin: float, n: int) -> float:
    """Mean volume of so many particles [nm^3]; single volumes scatter by 1 / sqrt(n + 1) of it."""
    pressure = (BAR * unit.bar * unit.AVOGADRO_CONSTANT_NA).value_in_unit(
        unit.kilojoule_per_mole / unit.nanometer**3
    )
    return float((n + 1) * KELVIN.kT(kelvin) / pressure)


def config(folder: Path, function: str = "make", frames: int = 300, equilibration: int = 1500) -> RunConfig:
    path = folder / "gas.py"
    path.write_text(GAS)
    return RunConfig.model_validate(
        {
            "system": PythonFileSettings(file=path, function=function),
            "simulation": SimulationSettings(
                temperatures=[300.0, 420.0],
                walkers=2,
                frames=frames,
                frame_interval=20,
                timestep=0.004,
                friction=5.0,
                equilibration=equilibration,
                minimise=False,
                platform="Reference",
            ),
            "features": [{"kind": "distances", "pairs": [(0, 1), (2, 3), (4, 5)]}],
            "model": ModelSettings(encoder_hidden=[]),
            "training": TrainingSettings(
                lag=1,
                initial_states=3,
                restarts=1,
                refinements=2,
                epochs_states=1,
                epochs_joint=1,
                epochs_flow=1,
                pairs_per_epoch=2000,
            ),
            "bias": HarmonicSettings(centre=[0.0, 0.0], force_constant=0.5),
            "loop": LoopSettings(rounds=2),
            "generate": {"annealing": {"walkers": 100, "steps": 100, "frames": 3}},
        }
    )


def volumes_are_exact(run: RunFolder, n: int) -> Reweighter:
    """Simulated, in the structures of both rounds, and reweighted to a temperature between."""
    scatter = 1 / np.sqrt(n + 1)
    unbiased = [walker for walker in run.walkers(1) if walker.run.startswith("000")]
    pressure = pressure_of(run.config.system.build().system)
    assert pressure == pytest.approx(0.0602214 * BAR, rel=1e-4)
    assert pressure is not None
    for temperature in (300.0, 420.0):
        mine = [w.table["pressure_volume"] / pressure for w in unbiased if w.temperature == temperature]
        means = np.array([part.mean() for walker in mine for part in np.array_split(walker.to_numpy(), 10)])
        assert abs(means.mean() - volume(temperature, n)) < 4 * means.std() / np.sqrt(len(means))
        assert 0.01 * scatter < means.std() / np.sqrt(len(means)) / volume(temperature, n) < 0.5 * scatter
    # Boxes are those of the volumes, also of walkers that started from structures of the first round.
    for walker in run.walkers(1):
        found = walker.load(run.topology()).unitcell_volumes
        np.testing.assert_allclose(found, walker.table["pressure_volume"] / pressure, rtol=1e-3)
    positions, boxes = run.round(0).read_starts()
    assert boxes[300.0].shape == (2, 3, 3)
    assert positions[300.0].shape == (2, n, 3)
    # Reweighted by U + pV to a temperature between.
    reweighter = Reweighter(run.trained(1), pool_of_rounds(run, 1), 1)
    between = reweighter.at(355.0, "reweighted")
    found = between.expectation(between.observe(lambda t: t.unitcell_volumes, run.topology()))
    assert abs(found.value - volume(355.0, n)) < 4 * found.error
    assert found.error < 0.6 * scatter * volume(355.0, n)
    return reweighter


def test_few_particles_of_an_ideal_gas(tmp_path: Path) -> None:
    few = config(tmp_path, "few", 120, 800)
    few = few.model_copy(
        update={"generate": few.generate.model_copy(update={"temperatures": [], "samples": 20})}
    )
    volumes_are_exact(run_loop(few, tmp_path / "run"), FEW)


@pytest.mark.slow
def test_an_ideal_gas(tmp_path: Path) -> None:
    run = run_loop(config(tmp_path), tmp_path / "run")
    reweighter, pressure = volumes_are_exact(run, MANY), pressure_of(run.config.system.build().system)
    assert pressure is not None
    # Walkers annealed there at constant pressure, each with its own box.
    (annealed,) = ensembles_at(run, 1, [355.0], "annealed", reweighter=reweighter)
    again = annealed.expectation(annealed.observe(lambda t: t.unitcell_volumes, run.topology()))
    assert abs(again.value - volume(355.0, MANY)) < 4 * again.error
    assert again.error < 0.06 * volume(355.0, MANY)
    walker = annealed.pool.walkers[0]
    found_volumes = walker.load(run.topology()).unitcell_volumes
    np.testing.assert_allclose(found_volumes, walker.table["pressure_volume"] / pressure, rtol=1e-3)
    assert np.abs(walker.table["potential_energy"]).max() < 1e-6
    assert len(np.unique(found_volumes.round(3))) > 50


def test_other_barostats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MonteCarloMembraneBarostat is not supported"):
        run_loop(config(tmp_path, "membrane"), tmp_path / "run")


def test_pressure_of_a_users_system(tmp_path: Path) -> None:
    from latf_openmm.systems.molecule import ForceFieldOptions

    with pytest.raises(ConfigError, match="1 bar needs a periodic box, and "):
        ForceFieldOptions(pressure=1.0).arguments(None, "a.pdb", 0)
    assert ForceFieldOptions(pressure=1.0).arguments(3 * np.eye(3), "a.pdb", 0)["nonbondedMethod"] is app.PME
    assert pressure_of(openmm.System()) is None
