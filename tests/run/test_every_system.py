"""Contract test: every kind of system goes through every command, on inputs as small as can be."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
import yaml
from openmm import app
from typer.testing import CliRunner

import latf_openmm as latf
from latf_openmm.cli import app as cli
from latf_openmm.run.folder import RunFolder
from latf_openmm.systems import SYSTEM_KINDS, library_folder, shared_system

RUNNER = CliRunner()
FIELD = ["amber14/protein.ff14SB.xml"]
MAKE = """
import openmm
from openmm import app
from pathlib import Path


def make():
    folder = Path(__file__).parent
    pdb = app.PDBFile(str(folder / "dry.pdb"))
    system = openmm.XmlSerializer.deserialize((folder / "dry.xml").read_text())
    return system, pdb.topology, pdb.positions
"""
TORSIONS = [{"kind": "torsions", "angles": ["phi", "psi"]}]
KINDS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], float]] = {
    "structure": (
        {"structure": "dry.pdb", "force_field": FIELD, "options": {"implicit": "obc2"}},
        TORSIONS,
        300,
    ),
    "amber": ({"topology": "dry.prmtop", "coordinates": "dry.rst7"}, TORSIONS, 300),
    "gromacs": (
        {"topology": "dry.top", "coordinates": "dry.gro", "options": {"method": "none"}},
        TORSIONS,
        300,
    ),
    "charmm": (
        {"topology": "dry.psf", "coordinates": "dry.crd", "parameters": ["dry.rtf", "dry.par"]},
        TORSIONS,
        300,
    ),
    "serialized": ({"system": "dry.xml", "structure": "dry.pdb"}, TORSIONS, 300),
    "python": ({"file": "make.py"}, TORSIONS, 300),
    "alanine_dipeptide": ({}, TORSIONS, 300),
    "three_hole": ({}, [{"kind": "coordinates", "axes": "xy"}], 1.0),
    "lj7": ({}, [{"kind": "distances", "pairs": [[0, 1], [1, 2], [2, 3]]}], 0.4),
    "chignolin": ({}, [{"kind": "torsions", "angles": ["phi"]}], 300),
    "rna_tetraloop": ({}, [{"kind": "distances", "pairs": [[0, 50], [10, 90]]}], 300),
}
"""Settings, descriptors and temperature of each kind."""
STARTED: dict[str, list[str]] = {
    "structure": ["dry.pdb", "--force-field", FIELD[0]],
    "amber": ["dry.prmtop", "dry.rst7"],
    "charmm": ["dry.psf", "dry.crd", "dry.rtf", "dry.par"],
    "serialized": ["dry.xml", "dry.pdb"],
    "python": ["make.py"],
}
"""What `init` is given; it does not know a file of Gromacs without a box for one of a vacuum."""
SLOW = ("chignolin", "rna_tetraloop")
"""Kinds of which nothing runs unless slow tests are asked for."""
ALL_COMMANDS = ("structure", "three_hole")
ESSENTIAL = ("run", "generate")
"""Commands that all other kinds go through as well; the rest of the product is slow."""


def test_every_kind_is_here() -> None:
    assert set(KINDS) == {name for name, kind in SYSTEM_KINDS.items() if kind.simulated}


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alanine dipeptide in vacuum, in every format."""
    parmed = pytest.importorskip("parmed")
    folder = tmp_path_factory.mktemp("inputs")
    pdb = app.PDBFile(str(library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"))
    app.PDBFile.writeFile(pdb.topology, pdb.positions, (folder / "dry.pdb").open("w"), keepIds=True)
    field = app.ForceField(*FIELD)
    system = field.createSystem(pdb.topology, constraints=app.HBonds)
    (folder / "dry.xml").write_text(openmm.XmlSerializer.serialize(system))
    (folder / "make.py").write_text(MAKE)
    flexible = field.createSystem(pdb.topology, constraints=None, rigidWater=False)
    structure = parmed.openmm.load_topology(pdb.topology, flexible, pdb.positions)
    for name in ("prmtop", "rst7", "top", "gro", "psf", "crd"):
        structure.save(str(folder / f"dry.{name}"))
    parameters = parmed.charmm.CharmmParameterSet.from_structure(structure)
    parameters.write(par=str(folder / "dry.par"), top=str(folder / "dry.rtf"))
    return folder


def configuration(kind: str, inputs: Path) -> Path:
    """One walker at one temperature, two rounds, the second biased; the smallest training there is."""
    system, features, temperature = KINDS[kind]
    data = {
        "system": {"kind": kind, **system},
        "simulation": {
            "temperatures": [temperature],
            "frames": 60,
            "frame_interval": 5,
            "timestep": 0.001 if temperature > 10 else 0.005,
            "friction": 5.0,
            "platform": "Reference",
        },
        "features": features,
        "model": {"encoder_hidden": [], "flow": {"layers": 2, "hidden": [8]}},
        "training": {
            "lag": 2,
            "initial_states": 2,
            "restarts": 1,
            "refinements": 1,
            "epochs_states": 1,
            "epochs_joint": 1,
            "epochs_flow": 1,
            "committee": 1,
            "pairs_per_epoch": 100,
        },
        "bias": {"kind": "harmonic", "centre": [0.0, 0.0], "force_constant": 1.0},
        "loop": {"rounds": 2},
        "generate": {"samples": 100, "annealing": {"walkers": 10, "steps": 5, "frames": 2}},
    }
    path = inputs / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.fixture(scope="session")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of each kind, made when it is first asked for; never changed."""
    made = dict[str, Path]()

    def run(kind: str) -> Path:
        if kind not in made:
            torch.set_num_threads(1)
            folder = tmp_path_factory.mktemp(kind) / "run"
            called("run", str(configuration(kind, inputs)), "-o", str(folder))
            made[kind] = folder
        return made[kind]

    return run


def called(*arguments: str, codes: tuple[int, ...] = (0,)) -> str:
    """Output of a command that ends with one of these exit codes."""
    result = RUNNER.invoke(cli, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in codes, result.output
    assert "Traceback" not in result.output
    return result.output


POOR = (0, 3)  # what so few frames say is not to be relied on


def _run(kind: str, run: Path, out: Path) -> None:
    folder = RunFolder.open(run)
    assert len(folder.complete_rounds()) == 2
    biased = [walker for walker in folder.walkers(1) if walker.run.startswith("001")]
    assert all((walker.table["bias_energy"] > 0).all() for walker in biased)


def _import(kind: str, run: Path, out: Path) -> None:
    temperature = KINDS[kind][2]
    (walker,) = RunFolder.open(run).walkers(0)
    arguments = ["--trajectory", str(walker.files[0]), "-T", str(temperature), "--ignore-times"]
    called("import", str(run / "config.yaml"), *arguments, "-o", str(out / "imported"))
    (again,) = RunFolder.open(out / "imported").walkers(0)
    np.testing.assert_allclose(again.table["potential_energy"], walker.table["potential_energy"], atol=0.05)


def _generate(kind: str, run: Path, out: Path) -> None:
    target = 1.1 * KINDS[kind][2]
    options = ["-T", str(target), "--samples", "100", "--structures", "5", "--method", "annealed"]
    called("generate", str(run), *options, "-o", str(out / "generated"), codes=POOR)
    assert list((out / "generated").rglob("*.dcd"))


def _observe(kind: str, run: Path, out: Path) -> None:
    target = 1.05 * KINDS[kind][2]
    options = ["-T", str(target), "--observable", "energy", "--method", "annealed"]
    called("observe", str(run), *options, "-o", str(out / "observed"), codes=POOR)
    assert list((out / "observed").glob("*"))


def _states(kind: str, run: Path, out: Path) -> None:
    called("states", str(run), "-o", str(out / "states"), codes=POOR)


def _report(kind: str, run: Path, out: Path) -> None:
    shutil.copytree(run, out / "run", symlinks=True)
    called("report", str(out / "run"))
    assert (out / "run" / "report" / "index.html").is_file()


def _verify(kind: str, run: Path, out: Path) -> None:
    called("verify", str(run))


def _export(kind: str, run: Path, out: Path) -> None:
    called("export", str(run), "-o", str(out / "cv.pt"))
    (walker,) = RunFolder.open(run).walkers(0)
    frames = walker.load(RunFolder.open(run).topology())
    z = torch.jit.load(str(out / "cv.pt"))(torch.from_numpy(frames.xyz[0].astype(np.float64)))
    assert z.shape == (2,)
    assert torch.isfinite(z).all()
    system = shared_system(RunFolder.open(run).config.system).system
    state = sorted(run.rglob("bias.pt"))[-1:]
    called("export", str(run), "--bias", "-o", str(out / "bias"), *(f"--state={file}" for file in state))
    assert latf.load_exported_bias(out / "bias").add_to(system).getNumForces() == system.getNumForces() + 1


COMMANDS: dict[str, Callable[[str, Path, Path], None]] = {
    "run": _run,
    "import": _import,
    "generate": _generate,
    "observe": _observe,
    "states": _states,
    "report": _report,
    "verify": _verify,
    "export": _export,
}


def _marks(kind: str, command: str) -> list[pytest.MarkDecorator]:
    fast = kind in ALL_COMMANDS or (kind not in SLOW and command in ESSENTIAL)
    return [] if fast else [pytest.mark.slow]


PRODUCT = [
    pytest.param(kind, command, marks=_marks(kind, command), id=f"{kind}-{command}")
    for kind in KINDS
    for command in COMMANDS
]


@pytest.mark.parametrize(("kind", "command"), PRODUCT)
def test_a_system_of_every_kind_through_every_command(
    finished: Callable[[str], Path], tmp_path: Path, kind: str, command: str
) -> None:
    COMMANDS[command](kind, finished(kind), tmp_path)


@pytest.mark.parametrize("kind", STARTED)
def test_init_of_every_kind(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("latf_openmm.run.platform_speeds._TRIAL", 0.05)
    monkeypatch.chdir(inputs)
    called("init", *STARTED[kind], "-o", str(tmp_path / "my.yaml"))
    assert yaml.safe_load((tmp_path / "my.yaml").read_text())["system"]["kind"] == kind
