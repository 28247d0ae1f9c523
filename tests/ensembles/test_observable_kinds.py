"""The contract of observables, one line for each kind; those of structures look at the solute alone."""

from pathlib import Path

import mdtraj
import numpy as np
import pytest
from helpers.ensembles import plenty, trained
from numpy.typing import NDArray
from openmm import app, unit

from latf_openmm.cli.options import COMPARABLE_NAMES, OBSERVABLE_NAMES
from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.observables import (
    OBSERVABLES,
    StructureObservable,
    named_observable,
    structure_observable,
)
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.errors import ConfigError
from latf_openmm.features.contacts import native_contacts_of
from latf_openmm.features.solute import solute_atoms, trace_atoms
from latf_openmm.labels import to_mdtraj
from latf_openmm.systems.chignolin import ChignolinSettings
from latf_openmm.systems.rna_tetraloop import RnaTetraloopSettings

KINDS = {
    "contacts": ("contacts", "fraction"),
    "energy": ("energy", "kJ/mol"),
    "free_energy": ("free_energy:0:1", "kJ/mol"),
    "hbonds": ("hbonds", "bonds"),
    "heat_capacity": ("heat_capacity", "k_B"),
    "population": ("population:1", "fraction"),
    "python_file": ("systems/chignolin/observables.py:folded", ""),
    "rg": ("rg", "nm"),
    "rmsd": ("rmsd", "nm"),
}
"""An example of each kind, and its unit: a new kind is one more line."""

OF_SOLUTE = [
    name
    for kind, (name, _) in KINDS.items()
    if issubclass(OBSERVABLES[kind], StructureObservable) and OBSERVABLES[kind].of_solute
]
FORCES = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
PEPTIDE, RNA = ChignolinSettings().build(), RnaTetraloopSettings().build()
START = mdtraj.Trajectory(PEPTIDE.positions, PEPTIDE.mdtraj_topology())
ROOT = Path(__file__).parents[2]


def dimer() -> app.Modeller:
    """Two peptides that touch."""
    modeller = app.Modeller(PEPTIDE.topology, PEPTIDE.positions[0] * unit.nanometer)
    shifted = PEPTIDE.positions[0] + np.array([0.0, 0.0, 1.0])
    modeller.add(PEPTIDE.topology, shifted * unit.nanometer)
    return modeller


def solvated(kind: str) -> mdtraj.Trajectory:
    """The solute in salt water, one frame, with its box."""
    built = RNA if kind == "rna" else PEPTIDE
    modeller = (
        dimer() if kind == "dimer" else app.Modeller(built.topology, built.positions[0] * unit.nanometer)
    )
    modeller.addSolvent(FORCES, padding=0.3 * unit.nanometer, ionicStrength=0.3 * unit.molar)
    xyz = np.array(modeller.positions.value_in_unit(unit.nanometer), dtype=np.float32)
    structure = mdtraj.Trajectory(xyz, to_mdtraj(modeller.topology))
    vectors = modeller.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer)
    structure.unitcell_vectors = np.array(vectors)[None]
    return structure


@pytest.fixture(scope="module", params=["peptide", "dimer", "rna"])
def wet(request: pytest.FixtureRequest) -> mdtraj.Trajectory:
    return solvated(request.param)


def shaken(structure: mdtraj.Trajectory, n: int = 4) -> mdtraj.Trajectory:
    noise = np.random.default_rng(1).normal(0, 0.01, (n, structure.n_atoms, 3))
    frames = mdtraj.Trajectory((structure.xyz + noise).astype(np.float32), structure.topology)
    frames.unitcell_vectors = np.repeat(structure.unitcell_vectors, n, axis=0)
    return frames


def values(reference: mdtraj.Trajectory, trajectory: mdtraj.Trajectory) -> dict[str, NDArray[np.float64]]:
    functions = {name: structure_observable(name, reference) for name in OF_SOLUTE}
    return {name: function(trajectory) for name, function in functions.items()}


def dry(trajectory: mdtraj.Trajectory) -> mdtraj.Trajectory:
    found = trajectory.atom_slice(solute_atoms(trajectory.topology))
    found.unitcell_vectors = None
    return found


def test_every_kind_has_a_line() -> None:
    assert list(KINDS) == list(OBSERVABLES)
    assert [*OBSERVABLE_NAMES, "python_file"] == sorted(OBSERVABLES, key="python_file".__eq__)


@pytest.mark.parametrize("kind", KINDS)
def test_the_contract_of_every_kind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name asks for it, its unit is stated, a misspelt one is refused, its values are finite, one a frame."""
    monkeypatch.chdir(ROOT)
    name, expected = KINDS[kind]
    observable = named_observable(name, START)
    assert type(observable) is OBSERVABLES[kind]
    assert (observable.name, observable.unit) == (name, expected)
    observable.check(n_states=2)
    with pytest.raises(ConfigError, match="there is no"):
        named_observable(f"{kind}_", START)
    if isinstance(observable, StructureObservable):
        xyz = START.xyz + np.random.default_rng(0).normal(0, 0.01, (5, START.n_atoms, 3))
        frames = mdtraj.Trajectory(xyz.astype(np.float32), START.topology)
        assert observable(frames).shape == (5,)
        assert observable(frames).dtype == np.float64
        assert np.isfinite(observable(frames)).all()
        np.testing.assert_allclose(observable(frames[3]), observable(frames)[3:4], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_estimated_with_an_error(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    ensemble = Reweighter(trained(), plenty(n=500)).at(1.2)
    read: list[str] = []

    def observe(self: StructureEnsemble, function: object, topology: object) -> NDArray[np.float64]:
        read.append(kind)
        return np.linspace(0.0, 1.0, len(self.weights))

    monkeypatch.setattr(StructureEnsemble, "observe", observe)
    observable = named_observable(KINDS[kind][0], START)
    measured = [observable.measure(ensemble, START.topology) for _ in range(2)][-1]
    assert np.isfinite([measured.estimate.value, measured.estimate.error]).all()
    assert measured.estimate.error > 0
    assert measured.statistic.of(ensemble.weights) == pytest.approx(measured.estimate.value)
    assert measured.seen
    assert len(read) == isinstance(observable, StructureObservable)  # once for a pool


def test_images_of_molecules_do_not_matter(wet: mdtraj.Trajectory) -> None:
    """Each molecule of the solute and of the solvent is moved by lattice vectors of its own."""
    frames = shaken(wet)
    moved = frames[:]
    rng = np.random.default_rng(2)
    molecules = [np.array([atom.index for atom in part]) for part in frames.topology.find_molecules()]
    for atoms in molecules:
        steps = rng.integers(-1, 2, (len(frames), 3)) @ frames.unitcell_vectors[0]
        moved.xyz[:, atoms] += steps[:, None]
    expected, found = values(wet, frames), values(wet, moved)
    from_moved = values(moved[0], frames)
    for name in OF_SOLUTE:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
    np.testing.assert_allclose(from_moved["contacts"][0], values(frames[0], frames)["contacts"][0], atol=1e-4)


def test_the_order_of_waters_and_their_number_do_not_matter(wet: mdtraj.Trajectory) -> None:
    frames = shaken(wet)
    waters = [[a.index for a in residue.atoms] for residue in wet.topology.residues if residue.is_water]
    order = np.random.default_rng(0).permutation(len(waters))
    mixed = frames[:]
    mixed.xyz[:, np.concatenate(waters)] = frames.xyz[:, np.concatenate([waters[i] for i in order])]
    expected = values(wet, frames)
    few = np.setdiff1d(np.arange(wet.n_atoms), np.concatenate(waters[len(waters) // 2 :]))
    for reference, trajectory in (
        (wet, mixed),
        (wet.atom_slice(few), frames.atom_slice(few)),
        (dry(wet), dry(frames)),
    ):
        found = values(reference, trajectory)
        for name in OF_SOLUTE:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)


def test_they_are_those_of_mdtraj_for_the_solute_alone(wet: mdtraj.Trajectory) -> None:
    frames = shaken(wet)
    found, solute = values(wet, frames), dry(frames)
    masses = np.array([atom.element.mass for atom in solute.topology.atoms])
    off = (
        solute.xyz - mdtraj.compute_center_of_mass(solute)[:, None]
    )  # compute_rg takes the middle of all atoms
    np.testing.assert_allclose(found["rg"], np.sqrt((off**2).sum(-1) @ masses / masses.sum()), rtol=1e-5)
    fit = trace_atoms(solute.topology)
    assert {solute.topology.atom(i).name for i in fit} <= {"CA", "C4'"}
    assert len(fit) == sum(residue.n_atoms > 5 for residue in solute.topology.residues)
    np.testing.assert_allclose(found["rmsd"], mdtraj.rmsd(solute, dry(wet), atom_indices=fit), atol=1e-5)
    bonds = [len(frame) for frame in mdtraj.wernet_nilsson(solute, periodic=False)]
    np.testing.assert_array_equal(found["hbonds"], bonds)
    pairs = np.array(native_contacts_of(dry(wet), range(solute.n_atoms)).pairs)
    native = mdtraj.compute_distances(dry(wet), pairs, periodic=False)
    distances = mdtraj.compute_distances(solute, pairs, periodic=False)
    q = (1 / (1 + np.exp(50 * (distances - 1.8 * native)))).mean(axis=1)
    np.testing.assert_allclose(found["contacts"], q, atol=1e-4)


def test_rg_is_weighted_by_mass_and_not_by_repartitioned_ones() -> None:
    system = FORCES.createSystem(PEPTIDE.topology, hydrogenMass=1.00794 * unit.amu)
    masses = [system.getParticleMass(i).value_in_unit(unit.amu) for i in range(system.getNumParticles())]
    structure = mdtraj.Trajectory(PEPTIDE.positions, PEPTIDE.mdtraj_topology())
    centre = np.average(PEPTIDE.positions[0], axis=0, weights=masses)
    exact = np.sqrt(np.average(((PEPTIDE.positions[0] - centre) ** 2).sum(-1), weights=masses))
    assert structure_observable("rg", structure)(structure)[0] == pytest.approx(exact, rel=1e-4)
    assert structure_observable("rg", structure)(structure)[0] != pytest.approx(
        mdtraj.compute_rg(structure)[0], rel=5e-3
    )


def test_native_contacts_of_two_chains_count_all_pairs_between_them() -> None:
    """Residues of other chains are far apart along the chain whatever their numbers."""
    modeller = dimer()
    xyz = np.array(modeller.positions.value_in_unit(unit.nanometer), dtype=np.float32)
    structure = mdtraj.Trajectory(xyz, to_mdtraj(modeller.topology))
    topology = structure.topology
    heavy = topology.select("element != H")
    distance = np.linalg.norm(xyz[heavy][:, None] - xyz[heavy][None], axis=-1)
    chain = np.array([topology.atom(i).residue.chain.index for i in heavy])
    residue = np.array([topology.atom(i).residue.index for i in heavy])
    far = (chain[:, None] != chain) | (np.abs(residue[:, None] - residue) > 3)
    rows, columns = np.nonzero(np.triu(far & (distance < 0.45), 1))
    expected = {(int(heavy[i]), int(heavy[j])) for i, j in zip(rows, columns, strict=True)}
    settings = native_contacts_of(structure, range(structure.n_atoms))
    assert set(settings.pairs or []) == expected
    between = [
        (i, j) for i, j in expected if topology.atom(i).residue.chain != topology.atom(j).residue.chain
    ]
    assert len(between) > 0
    assert structure_observable("contacts", structure)(structure)[0] > 0.99


def test_particles_and_water_alone_have_observables() -> None:
    topology = mdtraj.Topology()
    for _ in range(3):
        residue = topology.add_residue("HOH", topology.add_chain())
        o, *hydrogens = (topology.add_atom(e, mdtraj.element.get_by_symbol(e), residue) for e in "OHH")
        for hydrogen in hydrogens:
            topology.add_bond(o, hydrogen)
    water = mdtraj.Trajectory(np.random.default_rng(0).normal(size=(2, 9, 3)).astype(np.float32), topology)
    for name in ("rg", "hbonds"):
        assert structure_observable(name, water)(water).shape == (2,)
    beads = mdtraj.Topology()
    residue = beads.add_residue("MON", beads.add_chain())
    for _ in range(4):
        beads.add_atom("B", mdtraj.element.virtual, residue)
    chain = mdtraj.Trajectory(np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32), beads)
    np.testing.assert_allclose(structure_observable("rg", chain)(chain), mdtraj.compute_rg(chain), rtol=1e-5)
    assert structure_observable("rmsd", chain[0])(chain)[0] == pytest.approx(0.0, abs=1e-3)


def test_a_function_of_the_box(tmp_path: Path, wet: mdtraj.Trajectory) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def volume(trajectory):\n    return trajectory.unitcell_volumes\n")
    function = structure_observable(f"{path}:volume", wet)
    np.testing.assert_allclose(function(shaken(wet)), np.repeat(wet.unitcell_volumes, 4), rtol=1e-5)


def test_compare_offers_what_is_not_of_states() -> None:
    assert list(COMPARABLE_NAMES) == [name for name in OBSERVABLE_NAMES if not OBSERVABLES[name].n_states]
