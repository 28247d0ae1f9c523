"""Replica exchange by OpenMM's own sampler as the first round of a run."""

from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pandas as pd
import pytest
import yaml
from conftest import SMALL_TRAINING
from openmm import app, unit
from typer.testing import CliRunner

from latf_openmm.cli import app as cli
from latf_openmm.errors import ConfigError, DataError
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.imported.samplers import replica_exchange_tables
from latf_openmm.systems import library_folder
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.units import KELVIN

TEMPERATURES = [300.0, 380.0, 480.0]
pytestmark = pytest.mark.skipif(
    not hasattr(app, "ReplicaExchangeSampler"), reason="OpenMM before 8.6 has no ReplicaExchangeSampler"
)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 iterations of 20 steps with three replicas."""
    folder = tmp_path_factory.mktemp("sampler") / "out"
    built = AlanineDipeptideSettings().build(1)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.002)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(built.topology, built.system, integrator, platform)
    simulation.context.setPositions(built.positions[0])
    simulation.context.setVelocitiesToTemperature(300.0, 1)
    simulation.step(500)
    states = [{"temperature": t * unit.kelvin} for t in TEMPERATURES]
    sampler = app.ReplicaExchangeSampler(states, simulation, 20)
    reporter = app.ReplicaExchangeReporter(
        str(folder), 1, sampler, trajectoryPerReplica=True, trajectoryFormat="dcd", energy=True
    )
    sampler.reporters.append(reporter)
    sampler.simulate(40)
    return folder


def test_tables_have_temperature_and_energy_of_each_frame(sampled: Path, tmp_path: Path) -> None:
    paths = replica_exchange_tables(sampled, TEMPERATURES, KELVIN, tmp_path / "tables")
    tables = [pd.read_csv(path) for path in paths]
    assert [path.name for path in paths] == [f"replica_{i}.csv" for i in range(3)]
    temperatures = np.array([table["temperature"] for table in tables])
    assert (np.sort(temperatures, axis=0) == np.array(TEMPERATURES)[:, None]).all()
    assert max(table["temperature"].nunique() for table in tables) > 1  # its exchanges have no seed
    assert np.array([table["potential_energy"] for table in tables]).std() > 5


def test_it_is_the_first_round_of_a_run(sampled: Path, tmp_path: Path) -> None:
    """As the command line does it; the import itself compares energies with the System."""
    data = yaml.safe_load((library_folder("alanine_dipeptide") / "fast.yaml").read_text())
    data["simulation"] |= {
        "frame_interval": 20,
        "timestep": 0.002,
        "frames": 40,
        "temperatures": TEMPERATURES,
    }
    data["training"] |= SMALL_TRAINING | {"lag": 1}
    data["model"]["flow"] = {"layers": 2}
    data["generate"] = {"temperatures": [340], "samples": 200}
    data.pop("validation", None)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(data))
    temperatures = [word for t in TEMPERATURES for word in ("-T", str(t))]
    called("exchange-tables", str(sampled), *temperatures, "-o", str(tmp_path / "tables"))
    files = [
        word
        for i in range(3)
        for word in (
            *("--trajectory", str(sampled / f"replica_{i}.dcd")),
            *("--table", str(tmp_path / "tables" / f"replica_{i}.csv")),
        )
    ]
    called("import", str(tmp_path / "my.yaml"), *files, "-o", str(tmp_path / "run"), "--ignore-times")
    walkers = RunFolder.open(tmp_path / "run").walkers(0)
    assert {walker.temperature for walker in walkers} == set(TEMPERATURES)
    assert sum(len(walker.table) for walker in walkers) == 3 * 40


def called(*arguments: str) -> None:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == 0, (result.output, result.exception)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperatures": [300.0, 380.0]}, "--temperature: 2 of them; .*has 3 states"),
        ({"temperatures": [300.0, 480.0, 380.0]}, "differ from those in the state of the replica"),
        ({"temperatures": [300.0, 390.0, 480.0]}, "expected the temperatures of the states in their order"),
        ({"without": "energy.csv"}, "energy.csv: missing; expected what ReplicaExchangeReporter writes"),
        ({"without": "log.csv"}, "log.csv: missing; expected the log of a ReplicaExchangeReporter"),
        ({"cut": "energy.csv"}, "39 rows of 9 numbers; expected 40 of 9"),
        ({"text": "log.csv"}, "not the log of a ReplicaExchangeReporter"),
    ],
)
def test_bad_logs(sampled: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for name in {"log.csv", "energy.csv"} - {change.get("without")}:
        text = (sampled / name).read_text()
        if change.get("cut") == name:
            text = "\n".join(text.splitlines()[:-1]) + "\n"
        (folder / name).write_text("a,b\n1,2\n" if change.get("text") == name else text)
    with pytest.raises(DataError, match=message):
        replica_exchange_tables(folder, change.get("temperatures", TEMPERATURES), KELVIN, tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


def test_tables_are_never_overwritten(sampled: Path, tmp_path: Path) -> None:
    replica_exchange_tables(sampled, TEMPERATURES, KELVIN, tmp_path / "tables")
    with pytest.raises(ConfigError, match="never overwritten"):
        replica_exchange_tables(sampled, TEMPERATURES, KELVIN, tmp_path / "tables")
