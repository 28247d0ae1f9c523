"""Runs of one system beside each other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import small_config
from typer.testing import CliRunner

from latf_openmm.cli import app
from latf_openmm.ensembles.curves import Curve
from latf_openmm.errors import ConfigError
from latf_openmm.report.observed import write_compared
from latf_openmm.run.compared import ComparedCurve, compare_runs
from latf_openmm.run.config import LoopSettings, load_config
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.loop import run_loop
from latf_openmm.systems import SystemSettings, system_differences
from latf_openmm.systems.chignolin import ChignolinSettings
from latf_openmm.systems.molecule import ForceFieldOptions
from latf_openmm.systems.structure import StructureSettings
from latf_openmm.systems.three_hole import ThreeHoleSettings
from latf_openmm.units import REDUCED

RUNNER = CliRunner()
TEMPERATURES = [0.8, 1.0, 1.2]


@pytest.fixture(scope="module")
def second_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The three-hole potential with other random numbers, one round."""
    config = small_config().model_copy(update={"seed": 77, "loop": LoopSettings(rounds=1)})
    return run_loop(config, tmp_path_factory.mktemp("second") / "run")


def curve_of(values: list[float], errors: list[float], reliability: str = "good") -> Curve:
    table = pd.DataFrame({"temperature": [300.0, 320.0, 340.0], "value": values, "error": errors})
    return Curve("file.py:folded", "", table.assign(reliability=reliability), None)


def test_differences_in_errors() -> None:
    first, second = curve_of([0.9, 0.8, 0.5], [0.03, 0.03, 0.03]), curve_of([0.7, 0.8, 0.45], [0.04] * 3)
    compared = ComparedCurve(first, second)
    assert compared.table["difference_in_errors"].to_numpy() == pytest.approx([4.0, 0.0, 1.0])
    assert not compared.agree
    assert compared.text() == (
        "folded: do not agree; within two errors at 2 of 3 temperatures, farthest apart at 300 K: 0.900 ± 0.030 "
        "and 0.700 ± 0.040, 4.0 errors"
    )
    assert (
        "folded: do not agree, of systems that differ; within"
        in replace(compared, systems_differ=True).text()
    )
    poor = ComparedCurve(first, curve_of([0.85, 0.8, 0.5], [0.04] * 3, "poor"))
    assert poor.agree
    assert poor.poor == [300.0, 320.0, 340.0]
    assert not poor.told
    assert ComparedCurve(first, curve_of([0.1] * 3, [0.04] * 3, "poor")).told  # they differ all the same
    assert poor.text() == (
        "folded: cannot be told, since values are not to be relied on at 3 of 3 temperatures; they differ by at most "
        "1.0 errors, at 300 K: 0.900 ± 0.030 and 0.850 ± 0.040"
    )


def test_a_temperature_to_be_relied_on_less_leaves_the_verdict() -> None:
    first, second = curve_of([-1.0] * 3, [0.3] * 3), curve_of([-1.371, -1.0, -1.0], [0.95] * 3)
    second.table.loc[1, "reliability"] = "poor"
    energy = [replace(curve, name="energy", unit="kJ/mol") for curve in (first, second)]
    of_molecules, reduced = ComparedCurve(*energy), ComparedCurve(*energy, REDUCED)
    assert of_molecules.text().endswith(
        "apart at 300 K: -1.00 ± 0.30 and -1.37 ± 0.95 kJ/mol, 0.4 errors; at 1 of them a value is not to be relied on"
    )
    assert "apart at T = 300: -1.00 ± 0.30 and -1.37 ± 0.95 reduced, 0.4" in reduced.text()


def test_without_errors_nothing_agrees() -> None:
    compared = ComparedCurve(curve_of([0.9] * 3, [np.nan] * 3), curve_of([0.7] * 3, [0.1] * 3))
    assert not compared.agree
    assert "inf errors" in compared.text()


def test_two_runs(small_run: RunFolder, second_run: RunFolder, tmp_path: Path) -> None:
    """The command on real runs: its table is that of each run's own curves; both are of the same potential."""
    height = tmp_path / "height.py"
    height.write_text("def high(trajectory):\n    return (trajectory.xyz[:, 0, 1] > 0.9).astype(float)\n")
    arguments = [
        "compare",
        str(small_run.path),
        str(second_run.path),
        "-T",
        "0.8:1.2:0.2",
        "-o",
        str(tmp_path / "out"),
    ]
    result = RUNNER.invoke(app, [*arguments, "--observable", f"{height}:high", "--observable", "energy"])
    assert result.exit_code in (0, 3), result.output
    assert "high: " in result.stdout
    assert "errors" in result.stdout
    compared = compare_runs(
        small_run, second_run, TEMPERATURES, [f"{height}:high", "energy"], method="reweighted"
    )
    assert (result.exit_code == 0) == (compared.agree and not compared.poor)
    written = pd.read_csv(tmp_path / "out" / "energy.csv")
    pd.testing.assert_frame_equal(written, compared.curves[1].table, check_exact=False)
    assert (tmp_path / "out" / "observables.png").stat().st_size > 10_000
    assert compared.curves[1].agree


def test_three_runs_in_one_table_and_one_picture(
    small_run: RunFolder, second_run: RunFolder, tmp_path: Path
) -> None:
    """The third is the first again, so that it does not differ from it."""
    paths = [small_run.path, second_run.path, small_run.path]
    out = tmp_path / "out"
    options = ["-T", "0.8:1.2:0.2", "--observable", "energy", "--observable", "heat_capacity", "-o", str(out)]
    result = RUNNER.invoke(app, ["compare", *map(str, paths), *options])
    assert result.exit_code in (0, 3), (result.output, result.exception)
    for path in paths[1:]:
        assert f"{small_run.path} and {path}: energy: " in result.stdout
    assert {path.name for path in out.iterdir()} == {"energy.csv", "heat_capacity.csv", "observables.png"}
    table = pd.read_csv(out / "energy.csv")
    two = compare_runs(small_run, second_run, TEMPERATURES, ["energy"], method="reweighted")
    pd.testing.assert_frame_equal(table[two.tables[0].columns], two.tables[0], check_exact=False)
    more = ["run_3", "run_3_error", "run_3_difference_in_errors"]
    assert list(table.columns) == [*two.tables[0].columns, *more]
    np.testing.assert_allclose(table["run_3"], table["first"])
    assert (table["run_3_difference_in_errors"] == 0).all()
    three = replace(two, more=(two.first,))
    assert [curve.place for curve in three.curves] == [1, 2]
    write_compared(three, ("one", "two", "one again"), tmp_path / "named")
    with pytest.raises(ConfigError, match="names: 2 for 3 runs; expected one for each"):
        write_compared(three, ("one", "two"), tmp_path / "others")
    assert three.agree == two.agree


def test_every_further_run_is_checked(small_run: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "lj7", load_config("lj7/fast"))
    with pytest.raises(ConfigError, match=r"has 7 atoms, .* has 1; expected the same system"):
        compare_runs(small_run, small_run, TEMPERATURES, ["energy"], more=[other])


def test_runs_that_cannot_be_compared(small_run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="population:0: states of different runs do not correspond; expected an"
    ):
        compare_runs(small_run, small_run, TEMPERATURES, ["population:0"])
    other = RunFolder(tmp_path / "lj7", load_config("lj7/fast"))
    with pytest.raises(ConfigError, match=r"has 7 atoms, .* has 1; expected the same system"):
        compare_runs(small_run, other, TEMPERATURES, ["energy"])


def test_runs_of_systems_that_differ_are_compared_with_a_warning(
    small_run: RunFolder, second_run: RunFolder, tmp_path: Path
) -> None:
    other = tmp_path / "flat"
    system = ThreeHoleSettings(flatness=50.0)
    run_loop(second_run.config.model_copy(update={"system": system}), other)
    options = ["-T", "0.8,1.2", "--observable", "energy", "-o", str(tmp_path / "out")]
    result = RUNNER.invoke(app, ["compare", *map(str, (small_run.path, second_run.path, other)), *options])
    assert result.exit_code in (0, 3), (result.output, result.exception)
    said = " ".join(result.stdout.split())
    assert said.startswith(f"warning: {other}: its system is another than that of {small_run.path}")
    assert "system.flatness: 100.0 against 50.0" in said
    assert said.count("warning:") == 1
    assert said.index("warning:") < said.index("energy:")
    runs = [small_run, RunFolder.open(other)]
    compared = compare_runs(*runs, [1.0], ["energy"], method="reweighted")
    assert len(compared.warnings) == 1
    assert compared.curves[0].systems_differ
    assert compare_runs(small_run, second_run, [1.0], ["energy"], method="reweighted").warnings == ()


def test_systems_differ_in_solvents_and_the_content_of_files_but_not_in_starts(tmp_path: Path) -> None:
    for name, content in {
        "a.pdb": "1",
        "b.pdb": "2",
        "a.xml": "1",
        "same.xml": "1",
        "other.xml": "2",
    }.items():
        (tmp_path / name).write_text(content)

    def system(structure: str, force_field: str, implicit: str) -> SystemSettings:
        return StructureSettings.model_construct(
            structure=tmp_path / structure,
            force_field=[str(tmp_path / force_field)],
            options=ForceFieldOptions.model_validate({"implicit": implicit}),
        )

    first = system("a.pdb", "a.xml", "none")
    assert system_differences(first, system("b.pdb", "same.xml", "none")) == []
    changed, solvent = system_differences(first, system("a.pdb", "other.xml", "obc2"))
    assert changed == f'system.force_field[0]: "{tmp_path / "a.xml"}" against "{tmp_path / "other.xml"}"'
    assert solvent == 'system.options.implicit: "none" against "obc2"'
    folded = ChignolinSettings(solvent="obc2", start="folded")
    assert system_differences(folded, ChignolinSettings(solvent="obc2", start="unfolded")) == []
    assert system_differences(folded, ChignolinSettings(solvent="gbn2")) == [
        'system.solvent: "obc2" against "gbn2"'
    ]
    assert system_differences(first, folded) == ['system.kind: "structure" against "chignolin"']


@pytest.mark.parametrize("command", ["observe", "compare"])
def test_a_folder_with_tables_is_refused_and_stays(
    small_run: RunFolder, tmp_path: Path, command: str
) -> None:
    out = tmp_path / "out"
    runs = [str(small_run.path)] * (1 if command == "observe" else 2)
    options = ["--method", "reweighted", "-o", str(out), "--observable"]
    out.mkdir()
    (out / "notes.txt").write_text("of the user")
    first = RUNNER.invoke(app, [command, *runs, "-T", "0.8,1.2", *options, "energy"])
    assert first.exit_code in (0, 3), first.output
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) == {"notes.txt", "energy.csv", "observables.png"}
    again = RUNNER.invoke(app, [command, *runs, "-T", "1.0", *options, "heat_capacity"])
    assert isinstance(again.exception, ConfigError)
    assert "observables.png: already exists; tables are never overwritten" in str(again.exception)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
