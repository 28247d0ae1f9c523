"""Rings of residues, and sites without an element: what follows what, and what counts as an atom."""

from typing import Any

import mdtraj
import numpy as np
import pytest
import torch

from latf_openmm.features import build_features
from latf_openmm.features.base import select_atoms
from latf_openmm.features.contacts import ContactSettings, native_contacts_of
from latf_openmm.features.hydrogen_bonds import HydrogenBondSettings
from latf_openmm.features.torsions import TorsionSettings


def glycines(n: int, ring: bool = True) -> mdtraj.Topology:
    """A chain of glycines, head to tail where `ring`."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    ends = []
    for _ in range(n):
        residue = topology.add_residue("GLY", chain)
        atoms = [
            topology.add_atom(name, mdtraj.element.get_by_symbol(name[0]), residue)
            for name in ("N", "H", "CA", "C", "O")
        ]
        for i, j in ((0, 1), (0, 2), (2, 3), (3, 4)):
            topology.add_bond(atoms[i], atoms[j])
        ends.append((atoms[0], atoms[3]))
    for k in range(n if ring else n - 1):
        topology.add_bond(ends[k][1], ends[(k + 1) % n][0])
    return topology


def test_in_a_ring_residues_are_as_far_apart_as_the_shorter_way() -> None:
    ring: Any = ContactSettings(minimum_separation=3).resolve(glycines(6))
    assert [c.name for c in ring.contacts] == [f"contact(GLY{k},GLY{k + 3})" for k in range(3)]
    chain: Any = ContactSettings(minimum_separation=3).resolve(glycines(6, ring=False))
    assert len(chain.contacts) == 6
    bonds: Any = HydrogenBondSettings(minimum_separation=3).resolve(glycines(6))
    assert len(bonds.bonds) == 6  # each with the residue across
    near = mdtraj.Trajectory(np.zeros((1, 30, 3), np.float32), glycines(6))
    near.xyz[0, :, 0] = 0.001 * np.arange(30)
    with pytest.raises(Exception, match="no contact of residues more than three apart"):
        native_contacts_of(near, range(30))


@pytest.mark.parametrize(("angle", "names"), [("phi", "CNAC"), ("psi", "NACN"), ("omega", "ACNA")])
def test_a_ring_has_the_torsions_over_its_ends(angle: Any, names: str) -> None:
    topology = glycines(6)
    resolved: Any = TorsionSettings(angles=[angle]).resolve(topology)
    assert resolved.names == [f"{angle} GLY{k}" for k in range(6)]
    for quadruple in resolved.atoms:
        assert "".join(topology.atom(i).name.replace("CA", "A") for i in quadruple) == names
    # Turning the numbers of the residues changes nothing but the names.
    xyz = np.random.default_rng(1).normal(size=(6, 5, 3))
    turned = np.roll(xyz, 2, axis=0)
    module = build_features([resolved])
    values, other = (module(torch.tensor(x.reshape(1, 30, 3)), torch.empty(0))[0] for x in (xyz, turned))
    np.testing.assert_allclose(np.roll(values[:6], 2), other[:6], atol=1e-12)


def ligand() -> mdtraj.Topology:
    """Six chlorinated carbons with an off-centre charge each."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(6):
        residue = topology.add_residue("LIG", chain)
        for name, symbol in (("C1", "C"), ("CL", "Cl"), ("H1", "H"), ("EP", "VS")):
            topology.add_atom(name, mdtraj.element.get_by_symbol(symbol), residue)
    return topology


def test_sites_without_an_element_are_no_heavy_atoms() -> None:
    topology = ligand()
    right = [atom.index for atom in topology.atoms if atom.name in ("C1", "CL")]
    assert select_atoms(topology, "heavy") == right
    contacts: Any = ContactSettings(minimum_separation=3).resolve(topology)
    assert {i for contact in contacts.contacts for i in contact.first + contact.second} == set(right)
    close = mdtraj.Trajectory(np.zeros((1, topology.n_atoms, 3), np.float32), topology)
    close.xyz[0, :, 0] = 0.001 * np.arange(topology.n_atoms)
    pairs = native_contacts_of(close, range(topology.n_atoms)).pairs or []
    assert {i for pair in pairs for i in pair} <= set(right)


def test_beads_without_an_element_are_all_there_is() -> None:
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(5):
        topology.add_atom("BB", mdtraj.element.virtual, topology.add_residue("GLY", chain))
    contacts: Any = ContactSettings(minimum_separation=3).resolve(topology)
    assert len(contacts.contacts) == 3
