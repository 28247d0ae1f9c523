"""Bad input: every case is one clear line that names the file, the key, the value and what was expected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from latf_openmm import __version__
from latf_openmm.cli import main
from latf_openmm.errors import ConfigError, LatfError
from latf_openmm.run.config import RunConfig, dump_config, load_config
from latf_openmm.settings import validate
from latf_openmm.systems import library_folder, library_names

Change = Callable[[dict[str, Any]], Any]


def base(system: str = "three_hole") -> dict[str, Any]:
    return dict(yaml.safe_load((library_folder(system) / "fast.yaml").read_text()))


def write(tmp_path: Path, data: Any) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def put(*keys: str | int, value: Any) -> Change:
    def change(data: dict[str, Any]) -> None:
        place: Any = data
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


BAD: dict[str, tuple[str, Change, str]] = {
    "unknown key": (
        "three_hole",
        put("simulaton", value={}),
        r"simulaton: unknown key; did you mean 'simulation'",
    ),
    "unknown nested key": (
        "three_hole",
        put("simulation", "time_step", value=1),
        r"simulation\.time_step: unknown key",
    ),
    "missing section": ("three_hole", lambda d: d.pop("training"), r"training: this key is required"),
    "missing key": (
        "three_hole",
        lambda d: d["simulation"].pop("timestep"),
        r"simulation\.timestep: .*required",
    ),
    "wrong type": (
        "three_hole",
        put("simulation", "walkers", value="many"),
        r"simulation\.walkers: .*'many'",
    ),
    "zero temperature": (
        "three_hole",
        put("simulation", "temperatures", value=[0.0]),
        r"temperatures: 0 is not a poss",
    ),
    "negative temperature": (
        "three_hole",
        put("generate", "temperatures", value=[-1.0]),
        r"generate.temperatures: -1",
    ),
    "absurd temperature": (
        "alanine_dipeptide",
        put("simulation", "temperatures", value=[300, 30000]),
        r"30000 is not a possible temperature; expected above 0 and at most 5000 K",
    ),
    "kelvin for a reduced system": (
        "three_hole",
        put("simulation", "temperatures", value=[300.0]),
        r"300 is not a possible temperature; .*100 reduced units",
    ),
    "twice the same": ("three_hole", put("simulation", "temperatures", value=[1.0, 1.0]), r"listed twice"),
    "no temperature": (
        "three_hole",
        put("simulation", "temperatures", value=[]),
        r"temperatures: .*at least 1",
    ),
    "infinite": ("three_hole", put("simulation", "friction", value=float("inf")), r"friction: .*finite"),
    "negative timestep": (
        "three_hole",
        put("simulation", "timestep", value=-0.01),
        r"timestep: .*greater than 0",
    ),
    "unknown system": ("three_hole", put("system", "kind", value="argon"), r"system: .*'argon'.*three_hole"),
    "unknown bias": ("three_hole", put("bias", value={"kind": "gravity"}), r"bias: .*'gravity'"),
    "unknown feature": (
        "three_hole",
        put("features", value=[{"kind": "colour"}]),
        r"features\[0\]: .*'colour'",
    ),
    "no features": ("three_hole", put("features", value=[]), r"features: .*at least 1"),
    "atom not there": (
        "three_hole",
        put("features", value=[{"kind": "distances", "pairs": [[0, 5]]}]),
        r"features\[0\]: pairs names atom 5, but the topology has atoms 0 to 0",
    ),
    "selection matches nothing": (
        "alanine_dipeptide",
        put("features", value=[{"kind": "distances", "selection": "name ZN"}]),
        r"features\[0\]: selection 'name ZN' matches no atom",
    ),
    "bad selection": (
        "alanine_dipeptide",
        put("features", value=[{"kind": "distances", "selection": "nam CA and ("}]),
        r"not valid MDTraj syntax",
    ),
    "no such torsion": (
        "lj7",
        put("features", value=[{"kind": "torsions", "angles": ["phi"]}]),
        r"no phi torsion",
    ),
    "centre of wrong length": (
        "three_hole",
        put("bias", value={"kind": "harmonic", "centre": [0.0], "force_constant": 1.0}),
        r"bias\.centre: 1 values for 2 collective variables",
    ),
    "negative spring": (
        "three_hole",
        put("bias", value={"kind": "harmonic", "centre": [0.0, 0.0], "force_constant": -1.0}),
        r"bias\.force_constant: must not be negative",
    ),
    "platform not there": (
        "three_hole",
        put("simulation", "platform", value="Abacus"),
        r"no platform 'Abacus'.*Ref",
    ),
    "lag too long": (
        "three_hole",
        put("training", "lag", value=1000),
        r"training\.lag: 1000 frames is too long",
    ),
    "affine in one dimension": (
        "three_hole",
        put("model", value={"latent_dim": 1, "flow": {"transform": "affine"}}),
        r"model: a one-dimensional flow needs transform 'spline'",
    ),
    "typo in a system": (
        "lj7",
        put("system", "wal_radius", value=2),
        r"system\.wal_radius: unknown key; did you mean 'wall_",
    ),
    "typo in a feature": (
        "lj7",
        put("features", value=[{"kind": "coordination", "r0": 1.5, "expnent": 8}]),
        r"features\[0\]\.expnent: unknown key; did you mean 'exponent'",
    ),
    "backend not known": ("three_hole", put("simulation", "backend", value="plumed"), r"backend: .*'plumed'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_value_is_one_clear_line(case: str, tmp_path: Path) -> None:
    system, change, expected = BAD[case]
    data = base(system)
    change(data)
    path = write(tmp_path, data)
    with pytest.raises(ConfigError, match=expected) as caught:
        load_config(path)
    assert len(caught.value.problems) == 1
    assert str(path) in caught.value.problems[0]


def test_a_device_that_is_not_here_is_refused_unless_others_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = write(tmp_path, base() | {"training": {"device": "cuda"}})
    with pytest.raises(
        ConfigError, match=r"training\.device: 'cuda', but torch sees no CUDA device here; exp"
    ) as e:
        load_config(path)
    assert str(path) in e.value.problems[0]
    elsewhere = {"kind": "parsl", "provider": "slurm"}
    load_config(write(tmp_path, base() | {"training": {"device": "cuda"}, "execution": elsewhere}))


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    data = base()
    data["simulation"]["walkers"] = 0
    data["training"]["lag"] = "two"
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, data))
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("text", ["a: [1, 2", "- 1\n- 2\n", "", "just words"])
def test_not_a_configuration(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml: (not valid YAML|expected a mapping)"):
        load_config(path)


def test_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80" * 10)
    with pytest.raises(ConfigError, match=r"not a text file|not valid YAML"):
        load_config(path)


def test_missing_file_lists_the_library() -> None:
    with pytest.raises(ConfigError, match=r"no such file.*three_hole"):
        load_config("nowhere.yaml")


@pytest.mark.parametrize("name", library_names())
@pytest.mark.parametrize("variant", ["", "/fast"])
def test_library_configurations_are_valid_and_round_trip(name: str, variant: str) -> None:
    config = load_config(name + variant)
    again = validate(RunConfig, yaml.safe_load(dump_config(config)), "dumped")
    assert again == config


def run_cli(
    *arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["latf-openmm", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0), capsys.readouterr().err


CLI_BAD = {
    "missing config": (["run", "no.yaml", "-o", "{}"], "no.yaml: no such file"),
    "status of nothing": (["status", "{}"], "not the folder of a run"),
    "report of nothing": (["report", "{}"], "not the folder of a run"),
    "generate from nothing": (["generate", "{}", "-T", "1", "-o", "{}/out"], "not the folder of a run"),
    "export of nothing": (["export", "{}", "-o", "{}/cv.pt"], "not the folder of a run"),
    "train on nothing": (
        ["train", "three_hole/fast", "--data", "{}", "-o", "{}/model"],
        "no complete segment",
    ),
    "unknown system": (["systems", "argon"], "argon: no such file"),
    "output is taken": (["run", "three_hole/fast", "-o", "{}"], "not empty and is not a run"),
}


@pytest.mark.parametrize("case", CLI_BAD)
def test_cli_bad_input(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "something.txt").write_text("here")
    arguments, expected = CLI_BAD[case]
    code, err = run_cli(*[a.format(tmp_path) for a in arguments], monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert err.startswith("error: ")
    assert expected in err
    assert "Traceback" not in err


def test_every_own_error_is_a_latf_error() -> None:
    assert issubclass(ConfigError, LatfError)
    assert issubclass(ConfigError, ValueError)


def test_version_and_help_need_no_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, expected in (("--version", __version__), ("--help", "doctor")):
        monkeypatch.setattr("sys.argv", ["latf-openmm", option])
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code
        assert expected in capsys.readouterr().out
