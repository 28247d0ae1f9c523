"""Trajectories of one's own as the first round of a run, in every format; and bad ones."""

from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pandas as pd
import pytest
from conftest import small_config
from typer.testing import CliRunner

from latf_openmm.cli import app
from latf_openmm.errors import ConfigError, DataError
from latf_openmm.frames.walkers import read_stage
from latf_openmm.report.status import run_status
from latf_openmm.run.config import LoopSettings, RunConfig, dump_config
from latf_openmm.run.imported import ImportedTrajectory, import_run
from latf_openmm.run.loop import run_loop
from latf_openmm.sampling.stage import Stage, run_stage

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def config() -> RunConfig:
    found = small_config()
    return found.model_copy(
        update={
            "validation": None,
            "loop": LoopSettings(rounds=2),
            "simulation": found.simulation.model_copy(update={"frames": 100}),
        }
    )


@pytest.fixture(scope="module")
def data(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage of our own, as a user's files: one for each walker, and tables of their energies."""
    folder = tmp_path_factory.mktemp("data")
    run_stage(Stage(config.system, config.simulation, None, {}, 5, folder / "stage"))
    topology = config.system.build(1).mdtraj_topology()
    for walker in read_stage(folder / "stage"):
        name = f"T{walker.temperature:g}_{walker.walker}"
        walker.load(topology).save(str(folder / f"{name}.dcd"))
        walker.table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def own(data: Path, tables: bool = False, suffix: str = ".dcd") -> list[ImportedTrajectory]:
    return [
        ImportedTrajectory(
            path.with_suffix(suffix), float(path.stem[1:4]), path.with_suffix(".csv") if tables else None
        )
        for path in sorted(data.glob("T*.dcd"))
    ]


def test_a_run_of_ones_own_trajectories_goes_on(config: RunConfig, data: Path, tmp_path: Path) -> None:
    run = import_run(config, own(data), tmp_path / "run")
    assert len(run.complete_rounds()) == 1
    walkers = run.walkers(0)
    assert len(walkers) == 6
    computed = np.concatenate([walker.table["potential_energy"] for walker in walkers])
    known = np.concatenate([pd.read_csv(one.table)["potential_energy"] for one in own(data, tables=True)])  # type: ignore[arg-type]
    np.testing.assert_allclose(np.sort(computed), np.sort(known), atol=1e-3)
    assert {walker.run for walker in walkers} == {"000/T0.7", "000/T1.3"}
    summary = run.round(0).summary()
    assert summary.simulated_ps == pytest.approx(6 * 100 * 20 * 0.01)
    result = RUNNER.invoke(
        app, ["generate", str(run.path), "-T", "1.0", "--method", "reweighted", "-o", str(tmp_path / "out")]
    )
    assert result.exit_code in (0, 3), result.output
    assert RUNNER.invoke(app, ["report", str(run.path)]).exit_code == 0
    page = (run.path / "report" / "index.html").read_text()
    assert "round 0, imported" in page and "none; 120 imported" in page
    assert "Round 0 is of imported trajectories" in page and "not simulated here" in page
    assert not (run.path / "report" / "decisions.png").exists()  # no round of this loop ran
    assert "states; imported, training" in " ".join(run_status(run.path).lines)
    # The same configuration continues with a biased round; what was imported is not of the time that may be simulated.
    limited = config.model_copy(update={"loop": LoopSettings(rounds=3, max_simulated_ns=0.1)})
    after = run_loop(limited, run.path)
    assert len(after.complete_rounds()) == 2
    said = "no further round: 0.123 ns were simulated, imported trajectories not counted, loop.max_simulated_ns is 0.1"
    assert said in "\n".join(run_status(run.path).lines)
    assert (after.walkers(1)[-1].table["bias_energy"] != 0).any()
    assert RUNNER.invoke(app, ["report", str(run.path)]).exit_code == 0


def test_temperatures_far_from_all_of_the_configuration_are_told(
    config: RunConfig, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for index, (temperatures, told) in enumerate((([0.69, 1.31], False), ([0.7, 1.0], True))):
        simulation = config.simulation.model_copy(update={"temperatures": temperatures})
        import_run(config.model_copy(update={"simulation": simulation}), own(data), tmp_path / str(index))
        message = "frames at 1.3 are imported, and no simulation.temperatures (0.7, 1) is within 5 % of that"
        assert (message in caplog.text) == told
        assert ("is it meant?" in caplog.text) == told


def test_tables_of_energies_and_bias(config: RunConfig, data: Path, tmp_path: Path) -> None:
    given = own(data, tables=True)
    first = pd.read_csv(given[0].table).assign(bias_energy=2.5)  # type: ignore[arg-type]
    first.to_parquet(tmp_path / "biased.parquet")
    given[0] = ImportedTrajectory(given[0].path, given[0].temperature, tmp_path / "biased.parquet")
    run = import_run(config, given, tmp_path / "run")
    walkers = run.walkers(0)
    assert (walkers[0].table["bias_energy"] == 2.5).all()
    assert (walkers[1].table["bias_energy"] == 0).all()
    np.testing.assert_array_equal(walkers[0].table["potential_energy"], first["potential_energy"])


@pytest.mark.parametrize("suffix", [".xtc", ".trr", ".nc"])
def test_other_formats(config: RunConfig, data: Path, tmp_path: Path, suffix: str) -> None:
    topology = config.system.build(1).mdtraj_topology()
    for one in own(data):
        whole = mdtraj.load(str(one.path), top=topology)
        whole.time = 0.2 * np.arange(1, 101)  # frame_interval * timestep
        whole.save(str(one.path.with_suffix(suffix)))
    file = tmp_path / "loop.yaml"
    file.write_text(dump_config(config))
    arguments = ["import", str(file), "-o", str(tmp_path / "run")]
    for one in own(data, tables=True, suffix=suffix):
        arguments += ["--trajectory", str(one.path), "-T", str(one.temperature), "--table", str(one.table)]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "rounds" / "000" / "round.json").is_file()


def test_bad_data(config: RunConfig, data: Path, tmp_path: Path) -> None:
    good = own(data, tables=True)[0]
    topology = config.system.build(1).mdtraj_topology()
    whole = mdtraj.load(str(good.path), top=topology)
    (tmp_path / "cut.dcd").write_bytes(good.path.read_bytes()[:-7])
    (tmp_path / "cut.xtc").write_bytes(b"")
    whole.save(str(tmp_path / "whole.xtc"))
    (tmp_path / "cut.xtc").write_bytes((tmp_path / "whole.xtc").read_bytes()[:-5])
    whole[:3].save(str(tmp_path / "short.dcd"))
    other = openmm.app.Topology()
    residue = other.addResidue("X", other.addChain())
    for i in range(2):
        other.addAtom(f"A{i}", openmm.app.element.argon, residue)
    two = mdtraj.Trajectory(np.zeros((20, 2, 3), np.float32), mdtraj.Topology.from_openmm(other))
    two.save(str(tmp_path / "two.dcd"))
    broken = whole.xyz.copy()
    broken[7] = np.nan
    mdtraj.Trajectory(broken, topology).save(str(tmp_path / "nan.dcd"))
    (tmp_path / "other.pdb").write_text("x")
    table = pd.read_csv(good.table)  # type: ignore[arg-type]
    table.iloc[:80].to_csv(tmp_path / "rows.csv", index=False)
    table.drop(columns="potential_energy").to_csv(tmp_path / "column.csv", index=False)
    table.assign(potential_energy="x").to_csv(tmp_path / "text.csv", index=False)
    (tmp_path / "junk.parquet").write_text("junk")
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"path": tmp_path / "gone.dcd"}, ConfigError, r"--trajectory: .*gone\.dcd: no such file"),
        ({"path": tmp_path / "other.pdb"}, ConfigError, r"other\.pdb: expected a file \.dcd, \.xtc"),
        ({"temperature": 0.0}, ConfigError, "--temperature: must be above 0, got 0"),
        ({"table": tmp_path / "gone.csv"}, ConfigError, r"--table: .*gone\.csv: no such file"),
        (
            {"path": tmp_path / "cut.xtc", "table": None},
            DataError,
            r"cut\.xtc: its last frame is incomplete",
        ),
        ({"path": tmp_path / "cut.dcd"}, DataError, r"cut\.dcd"),
        ({"path": tmp_path / "short.dcd"}, DataError, r"short\.dcd: 3 frames; expected 10 or more"),
        ({"path": tmp_path / "two.dcd"}, DataError, r"two\.dcd: the trajectory cannot be read"),
        ({"path": tmp_path / "nan.dcd"}, DataError, r"nan\.dcd: positions are not finite"),
        ({"table": tmp_path / "rows.csv"}, DataError, r"rows\.csv: 80 rows .* has 100 frames.* fewer rows"),
        (
            {"table": tmp_path / "column.csv"},
            DataError,
            r"column\.csv: the column potential_energy is missing",
        ),
        (
            {"table": tmp_path / "text.csv"},
            DataError,
            r"text\.csv: potential_energy is not a number in row 0",
        ),
        ({"table": tmp_path / "junk.parquet"}, DataError, r"junk\.parquet cannot be read"),
    ]
    from dataclasses import replace

    for changes, error, message in cases:
        with pytest.raises(error, match=message):
            import_run(config, [replace(good, **changes)], tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="--trajectory: there are none"):
        import_run(config, [], tmp_path / "run")
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match="a run is never overwritten"):
        import_run(config, [good], tmp_path / "run")
    result = RUNNER.invoke(
        app, ["import", "three_hole/fast", "--trajectory", str(good.path), "-T", "1", "-T", "2", "-o", "x"]
    )
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == "--temperature: 2 given for 1 --trajectory"
