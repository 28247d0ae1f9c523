"""`latf-openmm verify` and the schema of run folders: each kind of damage is found and named."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import mdtraj
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import small_config
from helpers.folders import resealed
from typer.testing import CliRunner

from latf_openmm.cli import app
from latf_openmm.errors import ConfigError
from latf_openmm.run import schema
from latf_openmm.run.config import load_config
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.imported import ImportedTrajectory, import_run
from latf_openmm.run.loop import run_loop
from latf_openmm.run.verify import verify_run
from latf_openmm.storage import MANIFEST, read_record, write_manifest, write_record

SEGMENT = "rounds/001/simulation/T0.7/segment_0001"
TABLE = f"{SEGMENT}/frames.parquet"
WALKER = f"{SEGMENT}/walker_001.dcd"
MODEL = "rounds/000/model"
GENERATED = "rounds/001/generated/T1.3"


@pytest.fixture
def copy(reported_run: RunFolder, tmp_path: Path) -> Path:
    shutil.copytree(reported_run.path, tmp_path / "run")
    return tmp_path / "run"


def found(path: Path) -> dict[str, str]:
    return {file.relative_to(path).as_posix(): text for file, text in verify_run(path).damages.items()}


def test_a_whole_run_passes(reported_run: RunFolder) -> None:
    before = {p: p.stat().st_mtime_ns for p in reported_run.path.rglob("*")}
    result = CliRunner().invoke(app, ["verify", str(reported_run.path)])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "whole: 13 segments, 740 frames, 2 models" in said
    assert {p: p.stat().st_mtime_ns for p in reported_run.path.rglob("*")} == before


@pytest.mark.parametrize("command", ["status", "verify", "report", "run"])
def test_a_folder_of_an_earlier_version_is_refused(command: str, copy: Path) -> None:
    (copy / "run.json").write_text(json.dumps({"schema": 1, "versions": [{"latf_openmm": "0.0"}]}))
    arguments = [str(copy / "config.yaml"), "-o", str(copy)] if command == "run" else [str(copy)]
    error = CliRunner().invoke(app, [command, *arguments]).exception
    assert isinstance(error, ConfigError)
    assert f"{copy / 'run.json'}: schema: 1 is older than 3, the only one" in str(error)
    (copy / "run.json").unlink()
    result = CliRunner().invoke(app, [command, *arguments])
    assert isinstance(result.exception, SystemExit if command == "verify" else ConfigError)
    assert f"{copy / 'run.json'}: missing" in f"{result.output} {result.exception}"


def delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    path.write_bytes(data)


def rows(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        change(pd.read_parquet(path)).to_parquet(path, index=False)

    return damage


def setting(column: str, row: int, value: float) -> Callable[[Path], None]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[row, column] = value
        return table

    return rows(change)


def frames(change: Callable[[mdtraj.Trajectory], mdtraj.Trajectory]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        topology = path.parents[2] / "topology.pdb"
        change(mdtraj.load_dcd(str(path), top=str(topology))).save_dcd(str(path))

    return damage


def not_finite(trajectory: mdtraj.Trajectory) -> mdtraj.Trajectory:
    trajectory.xyz[3] = np.nan
    return trajectory


def other_digit(path: Path) -> None:
    """Change how long the simulation took; the file stays a record of the same size."""
    text = path.read_text()
    place = text.index('"simulate": ') + len('"simulate": ')
    path.write_text(text[:place] + ("2" if text[place] == "1" else "1") + text[place + 1 :])


def entry(key: str, value: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        if path.name == "round.json":  # as if it had been written so
            write_record(path, read_record(path) | {key: value})
        else:
            path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return damage


def starts(**changes: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with np.load(path) as data:
            arrays = dict(data) | {name.replace("_", "."): value for name, value in changes.items()}
        np.savez(path, **{name: value for name, value in arrays.items() if value is not None})

    return damage


def write(text: str) -> Callable[[Path], None]:
    return lambda path: (path.write_text(text), None)[1]


DAMAGES: list[tuple[str, str, Callable[[Path], None], str]] = [
    ("segment missing in the middle", SEGMENT, delete, "missing; expected a complete segment"),
    ("last segment missing", f"{SEGMENT[:-1]}2", delete, "missing; expected a complete segment"),
    ("table missing", TABLE, delete, "missing; expected the table of the frames"),
    ("table truncated", TABLE, truncate, "cannot be read"),
    (
        "row dropped",
        TABLE,
        rows(lambda t: t.drop(index=30)),
        "walker 1: frame 30 is missing; expected frames 25",
    ),
    ("last row dropped", TABLE, rows(lambda t: t.iloc[:-1]), "walker 2: frame 49 is missing"),
    (
        "row doubled",
        TABLE,
        rows(lambda t: pd.concat([t, t.iloc[[7]]])),
        "walker 0: frame 32 is there 2 times",
    ),
    (
        "rows exchanged",
        TABLE,
        rows(lambda t: t.iloc[[1, 0, *range(2, 75)]]),
        "frame 26 is where 25 should be",
    ),
    ("frame of another segment", TABLE, setting("frame", 0, 3), "walker 0: frame 25 is missing"),
    (
        "column missing",
        TABLE,
        rows(lambda t: t.drop(columns="bias_energy")),
        "columns bias_energy are missing",
    ),
    ("rows of a stranger", TABLE, setting("walker", 0, 9), "rows of walker 9; expected walkers 0 to 2"),
    ("wrong step", TABLE, setting("step", 2, 7), "walker 0, frame 27: step is 7; expected 560"),
    ("wrong time", TABLE, setting("time_ps", 2, 7.0), "walker 0, frame 27: time_ps is 7; expected 5.6"),
    (
        "wrong temperature",
        TABLE,
        setting("temperature", 2, 0.8),
        "temperature is 0.8 in a row of walker 0; expected 0.7",
    ),
    (
        "energy NaN",
        TABLE,
        setting("potential_energy", 26, np.nan),
        "walker 1, frame 26: potential_energy is nan",
    ),
    (
        "recording NaN",
        TABLE,
        setting("energy_mean", 1, np.nan),
        "walker 0, frame 26: energy_mean is nan",
    ),
    (
        "recordings missing",
        TABLE,
        rows(lambda t: t.drop(columns="energy_mean")),
        "columns energy_mean are missing",
    ),
    (
        "recordings lost",
        TABLE,
        setting("energy_recordings", 26, 1),
        "walker 1, frame 26: 1 energies recorded",
    ),
    ("variance below zero", TABLE, setting("energy_variance", 0, -1.0), "of variance -1; expected"),
    ("bias infinite", TABLE, setting("bias_energy", 0, np.inf), "walker 0, frame 25: bias_energy is inf"),
    ("variable NaN", TABLE, setting("z1", 0, np.nan), "walker 0, frame 25: z1 is nan"),
    ("trajectory missing", WALKER, delete, "missing; expected the positions of a walker"),
    ("trajectory truncated", WALKER, truncate, "11 frames; expected 25"),
    ("frame doubled", WALKER, frames(lambda t: mdtraj.join([t[:1], t])), "26 frames; expected 25"),
    ("frame lost", WALKER, frames(lambda t: t[1:]), "24 frames; expected 25"),
    ("positions NaN", WALKER, frames(not_finite), "positions of frame 3 are not finite"),
    ("position changed by a bit", WALKER, flip, "changed since it was written: sha256"),
    (
        "checkpoint missing",
        f"{SEGMENT}/checkpoint.bin",
        delete,
        "missing; expected what the next segment starts",
    ),
    ("checkpoint changed", f"{SEGMENT}/checkpoint.bin", flip, "changed since it was written: sha256"),
    ("state truncated", f"{SEGMENT}/state.xml", truncate, "bytes; expected"),
    ("state changed", f"{SEGMENT}/state.xml", flip, "changed since it was written: sha256"),
    ("manifest lost", f"{SEGMENT}/{MANIFEST}", delete, "missing; expected names, sizes and hashes"),
    ("decision lost", "rounds/000/decision.json", delete, "missing; expected a file of"),
    ("last decision lost", "rounds/001/decision.json", delete, "missing; expected a file of"),
    ("last round lost", "rounds/001/round.json", delete, "missing; expected a file that run.json lists"),
    (
        "validation record lost",
        "validation/complete.json",
        delete,
        "missing; expected a file that run.json lists",
    ),
    ("validation record changed", "validation/complete.json", flip, "changed since it was written"),
    ("round changed by a digit", "rounds/000/round.json", other_digit, "changed since it was written"),
    ("report changed", "report/index.html", flip, "changed since it was written: sha256"),
    ("manifest damaged", f"{SEGMENT}/{MANIFEST}", truncate, "the manifest cannot be read"),
    ("stage damaged", "rounds/001/simulation/stage.json", truncate, "cannot be read; expected the settings"),
    (
        "validation damaged",
        "validation/T1/segment_0000/walker_000.dcd",
        delete,
        "missing; expected the positions",
    ),
    ("model missing", MODEL, delete, "missing; expected the model of the round"),
    ("model record truncated", f"{MODEL}/model.json", truncate, "the model is damaged"),
    (
        "reference temperature edited",
        f"{MODEL}/model.json",
        entry("reference_temperature", 0.8),
        "expected",
    ),
    ("model of another kind", f"{MODEL}/model.json", entry("format", 99), "format 99, this version reads"),
    (
        "model of other atoms",
        f"{MODEL}/model.json",
        entry("atoms", ["A", "B"]),
        "bytes; expected",
    ),
    ("weights truncated", f"{MODEL}/model.safetensors", truncate, "bytes; expected"),
    ("weights changed by a bit", f"{MODEL}/model.safetensors", flip, "changed since it was written: sha256"),
    ("history truncated", f"{MODEL}/history.parquet", truncate, "cannot be read"),
    (
        "generated missing",
        GENERATED,
        delete,
        "missing; expected what was generated at a simulated temperature",
    ),
    ("samples truncated", f"{GENERATED}/latent_samples.parquet", truncate, "cannot be read"),
    (
        "sample lost",
        f"{GENERATED}/latent_samples.parquet",
        rows(lambda t: t.iloc[1:]),
        "199 samples; expected 200",
    ),
    (
        "sample NaN",
        f"{GENERATED}/latent_samples.parquet",
        setting("z0", 3, np.nan),
        "z0 not a number in a row",
    ),
    ("structures truncated", f"{GENERATED}/structures.dcd", truncate, "structures; expected 200"),
    ("summary missing", f"{GENERATED}/summary.json", delete, "missing; expected the record"),
    ("round not JSON", "rounds/000/round.json", truncate, "cannot be read"),
    ("round lost", "rounds/000/round.json", delete, "missing; expected the record of a complete round"),
    ("round of other frames", "rounds/001/round.json", entry("frames", 719), "expected 7"),
    ("round of other states", "rounds/001/round.json", entry("n_states", 77), "n_states is 77; expected"),
    (
        "round without a key",
        "rounds/001/round.json",
        entry("populations", None),
        "expected the summary of a round",
    ),
    (
        "round of other temperatures",
        "rounds/001/round.json",
        entry("populations", []),
        "temperatures none; expected 0.7",
    ),
    ("starts truncated", "rounds/000/starts.npz", truncate, "start structures cannot be read"),
    (
        "starts of other walkers",
        "rounds/000/starts.npz",
        starts(**{"0_7": np.zeros((2, 1, 3))}),
        "shape (2, 1, 3) at 0.7",
    ),
    (
        "starts of no temperature",
        "rounds/000/starts.npz",
        starts(**{"0_7": None}),
        "temperatures 1.3; expected 0.7, 1.3",
    ),
    ("starts changed", "rounds/000/starts.npz", starts(**{"0_7": np.zeros((3, 1, 3))}), "changed since"),
    ("decision changed", "rounds/000/decision.json", entry("reasons", ["another"]), "bytes; expected"),
    ("starts NaN", "rounds/000/starts.npz", starts(**{"0_7": np.full((3, 1, 3), np.nan)}), "are not finite"),
]


@pytest.mark.parametrize(("file", "damage", "words"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
def test_damage_is_found_and_named(file: str, damage: Callable[[Path], None], words: str, copy: Path) -> None:
    damage(copy / file)
    named = found(copy)
    assert list(named) == [file], named
    assert words in named[file]
    assert "expected" in named[file]


BY_CONTENT = [
    "row dropped",
    "row doubled",
    "energy NaN",
    "frame doubled",
    "trajectory truncated",
    "positions NaN",
]


@pytest.mark.parametrize("name", BY_CONTENT)
def test_damage_is_found_without_hashes(name: str, copy: Path) -> None:
    file, damage, words = next(d[1:] for d in DAMAGES if d[0] == name)
    damage(copy / file)
    write_manifest((copy / file).parent)  # as if it had been written so
    named = found(copy)
    assert sorted(named) == sorted([file, f"{SEGMENT}/{MANIFEST}"])
    assert words in named[file]


def test_the_command_names_every_damage_and_ends_with_one(copy: Path) -> None:
    delete(copy / SEGMENT)
    flip(copy / MODEL / "model.safetensors")
    (copy / "rounds/001/model.partial").mkdir()
    (copy / "rounds/001/model.partial/model.json").write_text("{")
    result = CliRunner().invoke(app, ["verify", str(copy)])
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert sum(line.startswith(f"{copy / SEGMENT}: missing") for line in lines) == 1
    assert (
        sum(line.startswith(f"{copy / MODEL / 'model.safetensors'}: the model is damaged") for line in lines)
        == 1
    )
    assert f"{copy / 'rounds/001/model.partial'}: unfinished, left by an interruption; harmless" in lines
    assert any(line.startswith("damaged: 2 files or folders") for line in lines)


def test_what_is_not_expected_is_named(copy: Path) -> None:
    group = copy / "rounds/001/simulation/T0.7"
    shutil.copytree(group / "segment_0002", group / "segment_0003")
    shutil.copytree(group, group.with_name("T0.9"))
    named = found(copy)
    assert named["rounds/001/simulation/T0.7/segment_0003"] == "not expected; T0.7 has 3 segments"
    assert named["rounds/001/simulation/T0.9"].startswith(
        "not expected; walkers of this stage are in T0.7, T1.3"
    )


def test_an_unfinished_run_is_whole(copy: Path) -> None:
    cut = copy / "rounds" / "001"
    for name in ("model", "generated"):
        shutil.rmtree(cut / name)
    for name in ("round.json", "starts.npz"):
        (cut / name).unlink()
    shutil.rmtree(cut / "simulation/T0.7/segment_0002")
    shutil.rmtree(cut / "simulation/T1.3")
    shutil.rmtree(copy / "validation")
    (cut / "simulation/T0.7/segment_0002.partial").mkdir()
    resealed(copy)
    report = verify_run(copy)
    assert report.damages == {}
    assert report.unfinished == [cut / "simulation/T0.7/segment_0002.partial"]
    shutil.rmtree(cut / "simulation/T0.7/segment_0000")
    assert list(found(copy)) == ["rounds/001/simulation/T0.7/segment_0000"]


def test_what_was_made_later_is_looked_at(copy: Path) -> None:
    command = ["generate", str(copy), "-T", "0.9", "-o", str(copy / "later"), "--samples", "100"]
    CliRunner().invoke(
        app, [*command, "--method", "reweighted", "--structures", "20"], catch_exceptions=False
    )
    assert found(copy) == {}
    flip(copy / "later/T0.9/ensemble.dcd")
    flip(copy / "later/T0.9/latent/latent_samples.parquet")
    named = found(copy)
    assert sorted(named) == ["later/T0.9/ensemble.dcd", "later/T0.9/latent/latent_samples.parquet"]
    assert "changed since it was written" in named["later/T0.9/ensemble.dcd"]


def test_annealed_walkers_are_looked_at(copy: Path) -> None:
    config = small_config()
    refine = config.generate.annealing.model_copy(update={"walkers": 20, "frames": 3, "steps": 10})
    run_loop(
        config.model_copy(update={"generate": config.generate.model_copy(update={"annealing": refine})}), copy
    )
    command = ["observe", str(copy), "-T", "0.6", "-o", str(copy / "curves"), "--observable", "energy"]
    result = CliRunner().invoke(app, [*command, "--method", "annealed"], catch_exceptions=False)
    assert result.exit_code in (0, 3), result.output
    report = verify_run(copy)
    assert report.damages == {}
    assert report.parts["round 001: annealed"].counts["frames"] == 60
    (table,) = copy.rglob("annealed/*/T0.6/segment_0000/frames.parquet")
    rows(lambda frames: frames.drop(index=31))(table)
    assert "walker 0: frame 31 is missing" in found(copy)[table.relative_to(copy).as_posix()]
    flip(table.with_name("walker_000.dcd"))
    truncate(table.parents[2] / "annealing.json")
    names = sorted(name.rpartition("/")[2] for name in found(copy))
    assert names == ["annealing.json", "frames.parquet", "walker_000.dcd"]


def test_imported_trajectories_are_looked_at(small_run: RunFolder, tmp_path: Path) -> None:
    walkers = small_run.walkers(0)
    own = []
    for number, walker in enumerate(walkers[:2]):
        path = tmp_path / f"own_{number}.dcd"
        walker.load(small_run.topology()).save_dcd(str(path))
        own.append(ImportedTrajectory(path, walker.temperature))
    run = import_run(small_config().model_copy(update={"validation": None}), own, tmp_path / "run")
    report = verify_run(run.path)
    assert report.damages == {}
    assert report.parts["round 000: simulation"].counts["frames"] == 120
    assert len(report.parts["round 000: simulation"].hashed) == 2
    truncate(own[0].path)
    segment = "rounds/000/simulation/T0.7_w000/segment_0000"
    assert found(run.path) == {f"{segment}/walker_000.dcd": "32 frames; expected 60"}
    own[0].path.unlink()
    assert found(run.path)[f"{segment}/walker_000.dcd"] == "missing; expected the positions of a walker"


def test_a_newer_schema_is_refused_by_every_command(copy: Path) -> None:
    newer = {"schema": 99, "versions": [{"latf_openmm": "9.9"}]}
    (copy / "run.json").write_text(json.dumps(newer))
    with pytest.raises(
        ConfigError, match=r"schema: 99 is newer than 3, the only one .* written by latf-openmm 9\.9"
    ):
        RunFolder.open(copy)
    with pytest.raises(ConfigError, match="schema: 99 is newer than 3"):
        run_loop(small_config(), copy)
    for command in (["status"], ["verify"], ["report"]):
        assert isinstance(CliRunner().invoke(app, [*command, str(copy)]).exception, ConfigError)
    assert json.loads((copy / "run.json").read_text()) == newer


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "one", "versions": []}', '{"schema": 3, "versions": 3}']
)
def test_a_damaged_record_is_refused(text: str, copy: Path) -> None:
    (copy / "run.json").write_text(text)
    with pytest.raises(ConfigError, match=r"run\.json: damaged"):
        RunFolder.open(copy)


def test_other_versions_are_said_once(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = schema._versions()
    monkeypatch.setattr(schema, "_versions", lambda: now | {"openmm": "8.9.9", "python": "3.99"})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            run_loop(small_config(), copy)
    said = [record.getMessage() for record in caplog.records if "continued with" in record.getMessage()]
    assert said == [f"{copy}: continued with openmm 8.9.9; until now it was made with openmm {now['openmm']}"]
    versions = json.loads((copy / "run.json").read_text())["versions"]
    assert [one["openmm"] for one in versions] == [now["openmm"], "8.9.9"]


def test_files_of_the_system_that_changed_are_said_once(
    small_config_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "make.py").write_text(
        "import beside\n"
        "from latf_openmm.systems.three_hole import ThreeHoleSettings\n"
        "def make():\n"
        "    built = ThreeHoleSettings().build(1)\n"
        "    return built.system, built.topology, built.positions[0]\n"
    )
    data = yaml.safe_load(small_config_file.read_text())
    data["simulation"] |= {"temperatures": [100.0, 200.0], "platform": "Reference", "processes": 1}
    data |= {"system": {"kind": "python", "file": "make.py"}, "loop": {"rounds": 1}}
    data |= {"generate": {"samples": 100}, "validation": None}
    small_config_file.write_text(yaml.safe_dump(data))
    config, run = load_config(small_config_file), tmp_path / "run"
    run_loop(config, run)
    record = json.loads((run / "run.json").read_text())
    assert set(record["system_files"]) == {str(tmp_path / name) for name in ("beside.py", "make.py")}
    run_loop(config, run)
    assert "changed since" not in caplog.text
    (tmp_path / "beside.py").write_text("# changed\n")
    run_loop(config, run)
    assert f"{run}: its system is made from {tmp_path / 'beside.py'}, which changed since" in caplog.text
    caplog.clear()
    run_loop(config, run)
    assert "changed since" not in caplog.text
