"""Files of a user's own: where they are looked for, how they run, and what is proposed for them."""

import re
import sys
from pathlib import Path
from typing import Any

import mdtraj
import openmm
import pytest
import yaml
from openmm import app

from latf_openmm.errors import ConfigError
from latf_openmm.labels import to_mdtraj
from latf_openmm.run import init as starter, platform_speeds
from latf_openmm.run.config import RunConfig
from latf_openmm.run.init import _features, _system
from latf_openmm.settings import validate
from latf_openmm.systems import SYSTEM_KINDS, library_folder

PDB = library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"
MAKE = """
    import openmm
    from openmm import app
    system, topology = openmm.System(), app.Topology()
    system.addParticle(1.0)
    topology.addAtom("A", app.element.argon, topology.addResidue("A", topology.addChain()))
    return system, topology, [[{x}, 0, 0]]
"""


def built(kind: str, folder: Path, **settings: Any) -> Any:
    cls: Any = SYSTEM_KINDS[kind]
    return cls.model_validate(settings, context={"folder": folder}).build()


def test_a_python_file_finds_the_modules_beside_it_and_only_those(tmp_path: Path) -> None:
    for name, x in (("one", 1.0), ("two", 2.0)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "latf_helper.py").write_text("def make():" + MAKE.format(x=x))
        (folder / "system.py").write_text("from latf_helper import make\n")
    path, modules = list(sys.path), set(sys.modules)
    for name, x in (("one", 1.0), ("two", 2.0)):
        assert built("python", tmp_path, file=f"{name}/system.py").positions[0, 0, 0] == x
    assert sys.path == path
    assert not [
        name for name in set(sys.modules) - modules if "latf_helper" in name or "system_system" in name
    ]


def test_a_python_file_may_define_dataclasses_with_postponed_annotations(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text(  # a name that is taken
        "from __future__ import annotations\n\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n\n"
        "@dataclass\nclass Model:\n    n: int = 1\n    kind: ClassVar[int] = 2\n\ndef make():"
        + MAKE.format(x=3)
    )
    assert built("python", tmp_path, file="numpy.py").n_atoms == 1


def test_own_force_fields_lie_beside_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(openmm.app.__file__).parent / "data"
    (tmp_path / "mine.xml").write_text((data / "amber99sb.xml").read_text())
    (tmp_path / "tip3p.xml").write_text("<ForceField/>")  # OpenMM has one of that name
    monkeypatch.chdir("/")
    cls: Any = SYSTEM_KINDS["structure"]
    settings = {"structure": str(PDB), "force_field": ["mine.xml", "tip3p.xml"]}
    system = cls.model_validate(settings, context={"folder": tmp_path})
    assert system.force_field == [str(tmp_path / "mine.xml"), "tip3p.xml"]
    assert system.build().n_atoms == 22
    with pytest.raises(ConfigError, match=r"missing\.xml"):
        built("structure", tmp_path, structure=str(PDB), force_field=["missing.xml"])


def test_init_names_own_force_fields_relative_to_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform_speeds, "_TRIAL", 0.01)
    data = Path(openmm.app.__file__).parent / "data"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.xml").write_text((data / "amber99sb.xml").read_text())
    monkeypatch.chdir(tmp_path)
    found = starter.write_starter([PDB], Path("sub/my.yaml"), ["sub/mine.xml", "amber99_obc.xml"])
    section = yaml.safe_load(found.path.read_text())["system"]
    assert section["force_field"] == ["mine.xml", "amber99_obc.xml"]


def test_mmcif_and_pdb_get_the_same_proposal(tmp_path: Path) -> None:
    pdb = app.PDBFile(str(PDB))
    app.PDBxFile.writeFile(pdb.topology, pdb.positions, (tmp_path / "a.cif").open("w"))
    lines = [line for line in PDB.read_text().splitlines() if line.startswith(("ATOM", "HETATM"))]
    models = ["MODEL        1", *lines, "ENDMDL", "MODEL        2", *lines[:-1], "ENDMDL", "END"]
    (tmp_path / "two.pdb").write_text("\n".join(models))
    for path in (PDB, tmp_path / "a.cif", tmp_path / "two.pdb"):
        assert _system([path], []) == {
            "kind": "structure",
            "structure": str(path),
            "force_field": ["amber14-all.xml"],
            "options": {"hydrogen_mass": 3.0, "method": "none", "implicit": "obc2"},
        }


def test_torsions_that_are_not_there_are_not_proposed() -> None:
    chignolin = mdtraj.load(str(library_folder("chignolin") / "chignolin.pdb")).topology
    beads = chignolin.subset(chignolin.select("name CA"))
    distances = {"kind": "distances", "selection": "name CA and protein", "minimum_bonds": 4}
    assert _features(beads) == [distances]
    assert _features(chignolin) == [distances, {"kind": "torsions", "angles": ["phi", "psi"]}]


def test_caps_in_the_residue_as_charmm_has_them() -> None:
    topology = to_mdtraj(app.PDBFile(str(PDB)).topology)
    caps = mdtraj.Topology()
    residue = caps.add_residue("ALA", caps.add_chain())
    for atom in topology.atoms:
        name = atom.name if atom.residue.name == "ALA" else f"{atom.name}{atom.residue.name[0]}"
        caps.add_atom(name, atom.element, residue)
    for first, second in topology.bonds:
        caps.add_bond(caps.atom(first.index), caps.atom(second.index))
    assert _features(caps) == [{"kind": "distances", "selection": "heavy", "minimum_bonds": 3}]


def test_atoms_of_a_residue_that_have_the_same_name_are_refused(tmp_path: Path) -> None:
    lines = [line for line in PDB.read_text().splitlines() if line.startswith(("ATOM", "HETATM"))]
    text = [f"HETATM{line[6:12]} {line[77]}   LIG A   1{line[26:]}" for line in lines]
    (tmp_path / "l.pdb").write_text("\n".join(text))
    with pytest.raises(
        ConfigError, match=r"l\.pdb: 18 atoms have the name of another of their residue.*LIG A"
    ):
        built("structure", tmp_path, structure="l.pdb", force_field=["amber14-all.xml"])


@pytest.mark.parametrize(
    ("key", "value", "unit"),
    [
        ("timestep", 2, "fs"),
        ("timestep", 2e-15, "s"),
        ("timestep", 2e-6, "ns"),
        ("friction", 1e12, "1/s"),
    ],
)
def test_values_in_another_unit_are_refused(key: str, value: float, unit: str) -> None:
    data = yaml.safe_load((library_folder("alanine_dipeptide") / "loop.yaml").read_text())
    data["simulation"][key] = value
    with pytest.raises(
        ConfigError, match=rf"simulation\.{key}: {re.escape(f'{value:g}')}.* \(is it in {unit}\?\)"
    ):
        validate(RunConfig, data, "file")
    data["simulation"] |= {"timestep": 0.03, "friction": 100.0}  # Martini
    assert validate(RunConfig, data, "file").simulation.timestep == 0.03
