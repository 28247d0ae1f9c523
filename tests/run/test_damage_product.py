"""Every file of a run folder, damaged or deleted, under every command: named, or provably not used.

All files of a folder are damaged at once. A command that ends with an error has to name one of them; that one is
restored, and the command is tried again, until it succeeds. What is damaged still was not used: then every value that
the command writes and prints has to be that of the sound folder.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import small_config
from helpers.folders import resealed
from typer.testing import CliRunner

from latf_openmm import storage
from latf_openmm.cli import app
from latf_openmm.errors import LatfError
from latf_openmm.frames.walkers import read_stage
from latf_openmm.run.config import RunConfig, dump_config
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.imported import ImportedTrajectory, import_run
from latf_openmm.run.loop import run_loop
from latf_openmm.run.schema import add_record
from latf_openmm.settings import validate

RUNNER = CliRunner()
TIMES = {"seconds", "sha256_of_the_rest", "files", "sha256", "config_sha256"}
UNCOMPARED = ("manifest.json", "checkpoint.bin")
"""Hashes of what is compared itself; the state of the machine."""


def tiny(config: RunConfig, **changes: Any) -> RunConfig:
    data = config.model_dump(mode="json") | changes
    data["generate"] |= {"samples": 100, "annealing": {"walkers": 40, "steps": 10, "frames": 2}}
    return validate(RunConfig, data, "tiny")


def command(*arguments: object) -> Any:
    result = RUNNER.invoke(app, ["--quiet", *map(str, arguments)])
    assert result.exit_code in (0, 3), result.output
    return result


@pytest.fixture(scope="session")
def finished(small_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything that a command can add to it."""
    path = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(small_run.path, path)
    run_loop(tiny(small_config()), path)
    command("generate", path, "-T", 1, "-o", path / "later", "--samples", 100, "--method", "reweighted")
    command("generate", path, "-T", 1.6, "-o", path / "annealed", "--samples", 100, "--method", "annealed")
    command("report", path)
    assert list(path.glob("rounds/001/annealed/path_*/T1.6/segment_0000/walker_000.dcd"))
    return path


@pytest.fixture(scope="session")
def imported(small_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the frames of another one; the trajectories lie beside its folder."""
    folder = tmp_path_factory.mktemp("imported")
    topology, given = small_run.topology(), []
    for walker in read_stage(small_run.round(0).simulation):
        path = folder / f"T{walker.temperature:g}_{walker.walker}.dcd"
        walker.load(topology).save(str(path))
        walker.table.to_csv(path.with_suffix(".csv"), index=False)
        given.append(ImportedTrajectory(path, walker.temperature, path.with_suffix(".csv")))
    config = tiny(small_config(), validation=None, loop={"rounds": 1})
    import_run(config, given, folder / "run")
    command("report", folder / "run")
    return folder / "run"


@pytest.fixture(scope="session")
def untrained(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The imported run as it was before a model was trained."""
    path = tmp_path_factory.mktemp("untrained") / "run"
    shutil.copytree(imported, path, symlinks=True)
    for name in ("rounds/000/model", "rounds/000/generated", "report"):
        shutil.rmtree(path / name)
    for name in ("round.json", "starts.npz", "decision.json"):
        (path / "rounds/000" / name).unlink()
    add_record(resealed(path), path / "rounds/000/simulation/imported.json")
    return path


@pytest.fixture(scope="session")
def interrupted(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in the middle of its second round, which is biased and has some of its segments."""
    path = tmp_path_factory.mktemp("interrupted") / "run"
    shutil.copytree(finished, path)
    for name in ("model", "generated", "annealed"):
        shutil.rmtree(path / "rounds/001" / name)
    for name in ("validation", "report", "later", "annealed"):
        shutil.rmtree(path / name)
    for name in ("round.json", "starts.npz", "decision.json"):
        (path / "rounds/001" / name).unlink()
    shutil.rmtree(path / "rounds/001/simulation/T0.7/segment_0002")
    shutil.rmtree(path / "rounds/001/simulation/T1.3/segment_0001")
    shutil.rmtree(path / "rounds/001/simulation/T1.3/segment_0002")
    return resealed(path)


Damage = Callable[[Path, int], None]


def flip(path: Path, place: int) -> None:
    """Change one bit of the first, middle or last byte."""
    data = bytearray(path.read_bytes())
    data[(0, len(data) // 2, len(data) - 1)[place % 3]] ^= 1
    path.unlink()  # a hard link: the other name keeps its bytes
    path.write_bytes(data)


def delete(path: Path, place: int) -> None:
    path.unlink()


DAMAGES: dict[str, Damage] = {"one byte": flip, "deleted": delete}

COMMANDS: dict[str, list[str]] = {
    "run": ["run", "{run}/../config.yaml", "-o", "{run}"],
    "generate": ["generate", "{run}", "-T", "1", "-T", "1.6", "-o", "{out}", "--samples", "100"],
    "observe": ["observe", "{run}", "-T", "1,1.6", "--observable", "energy", "-o", "{out}"],
    "states": ["states", "{run}", "-T", "1", "-o", "{out}"],
    "report": ["report", "{run}"],
    "export": ["export", "{run}", "-o", "{out}/cv.pt"],
    "status": ["status", "{run}"],
}


def files_of(run: Path) -> list[Path]:
    every = (path for path in run.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(path.relative_to(run) for path in every if path.name != ".lock")


@dataclass
class Outcome:
    """What a command has said, and the values it has written."""

    code: int
    said: str
    values: dict[str, Any] = field(default_factory=dict)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in TIMES}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def values_below(folder: Path, place: Path, leave_out: set[Path]) -> Iterator[tuple[str, Any]]:
    """What is below a folder, by name; records of stages have the path of the model, which lies in `place`."""
    for name in files_of(folder):
        if name in leave_out or name.name in UNCOMPARED:
            continue
        path = folder / name
        if path.suffix == ".json":
            yield name.as_posix(), _plain(json.loads(path.read_text().replace(str(place), "")))
        elif path.suffix == ".parquet":
            yield name.as_posix(), pd.read_parquet(path).to_csv()
        elif path.suffix == ".html":  # says how long rounds took
            yield name.as_posix(), re.sub(r"[\d.]+ (s|min|h)\b", "", path.read_text())
        else:
            yield name.as_posix(), path.read_bytes()


def outcome(name: str, run: Path, out: Path) -> Outcome:
    """Run a command as a process would that has just begun."""
    storage._FILES_CHECKED.clear()
    storage._RECORDS_READ.clear()
    before = {path: (run / path).stat().st_ino for path in files_of(run)}
    arguments = [text.format(run=run, out=out) for text in COMMANDS[name]]
    out.mkdir()
    result = RUNNER.invoke(app, ["--quiet", *arguments])
    error = result.exception
    if isinstance(error, LatfError):
        return Outcome(2, str(error))
    if isinstance(error, SystemExit) or error is None:
        untouched = {path for path, node in before.items() if _node(run / path) == node}
        values = dict(values_below(out, run.parent, set()))
        values |= {f"run/{key}": value for key, value in values_below(run, run.parent, untouched)}
        said = "" if name == "run" else result.output.replace(str(run), "RUN").replace(str(out), "OUT")
        return Outcome(result.exit_code, said.replace("\n", ""), values)
    raise error


def _node(path: Path) -> int:
    return path.stat().st_ino if path.is_file() else 0


def linked(source: Path, target: Path) -> Path:
    """A copy whose files are hard links: whoever writes one makes a new file."""
    shutil.copytree(source, target / "run", copy_function=os.link, symlinks=True)
    return target / "run"


def _is_named(path: Path, said: str) -> bool:
    """Whether a line has the path of a file, or of its folder and its name."""
    folder = f"/run/{path.parent.as_posix()}".removesuffix("/.")
    return f"/run/{path.as_posix()}" in said or (f"{folder}: " in said and path.name in said)


def check_all(name: str, sound: Path, config: RunConfig, damage: Damage, place: Path) -> set[Path]:
    """Damage everything, restore what is named; return what was named."""
    counter, files = iter(range(100_000)), files_of(sound)

    def tried(damaged: set[Path]) -> Outcome:
        folder = place / f"{next(counter)}"
        folder.mkdir()
        (folder / "config.yaml").write_text(dump_config(config))
        run = linked(sound, folder)
        for number, path in enumerate(files):  # over the commands each file is changed at each place
            if path in damaged:
                damage(run / path, number + list(COMMANDS).index(name))
        ended = outcome(name, run, folder / "out")
        ended.said = ended.said.replace(str(folder), "")
        shutil.rmtree(folder)
        return ended

    expected = tried(set())
    assert expected.code in (0, 3), expected.said
    damaged = {path for path in files if path.name != "checkpoint.bin"}  # a run goes on without, and says so
    named = set[Path]()
    while (ended := tried(damaged)).code == 2:
        culprits = {path for path in damaged if f"/run/{path.as_posix()}:" in ended.said}
        if not culprits:
            culprits = {path for path in damaged if _is_named(path, ended.said)}
        assert culprits, f"{name}: no file is named: {ended.said}"
        damaged -= culprits
        named |= culprits
    assert ended.code == expected.code
    assert ended.said == expected.said
    wrong = sorted(key for key in expected.values if ended.values.get(key) != expected.values[key])
    assert not wrong, f"{name}: other values in {wrong} while these were damaged: {sorted(map(str, damaged))}"
    return named


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_finished_run(name: str, how: str, finished: Path, tmp_path: Path) -> None:
    named = check_all(name, finished, RunFolder.open(finished).config, DAMAGES[how], tmp_path)
    assert {"config.yaml", "run.json"} <= {path.as_posix() for path in named}


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", COMMANDS)
def test_an_imported_run(name: str, how: str, imported: Path, tmp_path: Path) -> None:
    check_all(name, imported, RunFolder.open(imported).config, DAMAGES[how], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGES)
def test_an_imported_run_that_is_not_trained_yet(how: str, untrained: Path, tmp_path: Path) -> None:
    check_all("run", untrained, RunFolder.open(untrained).config, DAMAGES[how], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGES)
def test_a_run_that_goes_on_in_the_middle_of_a_round(how: str, interrupted: Path, tmp_path: Path) -> None:
    check_all("run", interrupted, RunFolder.open(interrupted).config, DAMAGES[how], tmp_path)


def unlisted(kind: str) -> set[Path]:
    """Files of a stage that has not ended: no record has them yet, and the run writes them anew as it goes on."""
    stage = Path("rounds/001/simulation")
    return {stage / "stage.json", stage / "topology.pdb"} if kind == "interrupted" else set()


def verified(sound: Path, folder: Path, damaged: dict[Path, int], damage: Damage) -> set[Path]:
    """Files that verify names, on a copy where these are damaged."""
    folder.mkdir()
    run = linked(sound, folder)
    for path, place in damaged.items():
        damage(run / path, place)
    storage._FILES_CHECKED.clear()
    storage._RECORDS_READ.clear()
    result = RUNNER.invoke(app, ["--quiet", "verify", str(run)])
    assert result.exit_code == 1, result.output
    shutil.rmtree(folder)
    return {path for path in damaged if f"{run / path}: " in result.output}


@pytest.mark.slow
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("kind", ["finished", "imported", "untrained", "interrupted"])
def test_verify_names_every_changed_file(
    kind: str, place: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A damaged record hides what it lists: what was not named is tried again without what was."""
    sound: Path = request.getfixturevalue(kind)
    assert RUNNER.invoke(app, ["--quiet", "verify", str(sound)]).exit_code == 0
    left = dict.fromkeys((path for path in files_of(sound) if path not in unlisted(kind)), place)
    for number in range(len(left)):
        named = verified(sound, tmp_path / str(number), left, flip)
        assert named, f"not named: {sorted(map(str, left))}"
        left = {path: place for path in left if path not in named}
        if not left:
            return


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["finished", "imported", "untrained", "interrupted"])
def test_verify_names_every_deleted_file(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """One file of each folder at a time, and records of runs and rounds by themselves."""
    sound: Path = request.getfixturevalue(kind)
    folders: dict[Path, list[Path]] = {}
    alone = [path for path in files_of(sound) if path.name in {*storage.RECORDS, storage.CONFIG}]
    for path in files_of(sound):
        if path not in alone:
            folders.setdefault(path.parent, []).append(path)
    together = [set(filter(None, some)) for some in zip_longest(*folders.values())]
    for number, some in enumerate([*together, *({path} for path in alone)]):
        named = verified(sound, tmp_path / str(number), dict.fromkeys(some, 0), delete)
        assert named == some
