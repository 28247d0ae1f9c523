"""Bonds of a user's system: as long as chemistry allows, and known where only the System says them."""

from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from numpy.typing import NDArray
from openmm import app, unit

from latf_openmm.errors import ConfigError
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.hydrogen_bonds import HydrogenBondSettings
from latf_openmm.periodic import molecules_of
from latf_openmm.systems import SYSTEM_KINDS, library_folder
from latf_openmm.systems.bonds import add_missing_bonds, check_start, springs

PDB = library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"
CHIGNOLIN = library_folder("chignolin") / "chignolin.pdb"


def dipeptide(**options: Any) -> tuple[app.PDBFile, openmm.System]:
    pdb = app.PDBFile(str(PDB))
    return pdb, app.ForceField("amber14-all.xml").createSystem(pdb.topology, **options)


def ligand(folder: Path) -> Path:
    """The dipeptide as one residue no program knows, without CONECT."""
    lines = [line for line in PDB.read_text().splitlines() if line.startswith(("ATOM", "HETATM"))]
    text = [f"HETATM{line[6:12]}{line[77] + str(n):>4} LIG A   1{line[26:]}" for n, line in enumerate(lines)]
    (folder / "ligand.pdb").write_text("\n".join(text))
    return folder / "ligand.pdb"


@pytest.mark.parametrize("constraints", [None, app.HBonds, app.HAngles])
def test_a_ligand_without_conect_has_the_bonds_of_its_system(tmp_path: Path, constraints: Any) -> None:
    pdb, system = dipeptide(constraints=constraints)
    (tmp_path / "s.xml").write_text(openmm.XmlSerializer.serialize(system))
    kind: Any = SYSTEM_KINDS["serialized"]
    topology = kind(system=tmp_path / "s.xml", structure=ligand(tmp_path)).build().mdtraj_topology()
    right = sorted(sorted((a.index, b.index)) for a, b in pdb.topology.bonds())
    assert sorted(sorted((a.index, b.index)) for a, b in topology.bonds) == right
    assert set(molecules_of(topology)) == {0}
    pairs: Any = DistanceSettings(selection="element != H", minimum_bonds=3).resolve(topology)
    assert len(pairs.pairs) == 25
    hydrogen_bonds: Any = HydrogenBondSettings(minimum_separation=0).resolve(topology)
    assert len(hydrogen_bonds.bonds) == 4  # two amides with two carbonyls


def test_restraints_rigid_water_and_urey_bradley_are_no_bonds() -> None:
    topology, system, force = app.Topology(), openmm.System(), openmm.HarmonicBondForce()
    residue = topology.addResidue("HOH", topology.addChain())
    for name, element in (("O", "O"), ("H1", "H"), ("H2", "H")):
        topology.addAtom(name, app.Element.getBySymbol(element), residue)
        system.addParticle(1.0)
    system.addConstraint(0, 1, 0.09572)
    system.addConstraint(0, 2, 0.09572)
    system.addConstraint(1, 2, 0.15139)
    other = topology.addResidue("LIG", topology.addChain())
    for name in ("C1", "C2", "C3", "C4"):
        topology.addAtom(name, app.element.carbon, other)
        system.addParticle(12.0)
    for i, j, length, k in ((3, 4, 0.153, 2e5), (4, 5, 0.153, 2e5), (3, 5, 0.25, 5e4), (5, 6, 0.153, 2e5)):
        force.addBond(i, j, length, k)
    force.addBond(3, 6, 1.0, 1000.0)
    system.addForce(force)
    add_missing_bonds(topology, springs(system))
    bonds = {(a.index, b.index) for a, b in topology.bonds()}
    assert bonds == {(0, 1), (0, 2), (3, 4), (4, 5), (5, 6)}


def test_a_bond_over_a_gap_of_the_chain_is_named(tmp_path: Path) -> None:
    kept = [line for line in CHIGNOLIN.read_text().splitlines() if line[22:26].strip() not in "4567"]
    (tmp_path / "gap.pdb").write_text("\n".join(line for line in kept if not line.startswith("CONECT")))
    kind: Any = SYSTEM_KINDS["structure"]
    settings = kind(structure=tmp_path / "gap.pdb", force_field=["amber14-all.xml"])
    with pytest.raises(
        ConfigError, match=r"gap\.pdb: atoms ASP3-C and THR8-N are bound and 0\.\d+ nm apart.*TER"
    ):
        settings.build()


@pytest.mark.parametrize(
    ("factor", "cause"),
    [(10.0, "in Angstrom, and read as nanometres"), (0.1, "in nanometres, and read as Ang")],
)
def test_positions_in_another_unit_are_named(factor: float, cause: str) -> None:
    pdb, system = dipeptide()
    xyz: NDArray[np.float64] = np.array(pdb.positions.value_in_unit(unit.nanometer))
    check_start(pdb.topology, system, springs(system), xyz, "file.py")
    with pytest.raises(ConfigError, match=rf"file\.py: .*21 of 21 bonds are wrong\): positions are {cause}"):
        check_start(pdb.topology, system, springs(system), factor * xyz, "file.py")
    with pytest.raises(ConfigError, match="another order"):
        check_start(pdb.topology, system, springs(system), xyz[::-1], "file.py")


def test_beads_that_are_called_carbon_are_not_taken_for_atoms() -> None:
    topology, system = app.Topology(), openmm.System()
    chain, before = topology.addChain(), None
    for index in range(3):
        bead = topology.addAtom("CA", app.element.carbon, topology.addResidue("ALA", chain))
        system.addParticle(110.0)
        if before is not None:
            topology.addBond(before, bead)
        before = bead
        assert index == bead.index
    check_start(topology, system, {}, np.arange(9.0).reshape(3, 3) * 0.0733, "model")


def test_positions_of_a_python_file_may_be_a_list_of_quantities(tmp_path: Path) -> None:
    (tmp_path / "make.py").write_text(
        "from openmm import app, unit\n"
        "def make():\n"
        f"    pdb = app.PDBFile({str(PDB)!r})\n"
        "    positions = [unit.Quantity(list(p), unit.angstrom) for p in pdb.positions.value_in_unit(unit.angstrom)]\n"
        "    return app.ForceField('amber14-all.xml').createSystem(pdb.topology), pdb.topology, positions\n"
    )
    kind: Any = SYSTEM_KINDS["python"]
    right = np.array(app.PDBFile(str(PDB)).positions.value_in_unit(unit.nanometer))
    np.testing.assert_allclose(kind(file=tmp_path / "make.py").build().positions[0], right, atol=1e-12)
