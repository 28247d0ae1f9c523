"""Replica exchange by openmmtools as the first round of a run: files in its layout, and one of its own."""

from pathlib import Path
from typing import Any

import mdtraj
import netCDF4
import numpy as np
import openmm
import pandas as pd
import pytest
import yaml
from conftest import SMALL_TRAINING
from openmm import unit
from typer.testing import CliRunner

from latf_openmm.cli import app as cli
from latf_openmm.errors import ConfigError, DataError
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.imported.openmmtools_file import openmmtools_replicas
from latf_openmm.systems import library_folder
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.units import KELVIN

TEMPERATURES = np.array([300.0, 380.0, 480.0])
N_ITERATIONS = 40
BAR = (1.0 * unit.bar * unit.nanometer**3 * unit.AVOGADRO_CONSTANT_NA).value_in_unit(unit.kilojoule_per_mole)
STATE = (
    "_serialized__class_name: ThermodynamicState\npressure: {pressure}\nstandard_system: !!binary |\n  eJwz\n"
)
STATE += "temperature: !Quantity\n  unit: kelvin\n  value: {temperature}\n"


class Sampled:
    """Positions (n, 3, n_atoms, 3) [nm], states (n, 3) and energies (n, 3) [kJ/mol]; the first is the start."""

    def __init__(self) -> None:
        built = AlanineDipeptideSettings().build(1)
        rng, n = np.random.default_rng(1), N_ITERATIONS + 1
        self.states = np.array([rng.permutation(3) for _ in range(n)])
        self.positions = np.empty((n, 3, built.n_atoms, 3))
        self.energies = np.empty((n, 3))
        contexts = []
        for number in range(3):
            integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.002)
            integrator.setRandomNumberSeed(number + 1)
            contexts.append(
                openmm.Context(built.system, integrator, openmm.Platform.getPlatform("Reference"))
            )
            contexts[-1].setPositions(built.positions[0])
            contexts[-1].setVelocitiesToTemperature(300.0, 1)
        for i in range(n):
            for replica, context in enumerate(contexts):
                context.getIntegrator().setTemperature(TEMPERATURES[self.states[i, replica]])
                context.getIntegrator().step(20)
                state = context.getState(positions=True, energy=True)
                self.positions[i, replica] = state.getPositions(asNumpy=True)._value
                self.energies[i, replica] = state.getPotentialEnergy()._value

    def write(self, file: Path, **changes: Any) -> Path:
        """Write it as a MultiStateReporter of openmmtools 0.27 does; `changes` of what is there."""
        n, n_atoms = len(self.states), self.positions.shape[2]
        analysed = changes.get("analysed", n_atoms)
        pressure = changes.get("pressure", 0.0)
        boxes = 2.0 * np.broadcast_to(np.eye(3), (n, 3, 3, 3))
        kT = np.array([KELVIN.kT(t) for t in TEMPERATURES])
        kT = kT * changes.get("factors", np.ones(3))
        with netCDF4.Dataset(file, "w") as data:
            data.setncatts({"CheckpointInterval": 10, "PositionInterval": 1} | changes.get("attributes", {}))
            sizes = {"scalar": 1, "iteration": n, "spatial": 3, "replica": 3, "state": 3, "atom": n_atoms}
            for name, size in (sizes | {"analysis_particles": analysed}).items():
                data.createDimension(name, size)
            _put(data, "last_iteration", ("scalar",), [n - 1])
            _put(data, "states", ("iteration", "replica"), self.states)
            reduced = (self.energies + pressure * BAR * 8.0)[:, :, None] / kT
            _put(data, "energies", ("iteration", "replica", "state"), reduced)
            if analysed:
                _put_positions(data, self.positions[:, :, :analysed], boxes)
            group = data.createGroup("thermodynamic_states")
            for i, temperature in enumerate(TEMPERATURES):
                bar = f"!Quantity\n  unit: bar\n  value: {pressure}" if pressure else "null"
                text = changes.get("text", STATE).format(temperature=temperature, pressure=bar)
                group.createDimension(f"fixedL{i}", len(text))
                letters = netCDF4.stringtochar(np.array([text], f"S{len(text)}"))[0]
                _put(group, f"state{i}", (f"fixedL{i}",), letters)
        return file

    def write_checkpoint(self, file: Path) -> None:
        """Write the file of all positions, every tenth iteration."""
        with netCDF4.Dataset(file, "w") as data:
            rows = self.positions[::10]
            sizes = {"iteration": len(rows), "spatial": 3, "replica": 3, "atom": rows.shape[2]}
            for name, size in sizes.items():
                data.createDimension(name, size)
            _put_positions(data, rows, 2.0 * np.broadcast_to(np.eye(3), (len(rows), 3, 3, 3)))


def _put(data: Any, name: str, dimensions: tuple[str, ...], values: Any) -> None:
    values = np.asarray(values)
    data.createVariable(name, values.dtype, dimensions)[:] = values


def _put_positions(data: Any, positions: np.ndarray, boxes: np.ndarray) -> None:
    if "particle" not in data.dimensions:
        data.createDimension("particle", positions.shape[2])
    dimensions = ("iteration", "replica", "particle", "spatial")
    _put(data, "positions", dimensions, positions.astype(np.float32))
    data.createDimension("row", 3)
    _put(data, "box_vectors", ("iteration", "replica", "row", "spatial"), boxes.astype(np.float32))


@pytest.fixture(scope="module")
def sampled() -> Sampled:
    return Sampled()


def test_frames_are_those_of_each_replica(sampled: Sampled, tmp_path: Path) -> None:
    pairs = openmmtools_replicas(sampled.write(tmp_path / "x.nc"), tmp_path / "out")
    topology = AlanineDipeptideSettings().build(1).mdtraj_topology()
    for replica, (trajectory, table) in enumerate(pairs):
        rows = pd.read_csv(table)
        assert list(rows) == ["temperature", "potential_energy"]
        np.testing.assert_array_equal(rows["temperature"], TEMPERATURES[sampled.states[1:, replica]])
        np.testing.assert_allclose(rows["potential_energy"], sampled.energies[1:, replica], rtol=1e-10)
        xyz = mdtraj.load(str(trajectory), top=topology).xyz
        np.testing.assert_allclose(xyz, sampled.positions[1:, replica], atol=1e-6)


def test_positions_of_the_checkpoint_file(sampled: Sampled, tmp_path: Path) -> None:
    """Where the analysis has some atoms only, or none; here at constant pressure."""
    for analysed in (0, 5):
        folder = tmp_path / str(analysed)
        folder.mkdir()
        file = sampled.write(folder / "x.nc", analysed=analysed, pressure=3.0)
        sampled.write_checkpoint(folder / "x_checkpoint.nc")
        pairs = openmmtools_replicas(file, folder / "out")
        rows = pd.read_csv(pairs[1][1])
        np.testing.assert_allclose(rows["potential_energy"], sampled.energies[10::10, 1], rtol=1e-7)
        np.testing.assert_allclose(rows["volume"], 8.0, rtol=1e-6)
        assert mdtraj.open(str(pairs[1][0])).read()[0].shape[0] == N_ITERATIONS // 10


def test_it_is_the_first_round_of_a_run(sampled: Sampled, tmp_path: Path) -> None:
    """As the command line does it; the import itself compares energies with the System."""
    data = yaml.safe_load((library_folder("alanine_dipeptide") / "fast.yaml").read_text())
    simulation = {
        "frame_interval": 20,
        "timestep": 0.002,
        "frames": 40,
        "temperatures": TEMPERATURES.tolist(),
    }
    data["simulation"] |= simulation
    data["training"] |= SMALL_TRAINING | {"lag": 1}
    data["model"]["flow"] = {"layers": 2}
    data["generate"] = {"temperatures": [340], "samples": 200}
    data.pop("validation", None)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(data))
    sampled.write(tmp_path / "x.nc")
    lines = called("exchange-tables", str(tmp_path / "x.nc"), "-o", str(tmp_path / "tables")).split()
    files = [
        word
        for trajectory, table in zip(lines[::2], lines[1::2], strict=True)
        for word in ("--trajectory", trajectory, "--table", table)
    ]
    called("import", str(tmp_path / "my.yaml"), *files, "-o", str(tmp_path / "run"), "--ignore-times")
    walkers = RunFolder.open(tmp_path / "run").walkers(0)
    assert {walker.temperature for walker in walkers} == set(TEMPERATURES)
    assert sum(len(walker.table) for walker in walkers) == 3 * N_ITERATIONS


def called(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factors": np.array([1.0, 1.2, 1.0])}, "energies in state 1 .*expected the temperatures"),
        ({"analysed": 0}, "no positions, and x_checkpoint.nc is not beside it"),
        ({"text": "pressure: {pressure}\n"}, "state 0 cannot be read .*KeyError: 'temperature'"),
        ({"text": "temperature: {temperature}\npressure: {pressure}\n"}, "state 0 cannot be read"),
        ({"attributes": {"PositionInterval": 100}}, "no positions in 40 iterations"),
    ],
)
def test_bad_files(sampled: Sampled, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = sampled.write(tmp_path / "x.nc", **change)
    with pytest.raises(DataError, match=message):
        openmmtools_replicas(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_files_and_arguments(sampled: Sampled, tmp_path: Path) -> None:
    (tmp_path / "text.nc").write_text("no")
    with pytest.raises(DataError, match=r"text\.nc: not a NetCDF file"):
        openmmtools_replicas(tmp_path / "text.nc", tmp_path / "out")
    with netCDF4.Dataset(tmp_path / "other.nc", "w"):
        pass
    with pytest.raises(
        DataError, match=r"other\.nc: no energies, last_iteration, states, thermodynamic_states"
    ):
        openmmtools_replicas(tmp_path / "other.nc", tmp_path / "out")
    file = sampled.write(tmp_path / "x.nc")
    for arguments, message in (
        ((str(file), "-T", "300"), "has the temperatures of its states"),
        ((str(tmp_path),), "--temperature: missing"),
        ((str(tmp_path / "no.nc"),), "no.nc: missing; expected a folder"),
    ):
        result = CliRunner().invoke(cli, ["exchange-tables", *arguments, "-o", str(tmp_path / "out")])
        assert isinstance(result.exception, (ConfigError, DataError))
        assert message in str(result.exception)


@pytest.mark.slow
def test_a_file_of_openmmtools_itself(tmp_path: Path) -> None:
    """Where it is installed: energies of the System at the frames are those of the table."""
    multistate = pytest.importorskip("openmmtools.multistate")
    from openmmtools import mcmc, states

    built = AlanineDipeptideSettings().build(1)
    move = mcmc.LangevinDynamicsMove(
        timestep=2 * unit.femtosecond, collision_rate=1 / unit.picosecond, n_steps=20
    )
    sampler = multistate.ReplicaExchangeSampler(mcmc_moves=move, number_of_iterations=12)
    every_atom = tuple(range(built.n_atoms))
    reporter = multistate.MultiStateReporter(str(tmp_path / "x.nc"), 6, analysis_particle_indices=every_atom)
    thermodynamic = [states.ThermodynamicState(built.system, t * unit.kelvin) for t in TEMPERATURES]
    start = states.SamplerState(built.positions[0] * unit.nanometer)
    sampler.create(thermodynamic, [start], storage=reporter)
    sampler.run()
    reporter.close()
    context = openmm.Context(built.system, openmm.VerletIntegrator(0.001))
    topology = built.mdtraj_topology()
    visited = set()
    for trajectory, table in openmmtools_replicas(tmp_path / "x.nc", tmp_path / "out"):
        rows = pd.read_csv(table)
        visited |= set(rows["temperature"])
        for frame, energy in zip(
            mdtraj.load(str(trajectory), top=topology).xyz, rows["potential_energy"], strict=True
        ):
            context.setPositions(frame)
            found = context.getState(energy=True).getPotentialEnergy()._value
            assert found == pytest.approx(energy, abs=0.05)
    assert visited == set(TEMPERATURES)
