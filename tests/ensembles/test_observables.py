"""Observables against temperature: exactly known ones, and the command."""

from pathlib import Path

import mdtraj
import numpy as np
import pandas as pd
import pytest
from conftest import small_config
from helpers.ensembles import DIM, beyond, plenty, trained
from typer.testing import CliRunner

from latf_openmm.cli import app
from latf_openmm.cli.ensembles import parse_temperatures
from latf_openmm.ensembles.curves import Curve, curve
from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.observables import structure_observable
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.errors import ConfigError
from latf_openmm.run.config import load_config
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.loop import run_loop
from latf_openmm.run.observed import observe
from latf_openmm.systems.base import particle_topology

RUNNER = CliRunner()
REFERENCE = mdtraj.Trajectory(
    np.random.default_rng(0).normal(size=(1, 7, 3)).astype(np.float32),
    mdtraj.Topology.from_openmm(particle_topology(7, "LJ7")),
)


@pytest.fixture(scope="module")
def ensembles() -> list[StructureEnsemble]:
    reweighter = Reweighter(trained(), plenty(n=3000))
    return [reweighter.at(temperature) for temperature in (0.9, 1.2, 1.5, 1.8, 2.1)]


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("energy", lambda t: 0.5 * DIM * t),
        ("heat_capacity", lambda t: 0.5 * DIM + 0 * t),
        ("population:1", np.vectorize(beyond)),
    ],
)
def test_curves_of_oscillators(ensembles: list[StructureEnsemble], name: str, exact: object) -> None:
    found = curve(name, ensembles, REFERENCE.topology, REFERENCE)
    t = found.table["temperature"].to_numpy()
    off = (found.table["value"].to_numpy() - exact(t)) / found.table["error"].to_numpy()  # type: ignore[operator]
    assert np.abs(off).max() < 3.5
    assert set(found.table["method"]) == {"reweighted"}
    assert found.replicates is not None
    assert found.replicates.shape[0] == len(t)


def test_where_a_curve_crosses(ensembles: list[StructureEnsemble]) -> None:
    found = curve("energy", ensembles, REFERENCE.topology, REFERENCE).transition(0.5 * DIM * 1.4)
    assert found is not None
    assert abs(found.value - 1.4) < 3.5 * found.error
    assert 0 < found.error < 0.1
    assert curve("energy", ensembles, REFERENCE.topology, REFERENCE).transition(100.0) is None
    assert (
        curve("energy", ensembles, REFERENCE.topology, REFERENCE).transition() is None
    )  # highest at the end


def test_the_maximum_of_a_curve() -> None:
    t = np.linspace(1.0, 2.0, 9)
    rng = np.random.default_rng(0)
    rows = np.array([4 - (t - 1.43 - shift) ** 2 for shift in rng.normal(0, 0.02, 200)]).T
    table = pd.DataFrame({"temperature": t, "value": 4 - (t - 1.43) ** 2})
    found = Curve("heat_capacity", "k_B", table, rows).transition()
    assert found is not None
    assert found.value == pytest.approx(1.43, abs=1e-6)
    assert found.error == pytest.approx(0.02, rel=0.2)


def test_structures() -> None:
    moved = mdtraj.Trajectory(REFERENCE.xyz * np.array([[[1.0]], [[1.5]]]), REFERENCE.topology)
    rg = structure_observable("rg", moved[0])(moved)
    assert rg[1] == pytest.approx(1.5 * rg[0], rel=1e-5)
    assert structure_observable("rmsd", REFERENCE)(moved)[0] == pytest.approx(0.0, abs=1e-4)
    assert structure_observable("rmsd", REFERENCE)(moved)[1] > 0.1
    with pytest.raises(ConfigError, match="no contact of residues more than three apart"):
        structure_observable("contacts", REFERENCE)


def test_native_contacts_of_a_hairpin() -> None:
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(10):
        residue = topology.add_residue("ALA", chain)
        topology.add_atom("CA", mdtraj.element.carbon, residue)
    up = [[0.38 * i, 0.0, 0.0] for i in range(5)]
    down = [[0.38 * (4 - i), 0.4, 0.0] for i in range(5)]
    folded = mdtraj.Trajectory(np.array([up + down]), topology)
    straight = mdtraj.Trajectory(np.array([[[0.38 * i, 0.0, 0.0] for i in range(10)]]), topology)
    observable = structure_observable("contacts", folded)
    assert observable(folded)[0] > 0.99
    assert observable(straight)[0] < 0.01


def test_a_function_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def first(trajectory):\n    return trajectory.xyz[:, 0, 0]\n\nnumber = 3\n")
    found = structure_observable(f"{path}:first", REFERENCE)
    assert found(REFERENCE)[0] == REFERENCE.xyz[0, 0, 0]
    for name, message in (
        (f"{path}:number", "has no function 'number'"),
        (f"{tmp_path}/other.py:first", "no such file"),
        (
            "temperature",
            "there is no 'temperature'; expected one of contacts, energy, free_energy:STATE:STATE",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            structure_observable(name, REFERENCE)
    path.write_text("1/0\n")
    with pytest.raises(ConfigError, match=r"cannot be run \(ZeroDivisionError"):
        structure_observable(f"{path}:first", REFERENCE)


def test_a_state_that_is_not_there(ensembles: list[StructureEnsemble]) -> None:
    for name in ("population:7", "population:folded"):
        with pytest.raises(ConfigError, match="expected a state from 0 to 1"):
            curve(name, ensembles, REFERENCE.topology, REFERENCE)


def test_ranges_ofparse_temperatures() -> None:
    assert parse_temperatures("280:420:70") == [280.0, 350.0, 420.0]
    assert parse_temperatures("0.2:0.7:0.1") == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert parse_temperatures("350,300") == [300.0, 350.0]
    assert parse_temperatures("300") == [300.0]
    for text in ("300:200:10", "300:400", "warm", "300,-1", "300:400:0", ""):
        with pytest.raises(ConfigError, match="--temperatures"):
            parse_temperatures(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    config, small = load_config("three_hole/fast"), small_config()
    config = config.model_copy(
        update={
            "training": small.training,
            "loop": config.loop.model_copy(update={"rounds": 1}),
            "generate": small.generate,
            "validation": None,
        }
    )
    return run_loop(config, tmp_path_factory.mktemp("observed") / "run")


def test_the_command(run: RunFolder, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def height(trajectory):\n    return trajectory.xyz[:, 0, 1]\n")
    out = tmp_path / "out"
    arguments = ["observe", str(run.path), "--temperatures", "0.7:1.3:0.3", "-o", str(out)]
    names = ["energy", "heat_capacity", f"{mine}:height"]
    asked = [word for name in names for word in ("--observable", name)]
    result = RUNNER.invoke(app, [*arguments, *asked], env={"COLUMNS": "140"})
    assert result.exit_code in (0, 3), result.output
    assert "effective samples" in " ".join(result.output.split())
    assert {path.name for path in out.iterdir()} == {
        "energy.csv",
        "heat_capacity.csv",
        "mine_height.csv",
        "observables.png",
    }
    table = pd.read_csv(out / "energy.csv")
    np.testing.assert_allclose(table["temperature"], [0.7, 1.0, 1.3])
    # Against the quadrature; the z coordinate, 100 z^2, adds kT / 2.
    for temperature, value, error in table[["temperature", "value", "error"]].itertuples(index=False):
        exact = run.config.system.exact_ensemble(temperature)
        assert exact is not None
        from latf_openmm.systems.three_hole import three_hole_potential

        x, y = exact.positions[:, 0, 0], exact.positions[:, 0, 1]
        truth = exact.weights @ three_hole_potential(x, y) + 0.5 * run.scale.kT(temperature)
        assert abs(value - truth) < 4 * error + 0.02
    cold = RUNNER.invoke(
        app, ["observe", str(run.path), "-T", "0.02", "--observable", "energy", "-o", str(tmp_path / "cold")]
    )
    assert cold.exit_code == 3
    assert "T = 0.02 is farther than a factor of 2" in " ".join(cold.output.split())


def test_a_share_is_known_by_its_values(run: RunFolder, tmp_path: Path) -> None:
    """A height between 0 and 1 is none."""
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def high(trajectory):\n    return (trajectory.xyz[:, 0, 1] > 0.9).astype(float)\n\n\n"
        "def height(trajectory):\n    return 0.5 + 0.1 * trajectory.xyz[:, 0, 1]\n"
    )
    names = [f"{mine}:high", f"{mine}:height", "population:0", "energy"]
    curves = observe(run, [0.7, 1.3], names, method="reweighted").curves
    assert [one.is_share for one in curves] == [True, False, True, False]
    assert curves[1].table["value"].between(0.0, 1.0).all()


def test_a_reference_of_another_molecule(run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "other.pdb"
    REFERENCE.save_pdb(str(path))
    with pytest.raises(ConfigError, match="7 atoms, the system has 1"):
        run.reference_structure(path)
    path.write_text("not a structure")
    with pytest.raises(ConfigError, match=r"other.pdb: cannot be read|0 atoms"):
        run.reference_structure(path)
