"""Boxes in OpenMM's form, whole molecules and nearest images, against MDTraj, OpenMM and numpy."""

from itertools import pairwise, product
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from openmm import app

from latf_openmm.bias.biased_system import add_bias
from latf_openmm.bias.cv import FeatureCV, distance_cv, export_cv
from latf_openmm.bias.potentials import BiasContext
from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.errors import ConfigError, DataError
from latf_openmm.features import build_features, resolve_features
from latf_openmm.features.base import minimum_image
from latf_openmm.features.contacts import ContactSettings, NativeContactSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.frames.trajectory import featurise
from latf_openmm.frames.walkers import read_trajectory
from latf_openmm.periodic import (
    SystemTopology,
    boxes_of,
    gather_molecules,
    is_cell,
    make_whole,
    molecules_of,
    reduced_box,
    standard_orientation,
)
from latf_openmm.systems import library_folder

Array = NDArray[np.float64]
BOXES = {
    "cube": np.eye(3),
    "octahedron": np.array([[1, 0, 0], [1 / 3, 2 * 2**0.5 / 3, 0], [-1 / 3, 2**0.5 / 3, 6**0.5 / 3]]),
    "dodecahedron": np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 2**-0.5]]),
    "hexagon": np.array([[1, 0, 0], [0.5, 0.75**0.5, 0], [0, 0, 1.3]]),
    "skewed": np.array([[1, 0, 0], [-0.48, 1.1, 0], [0.45, -0.53, 0.95]]),
}
STEPS = np.array(list(product(range(-3, 4), repeat=3)))
RNG = np.random.default_rng(7)


def shortest(delta: Array, box: Array) -> Array:
    """Lengths of the nearest images of vectors (n, 3), by trying 343 of them around a rounded one."""
    wrapped = delta - np.round(delta @ np.linalg.inv(box)) @ box
    return np.asarray(np.linalg.norm(wrapped[:, None] + (STEPS @ box)[None], axis=-1).min(axis=1))


def rotation() -> Array:
    q, _ = np.linalg.qr(RNG.normal(size=(3, 3)))
    return q * np.linalg.det(q)


def chains(n_chains: int, n_atoms: int) -> tuple[app.Topology, openmm.System]:
    """Chains of carbons with harmonic bonds of 0.15 nm, repelling nothing, in a periodic System."""
    topology, system, bonds = app.Topology(), openmm.System(), openmm.HarmonicBondForce()
    nonbonded = openmm.NonbondedForce()
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    nonbonded.setCutoffDistance(0.5)
    for chain in range(n_chains):
        residue = topology.addResidue("CHN", topology.addChain(str(chain)))
        atoms = [topology.addAtom(f"C{i}", app.element.carbon, residue) for i in range(n_atoms)]
        for first, second in pairwise(atoms):
            topology.addBond(first, second)
            bonds.addBond(first.index, second.index, 0.15, 1000.0)
        for _ in atoms:
            system.addParticle(12.0)
            nonbonded.addParticle(0.0, 0.1, 0.0)
    system.addForce(bonds)
    system.addForce(nonbonded)
    return topology, system


def chain_topology(n_chains: int, n_atoms: int, box: Array) -> SystemTopology:
    topology, system = chains(n_chains, n_atoms)
    system.setDefaultPeriodicBoxVectors(*box)
    return SystemTopology.of(topology, system)


def walks(n_frames: int, n_chains: int, n_atoms: int, box: Array) -> NDArray[np.float32]:
    """Chains that start anywhere and go straight on, with noise."""
    steps = RNG.normal(size=(n_frames, n_chains, 1, 3)) + 0.4 * RNG.normal(
        size=(n_frames, n_chains, n_atoms, 3)
    )
    steps *= 0.15 / np.linalg.norm(steps, axis=-1, keepdims=True)
    starts = RNG.random((n_frames, n_chains, 1, 3)) @ box
    return (starts + np.cumsum(steps, axis=2)).reshape(n_frames, -1, 3).astype(np.float32)


def with_box(xyz: NDArray[np.floating], topology: mdtraj.Topology, box: Array | None) -> mdtraj.Trajectory:
    trajectory = mdtraj.Trajectory(xyz, topology)
    if box is not None:
        trajectory.unitcell_vectors = np.repeat(box[None], len(xyz), axis=0)
    return trajectory


def wrapped(xyz: NDArray[np.floating], box: Array) -> NDArray[np.float32]:
    """Every atom in the cell on its own."""
    fractions = xyz @ np.linalg.inv(box)
    return ((fractions - np.floor(fractions)) @ box).astype(np.float32)


# --- boxes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOXES)
def test_openmm_takes_boxes_that_were_kept_in_single_precision(name: str) -> None:
    topology, system = chains(1, 2)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    edges = RNG.uniform(2.0, 4.0, size=200)
    cells = edges[:, None, None] * BOXES[name]
    kept = mdtraj.Trajectory(np.zeros((200, 2, 3)), mdtraj.Topology.from_openmm(topology))
    kept.unitcell_vectors = cells
    boxes = boxes_of(kept)
    assert boxes is not None
    for box in boxes:
        context.setPeriodicBoxVectors(*box)
    np.testing.assert_allclose(np.linalg.det(boxes), np.linalg.det(cells), rtol=1e-5)
    np.testing.assert_allclose(boxes, [reduced_box(cell) for cell in cells], atol=1e-4)


@pytest.mark.parametrize("name", BOXES)
def test_reduced_boxes_are_of_the_same_lattice(name: str) -> None:
    box = 3.0 * BOXES[name]
    mixed = np.array([[1, 0, 0], [3, -1, 0], [-2, 5, 1]]) @ box
    reduced = reduced_box(mixed)
    combinations = reduced @ np.linalg.inv(box)
    np.testing.assert_allclose(combinations, np.round(combinations), atol=1e-9)
    assert np.linalg.det(reduced) == pytest.approx(np.linalg.det(box))
    a, b, c = reduced
    assert 2 * abs(b[0]) <= a[0]
    assert 2 * abs(c[0]) <= a[0]
    assert 2 * abs(c[1]) <= b[1]
    np.testing.assert_array_equal(reduced, reduced_box(reduced))


def test_what_is_no_box() -> None:
    assert not is_cell(0.1 * np.eye(3))
    assert not is_cell(np.full((3, 3), np.nan))
    with pytest.raises(DataError, match="span no volume"):
        reduced_box([[2, 0, 0], [4, 0, 0], [0, 0, 2]])
    with pytest.raises(DataError, match="span no volume"):
        reduced_box(np.diag([2, np.nan, 2]))
    with pytest.raises(DataError, match="the box is rotated"):
        reduced_box(np.array([[0, 2, 0], [2, 0, 0], [0, 0, 2.0]]))


@pytest.mark.parametrize("name", BOXES)
def test_rotated_boxes_take_their_positions_with_them(name: str) -> None:
    turn, box = rotation(), 3.0 * BOXES[name]
    x = RNG.random((2, 20, 3)) @ box
    cells = np.stack([box @ turn, (box * [[1], [1], [-1]]) @ turn])  # the second is left-handed
    xyz, boxes = standard_orientation(x @ turn, cells)
    for frame in range(2):
        expected = shortest(x[frame, 1:] - x[frame, :-1], box)
        found = shortest(xyz[frame, 1:] - xyz[frame, :-1], reduced_box(boxes[frame]))
        np.testing.assert_allclose(found, expected, atol=1e-9)


# --- molecules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOXES)
def test_molecules_become_whole_as_they_were_and_as_mdtraj_makes_them(name: str) -> None:
    box = reduced_box(2.0 * BOXES[name])
    topology = chain_topology(4, 30, box)  # longer than the box
    x = walks(5, 4, 30, box)
    broken = with_box(wrapped(x, box), topology, box)
    found = make_whole(broken)
    first = np.arange(0, 120, 30).repeat(30)
    np.testing.assert_allclose(found.xyz - found.xyz[:, first], x - x[:, first], atol=1e-5)
    np.testing.assert_array_equal(found.xyz[:, ::30], broken.xyz[:, ::30])
    bonds = np.array([(a.index, b.index) for a, b in topology.bonds], dtype=np.int32)
    theirs = broken[:].make_molecules_whole(sorted_bonds=bonds)
    np.testing.assert_allclose(found.xyz, theirs.xyz, atol=1e-4)
    assert make_whole(found) is found


def test_extra_sites_and_rings_stay_with_their_molecules() -> None:
    pdb = app.PDBFile(str(library_folder("chignolin") / "chignolin.pdb"))
    modeller = app.Modeller(pdb.topology, pdb.positions)
    field = app.ForceField("amber14-all.xml", "amber14/tip4pew.xml")
    modeller.addSolvent(field, model="tip4pew", boxSize=openmm.Vec3(3, 3, 3))
    system = field.createSystem(modeller.topology, nonbondedMethod=app.PME)
    topology = SystemTopology.of(modeller.topology, system)
    x = np.array(modeller.positions._value)[None].astype(np.float32)
    box = 3.0 * np.eye(3)
    broken = with_box(wrapped(x, box), topology, box)
    bonds = topology.boundary.links
    assert len(bonds) > topology.n_bonds  # constraints, extra sites
    lengths = np.linalg.norm(np.diff(make_whole(broken).xyz[:, bonds], axis=2), axis=-1)
    assert np.linalg.norm(np.diff(broken.xyz[:, bonds], axis=2), axis=-1).max() > 2.0
    assert lengths.max() < 0.3


def test_complexes_are_put_together_wherever_their_parts_are() -> None:
    box = reduced_box(2.5 * BOXES["octahedron"])
    topology = chain_topology(3, 12, box)
    one = walks(1, 3, 12, box).reshape(3, 12, 3)
    one -= one.mean(axis=1, keepdims=True)
    one += np.array([[0, 0, 0], [0.5, 0, 0], [0.9, 0.4, 0]])[:, None]
    x = np.repeat(one.reshape(1, 36, 3), 8, axis=0)
    moves = RNG.integers(-2, 3, size=(8, 3, 1, 3)) @ box
    apart = (x.reshape(8, 3, 12, 3) + moves).reshape(8, 36, 3)
    found = gather_molecules(with_box(wrapped(apart, box), topology, box))
    whole = mdtraj.Trajectory(x, topology)
    np.testing.assert_allclose(mdtraj.compute_rg(found), mdtraj.compute_rg(whole), atol=1e-4)
    np.testing.assert_allclose(mdtraj.rmsd(found, whole), 0.0, atol=1e-3)
    assert mdtraj.compute_rg(with_box(apart, topology, box)).max() > 1.5 * mdtraj.compute_rg(whole).max()


def test_networks_through_the_box_cannot_be_whole_but_restraints_do_not_make_one() -> None:
    topology, system = chains(1, 10)
    system.setDefaultPeriodicBoxVectors(*(2.0 * np.eye(3)))
    restraint = openmm.CustomBondForce("100*(r-1)^2")
    restraint.addBond(0, 9, [])
    restraint.setUsesPeriodicBoundaryConditions(True)
    system.addForce(restraint)
    assert not SystemTopology.of(topology, system).boundary.infinite
    system.getForce(0).setUsesPeriodicBoundaryConditions(True)
    network = SystemTopology.of(topology, system)
    assert network.boundary.infinite
    assert molecules_of(network).tolist() == list(range(10))
    broken = with_box(wrapped(walks(2, 1, 10, 2 * np.eye(3)), 2 * np.eye(3)), network, 2 * np.eye(3))
    assert make_whole(broken) is broken


def test_parts_of_a_topology_know_their_system() -> None:
    topology = chain_topology(3, 4, 2 * np.eye(3))
    part = with_box(walks(1, 3, 4, 2 * np.eye(3)), topology, 2 * np.eye(3)).atom_slice([0, 1, 8, 9, 10])
    assert part.topology.boundary.periodic
    assert molecules_of(part.topology).tolist() == [0, 0, 1, 1, 1]
    assert molecules_of(part[0].topology).tolist() == [0, 0, 1, 1, 1]


# --- vectors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOXES)
def test_nearest_images_are_those_of_mdtraj_and_of_all_images(name: str) -> None:
    box = reduced_box(2.5 * BOXES[name])
    delta = RNG.uniform(-9, 9, size=(2000, 3))
    found = minimum_image(torch.from_numpy(delta)[None], torch.from_numpy(box)[None])[0].numpy()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), shortest(delta, box), atol=1e-9)
    steps = (delta - found) @ np.linalg.inv(box)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    topology, x = chain_topology(40, 1, box), RNG.random((1, 40, 3)) @ box
    features = resolve_features([DistanceSettings(selection="all")], topology)
    values = featurise(build_features(features, molecules_of(topology).tolist()), x, box[None])
    theirs = mdtraj.compute_distances(with_box(x, topology, box), features[0].pairs)  # type: ignore[attr-defined]
    np.testing.assert_allclose(values, theirs, atol=2e-5)


@pytest.mark.parametrize("name", BOXES)
def test_vectors_follow_the_bonds_inside_molecules(name: str) -> None:
    box = reduced_box(2.0 * BOXES[name])
    topology, x = chain_topology(2, 14, box), walks(3, 2, 14, box)
    pairs = [(0, 13), (14, 27), (0, 14), (13, 20)]
    features = build_features([DistanceSettings(pairs=pairs)], molecules_of(topology).tolist())
    found = featurise(features, x, np.repeat(box[None], 3, axis=0))
    direct = np.linalg.norm(x[:, [13, 27]] - x[:, [0, 14]], axis=-1)
    assert direct.max() > 1.2  # more than half the box
    np.testing.assert_allclose(found[:, :2], direct, atol=1e-5)
    for frame in range(3):
        between = shortest((x[frame, [14, 20]] - x[frame, [0, 13]]).astype(np.float64), box)
        np.testing.assert_allclose(found[frame, 2:], between, atol=1e-5)
    resolved = DistanceSettings(pairs=pairs).resolve(topology)  # remembers the molecules
    np.testing.assert_array_equal(featurise(resolved.build(), x, np.repeat(box[None], 3, axis=0)), found)
    script = torch.jit.script(features.double())
    cell = torch.from_numpy(box)[None].expand(3, 3, 3)
    np.testing.assert_allclose(script(torch.from_numpy(x).double(), cell).numpy(), found, atol=1e-5)


@pytest.mark.parametrize("forces", ["traced", pytest.param("autograd", marks=pytest.mark.torchforce)])
def test_forces_on_two_molecules_in_a_triclinic_box(forces: str) -> None:
    topology, system = chains(2, 14)
    box = reduced_box(2.0 * BOXES["octahedron"])
    system.setDefaultPeriodicBoxVectors(*box)
    molecules = molecules_of(SystemTopology.of(topology, system)).tolist()
    pairs = [(0, 13), (3, 20), (13, 14)]
    cv = distance_cv(pairs, 28, molecules)
    bias = HarmonicSettings(centre=[0.5, 0.3, 0.2], force_constant=[40.0, 50.0, 60.0]).build(
        BiasContext((0.0, 0.0, 0.0), 300.0, 2.5)
    )
    biased = add_bias(system, cv, bias, forces=forces)  # type: ignore[arg-type]
    context = openmm.Context(
        biased, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    x = walks(1, 2, 14, box)[0].astype(np.float64)
    x[14:] += [2, -1, 1] @ box

    def energy(positions: Array) -> float:
        context.setPositions(positions)
        return float(context.getState(energy=True, groups={31}).getPotentialEnergy()._value)

    delta = np.array([x[j] - x[i] for i, j in pairs])
    d = np.array([np.linalg.norm(delta[0]), *shortest(delta[1:], box)])
    expected = 0.5 * ([40.0, 50.0, 60.0] * (d - [0.5, 0.3, 0.2]) ** 2).sum()
    assert energy(x) == pytest.approx(expected, rel=1e-6)
    found = context.getState(forces=True, groups={31}).getForces(asNumpy=True)._value
    for atom, axis in product({atom for pair in pairs for atom in pair}, range(3)):
        step = np.zeros_like(x)
        step[atom, axis] = 1e-5
        slope = (energy(x + step) - energy(x - step)) / 2e-5
        assert found[atom, axis] == pytest.approx(-slope, abs=1e-4)


def test_variables_of_a_script_take_nearest_images_unless_molecules_are_given() -> None:
    x = torch.tensor([[[0.0, 0, 0], [1.7, 0, 0]]], dtype=torch.float64)
    box = 2.0 * torch.eye(3, dtype=torch.float64)[None]
    assert float(distance_cv([(0, 1)], 2)(x, box)) == pytest.approx(0.3)
    assert float(distance_cv([(0, 1)], 2, [0, 0])(x, box)) == pytest.approx(1.7)
    assert isinstance(distance_cv([(0, 1)], 2, [0, 1]), FeatureCV)


def test_an_exported_variable_takes_the_box(tmp_path: Path) -> None:
    box = reduced_box(2.0 * BOXES["octahedron"])
    cv, x = distance_cv([(0, 1), (1, 2)], 3, [0, 0, 1]), torch.rand(3, 3, dtype=torch.float64) * 6
    export_cv(cv, tmp_path / "z.pt")
    script, cell = torch.jit.load(str(tmp_path / "z.pt")), torch.from_numpy(box)
    torch.testing.assert_close(script(x, cell), cv(x[None], cell[None])[0])
    torch.testing.assert_close(script(x), cv(x[None], torch.empty(0))[0])


# --- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["dcd", "xtc", "trr"])
def test_the_system_decides_whether_the_box_of_a_file_counts(tmp_path: Path, suffix: str) -> None:
    box = 2.0 * np.eye(3)
    topology, system = chains(2, 14)
    periodic, x = chain_topology(2, 14, box), walks(4, 2, 14, box)
    while system.getNumForces() > 1:
        system.removeForce(1)
    vacuum = SystemTopology.of(topology, system)
    files = {name: tmp_path / f"{name}.{suffix}" for name in ("box", "none", "dummy")}
    for (name, path), cell in zip(files.items(), (box, None, 0.1 * np.eye(3)), strict=True):
        with_box(wrapped(x, box) if name == "box" else x, periodic, cell).save(str(path))
    for name in ("none", "dummy"):
        (found,) = read_trajectory(files[name], vacuum)
        assert found.unitcell_vectors is None
        np.testing.assert_allclose(found.xyz, x, atol=1e-3)
        with pytest.raises(DataError, match=rf"{name}\.{suffix}: frame 0 has no periodic box; the System is"):
            list(read_trajectory(files[name], periodic))
    (found,) = read_trajectory(files["box"], periodic)
    assert make_whole(found) is found
    np.testing.assert_allclose(found.unitcell_vectors[0], box, atol=1e-6)
    assert next(read_trajectory(files["box"], vacuum)).unitcell_vectors is None


def test_boxes_of_a_file_that_do_not_fit_are_named_with_their_frame(tmp_path: Path) -> None:
    box = 2.0 * np.eye(3)
    topology, x = chain_topology(1, 3, box), walks(3, 1, 3, box)
    path = tmp_path / "narrow.dcd"
    narrow = mdtraj.Trajectory(x, topology)
    narrow.unitcell_vectors = np.stack([box, box, 0.9 * np.eye(3)])
    narrow.save(str(path))
    with pytest.raises(
        DataError, match=r"narrow\.dcd: frame 2: the periodic box is 0\.9 nm wide, .* 0\.5 nm"
    ):
        list(read_trajectory(path, topology))


def test_rotated_and_unreduced_boxes_of_a_file_are_put_right(tmp_path: Path) -> None:
    box = reduced_box(2.0 * BOXES["octahedron"])
    topology, x = chain_topology(3, 10, box), walks(2, 3, 10, box)
    turn, path = rotation(), tmp_path / "turned.xtc"
    mixed = np.array([[1, 0, 0], [1, 1, 0], [-1, 1, 1]]) @ box
    with mdtraj.formats.XTCTrajectoryFile(str(path), "w") as file:
        cells = np.repeat((mixed @ turn)[None], 2, axis=0).astype(np.float32)
        file.write((wrapped(x, box) @ turn).astype(np.float32), box=cells)
    (found,) = read_trajectory(path, topology)
    boxes = boxes_of(found)
    assert boxes is not None
    features = build_features(
        resolve_features([DistanceSettings(selection="all")], topology), molecules_of(topology).tolist()
    )
    expected = featurise(features, x, np.repeat(box[None], 2, axis=0))
    np.testing.assert_allclose(featurise(features, found.xyz, boxes), expected, atol=5e-3)


def test_references_broken_at_the_box_have_the_same_contacts(tmp_path: Path) -> None:
    pdb = mdtraj.load(str(library_folder("chignolin") / "chignolin.pdb"))
    box = reduced_box(2.6 * BOXES["octahedron"])
    centred = pdb.xyz - pdb.xyz.mean(axis=1, keepdims=True)
    native = {"selection": "all"}
    pdb.save_pdb(str(tmp_path / "whole.pdb"))
    for index, corner in enumerate(([0, 0, 0], [0.5, 0, 0.5], [0.5, 0.5, 0])):
        broken = with_box(wrapped(centred + corner @ box, box), pdb.topology, box)
        broken.save_pdb(str(tmp_path / f"broken{index}.pdb"))
    for kind in (NativeContactSettings, ContactSettings):
        counts = []
        for path in sorted(tmp_path.glob("*.pdb")):
            (resolved,) = resolve_features([kind(reference=path, **native)], pdb.topology)  # type: ignore[arg-type]
            counts.append(len(getattr(resolved, "pairs", None) or resolved.contacts))  # type: ignore[attr-defined]
        assert len(set(counts)) == 1
    with pytest.raises(ConfigError, match="no such file"):
        resolve_features([NativeContactSettings(reference=tmp_path / "gone.pdb")], pdb.topology)
