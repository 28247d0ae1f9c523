"""A file of a run that was changed or deleted is named by every command, or the command does not use it.

One of each kind; `test_damage_product.py` has all of them.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import small_config
from helpers.folders import resealed
from typer.testing import CliRunner

from latf_openmm.cli import app
from latf_openmm.errors import ConfigError, DataError, LatfError
from latf_openmm.frames.walkers import read_stage
from latf_openmm.run.config import RunConfig
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import pool_of_rounds, validation_pool
from latf_openmm.run.loop import run_loop
from latf_openmm.run.verify import verify_run
from latf_openmm.sampling.stage import SimulationSettings, Stage, run_stage
from latf_openmm.storage import MANIFEST, RECORDS, check_file, read_record, write_record
from latf_openmm.systems.three_hole import ThreeHoleSettings

SLOW = pytest.mark.slow
SEGMENT, MODEL = "rounds/001/simulation/T0.7/segment_0001", "rounds/001/model"


@pytest.fixture(scope="module")
def sound(small_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with structures generated later."""
    path = tmp_path_factory.mktemp("sound") / "run"
    shutil.copytree(small_run.path, path)
    arguments = ["-T", "1", "-o", str(path / "later"), "--samples", "100", "--method", "reweighted"]
    result = CliRunner().invoke(app, ["generate", str(path), *arguments])
    assert result.exit_code in (0, 3), result.output
    return path


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "run")
    return tmp_path / "run"


def files_of(path: Path, records: bool) -> list[Path]:
    names = {*RECORDS, "config.yaml"}
    every = (p for p in path.rglob("*") if p.is_file() and p.stat().st_size and p.name != ".lock")
    return sorted(p for p in every if (p.name in names) == records)


def flip(path: Path, share: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[min(int(len(data) * share), len(data) - 1)] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("share", [pytest.param(0.0, marks=SLOW), 0.4, pytest.param(1.0, marks=SLOW)])
def test_verify_names_every_changed_file(share: float, copy: Path) -> None:
    changed = files_of(copy, records=False)
    assert {"bias.pt", "state.xml", "starts.npz", "ensemble.json"} <= {p.name for p in changed}
    for path in changed:
        flip(path, share)
    assert sorted(verify_run(copy).damages) == changed


def test_verify_names_every_deleted_file(copy: Path) -> None:
    gone = files_of(copy, records=False)
    for path in gone:
        path.unlink()
    assert set(gone) <= set(verify_run(copy).damages)


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_verify_names_every_manifest(damage: Callable[[Path], None], copy: Path) -> None:
    manifests = [path for path in files_of(copy, records=True) if path.name == MANIFEST]
    for path in manifests:
        damage(path)
    assert sorted(verify_run(copy).damages) == manifests


RECORDS_OF_A_RUN = (
    "run.json",
    "config.yaml",
    "validation/complete.json",
    *(pytest.param(f"rounds/00{index}/round.json", marks=SLOW) for index in range(2)),
)


@pytest.mark.parametrize("name", RECORDS_OF_A_RUN)
def test_verify_names_every_record(name: str, copy: Path) -> None:
    data = (copy / name).read_bytes()
    for damage in (flip, Path.unlink):
        (copy / name).write_bytes(data)
        damage(copy / name)
        result = CliRunner().invoke(app, ["verify", str(copy)])
        assert result.exit_code == 1
        assert f"{copy / name}: " in result.output


READS: dict[str, tuple[Callable[[RunFolder], object], list[str]]] = {
    "pool": (
        lambda run: pool_of_rounds(run, 1),
        [
            *(f"{SEGMENT}/{name}" for name in ("frames.parquet", "walker_001.dcd", MANIFEST)),
            "rounds/000/simulation/T1.3/segment_0002/frames.parquet",
            *(f"{MODEL}/{name}" for name in ("model.json", "model.safetensors", MANIFEST)),
            "rounds/001/round.json",
        ],
    ),
    "starts": (lambda run: run.round(0).read_starts(), ["rounds/000/starts.npz", "rounds/000/round.json"]),
    "decision": (lambda run: run.round(1).read_decision(), ["rounds/001/decision.json"]),
    "plan": (lambda run: run.plan(1), ["rounds/000/decision.json"]),
    "summary": (lambda run: run.round(0).summary(), ["rounds/000/round.json"]),
    "history": (lambda run: run.round(1).history(), [f"{MODEL}/history.parquet"]),
    "validation": (
        lambda run: validation_pool(run, 1),
        ["validation/T1/segment_0000/walker_000.dcd", "validation/T1/segment_0000/frames.parquet"],
    ),
    "rounds": (lambda run: run.complete_rounds(), []),
}
ROWS = [(name, file) for name, (_, files) in READS.items() for file in files]


@pytest.mark.parametrize(("name", "file"), ROWS)
def test_what_is_read_is_checked_first(name: str, file: str, sound: Path) -> None:
    """The functions by which run, generate, observe, states, report and export read a run."""
    read, path = READS[name][0], sound / file
    run, data = RunFolder.open(sound), path.read_bytes()
    try:
        flip(path)
        with pytest.raises(LatfError, match=str(path)):
            read(run)
        path.unlink()
        with pytest.raises(LatfError, match=path.stem):
            read(run) if path.name != "round.json" else run.complete_rounds()
    finally:
        path.write_bytes(data)


def test_a_segment_that_is_lost_or_strange_is_named(copy: Path) -> None:
    run = RunFolder.open(copy)
    segment = copy / "rounds/000/simulation/T1.3/segment_0002"
    shutil.copytree(segment, segment.with_name("segment_0003"))
    with pytest.raises(DataError, match=r"segment_0003: not expected; .*round\.json does not list it"):
        run.walkers(1)
    shutil.rmtree(segment.with_name("segment_0003"))
    shutil.rmtree(segment.parent)
    with pytest.raises(DataError, match=r"T1\.3/segment_0000: missing; expected a complete segment"):
        run.walkers(1)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("status", "decision.json"),
        ("run", "round.json"),
        pytest.param("run", "decision.json", marks=SLOW),
        *(pytest.param(command, "round.json", marks=SLOW) for command in ("report", "generate", "status")),
    ],
)
def test_a_lost_record_is_one_line(command: str, name: str, sound: Path, tmp_path: Path) -> None:
    path = sound / "rounds/001" / name
    arguments = {
        "run": [str(sound / "config.yaml"), "-o", str(sound)],
        "generate": [str(sound), "-T", "1", "-o", str(tmp_path / "new")],
    }.get(command, [str(sound)])
    data = path.read_bytes()
    path.unlink()
    try:
        error = CliRunner().invoke(app, [command, *arguments]).exception
    finally:
        path.write_bytes(data)
    assert isinstance(error, DataError)
    assert str(error).startswith(f"{path}: missing")


@SLOW
def test_what_generate_does_not_check_it_does_not_open(sound: Path, tmp_path: Path) -> None:
    opened_files: list[str] = []
    watching = [True]  # an audit hook cannot be removed

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and watching:
            opened_files.append(str(arguments[0]))

    sys.addaudithook(watch)
    arguments = ["-T", "1", "-o", str(tmp_path / "new"), "--samples", "100", "--method", "reweighted"]
    result = CliRunner().invoke(app, ["generate", str(sound), *arguments])
    watching.clear()
    opened = {Path(name).name for name in opened_files if name.startswith(str(sound))}
    assert result.exit_code in (0, 3)
    used = {"config.yaml", "run.json", "round.json", MANIFEST, "model.json", "model.safetensors"}
    assert opened <= used | {"frames.parquet", *(f"walker_00{i}.dcd" for i in range(3))}
    assert "config.yaml" in opened
    record = json.loads((tmp_path / "new" / "T1" / MANIFEST).read_text())["files"]
    assert set(record) == {p.name for p in (tmp_path / "new" / "T1").iterdir()} - {MANIFEST}
    assert len(record) >= 11


@pytest.fixture
def interrupted(copy: Path) -> Path:
    """The run in the middle of its second round."""
    for name in ("rounds/001/model", "rounds/001/generated", "validation", "later"):
        shutil.rmtree(copy / name)
    for name in ("round.json", "starts.npz", "decision.json"):
        (copy / "rounds/001" / name).unlink()
    shutil.rmtree(copy / "rounds/001/simulation/T0.7/segment_0002")
    shutil.rmtree(copy / "rounds/001/simulation/T1.3")
    return resealed(copy)


USED_ON_RESUME: dict[str, Callable[[Path], None]] = {
    "config.yaml": flip,
    "rounds/000/starts.npz": flip,
    f"{SEGMENT}/state.xml": Path.unlink,
    f"{SEGMENT}/bias.pt": flip,
}


def test_a_run_goes_on_only_from_what_was_written(interrupted: Path) -> None:
    for file, damage in USED_ON_RESUME.items():
        path = interrupted / file
        data = path.read_bytes()
        damage(path)
        with pytest.raises(LatfError, match=path.name):
            run_loop(small_config(), interrupted)
        path.write_bytes(data)


@pytest.mark.slow
def test_every_byte_of_a_bias_state_counts(sound: Path) -> None:
    path = sound / SEGMENT / "bias.pt"
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DataError, match="changed since"):
            check_file(path)
    path.write_bytes(data)


def test_a_record_of_another_time_is_named(copy: Path) -> None:
    path = copy / "rounds/000/round.json"
    write_record(path, read_record(path) | {"frames": 361})
    with pytest.raises(DataError, match=r"round\.json: changed since it was written: sha256"):
        RunFolder.open(copy).round(0).summary()


def test_processes_can_be_changed_on_resume(copy: Path) -> None:
    def with_simulation(**changes: object) -> RunConfig:
        config = small_config()
        return config.model_copy(update={"simulation": config.simulation.model_copy(update=changes)})

    run_loop(with_simulation(processes=2), copy)
    assert RunFolder.open(copy).config.simulation.processes == 2
    assert len(read_record(copy / "run.json")["configurations"]) == 2
    with pytest.raises(
        ConfigError,
        match=r"simulation\.friction: 2\.0, was .*or change only .*simulation\.processes",
    ):
        run_loop(with_simulation(friction=2.0), copy)


def stage(folder: Path, temperatures: list[float], trajectory: str = "dcd") -> Stage:
    settings = SimulationSettings.model_validate(
        {
            "temperatures": temperatures,
            "walkers": 2,
            "frames": 20,
            "frame_interval": 5,
            "timestep": 0.01,
            "friction": 1.0,
            "segment_frames": 10,
            "trajectory": trajectory,
        }
    )
    return Stage(ThreeHoleSettings(), settings, None, {}, 1, folder)


@pytest.mark.parametrize("trajectory", ["dcd", "xtc"])
def test_equal_runs_are_equal_bytes_and_names_of_folders_make_no_difference(
    trajectory: str, tmp_path: Path
) -> None:
    manifests = []
    for name in ("plain", "Läufe und 'mehr'"):
        run_stage(stage(tmp_path / name, [1.0], trajectory))
        manifests.append([read_record(path)["files"] for path in sorted((tmp_path / name).rglob(MANIFEST))])
        walkers = read_stage(tmp_path / name)
        assert walkers[0].load(ThreeHoleSettings().build(1).mdtraj_topology()).n_frames == 20
    assert manifests[0] == manifests[1]
    assert len(manifests[0]) == 2


def test_temperatures_never_share_a_folder(tmp_path: Path) -> None:
    names = [task.folder.name for task in stage(tmp_path, [0.7, 0.70000004, 300.0]).tasks()]
    assert names == ["T0.7", "T0.70000004", "T300"]
