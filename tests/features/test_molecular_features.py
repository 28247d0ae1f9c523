"""Contacts, hydrogen bonds and torsions of molecules, compared with MDTraj where it has the quantity."""

import mdtraj
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from latf_openmm.ensembles.observables import structure_observable
from latf_openmm.features import FeatureSettings, build_features, resolve_features
from latf_openmm.features.contacts import ContactSettings, NativeContactSettings
from latf_openmm.features.hydrogen_bonds import HydrogenBondSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.frames.trajectory import featurise
from latf_openmm.systems import library_folder
from latf_openmm.systems.chignolin import ChignolinSettings
from latf_openmm.systems.rna_tetraloop import RnaTetraloopSettings

CHIGNOLIN = library_folder("chignolin") / "chignolin.pdb"


def shaken(
    kind: type[ChignolinSettings] | type[RnaTetraloopSettings], spread: float = 0.03
) -> mdtraj.Trajectory:
    """Twenty structures around the library's, more and more disturbed."""
    built = kind().build()
    noise = (
        np.random.default_rng(3).normal(0, 1, (20, built.n_atoms, 3))
        * np.linspace(0, spread, 20)[:, None, None]
    )
    return mdtraj.Trajectory((built.positions + noise).astype(np.float32), built.mdtraj_topology())


def descriptors(
    settings: FeatureSettings, structures: mdtraj.Trajectory
) -> tuple[list[str], NDArray[np.float32]]:
    features = build_features(resolve_features([settings], structures.topology)).double()
    return features.names, featurise(features, structures.xyz)


def test_contacts_equal_mdtraj() -> None:
    structures = shaken(ChignolinSettings)
    names, values = descriptors(ContactSettings(beta=10.0, r0=None), structures)
    expected, pairs = mdtraj.compute_contacts(
        structures, scheme="closest-heavy", soft_min=True, soft_min_beta=10.0
    )
    residues = list(structures.topology.residues)
    assert names == [f"contact({residues[i]},{residues[j]})" for i, j in pairs]
    np.testing.assert_allclose(values, expected, atol=2e-5)
    _, numbers = descriptors(ContactSettings(beta=10.0, r0=0.5, exponent=6), structures)
    np.testing.assert_allclose(numbers, 1 / (1 + (expected / 0.5) ** 6), atol=1e-4)


def test_contacts_of_a_reference_are_those_that_touch_in_it() -> None:
    structures = shaken(ChignolinSettings)
    names, _ = descriptors(ContactSettings(reference=CHIGNOLIN), structures)
    closest, pairs = mdtraj.compute_contacts(mdtraj.load(str(CHIGNOLIN)), scheme="closest-heavy")
    residues = list(structures.topology.residues)
    near = [
        f"contact({residues[i]},{residues[j]})"
        for (i, j), d in zip(pairs, closest[0], strict=True)
        if d < 0.45
    ]
    assert names == near
    assert 5 < len(names) < len(pairs)


def test_native_contacts_are_the_observable_and_its_formula() -> None:
    structures = shaken(ChignolinSettings, 0.1)
    _, values = descriptors(NativeContactSettings(reference=CHIGNOLIN), structures)
    reference = mdtraj.load(str(CHIGNOLIN))
    np.testing.assert_allclose(
        values[:, 0], structure_observable("contacts", reference)(structures), atol=1e-6
    )
    heavy = [a.index for a in reference.topology.atoms if a.element.symbol != "H"]
    residue = np.array([a.residue.index for a in reference.topology.atoms])
    pairs = np.array([(i, j) for i in heavy for j in heavy if residue[j] - residue[i] > 3])
    lengths = mdtraj.compute_distances(reference, pairs)[0]
    near = lengths < 0.45
    r = mdtraj.compute_distances(structures, pairs[near]).astype(float)
    expected = (1 / (1 + np.exp(50 * (r - 1.8 * lengths[near])))).mean(axis=1)
    np.testing.assert_allclose(values[:, 0], expected, atol=1e-5)
    assert values[0, 0] > values[-1, 0]


@pytest.mark.parametrize("kind", [ChignolinSettings, RnaTetraloopSettings])
def test_hydrogen_bonds_agree_with_baker_and_hubbard(
    kind: type[ChignolinSettings] | type[RnaTetraloopSettings],
) -> None:
    structures = shaken(kind, 0.04)
    settings = HydrogenBondSettings().resolve(structures.topology)
    assert isinstance(settings, HydrogenBondSettings)
    _, values = descriptors(settings, structures)
    formed = 0
    for frame, row in zip(structures, values, strict=True):
        found = {(int(d), int(a)) for d, _, a in mdtraj.baker_hubbard(frame, freq=0.0)}
        for bond, h in zip(settings.bonds or [], row, strict=True):
            there = (bond.donor, bond.acceptor) in found
            assert h > 0.25 or not there, (bond.name, h)
            assert there or h < (0.5 if len(bond.hydrogens) == 1 else 0.8), (bond.name, h)
            formed += there
    assert formed > 40


def test_backbone_hydrogen_bonds_of_chignolin() -> None:
    structures = shaken(ChignolinSettings, 0.0)[:1]
    names, values = descriptors(HydrogenBondSettings(selection="name N or name O"), structures)
    by_name = dict(zip(names, values[0], strict=True))
    assert by_name["hb(ASP3-N,THR8-O)"] > 0.5
    assert by_name["hb(THR6-N,TYR10-O)"] < 0.01
    assert not any(name.startswith("hb(PRO4-N") for name in names)


def test_torsions_of_a_nucleic_acid() -> None:
    structures = shaken(RnaTetraloopSettings, 0.02)
    count = {"alpha": 9, "beta": 9, "gamma": 10, "delta": 10, "epsilon": 9, "zeta": 9, "chi": 10}
    for angle, n in count.items():
        settings = TorsionSettings(angles=[angle]).resolve(structures.topology)
        assert isinstance(settings, TorsionSettings)
        assert settings.atoms is not None and len(settings.atoms) == n
        _, values = descriptors(settings, structures)
        expected = mdtraj.compute_dihedrals(structures, np.array(settings.atoms))
        np.testing.assert_allclose(
            values, np.concatenate([np.sin(expected), np.cos(expected)], axis=1), atol=1e-4
        )
    # The stem is A-form: C3'-endo sugars (delta near 82 degrees) and anti bases (chi near -160 degrees).
    for angle, low, high in (("delta", 60, 105), ("chi", -200, -120)):
        settings = TorsionSettings(angles=[angle]).resolve(structures.topology)
        assert isinstance(settings, TorsionSettings)
        degrees = np.degrees(mdtraj.compute_dihedrals(structures[:1], np.array(settings.atoms)))[0]
        stem = degrees[[0, 1, 2, 7, 8, 9]]
        stem = np.where(stem > 0, stem - 360, stem) if angle == "chi" else stem
        assert ((stem > low) & (stem < high)).all(), (angle, stem)


def test_side_chain_torsions_equal_mdtraj() -> None:
    structures = shaken(ChignolinSettings)
    for angle, compute in (
        ("chi1", mdtraj.compute_chi1),
        ("chi2", mdtraj.compute_chi2),
        ("chi3", mdtraj.compute_chi3),
    ):
        names, values = descriptors(TorsionSettings(angles=[angle]), structures)
        expected = compute(structures)[1]
        assert len(names) == 2 * expected.shape[1]
        np.testing.assert_allclose(
            values, np.concatenate([np.sin(expected), np.cos(expected)], axis=1), atol=1e-4
        )


def test_contacts_are_finite_where_atoms_are_far_and_near() -> None:
    structures = shaken(ChignolinSettings, 0.0)[:1]
    features = build_features(resolve_features([ContactSettings(beta=200.0)], structures.topology))
    x = torch.from_numpy(structures.xyz).repeat(2, 1, 1)
    x[1] *= 20.0
    x.requires_grad_()
    values = features(x, torch.empty(0))
    (gradient,) = torch.autograd.grad(values.sum(), x)
    assert torch.isfinite(values).all() and torch.isfinite(gradient).all()
