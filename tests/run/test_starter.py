"""A first configuration for files of one's own: it is valid, says what it costs, and refuses what it cannot use."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.own_files import files, parmed  # noqa: F401 - one is a fixture
from helpers.wells import WELL
from openmm import app
from typer.testing import CliRunner

from latf_openmm.cli import app as cli
from latf_openmm.errors import ConfigError
from latf_openmm.run.config import load_config
from latf_openmm.run.init import write_starter
from latf_openmm.run.init_template import KEYS_COMMENT
from latf_openmm.run.platform_speeds import speeds_text
from latf_openmm.sampling.clock import Clock
from latf_openmm.systems import library_folder

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latf_openmm.run.platform_speeds._TRIAL", 0.05)


@pytest.mark.parametrize(
    ("names", "kind", "descriptors"),
    [
        (["wet.prmtop", "wet.rst7"], "amber", 29),
        (["wet.top", "wet.gro"], "gromacs", 29),
        (["wet.psf", "wet.pdb", "wet.rtf", "wet.par"], "charmm", 29),
        (["wet.xml", "wet.pdb"], "serialized", 29),
        (["dry.pdb"], "structure", 29),
    ],
)
def test_what_is_proposed_can_be_run(
    files: Path,
    tmp_path: Path,
    names: list[str],
    kind: str,
    descriptors: int,
) -> None:
    found = write_starter([files / name for name in names], tmp_path / "sub" / "my.yaml")
    config = load_config(found.path)
    assert config.system.kind == kind
    assert found.n_features == descriptors
    assert found.n_atoms == config.system.build().n_atoms
    assert found.steps_per_second > 0
    assert found.hours > 0
    assert found.speeds[found.platform] == found.steps_per_second
    assert "CPU" in found.speeds
    text = found.path.read_text()
    assert f"\n{KEYS_COMMENT}\n" in text
    assert f"were nothing else at work: {speeds_text(found.speeds)}." in text
    assert "Training comes on top." in text
    assert f"{found.n_atoms} atoms; {found.platform} takes" in text
    assert (config.simulation.timestep == 0.004) == ("hydrogen mass repartitioning (3 amu)" in text)
    data = yaml.safe_load(text)
    assert not any(str(files) in str(value) for value in data["system"].values())  # relative


def test_speeds_are_those_of_a_machine_that_does_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of the calling thread and two of four others; the rest of the wall time went to other programs."""
    times = iter([(0.0, 0.0, 0.0), (10.0, 2.5, 0.5)])
    monkeypatch.setattr(Clock, "_now", staticmethod(lambda: next(times)))
    assert Clock().alone(threads=4) == pytest.approx(0.5 + 2.0 / 4)


def test_water_in_files_that_cannot_have_a_box_is_refused(files: Path, tmp_path: Path) -> None:
    names = ["wet.psf", "wet.crd", "wet.rtf", "wet.par"]
    with pytest.raises(
        ConfigError, match=r"no periodic box in system\.box \(nor can it be in a crd file; it can in a PDB"
    ):
        write_starter([files / name for name in names], tmp_path / "my.yaml")


def test_a_protein(tmp_path: Path) -> None:
    path = library_folder("chignolin") / "chignolin.pdb"
    out = tmp_path / "my.yaml"
    result = RUNNER.invoke(cli, ["init", str(path), "-o", str(out)])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "166 atoms, not periodic, implicit solvent OBC2, " in said
    assert "steps a second for one walker, were nothing else at work: " in said
    assert "training is not included" in said
    config = load_config(out)
    assert config.system.options.implicit == "obc2"  # type: ignore[attr-defined]
    assert [feature.kind for feature in config.features] == ["distances", "torsions"]
    # What is proposed in a comment is valid too.
    assert config.simulation.tempering is None
    text = out.read_text()
    (tmp_path / "moving.yaml").write_text(text.replace("  # tempering:", "  tempering:"))
    moving = load_config(tmp_path / "moving.yaml").simulation.tempering
    assert moving is not None
    assert (moving.kind, moving.interval) == ("exchange", 50)
    with pytest.raises(ConfigError, match="a configuration is never overwritten"):
        write_starter([path], out)


def forces(text: str, file: Path) -> set[str]:
    """Names of the forces of the System of a configuration."""
    file.write_text(text)
    return {force.getName() for force in load_config(file).system.build().system.getForces()}


def test_a_comment_says_what_stands_for_water_and_what_to_write_for_another(
    files: Path, tmp_path: Path
) -> None:
    """What it proposes can be built."""
    changed = files / "changed.yaml"
    dry = write_starter([files / "dry.pdb"], files / "dry.yaml")
    assert dry.surroundings == "not periodic, implicit solvent OBC2"
    text = dry.path.read_text()
    comment = text.partition("\nsystem:\n")[0]
    for words in ("no water in the file", "OBC2", "implicit/gbn2.xml", "vacuum", "Modeller.addSolvent"):
        assert words in comment
    assert "GBSAOBCForce" in forces(text, changed)
    vacuum = text.replace("implicit: obc2}", "implicit: none}")
    assert not {"GBSAOBCForce", "CustomGBForce"} & forces(vacuum, changed)
    other = vacuum.replace("[amber14-all.xml]", "[amber14-all.xml, implicit/gbn2.xml]")
    assert "CustomGBForce" in forces(other, changed)
    wet = write_starter([files / "wet.pdb"], tmp_path / "wet.yaml")
    assert wet.surroundings == "periodic"
    assert "water in the file" not in wet.path.read_text()
    serialized = write_starter([files / "wet.xml", files / "wet.pdb"], tmp_path / "xml.yaml")
    assert "solvent" not in serialized.path.read_text().partition("\nsystem:\n")[0]


def test_parameters_without_a_solvent_are_said_to_be_in_vacuum(files: Path, tmp_path: Path) -> None:
    pdb = app.PDBFile(str(files / "dry.pdb"))
    system = app.ForceField("amber14-all.xml").createSystem(pdb.topology)
    structure = parmed.openmm.load_topology(pdb.topology, system, pdb.positions)
    for name in ("dry.prmtop", "dry.rst7"):
        structure.save(str(tmp_path / name))
    starter = write_starter([tmp_path / "dry.prmtop", tmp_path / "dry.rst7"], tmp_path / "my.yaml")
    assert starter.surroundings == "not periodic, in vacuum"
    text = starter.path.read_text()
    assert "these atoms are in vacuum" in text
    solvated = text.replace("{hydrogen_mass: 3.0}", "{hydrogen_mass: 3.0, implicit: obc2}")
    assert "GBSAOBCForce" in forces(solvated, tmp_path / "changed.yaml")


def test_a_force_field_with_an_implicit_solvent_gets_no_second_one(files: Path, tmp_path: Path) -> None:
    fields = ["amber14-all.xml", "implicit/gbn2.xml"]
    starter = write_starter([files / "dry.pdb"], files / "gbn2.yaml", fields)
    assert starter.surroundings == "not periodic, implicit solvent of the force field"
    text = starter.path.read_text()
    assert "the implicit solvent is that of force_field" in text
    names = forces(text, files / "changed.yaml")
    assert "CustomGBForce" in names
    assert "GBSAOBCForce" not in names
    with pytest.raises(
        ConfigError, match=r"second implicit solvent, system\.force_field brings one; expected"
    ):
        forces(text.replace("implicit: none}", "implicit: obc2}"), files / "changed.yaml")


def test_a_time_step_and_a_frame_interval_that_were_asked_for(tmp_path: Path) -> None:
    """As of trajectories that there are already."""
    path = library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"
    out = tmp_path / "my.yaml"
    asked = ["--timestep", "0.001", "--frame-interval", "250"]
    result = RUNNER.invoke(cli, ["init", str(path), "-o", str(out), *asked])
    assert result.exit_code == 0, result.output
    simulation = load_config(out).simulation
    assert (simulation.timestep, simulation.frame_interval) == (0.001, 250)
    assert "frame_interval: 250     # steps: 0.25 ps" in out.read_text()
    other = write_starter([path], tmp_path / "other.yaml", timestep=0.001)
    assert load_config(other.path).simulation.frame_interval == 1000


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"timestep": 2.0}, r"^timestep: 2 ps is not possible for a molecule \(is it in fs\?\)"),
        (
            {"timestep": 0.0},
            r"^simulation: timestep: input should be greater than 0, got 0\.0 \(integration step",
        ),
        (
            {"frame_interval": 0},
            "^simulation: frame_interval: input should be greater than or equal to 1, got 0",
        ),
    ],
)
def test_steps_that_are_not_possible_are_refused_before_anything_is_tried(
    asked: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("latf_openmm.run.init.platform_speeds")
    path = library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"
    with pytest.raises(ConfigError, match=message):
        write_starter([path], tmp_path / "my.yaml", **asked)
    assert not list(tmp_path.iterdir())


def test_a_nucleic_acid(tmp_path: Path) -> None:
    found = write_starter([library_folder("rna_tetraloop") / "rna_tetraloop.pdb"], tmp_path / "my.yaml")
    config = load_config(found.path)
    assert [feature.kind for feature in config.features] == ["base_vectors"]
    assert found.n_features == 360


def test_a_particle_in_a_field(tmp_path: Path) -> None:
    (tmp_path / "well.py").write_text(WELL)
    found = write_starter([tmp_path / "well.py"], tmp_path / "my.yaml")
    config = load_config(tmp_path / "my.yaml")
    assert [feature.kind for feature in config.features] == ["coordinates"]
    assert found.n_features == 3
    (tmp_path / "free.py").write_text(WELL.replace("force.addParticle(0, [])", ""))
    with pytest.raises(ConfigError, match=r"free\.py: no features can be proposed"):
        write_starter([tmp_path / "free.py"], tmp_path / "free.yaml")


def test_what_cannot_be_used(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "my.yaml"
    water = app.PDBFile(str(files / "wet.pdb"))
    model = app.Modeller(water.topology, water.positions)
    model.delete([residue for residue in water.topology.residues() if residue.name != "HOH"])
    app.PDBFile.writeFile(model.topology, model.positions, (files / "water.pdb").open("w"))
    for names, message in (
        (["gone.pdb"], r"gone\.pdb: no such file"),
        (["wet.prmtop"], "coordinates are missing; expected a file .inpcrd"),
        (["wet.psf", "wet.crd"], "parameters are missing"),
        (["positions.npy"], "expected a PDB or mmCIF file"),
        (["wet.prmtop", "wet.pdb"], "coordinates are missing"),
        (["water.pdb"], r"water\.pdb: no features can be proposed"),
    ):
        with pytest.raises(ConfigError, match=message):
            write_starter([files / name for name in names], out)
        assert not out.exists()
