"""What is protein, nucleic acid, water, ion and solute, and that selections mean the same."""

import logging

import mdtraj
import numpy as np
import pytest
from openmm import app, unit

from latf_openmm.errors import ConfigError
from latf_openmm.features.base import select_atoms
from latf_openmm.features.contacts import ContactSettings
from latf_openmm.features.hydrogen_bonds import HydrogenBondSettings
from latf_openmm.features.solute import (
    Kind,
    alpha_carbons,
    heavy_atoms,
    ion_atoms,
    nucleic_atoms,
    protein_atoms,
    residue_kinds,
    solute_atoms,
    trace_atoms,
    water_atoms,
)
from latf_openmm.labels import to_mdtraj
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.systems.base import particle_topology
from latf_openmm.systems.chignolin import ChignolinSettings
from latf_openmm.systems.rna_tetraloop import RnaTetraloopSettings

PEPTIDE = ChignolinSettings().build()
RNA = RnaTetraloopSettings().build()


def solvated(water: str = "tip3p", salt: float = 0.5) -> mdtraj.Topology:
    forces = app.ForceField("amber14-all.xml", f"amber14/{water}.xml")
    modeller = app.Modeller(PEPTIDE.topology, PEPTIDE.positions[0])
    modeller.addSolvent(forces, model=water, numAdded=150, ionicStrength=salt * unit.molar)
    return to_mdtraj(modeller.topology)


WET = solvated()


def molecules(*parts: tuple[str, str, int], bonds: bool = True) -> mdtraj.Topology:
    """Residues of a name and elements (or atom names with elements), so many times; atoms bonded in a row."""
    topology = mdtraj.Topology()
    for name, atoms, copies in parts:
        chain = topology.add_chain()
        for _ in range(copies):
            residue, last = topology.add_residue(name, chain), None
            for text in atoms.split():
                label, _, symbol = text.partition(":")
                element = (
                    mdtraj.element.get_by_symbol(symbol or label) if symbol != "-" else mdtraj.element.virtual
                )
                atom = topology.add_atom(label, element, residue)
                if bonds and last is not None and element.number:
                    topology.add_bond(last, atom)
                last = atom
    return topology


def renamed(topology: mdtraj.Topology, names: dict[str, str]) -> mdtraj.Topology:
    changed = topology.copy()
    for residue in changed.residues:
        residue.name = names.get(residue.name, residue.name)
    return changed


# Protein


@pytest.mark.parametrize(
    "name", ["HID", "HIE", "HSP", "CYX", "CYM", "ASH", "GLH", "LYN", "MSE", "NALA", "XYZ"]
)
@pytest.mark.parametrize("bonds", [True, False])
def test_residues_are_protein_whatever_they_are_called(name: str, bonds: bool) -> None:
    topology = renamed(PEPTIDE.mdtraj_topology(), {"ASP": name})
    if not bonds:
        if name in ("NALA", "XYZ"):
            return  # neither name nor bonds say it
        topology._bonds.clear()
    assert len(protein_atoms(topology)) == topology.n_atoms
    assert len(alpha_carbons(topology)) == 10
    assert select_atoms(topology, "protein and name CA") == alpha_carbons(topology).tolist()


@pytest.mark.parametrize("cap", ["NME", "NH2", "NHE", "ZZZ"])
def test_caps_are_protein(cap: str) -> None:
    topology = renamed(AlanineDipeptideSettings().build().mdtraj_topology(), {"NME": cap})
    assert len(protein_atoms(topology)) == 22


@pytest.mark.parametrize("name", ["CA", "CAL", "Ca2+"])
def test_calcium_is_an_ion_and_no_alpha_carbon(name: str, caplog: pytest.LogCaptureFixture) -> None:
    topology = PEPTIDE.mdtraj_topology().copy()
    ion = topology.add_atom("CA", mdtraj.element.calcium, topology.add_residue(name, topology.add_chain()))
    assert ion_atoms(topology).tolist() == [ion.index]
    assert len(alpha_carbons(topology)) == 10
    assert len(protein_atoms(topology)) == PEPTIDE.n_atoms
    with caplog.at_level(logging.WARNING):
        assert select_atoms(topology, "name CA") == alpha_carbons(topology).tolist()
    assert "1 ions that are called CA too are left out; 'element Ca' selects them" in caplog.text
    caplog.clear()
    assert select_atoms(topology, "element Ca") == [ion.index]
    assert select_atoms(topology, f"name CA and resname '{name}'") == [ion.index]
    assert len(select_atoms(topology, "name CA or element Ca")) == 11
    assert not caplog.text


def test_a_ligand_is_solute_and_neither_protein_nor_nucleic_acid() -> None:
    topology = molecules(("UNK", "CA:C CB:C N", 1), ("ATP", "C1':C C3':C C4':C P", 2), ("SOL", "C O H", 1))
    assert residue_kinds(topology) == [Kind.OTHER] * 4
    assert len(solute_atoms(topology)) == topology.n_atoms
    assert len(trace_atoms(topology)) == 0


def test_coarse_grained_protein() -> None:
    beads = molecules(("ALA", "BB:-", 3), ("W", "W:-", 30), ("ION", "NA:-", 2))
    assert protein_atoms(beads).tolist() == solute_atoms(beads).tolist() == [0, 1, 2]
    assert heavy_atoms(beads).tolist() == [0, 1, 2]
    carbons = molecules(("ALA", "CA:C", 4))
    assert alpha_carbons(carbons).tolist() == [0, 1, 2, 3]


# Nucleic acids


@pytest.mark.parametrize(
    "names", [{}, {"A": "ADE", "C": "CYT", "G": "GUA", "U": "URA"}, {"A": "X1", "G": "X2"}]
)
def test_nucleotides_whatever_they_are_called(names: dict[str, str]) -> None:
    topology = renamed(RNA.mdtraj_topology(), names)
    assert len(nucleic_atoms(topology)) == topology.n_atoms
    assert [topology.atom(i).name for i in trace_atoms(topology)] == ["C4'"] * 10
    assert len(select_atoms(topology, "nucleic")) == topology.n_atoms


def test_iodide_is_no_inosine() -> None:
    topology = molecules(("I", "I", 2), ("LIG", "C C N", 1))
    assert [kind.value for kind in residue_kinds(topology)] == ["ion", "ion", "other"]
    assert solute_atoms(topology).tolist() == [2, 3, 4]


# Water and ions


@pytest.mark.parametrize("name", ["HOH", "WAT", "SOL", "TIP3", "T3P", "SPC", "H2O", "T4P", "OPC", "MYW"])
@pytest.mark.parametrize("atoms", ["O H1:H H2:H", "O H1:H H2:H M:-", "O H1:H H2:H L1:- L2:-"])
def test_water_whatever_it_is_called(name: str, atoms: str) -> None:
    topology = molecules(("LIG", "C C O H", 1), (name, atoms, 3))
    assert len(water_atoms(topology)) == topology.n_atoms - 4
    assert solute_atoms(topology).tolist() == [0, 1, 2, 3]
    assert select_atoms(topology, "not water") == [0, 1, 2, 3]


def test_oxygens_of_crystal_water_are_water() -> None:
    topology = molecules(("LIG", "C C O", 1), ("HOH", "O", 2))
    assert water_atoms(topology).tolist() == [3, 4]


@pytest.mark.parametrize(
    "ion", [("NA", "NA:Na"), ("Cl-", "Cl-:Cl"), ("SOD", "SOD:Na"), ("POT", "POT:K"), ("MG", "MG:Mg"), ("ZN", "Zn"),
            ("XX", "K D:-"), ("PO4", "P O O O O"), ("SO4", "S O O O O"), ("NH4", "N H H H H")]
)  # fmt: skip
def test_ions_are_not_solute(ion: tuple[str, str]) -> None:
    topology = molecules(("LIG", "C C O", 1), (*ion, 2), ("HOH", "O H H", 4))
    assert solute_atoms(topology).tolist() == [0, 1, 2]
    assert [kind.value for kind in residue_kinds(topology)][1:3] == ["ion", "ion"]


def test_where_nothing_else_is_dissolved_ions_are_the_solute() -> None:
    topology = molecules(("NA", "Na", 1), ("CL", "Cl", 1), ("HOH", "O H H", 5))
    assert solute_atoms(topology).tolist() == [0, 1]
    assert solute_atoms(molecules(("HOH", "O H H", 3))).tolist() == list(range(9))


def test_in_systems_of_particles_all_are_solute() -> None:
    gas = molecules(("AR", "Ar", 64))
    mixture = molecules(("AR", "Ar", 64), ("KR", "Kr", 3))
    for topology in (
        to_mdtraj(particle_topology(7, "LJ7")),
        to_mdtraj(particle_topology(1, "X")),
        gas,
        mixture,
    ):
        assert len(solute_atoms(topology)) == len(heavy_atoms(topology)) == topology.n_atoms
        assert len(select_atoms(topology, "solute")) == topology.n_atoms


def test_solvent_other_than_water_and_membranes_are_not_solute() -> None:
    topology = molecules(
        ("LIG", "C C O", 1), ("URE", "C O N N", 40), ("GOL", "C O C O", 2), ("HOH", "O H H", 40)
    )
    assert len(solute_atoms(topology)) == 3 + 8
    assert len(solute_atoms(molecules(("URE", "C O N N", 40), ("HOH", "O H H", 40)))) == 160


def test_a_bound_metal_is_solute() -> None:
    topology = molecules(("LIG", "S C", 1), ("ZN", "Zn", 1), ("HOH", "O H H", 1))
    topology.add_bond(topology.atom(0), topology.atom(2))
    assert solute_atoms(topology).tolist() == [0, 1, 2]


@pytest.mark.parametrize("water", ["tip3p", "tip4pew"])
def test_a_solvated_peptide(water: str) -> None:
    topology = solvated(water)
    assert solute_atoms(topology).tolist() == protein_atoms(topology).tolist() == list(range(PEPTIDE.n_atoms))
    assert len(ion_atoms(topology)) > 2
    assert len(water_atoms(topology)) + len(ion_atoms(topology)) + PEPTIDE.n_atoms == topology.n_atoms
    assert trace_atoms(topology).tolist() == topology.select("name CA and protein").tolist()


@pytest.mark.parametrize("settings", [ContactSettings(), HydrogenBondSettings()])
def test_default_selections_are_the_same_with_water_and_ions(settings: ContactSettings) -> None:
    wet, dry = settings.resolve(WET).build(), settings.resolve(PEPTIDE.mdtraj_topology()).build()
    assert [name.replace("A:", "") for name in wet.names] == dry.names
    assert wet.used_atoms().tolist() == dry.used_atoms().tolist()  # type: ignore[union-attr]


# The language of selections


@pytest.mark.parametrize(
    "selection",
    [
        "all", "name CA", "protein", "not water", "water and name O", "backbone", "sidechain and element != H",
        "resname TYR TRP", "residue 2 to 4", "resid 3", "index 3 to 9", "chainid 0 and mass > 13", "n_bonds 4",
        "(name =~ 'C.*') and not (resSeq 1 or resSeq 10)", "element Na or symbol Cl", "rescode Y", "everything",
        "(protein and not backbone) or name Cl",
    ],
)  # fmt: skip
def test_selections_are_those_of_mdtraj(selection: str) -> None:
    assert select_atoms(WET, selection) == WET.select(selection).tolist()


def test_ions_in_a_selection_that_does_not_name_them_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """Distances to ions that diffuse are the slowest descriptors there are."""
    ions = ion_atoms(WET)
    for _ in range(2):
        assert set(ions) < set(select_atoms(WET, "element != H and not water"))
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"{len(ions)} atoms of ions (CL, NA) are in it" in said
    caplog.clear()
    for selection in (
        "element != H and solute",
        "element Na Cl",
        "protein or resname NA CL",
        "not water and protein",
    ):
        select_atoms(WET, selection)
    assert not caplog.text


def test_the_word_solute() -> None:
    heavy = select_atoms(WET, "element != H and solute")
    assert heavy == heavy_atoms(WET).tolist()
    assert select_atoms(WET, "not solute") == list(range(PEPTIDE.n_atoms, WET.n_atoms))
    with pytest.raises(ConfigError, match="is not valid MDTraj syntax"):
        select_atoms(WET, "solutes")


def test_solutes_in_several_pieces() -> None:
    topology = molecules(("LIG", "C C O", 1), ("HOH", "O H H", 2), ("LIG", "C C O", 1), ("HOH", "O H H", 2))
    assert select_atoms(topology, "solute and element C") == [0, 1, 9, 10]
    assert np.array_equal(select_atoms(topology, "solute"), solute_atoms(topology))
