"""No code of a foreign folder or file is run: a pickle that would leave a mark never does."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
import yaml
from helpers.folders import resealed
from openmm import app
from typer.testing import CliRunner

from latf_openmm.cli import app as cli
from latf_openmm.errors import ConfigError, DataError, LatfError
from latf_openmm.model.checkpoint import load_model
from latf_openmm.run.config import load_config
from latf_openmm.run.consent import agree_to_execution, agree_to_system
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.loop import run_loop
from latf_openmm.run.trainings import train_round
from latf_openmm.run.verify import verify_run
from latf_openmm.sampling.stage import SimulationSettings, Stage, run_stage
from latf_openmm.storage import read_arrays, write_manifest
from latf_openmm.systems.three_hole import ThreeHoleSettings
from latf_openmm.systems.trusted_xml import check_force_fields, read_state, read_system

MARK = ["mark"]


class Marking:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, state: Any) -> tuple[float, float]:
        return 0.0, 0.0

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "code_was_run"


@pytest.fixture
def system_xml(tmp_path: Path, mark: Path) -> Path:
    system = openmm.System()
    system.addParticle(40.0)
    system.addForce(openmm.PythonForce(Marking(mark)))
    path = tmp_path / "system.xml"
    path.write_text(openmm.XmlSerializer.serialize(system))
    return path


@pytest.fixture
def structure(tmp_path: Path) -> Path:
    topology = app.Topology()
    topology.addAtom("AR", app.element.argon, topology.addResidue("AR", topology.addChain()))
    path = tmp_path / "one.pdb"
    with path.open("w") as file:
        app.PDBFile.writeFile(topology, np.zeros((1, 3)), file)
    return path


def cv_force(mark: Path) -> openmm.Force:
    force = openmm.CustomCVForce("x")
    force.addCollectiveVariable("x", openmm.PythonForce(Marking(mark)))
    return force


def test_a_system_with_code_is_read_only_when_it_is_trusted(system_xml: Path, mark: Path) -> None:
    with pytest.raises(ConfigError, match=r"key: .*system\.xml: PythonForce can run code .* trust: true"):
        read_system("key", system_xml, trust=False)
    system = openmm.System()
    system.addForce(cv_force(mark))
    system_xml.write_text(openmm.XmlSerializer.serialize(system))
    with pytest.raises(ConfigError, match="PythonForce can run code"):
        read_system("key", system_xml, trust=False)
    text = system_xml.read_text()
    system_xml.write_text(text.replace('type="PythonForce"', 'type="TorchForce"'))
    with pytest.raises(ConfigError, match="TorchForce can run code"):
        read_system("key", system_xml, trust=False)
    system_xml.write_text(
        f'<!DOCTYPE System [<!ENTITY a "PythonForce">]>{text}'.replace('="PythonForce"', '="&a;"')
    )
    with pytest.raises(ConfigError, match="document type"):
        read_system("key", system_xml, trust=False)
    assert not mark.exists()
    system_xml.write_text(text)
    read_system("key", system_xml, trust=True)
    assert mark.exists()  # so it would have shown


def test_a_system_without_code_is_the_same(tmp_path: Path) -> None:
    system = openmm.System()
    for _ in range(3):
        system.addParticle(1.0 / 3.0)
    table = openmm.CustomNonbondedForce("a(r)")
    table.addTabulatedFunction("a", openmm.Continuous1DFunction([0.0, 0.1, 0.3], 0, 1))
    variable = openmm.CustomCVForce("2*x")
    variable.addCollectiveVariable("x", openmm.CustomBondForce("r < 1"))
    for force in (table, variable, openmm.MonteCarloBarostat(1, 300), openmm.AmoebaVdwForce()):
        system.addForce(force)
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    path = tmp_path / "system.xml"
    path.write_text(openmm.XmlSerializer.serialize(system))
    again = read_system("key", path, trust=False)
    assert openmm.XmlSerializer.serialize(again) == path.read_text()


STATES: dict[str, Callable[[str, str], str]] = {
    "a System": lambda state, code: code,
    "a force that calls itself a State": lambda state, code: code.replace("<System", "<State").replace(
        "</System", "</State"
    ),
    "its type": lambda state, code: (
        code[code.index("<Force ") : code.index("</Forces>")]
        .replace("<Force ", "<State ")
        .replace("</Force>", "</State>")
    ),
    "a comment before": lambda state, code: f"<!-- <State type='State'> -->{code}",
    "a part of a State": lambda state, code: state.replace(
        "</State>", code[code.index("<Forces>") : code.index("</System>")] + "</State>"
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_only_a_state_is_read_as_one(name: str, system_xml: Path, tmp_path: Path, mark: Path) -> None:
    context = openmm.Context(ThreeHoleSettings().build(1).system, openmm.VerletIntegrator(0.001))
    context.setPositions([[0.1, 1.0 / 3.0, 0.2]])
    state = openmm.XmlSerializer.serialize(context.getState(positions=True, velocities=True, parameters=True))
    path = tmp_path / "state.xml"
    path.write_text(state)
    assert openmm.XmlSerializer.serialize(read_state(path)) == state
    path.write_text(STATES[name](state, system_xml.read_text()))
    with pytest.raises(DataError, match=r"state\.xml: not the XML of a State"):
        read_state(path)
    assert not mark.exists()


@pytest.mark.parametrize("tag", ["Script", "InitializationScript"])
def test_scripts_of_a_force_field_are_run_only_when_it_is_trusted(
    tag: str, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "own.xml"
    script = f"<{tag}>open({str(mark)!r}, 'w')</{tag}>"
    file.write_text(f"<ForceField>{script}</ForceField>")
    (tmp_path / "outer.xml").write_text('<ForceField><Include file="sub/own.xml"/></ForceField>')
    for name in (file, tmp_path / "outer.xml"):
        with pytest.raises(
            ConfigError, match=rf"own\.xml: <{tag}> is Python that would be run; .* trust: true"
        ):
            check_force_fields([str(name)])
    check_force_fields(["amber14-all.xml", "implicit/obc2.xml", "gone.xml"])  # OpenMM's own have scripts
    file.rename(tmp_path / "amber14-all.xml")  # a file here comes before OpenMM's of that name
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"<{tag}> is Python"):
        check_force_fields(["amber14-all.xml"])
    assert not mark.exists()


def test_init_and_import_run_no_code(system_xml: Path, structure: Path, tmp_path: Path, mark: Path) -> None:
    field = tmp_path / "field.xml"
    field.write_text(f"<ForceField><Script>open({str(mark)!r}, 'w')</Script></ForceField>")
    config = tmp_path / "config.yaml"
    data = {
        "system": {"kind": "serialized", "system": str(system_xml), "structure": str(structure)},
        "simulation": {
            "temperatures": [300],
            "frames": 20,
            "frame_interval": 1,
            "timestep": 0.001,
            "friction": 1,
        },
        "features": [{"kind": "coordinates", "axes": "xy"}],
        "training": {"lag": 1},
    }
    config.write_text(yaml.safe_dump(data))
    for command in (
        ["init", str(system_xml), str(structure), "-o", str(tmp_path / "new.yaml")],
        ["init", str(structure), "--force-field", str(field), "-o", str(tmp_path / "new.yaml")],
        ["run", str(config), "-o", str(tmp_path / "run")],
        ["import", str(config), "--trajectory", str(structure), "-T", "300", "-o", str(tmp_path / "run")],
    ):
        error = CliRunner().invoke(cli, command).exception
        assert isinstance(error, ConfigError), (command, error)
        assert "trust: true" in str(error)
    assert not mark.exists()
    assert not (tmp_path / "run").exists()


@pytest.fixture
def copy(small_run: RunFolder, tmp_path: Path) -> Path:
    shutil.copytree(small_run.path, tmp_path / "run")
    return tmp_path / "run"


def test_files_of_a_foreign_folder_run_no_code(copy: Path, system_xml: Path, mark: Path) -> None:
    segment, model = "rounds/001/simulation/T0.7/segment_0001", "rounds/001/model/model.safetensors"
    code = pickle.dumps(Marking(mark))
    (copy / segment / "state.xml").write_text(system_xml.read_text())
    np.savez(copy / "rounds/000/starts.npz", **{"0.7": np.array([Marking(mark)], dtype=object)})
    torch.save({"bias": Marking(mark), "exchange": {}}, copy / segment / "bias.pt")
    for name in (
        model,
        f"{segment}/checkpoint.bin",
        f"{segment}/frames.parquet",
        f"{segment}/walker_000.dcd",
    ):
        (copy / name).write_bytes(code)
    named = {p.relative_to(copy).as_posix() for p in verify_run(resealed(copy)).damages}
    files = ("state.xml", "bias.pt", "checkpoint.bin", "frames.parquet", "walker_000.dcd")
    assert {f"{segment}/{name}" for name in files} | {model, "rounds/000/starts.npz"} <= named
    for command in (
        ["report"],
        ["generate", "-T", "1", "-o", str(copy / "new")],
        ["export", "-o", str(copy / "cv")],
    ):
        error = CliRunner().invoke(cli, [command[0], str(copy), *command[1:]]).exception
        assert isinstance(error, LatfError), (command, error)
    for read in (read_arrays, lambda path: load_model(path.parents[1] / "001/model")):
        with pytest.raises(LatfError):
            read(copy / "rounds/000/starts.npz")
    assert not mark.exists()


def test_a_stage_goes_on_without_running_code(system_xml: Path, tmp_path: Path, mark: Path) -> None:
    def stage(frames: int) -> Stage:
        settings = SimulationSettings(
            temperatures=[1.0],
            frames=frames,
            frame_interval=1,
            timestep=0.01,
            friction=1.0,
            segment_frames=10,
        )
        return Stage(ThreeHoleSettings(), settings, None, {}, 1, tmp_path / "stage")

    run_stage(stage(10))
    segment = tmp_path / "stage" / "T1" / "segment_0000"
    (segment / "checkpoint.bin").write_bytes(b"")
    (segment / "state.xml").write_text(system_xml.read_text())
    write_manifest(segment)
    with pytest.raises(DataError, match=r"state\.xml: not the XML of a State"):
        run_stage(stage(20))
    assert not mark.exists()


def with_section(run: Path, **sections: object) -> Path:
    """The run as somebody would make it whose configuration says something else."""
    data = yaml.safe_load((run / "config.yaml").read_text()) | sections
    (run / "config.yaml").write_text(yaml.safe_dump(data))
    return resealed(run)


def commands_on(run: Path, new: Path) -> list[list[str]]:
    """Every command that builds the system of a run folder, or starts its workers."""
    config = str(run / "config.yaml")
    return [
        ["run", config, "-o", str(run)],
        ["run", config, "-o", str(new / "run")],
        ["import", config, "--trajectory", "any.dcd", "-T", "1", "-o", str(new / "run")],
        ["simulate", config, "-o", str(new / "stage")],
        ["train", config, "--data", str(run / "rounds/000/simulation"), "-o", str(new / "model")],
        ["lag-scan", config, "--data", str(run / "rounds/000/simulation"), "-o", str(new / "scan")],
        ["generate", str(run), "-T", "1", "-o", str(new / "generated")],
        ["observe", str(run), "-T", "1", "--observable", "energy", "-o", str(new / "curves")],
        ["states", str(run), "-o", str(new / "states")],
        ["report", str(run)],
        ["export", str(run), "-o", str(new / "cv.pt")],
    ]


def errors_of(commands: list[list[str]]) -> list[str]:
    errors = [CliRunner().invoke(cli, command).exception for command in commands]
    assert all(isinstance(error, ConfigError) for error in errors), errors
    return [str(error) for error in errors]


def python_file(path: Path, mark: Path) -> dict[str, str]:
    path.write_text(f"open({str(mark)!r}, 'w')\n")
    return {"kind": "python", "file": str(path)}


def test_code_in_the_folder_of_a_run_is_never_run(copy: Path, mark: Path, tmp_path: Path) -> None:
    with_section(copy, system=python_file(copy / "make.py", mark))
    commands = commands_on(copy, tmp_path)
    for error in errors_of(commands + [[*command, "--trust"] for command in commands]):
        assert "make.py is code in the folder of a run itself; it is not run" in error
    for command in ("verify", "status"):
        assert CliRunner().invoke(cli, [command, str(copy)]).exit_code in (0, 1)
    assert not mark.exists()


def test_code_that_a_foreign_folder_names_is_run_only_with_consent(
    copy: Path, mark: Path, tmp_path: Path
) -> None:
    file = tmp_path / "make.py"
    with_section(copy, system=python_file(file, mark))
    verify_run(copy)
    commands = commands_on(copy, tmp_path / "new")
    for error in errors_of(commands):
        assert f"it runs code of {file}, which you have not run from here" in error
        assert "give --trust" in error
    assert not mark.exists()
    for command in commands[0], commands[-1]:
        python_file(file, mark)
        assert "has no function 'make'" in errors_of([[*command, "--trust"]])[0]
        assert mark.exists()
        mark.unlink()
        errors_of([command])
        assert mark.exists()  # it was said once
        mark.unlink()
        python_file(file, mark.with_name("other"))
        assert "has changed since" in errors_of([command])[0]
    assert not mark.with_name("other").exists()


def test_code_that_a_file_imports_needs_consent_too(copy: Path, mark: Path, tmp_path: Path) -> None:
    file, beside = tmp_path / "make.py", tmp_path / "beside.py"
    file.write_text("import beside\n")
    system = {"kind": "python", "file": str(file)}
    with_section(copy, system=system)
    command = ["export", str(copy), "-o", str(tmp_path / "cv.pt")]
    python_file(beside, mark)
    assert f"it runs code of {file}, {beside.resolve()}, which you have not run" in errors_of([command])[0]
    assert not mark.exists()
    errors_of([[*command, "--trust"], command])
    assert mark.exists()
    python_file(beside, mark.with_name("other"))
    assert "has changed since" in errors_of([command])[0]
    assert not mark.with_name("other").exists()
    (copy / "make.py").write_text("import beside\n")
    (tmp_path / "make.py").unlink()
    (tmp_path / "make.py").symlink_to(copy / "make.py")
    assert "is code in the folder of a run itself" in errors_of([[*command, "--trust"]])[0]


@pytest.fixture
def config_with_code(small_config_file: Path) -> Path:
    """A configuration of the user's own, with a Python file beside it."""
    (small_config_file.parent / "make.py").write_text(
        "from latf_openmm.systems.three_hole import ThreeHoleSettings\n"
        "def make():\n"
        "    built = ThreeHoleSettings().build(1)\n"
        "    return built.system, built.topology, built.positions[0]\n"
    )
    data = yaml.safe_load(small_config_file.read_text())
    data["simulation"] |= {"temperatures": [100.0, 200.0], "platform": "Reference", "processes": 2}
    data["generate"] = {"samples": 100}
    data |= {"system": {"kind": "python", "file": "make.py"}, "validation": None}
    small_config_file.write_text(yaml.safe_dump(data))
    return small_config_file


def test_a_configuration_of_ones_own_is_consent_that_stays(config_with_code: Path, copy: Path) -> None:
    other = config_with_code.with_name("run.json")
    other.write_text('{"name": "of some other program"}')
    loaded = load_config(config_with_code)
    with_section(copy, **loaded.model_dump(mode="json"))
    with pytest.raises(ConfigError, match="not run from here"):
        RunFolder.open(copy)
    agree_to_system(loaded.system)  # as run and import do
    assert RunFolder.open(copy).topology().n_atoms == 1
    load_config(copy / "config.yaml")
    config_with_code.with_name("make.py").unlink()
    with pytest.raises(ConfigError, match=r"make\.py: no such file"):
        RunFolder.open(copy)


@pytest.mark.slow
def test_no_command_asks_on_a_run_of_ones_own(config_with_code: Path, tmp_path: Path) -> None:
    run, again = tmp_path / "first", tmp_path / "copied"
    plain = ["--method", "reweighted"]
    run_loop(load_config(config_with_code), run)
    shutil.copytree(run, again)
    for folder, new in ((run, tmp_path / "a"), (again, tmp_path / "b")):
        for command in (
            ["run", str(config_with_code), "-o", str(folder)],
            ["run", str(folder / "config.yaml"), "-o", str(folder), "--rounds", "2"],
            ["generate", str(folder), "-T", "150", "-o", str(new / "generated"), *plain],
            [
                "observe",
                str(folder),
                "-T",
                "150",
                "--observable",
                "energy",
                "-o",
                str(new / "curves"),
                *plain,
            ],
            ["states", str(folder), "-T", "150", "-o", str(new / "states"), *plain],
            ["report", str(folder)],
            ["export", str(folder), "-o", str(new / "cv.pt")],
            ["status", str(folder)],
            ["verify", str(folder)],
        ):
            result = CliRunner().invoke(cli, command)
            assert result.exit_code in (0, 3), (command, result.exception)
        train_round(folder, 1)


def test_where_no_code_is_run_nothing_is_noted(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    config = load_config(copy / "config.yaml")
    run_loop(config, copy)
    RunFolder.open(copy, trust=True)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("kind", ["serialized", "structure"])
def test_trust_in_a_foreign_configuration_is_not_ones_own(
    kind: str, copy: Path, system_xml: Path, structure: Path, mark: Path, tmp_path: Path
) -> None:
    inner, outer = tmp_path / "inner.xml", tmp_path / "outer.xml"
    script = f"<InitializationScript>open({str(mark)!r}, 'w')</InitializationScript>"
    inner.write_text(f"<ForceField>{script}</ForceField>")
    outer.write_text(f'<ForceField><Include file="{inner.name}"/></ForceField>')
    system = {"kind": kind, "structure": str(structure), "trust": True}
    files = {"system": str(system_xml)} if kind == "serialized" else {"force_field": [str(outer)]}
    with_section(copy, system=system | files)
    (error,) = errors_of([["export", str(copy), "-o", str(tmp_path / "cv.pt")]])
    assert (str(system_xml) if kind == "serialized" else f"{outer}, {inner}") in error
    assert not mark.exists()
    with pytest.raises(LatfError):
        RunFolder.open(copy, trust=True).trained(0).check_topology(RunFolder.open(copy).topology())
    assert mark.exists()


def test_shell_lines_of_a_foreign_configuration_need_consent(copy: Path, tmp_path: Path) -> None:
    with_section(copy, execution={"kind": "parsl", "worker_init": "touch gone"})
    (error,) = errors_of([["run", str(copy / "config.yaml"), "-o", str(copy)]])
    assert "it has shell lines, 'touch gone', that you have not run before" in error
    RunFolder.open(copy)  # no other command starts workers
    agree_to_execution(load_config(copy / "config.yaml", trust=True).execution)
    load_config(copy / "config.yaml")


def test_where_consent_cannot_be_noted_a_run_goes_on(
    copy: Path, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with_section(copy, system=python_file(tmp_path / "make.py", mark))
    RunFolder.open(copy, trust=True)
    assert "commands on this run will need --trust" in caplog.text
    with pytest.raises(ConfigError, match="not run from here"):
        RunFolder.open(copy)
