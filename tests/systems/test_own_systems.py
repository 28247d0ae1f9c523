"""Systems read from a user's files: energies, a short loop with a biased round, and what is said of bad ones."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
import yaml
from helpers.own_files import BOX, FIELD, files  # noqa: F401 - a fixture
from openmm import app, unit

from latf_openmm.errors import ConfigError
from latf_openmm.run.config import load_config
from latf_openmm.run.frames import pool_of_rounds
from latf_openmm.run.loop import run_loop
from latf_openmm.systems import SYSTEM_KINDS
from latf_openmm.systems.base import BuiltSystem, SystemSettings
from latf_openmm.systems.water import make_rigid

FREE = {"cutoff": 0.9, "constraints": "none", "rigid_water": False}


KINDS: dict[str, dict[str, Any]] = {
    "amber": {"topology": "wet.prmtop", "coordinates": "wet.rst7", "options": FREE},
    "gromacs": {"topology": "wet.top", "coordinates": "wet.gro", "options": FREE},
    "charmm": {
        "topology": "wet.psf",
        "coordinates": "wet.crd",
        "parameters": ["wet.rtf", "wet.par"],
        "box": [BOX] * 3,
        "options": FREE,
    },
    "structure": {"structure": "wet.cif", "force_field": FIELD, "options": FREE},
    "serialized": {"structure": "wet.pdb", "system": "wet.xml"},
    "python": {"file": "make.py"},
}


def settings(files: Path, kind: str, **changes: Any) -> SystemSettings:
    data = {"kind": kind, **KINDS[kind], **changes}
    return SYSTEM_KINDS[kind].model_validate(data, context={"folder": files})


def energy(system: openmm.System, positions: Any) -> float:
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(positions)
    return float(context.getState(energy=True).getPotentialEnergy()._value)


def test_every_kind_of_ones_own_is_here() -> None:
    own = {name for name, kind in SYSTEM_KINDS.items() if not kind.in_library and kind.simulated}
    assert set(KINDS) == own


@pytest.mark.parametrize("kind", KINDS)
def test_energies_are_those_of_the_files(files: Path, kind: str) -> None:
    built = settings(files, kind).build()
    assert built.periodic
    assert built.positions.shape == (1, built.topology.getNumAtoms(), 3)
    system = openmm.XmlSerializer.deserialize((files / "wet.xml").read_text())
    exact = np.load(files / "positions.npy")
    if kind == "charmm":  # its scaling of 1-4 interactions is not Amber's: OpenMM's own route is the measure
        psf = app.CharmmPsfFile(str(files / "wet.psf"))
        psf.setBox(*[BOX * unit.nanometer] * 3)
        parameters = app.CharmmParameterSet(str(files / "wet.rtf"), str(files / "wet.par"))
        system = psf.createSystem(
            parameters,
            nonbondedMethod=app.PME,
            nonbondedCutoff=0.9 * unit.nanometer,
            constraints=None,
            rigidWater=False,
        )
    np.testing.assert_allclose(built.positions[0], exact, atol=1.1e-3 if kind == "gromacs" else 1e-4)
    assert energy(built.system, exact) == pytest.approx(energy(system, exact), abs=0.05)


def test_masses_constraints_and_solvent(files: Path) -> None:
    wet = settings(files, "amber", options={"cutoff": 0.9, "hydrogen_mass": 3.0}).build()
    constraints = [wet.system.getConstraintParameters(i) for i in range(wet.system.getNumConstraints())]
    atoms = list(wet.topology.atoms())
    water = [
        distance._value
        for i, j, distance in constraints
        if atoms[i].residue.name == "HOH" == atoms[j].residue.name
    ]
    # ParmEd's flexible water has an angle and no bond between hydrogens: OpenMM's reader leaves it flexible.
    assert len(water) == 3 * sum(residue.name == "HOH" for residue in wet.topology.residues())
    assert sorted({round(distance, 5) for distance in water}) == [0.09572, 0.15139]
    assert all(
        wet.system.getParticleMass(a.index)._value < 1.1
        for a in atoms
        if a.name in ("H1", "H2") and a.residue.name == "HOH"
    )
    masses = [
        wet.system.getParticleMass(atom.index)._value
        for atom in wet.topology.atoms()
        if atom.element.symbol == "H" and atom.residue.name != "HOH"
    ]
    np.testing.assert_allclose(masses, 3.0, atol=0.01)
    dry = settings(
        files, "structure", structure="dry.pdb", force_field=FIELD[:1], options={"implicit": "obc2"}
    ).build()
    assert not dry.periodic
    native = SYSTEM_KINDS["alanine_dipeptide"]().build()
    assert energy(dry.system, dry.positions[0]) == pytest.approx(
        energy(native.system, native.positions[0]), abs=0.01
    )


def flexible_water(name_of_residue: str) -> tuple[app.Topology, openmm.System]:
    """One molecule whose two bonds are constrained, and its angle is not."""
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue(name_of_residue, topology.addChain())
    for name, symbol, mass in (("O", "O", 16.0), ("H1", "H", 1.0), ("H2", "H", 1.0)):
        topology.addAtom(name, app.Element.getBySymbol(symbol), residue)
        system.addParticle(mass)
    for hydrogen in (1, 2):
        system.addConstraint(0, hydrogen, 0.09572)
    return topology, system


@pytest.mark.parametrize("name", ["WAT", "T3P", "TIP4EW", "XYZ"])
def test_water_is_rigid_whatever_it_is_called(name: str) -> None:
    topology, system = flexible_water(name)
    angles = openmm.HarmonicAngleForce()
    angles.addAngle(1, 0, 2, np.deg2rad(104.52), 500.0)
    system.addForce(angles)
    assert make_rigid(system, topology, "system.topology") == 1
    assert system.getConstraintParameters(2)[2]._value == pytest.approx(0.15139, abs=1e-5)


def test_water_that_cannot_be_rigid_is_refused() -> None:
    topology, system = flexible_water("WAT")
    with pytest.raises(
        ConfigError, match=r"system.topology: the water of atoms 0, 1 and 2 has no bond and no angle"
    ):
        make_rigid(system, topology, "system.topology")


@pytest.fixture
def configuration(files: Path) -> Callable[..., Path]:
    def write(kind: str, name: str = "loop.yaml", **changes: Any) -> Path:
        data = {
            "system": {"kind": kind, **KINDS[kind]},
            "seed": 1,
            "simulation": {
                "temperatures": [300, 350],
                "walkers": 1,
                "frames": 12,
                "frame_interval": 2,
                "timestep": 0.0005,
                "friction": 1.0,
                "platform": "CPU",
            },
            "features": [{"kind": "torsions", "angles": ["phi", "psi"]}],
            "model": {"encoder_hidden": []},
            "training": {
                "lag": 1,
                "initial_states": 2,
                "restarts": 1,
                "refinements": 2,
                "epochs_states": 1,
                "epochs_joint": 1,
                "epochs_flow": 1,
                "committee": 1,
            },
            "bias": {"kind": "harmonic", "centre": [0.0, 0.0], "force_constant": 5.0},
            "loop": {"rounds": 2},
        }
        for key, value in changes.items():
            data[key] = {**data[key], **value} if isinstance(data.get(key), dict) else value  # type: ignore[dict-item]
        path = files / name
        path.write_text(yaml.safe_dump(data))
        return path

    return write


@pytest.mark.parametrize(
    "kind", ["amber", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gromacs", "charmm"))]
)
def test_a_loop_with_a_biased_round(
    files: Path, configuration: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    run = run_loop(load_config(configuration(kind)), tmp_path / "run")
    assert len(run.complete_rounds()) == 2
    for walker in run.walkers(1):
        frames = walker.load(run.topology())
        assert frames.n_frames == 12
        np.testing.assert_allclose(frames.unitcell_lengths, BOX, atol=1e-3)
    biased = [walker for walker in run.walkers(1) if walker.run.startswith("001")]
    assert all((walker.table["bias_energy"] > 0).all() for walker in biased)
    pool = pool_of_rounds(run, 1)
    inside = mdtraj.compute_phi(biased[0].load(run.topology()))[1][:, 0]
    assert np.isfinite(pool.z).all()
    assert np.isfinite(inside).all()


# what is changed, and what has to be said
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("amber", {"topology": "gone.prmtop"}, r"system\.topology: .*gone\.prmtop: no such file"),
    ("amber", {"coordinates": "gone.rst7"}, r"system\.coordinates: .*gone\.rst7: no such file"),
    ("amber", {"topology": "wet.gro"}, r"system\.topology: .*wet\.gro cannot be read"),
    ("amber", {"coordinates": "wet.pdb"}, r"system\.coordinates: .*wet\.pdb cannot be read"),
    (
        "amber",
        {"options": {"cutoff": 1.5}},
        r"box is 2\.3 nm wide, which is less than twice the cutoff of 1\.5 nm",
    ),
    ("amber", {"options": {"implicit": "obc2"}}, "implicit solvent is for structures without a periodic box"),
    ("gromacs", {"coordinates": "wet.top"}, r"system\.coordinates: .*wet\.top cannot be read"),
    ("gromacs", {"topology": "broken.top"}, r"system\.topology: .*broken\.top cannot be read"),
    ("gromacs", {"options": {"cutoff": 2.0}}, "less than twice the cutoff"),
    (
        "charmm",
        {"parameters": ["wet.rtf", "gone.par"]},
        r"system\.parameters\[1\]: .*gone\.par: no such file",
    ),
    ("charmm", {"parameters": ["wet.rtf"]}, r"system\.parameters: no System can be made"),
    ("charmm", {"coordinates": "dry.pdb"}, "its parts do not fit together: the topology has"),
    ("structure", {"structure": "gone.pdb"}, r"system\.structure: .*gone\.pdb: no such file"),
    ("structure", {"structure": "wet.gro"}, r"system\.structure: .*wet\.gro|there are no atoms"),
    ("structure", {"force_field": ["amber98.xml"]}, r"system\.force_field: .*amber98\.xml.* cannot be read"),
    (
        "structure",
        {"force_field": FIELD[:1]},
        r"system\.force_field: no System can be made \(No template found for",
    ),
    ("structure", {"structure": "dry.pdb", "options": {"method": "pme"}}, "'pme' needs a periodic box"),
    (
        "serialized",
        {"structure": "dry.pdb"},
        "the topology has 22 atoms, the System has",
    ),
    ("serialized", {"system": "wet.pdb"}, r"system\.system: .*wet\.pdb cannot be read"),
    ("python", {"file": "gone.py"}, r"system\.file: .*gone\.py: no such file"),
    ("python", {"function": "nothing"}, r"make\.py has no function 'nothing'; it has"),
    ("python", {"function": "number"}, r"make\.py has no function 'number'"),
    (
        "python",
        {"function": "wrong"},
        r"must return \(openmm\.System, openmm\.app\.Topology, positions\), got int",
    ),
    ("python", {"function": "fails"}, r"make\.py failed \(RuntimeError: no\)"),
]


@pytest.mark.parametrize(("kind", "changes", "message"), BAD)
def test_bad_files(files: Path, kind: str, changes: dict[str, Any], message: str) -> None:
    (files / "broken.top").write_text("[ moleculetype ]\nnonsense\n[ atoms ]\n1 2\n")
    with pytest.raises(ConfigError, match=message) as caught:
        settings(files, kind, **changes).build()
    assert "\n" not in str(caught.value)


def test_bad_values_name_file_and_key(configuration: Callable[..., Path]) -> None:
    path = configuration("charmm", "bad.yaml", system={"box": [1.0, 2.0]})
    with pytest.raises(
        ConfigError, match=r"bad\.yaml: system\.box: expected three lengths above 0, and three angles"
    ):
        load_config(path)
    path = configuration("amber", "bad.yaml", system={"options": {"constraint": "hbonds"}})
    with pytest.raises(ConfigError, match=r"options\.constraint: unknown key; did you mean 'constraints'"):
        load_config(path)
    path = configuration("amber", "bad.yaml", simulation={"temperatures": [27, 6000]})
    with pytest.raises(ConfigError, match="6000 is not a possible temperature"):
        load_config(path)
    path = configuration("amber", "bad.yaml", system={"topology": "gone.prmtop"})
    with pytest.raises(ConfigError, match=r"bad\.yaml: system\.topology: .*gone\.prmtop: no such file"):
        load_config(path)


def _without_box(files: Path, name: str) -> str:
    """The same coordinates in a file that says no box."""
    lines = (files / name).read_text().splitlines(keepends=True)
    if name.endswith(".pdb"):
        lines = [line for line in lines if not line.startswith("CRYST1")]
    else:
        lines = lines[:-1]
    (files / f"nobox_{name}").write_text("".join(lines))
    return f"nobox_{name}"


def box_of(built: BuiltSystem) -> np.ndarray:
    return np.array([vector._value for vector in built.system.getDefaultPeriodicBoxVectors()])


def test_a_box_that_one_file_says_is_the_box(files: Path) -> None:
    for kind, changes in (
        ("amber", {"coordinates": _without_box(files, "wet.rst7")}),
        ("charmm", {"coordinates": "wet.pdb", "box": None}),
        ("charmm", {"box": [BOX, BOX, BOX, 90.0, 90.0, 90.0]}),
        ("serialized", {"structure": _without_box(files, "wet.pdb")}),
    ):
        built = settings(files, kind, **changes).build()
        assert built.periodic
        np.testing.assert_allclose(box_of(built), BOX * np.eye(3), atol=1e-3)
    system = openmm.XmlSerializer.deserialize((files / "wet.xml").read_text())
    system.setDefaultPeriodicBoxVectors(*(3.0 * np.eye(3)))
    (files / "other.xml").write_text(openmm.XmlSerializer.serialize(system))
    np.testing.assert_allclose(
        box_of(settings(files, "serialized", system="other.xml").build()), BOX * np.eye(3), atol=1e-3
    )


def test_a_box_that_no_file_says_is_refused_where_there_is_water(files: Path) -> None:
    pdb, crd = _without_box(files, "wet.pdb"), {"box": None}
    for kind, changes, where in (
        ("structure", {"structure": pdb}, "nobox_wet.pdb"),
        ("charmm", crd, "system.box"),
        ("charmm", {"coordinates": pdb, **crd}, "nobox_wet.pdb and system.box"),
    ):
        with pytest.raises(ConfigError, match=rf"water molecules and no periodic box in .*{where}"):
            settings(files, kind, **changes).build()
        options = {**FREE, "method": "pme"}
        with pytest.raises(ConfigError, match=rf"'pme' needs a periodic box, and there is none in .*{where}"):
            settings(files, kind, **{**changes, "options": options}).build()
    assert (
        not settings(files, "structure", structure=pdb, options={**FREE, "method": "none"}).build().periodic
    )


@pytest.mark.parametrize("kind", ["serialized", "python"])
def test_water_in_a_system_without_a_box_is_told(
    files: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenMM's `createSystem` makes no box unless it is told the method."""
    text = (files / "wet.xml").read_text()
    system = openmm.XmlSerializer.deserialize(text)
    (force,) = (force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    force.setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
    (files / "vacuum.xml").write_text(openmm.XmlSerializer.serialize(system))
    (files / "vacuum.py").write_text(
        "import openmm\nfrom pathlib import Path\nfrom openmm import app\nfolder = Path(__file__).parent\n"
        "def make():\n    pdb = app.PDBFile(str(folder / 'wet.pdb'))\n"
        "    text = (folder / 'vacuum.xml').read_text()\n"
        "    return openmm.XmlSerializer.deserialize(text), pdb.topology, pdb.positions\n"
    )
    changes = {"serialized": {"system": "vacuum.xml"}, "python": {"file": "vacuum.py"}}[kind]
    settings(files, kind).build()
    assert "droplet" not in caplog.text
    assert not settings(files, kind, **changes).build().periodic
    assert "water molecules and no force that is periodic: a droplet in vacuum" in caplog.text


def test_dummy_boxes_and_crystals_are_no_boxes_of_solvent(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dry = (files / "dry.pdb").read_text()
    body = "".join(line for line in dry.splitlines(keepends=True) if not line.startswith("CRYST1"))
    cryst = "CRYST1{0:9.3f}{0:9.3f}{0:9.3f}  90.00  90.00  90.00 P 1           1\n"
    options = {"implicit": "obc2"}
    for name, edge, method in (("dummy", 1.0, "auto"), ("crystal", 51.263, "none")):
        (files / f"{name}.pdb").write_text(cryst.format(edge) + body)
        built = settings(
            files,
            "structure",
            structure=f"{name}.pdb",
            force_field=FIELD[:1],
            options={**options, "method": method},
        ).build()
        assert not built.periodic
        assert built.topology.getPeriodicBoxVectors() is None
    settings(files, "structure").build()
    assert "mostly vacuum" not in caplog.text
    empty = settings(
        files, "structure", structure="crystal.pdb", force_field=FIELD[:1], options={"constraints": "none"}
    )
    assert empty.build().periodic
    assert re.search(r"box of 5\.13 x 5\.13 x 5\.13 nm of .* holds 0\.0018 g/cm\^3", caplog.text)


def test_start_structures_broken_at_the_box_are_whole(files: Path) -> None:
    pdb = app.PDBFile(str(files / "wet.pdb"))
    x = np.array(pdb.positions._value) % BOX
    app.PDBFile.writeFile(pdb.topology, x * unit.nanometer, (files / "wrapped.pdb").open("w"), keepIds=True)
    plain, broken = (
        settings(files, "serialized", structure=f"{name}.pdb").build() for name in ("wet", "wrapped")
    )
    assert energy(plain.system, x) > 1e5
    assert energy(broken.system, broken.positions[0]) == pytest.approx(
        energy(plain.system, plain.positions[0]), abs=0.5
    )


def test_a_box_that_is_not_that_of_the_positions_is_refused(files: Path) -> None:
    text = (files / "wet.pdb").read_text().replace("  23.000   23.000   23.000", "  18.200   18.200   10.000")
    (files / "dense.pdb").write_text(text)
    with pytest.raises(ConfigError, match="less than twice the cutoff"):
        settings(files, "serialized", structure="dense.pdb").build()
    with pytest.raises(ConfigError, match=r"atoms in a box of .* nm are \d+ per nm\^3, water has 100"):
        settings(files, "structure", structure="dense.pdb", options={**FREE, "cutoff": 0.4}).build()


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_have_one_copy(files: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match="the System is periodic, and copies in one System must not feel"):
        settings(files, kind).build(2)


def test_copies_in_implicit_solvent(files: Path) -> None:
    own = settings(
        files, "structure", structure="dry.pdb", force_field=FIELD[:1], options={"implicit": "obc2"}
    )
    one, two = own.build(), own.build(2)
    assert two.positions.shape == (2, one.n_atoms, 3)
    moved = one.positions + np.array([[0.0, 0.0, 0.01]]) * np.sin(np.arange(one.n_atoms))[:, None]
    both = np.concatenate([one.positions, moved])
    change = energy(two.system, two.placed(both).reshape(-1, 3))
    change -= energy(two.system, two.placed(two.positions).reshape(-1, 3))
    assert change == pytest.approx(
        energy(one.system, moved[0]) - energy(one.system, one.positions[0]), abs=1e-6
    )


def test_paths_are_relative_to_the_configuration(
    files: Path, configuration: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(configuration("serialized", "relative.yaml"))
    built: BuiltSystem = config.system.build()
    assert built.n_atoms > 1000
    again = SYSTEM_KINDS["serialized"].model_validate(config.system.model_dump(mode="json"))
    assert again == config.system
