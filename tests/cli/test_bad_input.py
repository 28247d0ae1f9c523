"""Bad input to every command: exit code 2, one clear message, no traceback, and nothing is written."""

import copy
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mdtraj
import pytest
import yaml
from conftest import small_config

from latf_openmm.cli import main
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.schema import start_record

GONE = object()

# Name of the file, what is changed in a good configuration, and words of the message.
CONFIGS: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "misspelled",
        {"simulation.temperatur": [0.7]},
        ["simulation.temperatur: unknown key", "'temperatures'?"],
    ),
    ("strange_key", {"extra": 1}, ["extra: unknown key"]),
    ("required_key", {"simulation.friction": GONE}, ["simulation.friction: this key is required"]),
    ("no_system", {"system": GONE}, ["system: this key is required"]),
    ("no_mapping", {"simulation": None}, ["simulation: input should be a valid dictionary", "got None"]),
    ("text_for_number", {"simulation.frames": "many"}, ["simulation.frames", "valid integer", "got 'many'"]),
    ("fraction", {"seed": 1.5}, ["seed: input should be a valid integer", "got 1.5"]),
    (
        "number_for_list",
        {"simulation.temperatures": 1.0},
        ["simulation.temperatures", "valid list", "got 1.0"],
    ),
    ("text_for_list", {"model.encoder_hidden": "deep"}, ["model.encoder_hidden", "valid list", "got 'deep'"]),
    (
        "not_finite",
        {"simulation.timestep": float("nan")},
        ["simulation.timestep", "finite number", "got nan"],
    ),
    ("no_timestep", {"simulation.timestep": 0}, ["simulation.timestep", "greater than 0, got 0"]),
    ("negative_friction", {"simulation.friction": -1.0}, ["simulation.friction", "greater than 0, got -1"]),
    ("negative_seed", {"seed": -1}, ["seed", "greater than or equal to 0, got -1"]),
    (
        "cold",
        {"simulation.temperatures": [-1.0]},
        ["simulation.temperatures: -1 is not a possible temperature"],
    ),
    ("frozen", {"simulation.temperatures": [0.0]}, ["simulation.temperatures: 0 is not", "expected above 0"]),
    ("kelvin", {"simulation.temperatures": [300.0]}, ["300 is not a possible", "at most 100 reduced units"]),
    (
        "no_temperature",
        {"simulation.temperatures": []},
        ["simulation.temperatures", "at least 1 item", "got []"],
    ),
    ("twice", {"simulation.temperatures": [0.7, 0.7]}, ["the same temperature is listed twice: [0.7, 0.7]"]),
    ("generated_cold", {"generate.temperatures": [-2.0]}, ["generate.temperatures: -2 is not a possible"]),
    (
        "validated_hot",
        {"validation.temperatures": [1e6]},
        ["validation.temperatures: 1e+06 is not a possible"],
    ),
    ("no_walkers", {"simulation.walkers": 0}, ["simulation.walkers", "greater than or equal to 1, got 0"]),
    ("few_frames", {"simulation.frames": 3}, ["simulation.frames", "greater than or equal to 10, got 3"]),
    ("processes", {"simulation.processes": 1000}, ["simulation.processes", "less than or equal to 256"]),
    ("platform", {"simulation.platform": "GPU"}, ["simulation.platform", "no platform 'GPU'", "Reference"]),
    ("format", {"simulation.trajectory": "pdb"}, ["simulation.trajectory", "'dcd' or 'xtc', got 'pdb'"]),
    ("backend", {"simulation.backend": "magic"}, ["simulation.backend", "'torchforce'", "got 'magic'"]),
    ("seldom", {"simulation.bias_every": 50}, ["simulation.bias_every", "less than or equal to 20, got 50"]),
    (
        "system_kind",
        {"system.kind": "tree_hole"},
        ["system: there is no kind 'tree_hole'", "mean 'three_hole'?"],
    ),
    ("system_text", {"system": "three_hole"}, ["system: input should be", "got 'three_hole'"]),
    ("no_kind", {"system.kind": GONE}, ["system.kind: this key is required"]),
    ("no_features", {"features": []}, ["features", "at least 1 item"]),
    ("feature_kind", {"features.0.kind": "angles"}, ["features[0]: there is no kind 'angles'", "'torsions'"]),
    ("axes", {"features.0.axes": "xyw"}, ["features[0].axes", "got 'xyw'"]),
    (
        "selects_nothing",
        {"features": [{"kind": "distances", "selection": "name XX"}]},
        ["features[0]: selection 'name XX' matches no atom of 1"],
    ),
    (
        "selection_syntax",
        {"features": [{"kind": "distances", "selection": "nam CA ="}]},
        ["features[0]: selection 'nam CA ='", "not valid MDTraj syntax"],
    ),
    (
        "atom_index",
        {"features": [{"kind": "distances", "pairs": [[0, 5]]}]},
        ["features[0]: pairs names atom 5", "atoms 0 to 0"],
    ),
    (
        "no_torsion",
        {"features": [{"kind": "torsions", "angles": ["phi"]}]},
        ["features[0]", "no phi torsion"],
    ),
    (
        "long_lag",
        {"training.lag": 30},
        ["training.lag: 30 frames is too long", "simulation.frames: 60", "at most a fifth"],
    ),
    (
        "lag_word",
        {"training.lag": "often"},
        ["training.lag: expected 'auto' or a whole number", "got 'often'"],
    ),
    ("committee", {"training.committee": 0}, ["training.committee", "greater than or equal to 1, got 0"]),
    ("dimensions", {"model.latent_dim": 99}, ["model.latent_dim", "less than or equal to 10, got 99"]),
    ("bias_kind", {"bias.kind": "opus"}, ["bias: there is no kind 'opus'", "did you mean 'opes'?"]),
    ("barrier", {"bias.barrier": -2.0}, ["bias.barrier", "greater than 0, got -2"]),
    ("empty_sum", {"bias": {"kind": "sum", "parts": []}}, ["bias.parts", "at least 1 item"]),
    ("no_rounds", {"loop.rounds": 0}, ["loop.rounds", "greater than or equal to 1, got 0"]),
    ("few_samples", {"generate.samples": 1}, ["generate.samples", "greater than or equal to 100, got 1"]),
]

COMMANDS: list[tuple[str, list[str]]] = [
    ("walk", ["No such command 'walk'"]),
    # run
    ("run", ["Missing argument 'config'"]),
    ("run good.yaml", ["Missing option '--output'"]),
    ("run gone.yaml -o out", ["gone.yaml: no such file", "lj7, rna_tetraloop, three_hole"]),
    ("run lj7/slow -o out", ["lj7/slow: no such file", "no configuration of that name"]),
    ("run hollow -o out", ["hollow: this is a folder; expected a YAML file"]),
    ("run binary.yaml -o out", ["binary.yaml: not a text file"]),
    ("run empty.yaml -o out", ["empty.yaml: expected a mapping of keys to values, the file is empty"]),
    ("run list.yaml -o out", ["list.yaml: expected a mapping of keys to values, got list"]),
    ("run words.yaml -o out", ["words.yaml: expected a mapping of keys to values, got str"]),
    ("run broken.yaml -o out", ["broken.yaml: not valid YAML", "line 1"]),
    ("run good.yaml -o out --rounds 0", ["'--rounds'", "greater than or equal to 1"]),
    ("run good.yaml -o out --rounds two", ["'--rounds'", "valid integer"]),
    ("run good.yaml -o full", ["full: the folder is not empty and is not a run (config.yaml is missing)"]),
    ("run good.yaml -o words.yaml", ["words.yaml: this is a file; expected a folder"]),
    ("run good.yaml -o words.yaml/run", ["words.yaml/run: cannot be written", "words.yaml is a file"]),
    ("run other.yaml -o run", ["run/config.yaml: this folder was started with another", "different: model"]),
    ("run good.yaml -o newer", ["newer/run.json: schema: 99 is newer than 3"]),
    ("run good.yaml -o no_yaml", ["no_yaml/config.yaml: changed since it was written"]),
    # status, verify, report
    ("status", ["Missing argument 'folder'"]),
    ("status gone", ["gone: not the folder of a run (config.yaml is missing)"]),
    ("status hollow", ["hollow: not the folder of a run (config.yaml is missing)"]),
    ("status newer", ["newer/run.json: schema: 99 is newer than 3"]),
    ("status no_yaml", ["no_yaml/config.yaml: changed since it was written"]),
    ("status round_cut", ["round_cut/rounds/001/round.json: ", "bytes; expected"]),
    ("status gone --watch", ["gone: not the folder of a run (config.yaml is missing)"]),
    ("status round_cut --watch --every 0.2", ["round_cut/rounds/001/round.json: ", "bytes; expected"]),
    ("status run --watch --every 0", ["'--every'", "greater than or equal to 0.2"]),
    ("verify gone", ["gone: not the folder of a run (config.yaml is missing)"]),
    ("verify words.yaml", ["words.yaml: not the folder of a run"]),
    ("verify run/rounds/000/model", ["run/rounds/000/model: not the folder of a run"]),
    ("verify record_cut", ["record_cut/run.json: damaged"]),
    ("verify run --deep", ["No such option: --deep"]),
    ("report hollow", ["hollow: not the folder of a run"]),
    ("report started", ["started: no round is complete yet; run 'latf-openmm run' first"]),
    ("report run --round 7", ["--round: 7 is not a complete round; the last one is 1"]),
    ("report run --round -1", ["--round: -1 is not a complete round"]),
    ("report history_cut", ["history_cut/rounds/001/model/history.parquet: ", "bytes; expected"]),
    ("report round_cut", ["round_cut/rounds/001/round.json: changed since it was written"]),
    # export
    ("export gone -o cv.pt", ["gone: not the folder of a run"]),
    ("export started -o cv.pt", ["started: no round is complete yet"]),
    ("export run -o full", ["full: this is a folder; expected a file to write"]),
    ("export run -o words.yaml --plumed", ["words.yaml: this is a file; expected a folder"]),
    ("export run -o words.yaml/cv.pt", ["words.yaml/cv.pt: cannot be written"]),
    ("export run -o cv.pt --round two", ["'--round'", "valid integer"]),
    ("export weights_cut -o cv.pt", ["weights_cut/rounds/001/model: the model is damaged"]),
    ("export weights_cut/rounds/001/model -o cv.pt", ["weights_cut/rounds/001/model: the model is damaged"]),
    ("export format_9/rounds/001/model -o cv.pt", ["model.json: format 9, this version reads format"]),
    ("export run --bias -o full", ["full: already exists; an exported bias is never overwritten"]),
    ("export run --bias --plumed -o new", ["--bias, --plumed: expected one of them"]),
    ("export run -o cv.pt -T 300", ["--temperature, --state: only with --bias"]),
    ("export gone --bias -o new", ["gone: not the folder of a run"]),
    ("export run --bias -o new --state gone.pt", ["gone.pt: no such file"]),
    # simulate
    ("simulate gone.yaml -o out", ["gone.yaml: no such file"]),
    ("simulate platform.yaml -o out", ["platform.yaml: simulation.platform", "no platform 'GPU'"]),
    ("simulate good.yaml -o words.yaml", ["words.yaml: this is a file; expected a folder"]),
    ("simulate good.yaml -o out --model hollow", ["--model: hollow: no trained model here (model.json"]),
    ("simulate lj7.yaml -o out --model run/rounds/000/model", ["topology of 1 atoms, this one has 7"]),
    ("simulate no_bias.yaml -o out --model run/rounds/000/model", ["no_bias.yaml has no 'bias' section"]),
    # train, lag-scan
    ("train good.yaml -o out", ["Missing option '--data'"]),
    ("train good.yaml --data hollow -o out", ["hollow: no complete segment of a simulation here"]),
    ("train good.yaml --data run -o out", ["run: no complete segment of a simulation here"]),
    ("train good.yaml --data run/rounds/000/simulation -o full", ["full: already exists; a model is never"]),
    (
        "train lj7.yaml --data run/rounds/000/simulation -o out",
        ["other atoms than the topology, which has 7"],
    ),
    (
        "train good.yaml --data table_cut/rounds/000/simulation -o out",
        ["segment_0001/frames.parquet: ", "bytes; expected"],
    ),
    (
        "train good.yaml --data walker_gone/rounds/000/simulation -o out",
        ["segment_0001/walker_001.dcd: missing; expected a file of "],
    ),
    (
        "train good.yaml --data walker_cut/rounds/000/simulation -o out",
        ["segment_0001/walker_001.dcd: ", "bytes; expected"],
    ),
    ("lag-scan list.yaml --data run/rounds/000/simulation -o out", ["list.yaml: expected a mapping"]),
    ("lag-scan good.yaml --data gone -o out", ["gone: no complete segment of a simulation here"]),
    (
        "lag-scan good.yaml --data run/rounds/000/simulation -o full",
        ["full: already exists; a scan is never"],
    ),
    (
        "lag-scan good.yaml --data run/rounds/000/simulation -o out --lag 1000",
        ["--lag: 1000 frames is too long", "60 frames", "expected 1 to 12"],
    ),
    ("lag-scan good.yaml --data run/rounds/000/simulation -o out --lag 0", ["--lag: 0 frames is too short"]),
    # generate
    ("generate run -o out", ["Missing option '--temperature'"]),
    ("generate started -T 1 -o out", ["started: no round is complete yet"]),
    ("generate run -T 0 -o out", ["--temperature: must be above 0, got 0"]),
    ("generate run -T -1 -o out", ["--temperature: must be above 0, got -1"]),
    ("generate run -T inf -o out", ["--temperature: must be finite and above 0, got inf"]),
    ("generate run -T hot -o out", ["'--temperature'", "valid number"]),
    ("generate run -T 1 -T 1.0 -o out", ["--temperature: expected each once, got 1, 1"]),
    ("generate run -T 1 -o has", ["has/T1: already exists; structures are never overwritten"]),
    ("generate run -T 1 -o words.yaml", ["words.yaml/T1: cannot be written"]),
    ("generate run -T 1 -o out --samples 5", ["'--samples'", "greater than or equal to 100"]),
    ("generate run -T 1 -o out --structures 0", ["'--structures'", "greater than or equal to 1"]),
    ("generate run -T 1 -o out --minutes -1", ["'--minutes'", "greater than or equal to 0"]),
    (
        "generate run -T 1 -o out --method best",
        ["'--method'", "'auto', 'reweighted', 'conditional', 'annealed', 'flow'"],
    ),
    ("generate run -T 1 -o out --format pdb", ["'--format'", "'dcd', 'xtc'"]),
    ("generate weights_cut -T 1 -o out", ["weights_cut/rounds/001/model: the model is damaged"]),
    ("generate table_cut -T 1 -o out", ["segment_0001/frames.parquet: ", "bytes; expected"]),
    # observe
    ("observe run -T 1 -o out", ["Missing option '--observable'"]),
    (
        "observe run -T 1 -o out --observable rgg",
        ["--observable: there is no 'rgg'; expected one of contacts, energy"],
    ),
    ("observe run -T 1 -o out --observable population:77", ["population:77: expected a state from 0 to"]),
    ("observe run -T 1 -o out --observable free_energy:0", ["free_energy:0: expected two states from 0"]),
    ("observe run -T 1 -o out --observable gone.py:f", ["--observable: gone.py: no such file"]),
    (
        "observe run -T 1 -o out --observable mine.py",
        ["--observable: there is no 'mine.py'", "FILE.py:FUNCTION"],
    ),
    ("observe run -T 1 -o out --observable mine.py:gone", ["--observable: mine.py has no function 'gone'"]),
    ("observe run -T 1 -o out --observable syntax.py:f", ["syntax.py cannot be run (SyntaxError"]),
    ("observe run -T 1 -o out --observable imports.py:f", ["imports.py cannot be run (ModuleNotFoundError"]),
    (
        "observe run -T 1 -o out --observable mine.py:few",
        ["mine.py:few returns shape (2,)", "one number a frame"],
    ),
    ("observe run -T 1 -o out --observable mine.py:fails", ["mine.py:fails failed (AttributeError"]),
    ("observe run -T 1 -o out --observable hbonds", ["--observable: hbonds failed", "No bonds found"]),
    ("observe run -T 1 -o out --observable contacts", ["contacts: the reference has no contact"]),
    (
        "observe run -T 1 -o out --observable rg --reference gone.pdb",
        ["gone.pdb: no such file"],
    ),
    ("observe run -T 1 -o out --observable rg --reference two.pdb", ["two.pdb: 2 atoms, the system has 1"]),
    ("observe run -T 0 -o out --observable rg", ["--temperatures: '0': expected FIRST:LAST:STEP or numbers"]),
    ("observe run -T 1,hot -o out --observable rg", ["--temperatures: '1,hot': expected"]),
    ("observe run -T 2:1:0.1 -o out --observable rg", ["'2:1:0.1': expected FIRST:LAST:STEP, ascending"]),
    ("observe run -T 1:inf:1 -o out --observable rg", ["'1:inf:1': expected FIRST:LAST:STEP"]),
    ("observe run -T 1:2:1e-9 -o out --observable rg", ["'1:2:1e-9': expected at most 1000 temperatures"]),
    ("observe run -T 1 -o words.yaml --observable rg", ["words.yaml: this is a file; expected a folder"]),
    # states
    ("states run -o out -T 0", ["--temperature: must be above 0, got 0"]),
    (
        "states run -o out --observable energy",
        ["--observable: energy is not a function of single structures"],
    ),
    ("states run -o words.yaml/out", ["words.yaml/out: cannot be written"]),
    ("states run -o out --round 9", ["--round: 9 is not a complete round"]),
    ("states walker_gone -o out", ["walker_001.dcd: missing; expected a file of "]),
    # import
    ("import good.yaml -T 1 -o out", ["Missing option '--trajectory'"]),
    ("import good.yaml --trajectory gone.dcd -T 1 -o out", ["--trajectory: gone.dcd: no such file"]),
    ("import good.yaml --trajectory two.pdb -T 1 -o out", ["two.pdb: expected a file .dcd", "got '.pdb'"]),
    ("import good.yaml --trajectory junk.dcd -T 1 -o out", ["junk.dcd: the trajectory cannot be read"]),
    ("import good.yaml --trajectory short.dcd -T 1 -o out", ["short.dcd: 3 frames; expected 10 or more"]),
    ("import lj7.yaml --trajectory own.dcd -T 1 -o out", ["own.dcd", "it has 1 atoms, the topology has 7"]),
    ("import good.yaml --trajectory own.dcd -T 0 -o out", ["--temperature: must be above 0, got 0"]),
    ("import good.yaml --trajectory own.dcd -T 300 -o out", ["--temperature: 300 is not a possible"]),
    ("import good.yaml --trajectory own.dcd -T 1 -T 2 -o out", ["--temperature: 2 given for 1 --trajectory"]),
    ("import good.yaml --trajectory own.dcd -T 1 -o full", ["full: already exists; a run is never"]),
    (
        "import good.yaml --trajectory own.dcd -T 1 -o out --table gone.csv",
        ["--table: gone.csv: no such file"],
    ),
    ("import good.yaml --trajectory own.dcd -T 1 -o out --table one.csv", ["one.csv: 1 rows", "25 frames"]),
    (
        "import good.yaml --trajectory own.dcd -T 1 -o out --table names.csv",
        ["names.csv", "column potential_energy"],
    ),
    (
        "import good.yaml --trajectory own.dcd -T 1 -o out --table word.csv",
        ["word.csv", "not a number in row 24"],
    ),
    # init
    ("init -o new.yaml", ["Missing argument 'files'"]),
    ("init gone.pdb -o new.yaml", ["gone.pdb: no such file"]),
    ("init words.pdb -o new.yaml", ["words.pdb cannot be read; expected a PDB file with atoms"]),
    ("init words.yaml -o new.yaml", ["words.yaml: expected a PDB or mmCIF file"]),
    ("init two.pdb -o good.yaml", ["good.yaml: already exists; a configuration is never overwritten"]),
    ("init two.pdb -o new.yaml", ["system.force_field: no System can be made", "No template found"]),
    ("init two.pdb -o new.yaml --force-field gone.xml", ["system.force_field: ['gone.xml'] cannot be read"]),
    ("init own.prmtop -o new.yaml", ["own.prmtop: coordinates are missing; expected a file .inpcrd"]),
    ("init own.psf own.crd -o new.yaml", ["own.psf: parameters are missing; expected files .rtf"]),
    # systems, doctor
    ("systems lj8", ["lj8: no such file", "alanine_dipeptide, chignolin, lj7"]),
    ("systems binary.yaml", ["binary.yaml: not a text file"]),
    ("systems lj7 three_hole", ["unexpected extra argument"]),
    ("doctor now", ["unexpected extra argument"]),
    ("demo -o words.yaml", ["words.yaml: this is a file; expected a folder"]),
    ("demo -o words.yaml/demo", ["words.yaml/demo: cannot be written", "words.yaml is a file"]),
]

ROWS = [(f"run {name}.yaml -o out", [f"{name}.yaml: ", *words]) for name, _, words in CONFIGS] + COMMANDS


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    data = copy.deepcopy(base)
    for place, value in changes.items():
        *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
        inner: Any = data
        for key in path:
            inner = inner[key]
        if value is GONE:
            del inner[last]
        else:
            inner[last] = value
    return data


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture(scope="module")
def place(small_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good run, damaged copies of it, and files of all kinds."""
    here = tmp_path_factory.mktemp("place")
    base = small_config().model_dump(mode="json")
    lj7 = {"system": {"kind": "lj7"}, "features": [{"kind": "coordination", "r0": 1.5}]}
    good = {"good": {}, "other": {"model.tau": 1.0}, "no_bias": {"bias": None}, "lj7": lj7}
    for name, changes in [*good.items(), *((name, changes) for name, changes, _ in CONFIGS)]:
        (here / f"{name}.yaml").write_text(yaml.safe_dump(changed(base, changes)))
    (here / "binary.yaml").write_bytes(bytes(range(256)))
    texts = {
        "empty.yaml": "",
        "list.yaml": "- a\n- b\n",
        "words.yaml": "just words\n",
        "broken.yaml": "system: [unclosed\n",
        "mine.py": "def few(frames):\n    return [1.0, 2.0]\n\ndef fails(frames):\n    return frames.colour\n",
        "syntax.py": "def (\n",
        "imports.py": "import nothing_of_that_name\n",
        "words.pdb": "just words\n",
        "two.pdb": "".join(
            f"ATOM      {i}  C   ALA A   {i}       0.000   0.000   {i}.000  1.00  0.00           C\n"
            for i in (1, 2)
        ),
        "junk.dcd": "junk" * 20,
        "one.csv": "potential_energy\n1.0\n",
        "names.csv": "energy\n" + "1.0\n" * 25,
        "word.csv": "potential_energy\n" + "1.0\n" * 24 + "word\n",
        "own.prmtop": "x",
        "own.psf": "x",
        "own.crd": "x",
        "full/file": "x",
        "has/T1/file": "x",
    }
    for name, text in texts.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    (here / "hollow").mkdir()
    (here / "started").mkdir()
    shutil.copy(small_run.path / "config.yaml", here / "started" / "config.yaml")
    start_record(here / "started", (here / "started" / "config.yaml").read_text())
    segment = "rounds/000/simulation/T0.7/segment_0001"
    walker = mdtraj.load(str(small_run.path / segment / "walker_001.dcd"), top=small_run.topology())
    walker.save_dcd(str(here / "own.dcd"))
    walker[:3].save_dcd(str(here / "short.dcd"))
    model = "rounds/001/model"
    copies: dict[str, tuple[str, Callable[[Path], Any]]] = {
        "run": ("config.yaml", lambda path: None),
        "newer": ("run.json", lambda path: path.write_text('{"schema": 99, "versions": []}')),
        "no_yaml": ("config.yaml", lambda path: path.write_text("a: [\n")),
        "record_cut": ("run.json", cut),
        "round_cut": ("rounds/001/round.json", cut),
        "history_cut": (f"{model}/history.parquet", cut),
        "weights_cut": (f"{model}/model.safetensors", cut),
        "format_9": (f"{model}/model.json", lambda path: path.write_text('{"format": 9}')),
        "table_cut": (f"{segment}/frames.parquet", cut),
        "walker_gone": (f"{segment}/walker_001.dcd", Path.unlink),
        "walker_cut": (f"{segment}/walker_001.dcd", lambda path: walker[:10].save_dcd(str(path))),
    }
    for name, (file, damage) in copies.items():
        shutil.copytree(small_run.path, here / name)
        damage(here / name / file)
    return here


def contents(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(("command", "words"), ROWS, ids=[command for command, _ in ROWS])
def test_bad_input(
    command: str,
    words: list[str],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "argv", ["latf-openmm", *shlex.split(command)])
    before = contents(place)
    with pytest.raises(SystemExit) as end:
        main()
    said = re.sub(r"[\s│╭╮╰╯─]+", " ", "".join(capfd.readouterr())).replace(f"{place}/", "")
    assert end.value.code == (1 if command == "verify record_cut" else 2), said
    for text in words:
        assert text in said
    assert "Traceback" not in said
    assert contents(place) == before


def test_there_are_enough_and_no_two_are_alike() -> None:
    assert len({command for command, _ in ROWS}) == len(ROWS) >= 60
