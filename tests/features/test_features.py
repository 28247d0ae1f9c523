"""The contract every feature keeps, and comparison with MDTraj."""

import dataclasses
from itertools import product
from typing import Any

import mdtraj
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from latf_openmm.errors import ConfigError
from latf_openmm.features import FEATURE_KINDS, Features, FeatureSettings, build_features, resolve_features
from latf_openmm.features.base import minimum_image
from latf_openmm.features.base_vectors import BaseVectorSettings
from latf_openmm.features.contacts import ContactSettings, NativeContactSettings
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.coordination import CoordinationSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.hydrogen_bonds import HydrogenBondSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.settings import validate
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.systems.rna_tetraloop import RnaTetraloopSettings

# One line for each kind: unresolved settings that fit the alanine dipeptide.
CASES: dict[str, FeatureSettings] = {
    "base_vectors": BaseVectorSettings(bases=[(0, 4, 6), (8, 10, 14), (15, 16, 18)]),
    "contacts": ContactSettings(minimum_separation=1),
    "coordinates": CoordinateSettings(atoms=[0, 8, 21], axes="xz"),
    "coordination": CoordinationSettings(selection="element != H", r0=0.3, exponent=6),
    "distances": DistanceSettings(selection="element != H", minimum_bonds=3),
    "hydrogen_bonds": HydrogenBondSettings(minimum_separation=1),
    "native_contacts": NativeContactSettings(pairs=[(1, 10), (4, 18)], lengths=[0.4, 0.35]),
    "torsions": TorsionSettings(angles=["phi", "psi"]),
}
CONTRACT = [*CASES, "joined"]
DIPEPTIDE = AlanineDipeptideSettings().build()
TOPOLOGY = DIPEPTIDE.mdtraj_topology()
# Every atom is a molecule of its own: all vectors are those to nearest images. Whole molecules: tests/test_images.py.
TOPOLOGY.boundary = dataclasses.replace(TOPOLOGY.boundary, molecules=np.arange(TOPOLOGY.n_atoms))
NO_BOX = torch.empty(0)
BOXES = {
    "rectangular": np.diag([2.3, 2.7, 2.5]),
    "triclinic": np.array([[2.5, 0.0, 0.0], [-0.8, 2.4, 0.0], [1.1, -1.0, 2.6]]),
}
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)


def unresolved(name: str) -> list[FeatureSettings]:
    return list(CASES.values()) if name == "joined" else [CASES[name]]


def make(name: str) -> Features:
    """The bare module of one kind, or all kinds joined."""
    resolved = resolve_features(unresolved(name), TOPOLOGY)
    return build_features(resolved) if name == "joined" else resolved[0].build()


def frames(n_frames: int, seed: int = 0) -> Tensor:
    """Perturbed dipeptide positions, shape (n_frames, 22, 3) [nm], float64."""
    noise = np.random.default_rng(seed).normal(0.0, 0.02, (n_frames, TOPOLOGY.n_atoms, 3))
    return torch.from_numpy(DIPEPTIDE.positions + noise)


def box_of(name: str, n_frames: int) -> Tensor:
    return torch.from_numpy(BOXES[name]).expand(n_frames, 3, 3)


def scattered(x: Tensor, box: Tensor, seed: int = 1) -> Tensor:
    """Every atom moved to a random periodic image of itself."""
    shifts = np.random.default_rng(seed).integers(-2, 3, x.shape).astype(float)
    return x + torch.einsum("fai,fij->faj", torch.from_numpy(shifts), box)


def close(actual: Tensor, expected: Tensor, atol: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


# --- the contract ----------------------------------------------------------------------------------


def test_every_kind_is_in_the_contract() -> None:
    assert set(CASES) == set(FEATURE_KINDS)
    assert all(type(case) is FEATURE_KINDS[kind] for kind, case in CASES.items())


@pytest.mark.parametrize("name", CONTRACT)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shapes_and_names_agree(name: str, dtype: torch.dtype) -> None:
    module = make(name)
    values = module(frames(4).to(dtype), NO_BOX)
    assert values.shape == (4, module.n_features)
    assert values.dtype == dtype
    assert torch.isfinite(values).all()
    assert len(set(module.names)) == len(module.names) == module.n_features > 0


@pytest.mark.parametrize("name", CONTRACT)
@pytest.mark.parametrize("box", ["none", *BOXES])
def test_gradient_is_finite_and_equals_finite_differences(name: str, box: str) -> None:
    module, x = make(name), frames(2, seed=3).requires_grad_()
    cell = NO_BOX if box == "none" else box_of(box, 2)
    (gradient,) = torch.autograd.grad(module(x, cell).sum(), x)
    assert torch.isfinite(gradient).all()
    assert torch.autograd.gradcheck(lambda y: module(y, cell), x, eps=1e-6, atol=1e-6, rtol=1e-5)


@st.composite
def rotations(draw: st.DrawFn) -> Tensor:
    quaternion = np.array(draw(st.lists(st.floats(-1, 1), min_size=4, max_size=4)))
    norm = np.linalg.norm(quaternion)
    return torch.from_numpy(Rotation.from_quat(quaternion if norm > 0.1 else [0.0, 0, 0, 1]).as_matrix())


vectors = st.lists(st.floats(-20, 20), min_size=3, max_size=3).map(lambda v: torch.tensor(v).double())


@pytest.mark.parametrize("name", CONTRACT)
@PROPERTY
@given(rotation=rotations(), translation=vectors)
def test_invariant_to_translation_and_rotation(name: str, rotation: Tensor, translation: Tensor) -> None:
    module, x = make(name), frames(2)
    if module.invariant:
        close(module(x @ rotation.T + translation, NO_BOX), module(x, NO_BOX))


@pytest.mark.parametrize("name", CONTRACT)
def test_the_invariant_flag_tells_the_truth(name: str) -> None:
    module, x = make(name), frames(2)
    moved = module(x + 1.0, NO_BOX)
    assert torch.allclose(moved, module(x, NO_BOX)) == module.invariant


@pytest.mark.parametrize("name", [kind for kind in CASES if make(kind).invariant])
@pytest.mark.parametrize("box", BOXES)
def test_periodic_images_do_not_matter(name: str, box: str) -> None:
    module, x, cell = make(name), frames(3), box_of(box, 3)
    expected = module(x, NO_BOX)
    close(module(x, cell), expected)
    close(module(scattered(x, cell), cell), expected)


@pytest.mark.parametrize("name", CONTRACT)
@pytest.mark.parametrize("box", ["none", *BOXES])
def test_scripted_equals_eager(name: str, box: str) -> None:
    module, x = make(name), frames(3)
    cell = NO_BOX if box == "none" else box_of(box, 3)
    scripted = torch.jit.script(module)
    for _ in range(3):  # the first calls run the profiling executor, the later ones the optimised graph
        close(scripted(x, cell), module(x, cell), atol=1e-13)


@pytest.mark.parametrize("name", CONTRACT)
def test_batch_equals_one_by_one(name: str) -> None:
    module, x, cell = make(name), frames(5), box_of("triclinic", 5)
    one_by_one = torch.cat([module(x[i : i + 1], cell[i : i + 1]) for i in range(5)])
    close(module(x, cell), one_by_one, atol=1e-13)
    assert torch.equal(module(x, cell), module(x, cell))


@pytest.mark.parametrize("name", CONTRACT)
def test_module_keeps_its_state_in_buffers(name: str) -> None:
    module = make(name)
    assert not list(module.parameters())
    close(module.to(torch.float64)(frames(2), NO_BOX), make(name)(frames(2), NO_BOX), atol=1e-13)


@pytest.mark.parametrize("name", CONTRACT)
def test_resolving_twice_changes_nothing(name: str) -> None:
    once = resolve_features(unresolved(name), TOPOLOGY)
    assert resolve_features(once, TOPOLOGY) == once


@pytest.mark.parametrize("name", CONTRACT)
def test_resolved_settings_survive_json(name: str) -> None:
    resolved = resolve_features(unresolved(name), TOPOLOGY)
    dumped = [item.model_dump(mode="json") for item in resolved]
    again = [validate(FEATURE_KINDS[data["kind"]], data, "saved") for data in dumped]
    first, second, x = build_features(resolved), build_features(again), frames(3)
    assert again == resolved
    assert first.names == second.names
    assert torch.equal(first(x, NO_BOX), second(x, NO_BOX))


# --- joined features -------------------------------------------------------------------------------


def test_joined_features_are_the_parts_side_by_side() -> None:
    parts, x = [make(name) for name in CASES], frames(3)
    joined = make("joined")
    assert joined.names == [name for part in parts for name in part.names]
    assert torch.equal(joined(x, NO_BOX), torch.cat([part(x, NO_BOX) for part in parts], dim=1))


def test_joined_features_are_invariant_when_every_part_is() -> None:
    resolved = resolve_features([CASES["distances"], CASES["torsions"]], TOPOLOGY)
    assert build_features(resolved).invariant


def test_every_bad_feature_is_reported() -> None:
    bad = [DistanceSettings(pairs=[(0, 22)]), CASES["torsions"], CoordinateSettings(atoms=[-1])]
    with pytest.raises(ConfigError, match=r"features\[0\]: .*atom 22") as caught:
        resolve_features(bad, TOPOLOGY)
    assert len(caught.value.problems) == 2
    assert caught.value.problems[1].startswith("features[2]: atoms names atom -1")


# --- against MDTraj --------------------------------------------------------------------------------


def trajectory(x: Tensor, cell: NDArray[np.float64] | None) -> mdtraj.Trajectory:
    result = mdtraj.Trajectory(x.numpy().astype(np.float32), TOPOLOGY)
    if cell is not None:
        result.unitcell_vectors = np.repeat(cell[None], len(x), axis=0).astype(np.float32)
    return result


@pytest.fixture(params=["none", *BOXES])
def periodic_case(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor, mdtraj.Trajectory]:
    """Positions, box and the MDTraj trajectory; where there is a box, atoms are scattered over images."""
    x = frames(6, seed=5)
    if request.param == "none":
        return x, NO_BOX, trajectory(x, None)
    cell = box_of(request.param, len(x))
    x = scattered(x, cell)
    return x, cell, trajectory(x, BOXES[request.param])


def test_distances_equal_mdtraj(periodic_case: tuple[Tensor, Tensor, mdtraj.Trajectory]) -> None:
    x, cell, traj = periodic_case
    resolved = DistanceSettings(selection="all").resolve(TOPOLOGY)
    assert isinstance(resolved, DistanceSettings)
    assert len(resolved.pairs or []) == 22 * 21 // 2
    expected = mdtraj.compute_distances(traj, np.array(resolved.pairs), periodic=cell.numel() > 0)
    np.testing.assert_allclose(resolved.build()(x, cell).numpy(), expected, atol=1e-5)


def test_torsions_equal_mdtraj(periodic_case: tuple[Tensor, Tensor, mdtraj.Trajectory]) -> None:
    x, cell, traj = periodic_case
    quadruples = [(4, 6, 8, 14), (6, 8, 14, 16), (0, 4, 6, 8), (8, 14, 16, 18), (6, 8, 10, 11), (21, 5, 9, 2)]
    angle = mdtraj.compute_dihedrals(traj, np.array(quadruples), periodic=cell.numel() > 0)
    expected = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    module = TorsionSettings(atoms=quadruples).resolve(TOPOLOGY).build()
    np.testing.assert_allclose(module(x, cell).numpy(), expected, atol=1e-4)


def test_named_torsions_are_those_of_mdtraj() -> None:
    x = frames(4)
    traj = trajectory(x, None)
    phi, psi = mdtraj.compute_phi(traj)[1][:, 0], mdtraj.compute_psi(traj)[1][:, 0]
    module = make("torsions")
    assert module.names == ["sin(phi ALA2)", "sin(psi ALA2)", "cos(phi ALA2)", "cos(psi ALA2)"]
    expected = np.stack([np.sin(phi), np.sin(psi), np.cos(phi), np.cos(psi)], axis=1)
    np.testing.assert_allclose(module(x, NO_BOX).numpy(), expected, atol=1e-5)


def test_torsion_is_smooth_through_180_degrees() -> None:
    angles = torch.pi + torch.linspace(-0.02, 0.02, 9).double()
    x = torch.zeros(9, 4, 3).double()
    x[:, 0, 0], x[:, 2, 2], x[:, 3, 2] = 1.0, 1.0, 1.0
    x[:, 3, 0], x[:, 3, 1] = torch.cos(angles), torch.sin(angles)
    module = TorsionSettings(atoms=[(0, 1, 2, 3)]).build()
    close(module(x, NO_BOX), torch.stack([torch.sin(angles), torch.cos(angles)], dim=1), atol=1e-12)


# --- distances and coordination --------------------------------------------------------------------


def test_minimum_bonds_leaves_out_bonded_neighbours() -> None:
    def pairs(minimum: int) -> set[tuple[int, int]]:
        resolved = DistanceSettings(selection="all", minimum_bonds=minimum).resolve(TOPOLOGY)
        return set(resolved.pairs or [])  # type: ignore[attr-defined]

    bonds = {tuple(sorted((a.index, b.index))) for a, b in TOPOLOGY.bonds}
    neighbours = {i: {j for bond in bonds if i in bond for j in bond if j != i} for i in range(22)}
    angles = {tuple(sorted((i, k))) for j in range(22) for i, k in product(neighbours[j], repeat=2) if i < k}
    assert pairs(1) - pairs(2) == bonds
    assert pairs(2) - pairs(3) == angles - bonds


@PROPERTY
@given(order=st.permutations(range(7)), seed=st.integers(0, 1000))
def test_coordination_is_invariant_to_permutation(order: list[int], seed: int) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 7, 3)))
    module = CoordinationSettings(atoms=list(range(7)), r0=1.5).build()
    close(module(x[:, order], NO_BOX), module(x, NO_BOX), atol=1e-12)


def test_coordination_equals_its_formula() -> None:
    x = np.random.default_rng(2).normal(size=(7, 3))
    numbers = [
        sum(1 / (1 + (np.linalg.norm(x[i] - x[j]) / 1.5) ** 8) for j in range(7) if j != i) for i in range(7)
    ]
    values = CoordinationSettings(atoms=list(range(7)), r0=1.5).build()(torch.from_numpy(x)[None], NO_BOX)
    np.testing.assert_allclose(values[0].numpy(), sorted(numbers), rtol=1e-12)


# --- minimum image ---------------------------------------------------------------------------------


@st.composite
def reduced_boxes(draw: st.DrawFn) -> NDArray[np.float64]:
    """Random box in OpenMM's reduced form: 2|b_x| <= a_x, 2|c_x| <= a_x, 2|c_y| <= b_y."""
    a, b, c = (draw(st.floats(1.0, 5.0)) for _ in range(3))
    bx, cx, cy = (draw(st.floats(-0.5, 0.5)) for _ in range(3))
    return np.array([[a, 0, 0], [bx * a, b, 0], [cx * a, cy * b, c]])


@settings(PROPERTY, max_examples=200)
@given(
    box=reduced_boxes(),
    direction=st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    fraction=st.floats(0.0, 0.99),
    shift=st.lists(st.integers(-3, 3), min_size=3, max_size=3),
)
def test_minimum_image_equals_brute_force(
    box: NDArray[np.float64], direction: list[float], fraction: float, shift: list[int]
) -> None:
    unit_vector = np.array(direction) / max(float(np.linalg.norm(direction)), 1e-3)
    nearest = unit_vector * fraction * box.diagonal().min() / 2
    delta = nearest + np.array(shift) @ box
    fractional = delta @ np.linalg.inv(box)
    wrapped = (fractional - np.round(fractional)) @ box
    images = wrapped + np.array(list(product((-1, 0, 1), repeat=3))) @ box
    found = minimum_image(torch.from_numpy(delta)[None, None], torch.from_numpy(box)[None])[0, 0].numpy()
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(images, axis=1).min(), abs=1e-9)
    np.testing.assert_allclose(found, nearest, atol=1e-9)


def test_no_box_leaves_vectors_alone() -> None:
    delta = torch.tensor([[[9.0, -8.0, 7.0]]])
    assert torch.equal(minimum_image(delta, NO_BOX), delta)


def test_each_frame_has_its_own_box() -> None:
    delta = torch.tensor([[[2.6, 0.0, 0.0]], [[2.6, 0.0, 0.0]]])
    boxes = torch.stack([3.0 * torch.eye(3), 6.0 * torch.eye(3)])
    close(minimum_image(delta, boxes)[:, 0, 0], torch.tensor([-0.4, 2.6]), atol=1e-6)


# --- bad inputs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (
            "base_vectors",
            {"bases": [[0, 1, 2], [3, 4, 5]], "pairs": [[0, 2]]},
            r"\(0, 2\) does not name two of 'bases'",
        ),
        ("contacts", {"minimum_separation": 9}, "no two residues of selection 'solute' are 9 apart"),
        ("contacts", {"reference": "none.pdb"}, "reference: none.pdb: no such file"),
        ("contacts", {"reference": __file__}, "reference: .*test_features.py: cannot be read"),
        ("contacts", {"r0": -1}, "r0: input should be greater than 0"),
        ("native_contacts", {}, "give 'reference', a structure file"),
        ("native_contacts", {"reference": "systems/chignolin/chignolin.pdb"}, "166 atoms, the system has 22"),
        (
            "native_contacts",
            {"reference": "systems/alanine_dipeptide/alanine_dipeptide.pdb"},
            "has no contact of",
        ),
        ("native_contacts", {"pairs": [[0, 40]], "lengths": [0.3]}, "native_contacts names atom 40"),
        ("hydrogen_bonds", {"selection": "element C"}, "'element C' has no donor"),
        ("hydrogen_bonds", {"minimum_separation": 5}, "has no donor .* and acceptor 5 residues apart"),
        ("coordinates", {"atoms": [22]}, "names atom 22, but the topology has atoms 0 to 21"),
        ("coordinates", {"atoms": [-1]}, "names atom -1"),
        ("coordinates", {"atoms": []}, "at least 1"),
        ("coordinates", {"axes": "yx"}, r"bad: axes: input should be 'x', 'y', 'z'"),
        ("coordination", {"atoms": [0, 1]}, "r0: this key is required"),
        ("coordination", {"atoms": [0, 1], "r0": 0.0}, "r0: input should be greater than 0"),
        ("coordination", {"atoms": [0, 1], "r0": 1.0, "exponent": 7}, "exponent must be even, got 7"),
        ("coordination", {"atoms": [0, 1], "r0": 1.0, "exponent": 0}, "greater than or equal to 2"),
        ("coordination", {"atoms": [0], "r0": 1.0}, "at least two particles"),
        ("coordination", {"atoms": [0, 22], "r0": 1.0}, "names atom 22"),
        ("coordination", {"atoms": [3, 4, 3], "r0": 1.0}, "same atom twice"),
        ("coordination", {"atoms": [0, 1], "selection": "all", "r0": 1.0}, "either 'atoms' or 'selection'"),
        ("coordination", {"selection": "element Xe", "r0": 1.0}, "matches no atom of 22"),
        ("distances", {}, "give either 'pairs' or 'selection'"),
        ("distances", {"pairs": [[0, 1]], "selection": "all"}, "give either 'pairs' or 'selection'"),
        ("distances", {"pairs": []}, "pairs: .*at least 1"),
        ("distances", {"pairs": [[3, 3]]}, r"the pair \(3, 3\) has the same atom twice"),
        ("distances", {"pairs": [[0, 1, 2]]}, r"pairs\[0\]: tuple should have at most 2 items"),
        ("distances", {"pairs": [[0, 22]]}, "pairs names atom 22"),
        ("distances", {"pairs": [[0, 1]], "minimum_bonds": 3}, "minimum_bonds"),
        (
            "distances",
            {"selection": "resname XXX"},
            "matches no atom of 22; its residues are called ACE, ALA, NME$",
        ),
        ("distances", {"selection": "index 0"}, "'index 0' leaves no pair of atoms"),
        ("distances", {"selection": "all", "minimum_bonds": 0}, "minimum_bonds: input should be greater"),
        ("distances", {"selection": "name =="}, "'name ==' is not valid MDTraj syntax"),
        ("distances", {"selection": "foo bar baz"}, "'foo bar baz' is not valid MDTraj syntax"),
        ("distances", {"selection": ""}, "selection '' is not valid MDTraj syntax"),
        ("torsions", {}, "give either 'angles' or 'atoms'"),
        ("torsions", {"angles": ["phi"], "atoms": [[0, 1, 2, 3]]}, "give either 'angles' or 'atoms'"),
        ("torsions", {"angles": ["chi9"]}, r"angles\[0\]: input should be 'phi', .* or 'chi', got 'chi9'"),
        ("torsions", {"angles": ["chi1"]}, "the topology has no chi1 torsion"),
        ("torsions", {"angles": ["zeta"]}, "the topology has no zeta torsion"),
        ("torsions", {"angles": []}, "angles: .*at least 1"),
        ("torsions", {"atoms": []}, "atoms: .*at least 1"),
        ("torsions", {"atoms": [[0, 1, 2, 1]]}, r"torsion \(0, 1, 2, 1\) needs four different atoms"),
        ("torsions", {"atoms": [[0, 1, 2, 99]]}, "atoms names atom 99"),
    ],
)
def test_bad_input_is_one_clear_line(kind: str, data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        validate(FEATURE_KINDS[kind], data, "bad").resolve(TOPOLOGY)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    assert len(problem) < 250


@pytest.mark.parametrize("name", CASES)
def test_kept_descriptors_are_the_same_numbers(name: str) -> None:
    (resolved,) = resolve_features([CASES[name]], TOPOLOGY)
    whole, x = resolved.build(), frames(3)
    values = dict(zip(whole.names, whole(x, NO_BOX).T, strict=True))
    wanted = [0] if whole.n_features < 3 else [1, whole.n_features - 1]
    part, columns = resolved.keep(wanted)
    part = validate(type(part), part.model_dump(mode="json"), "saved")
    few = part.build()
    assert set(wanted) <= set(columns)
    assert few.names == [whole.names[column] for column in columns]
    for label, column in zip(few.names, few(x, NO_BOX).T, strict=True):
        close(column, values[label], atol=1e-12)


# --- base vectors ----------------------------------------------------------------------------------


def plain_g(x: np.ndarray, topology: mdtraj.Topology) -> np.ndarray:
    """G of one structure (n_atoms, 3), written down once more without torch."""
    frames = []
    for residue in topology.residues:
        at = {atom.name: x[atom.index] for atom in residue.atoms}
        order = ("C2", "C6", "C4") if residue.name in "AG" else ("C2", "C4", "C6")
        ring = np.array([at[name] for name in order])
        origin = ring.mean(axis=0)
        first, second = ring[0] - origin, ring[1] - origin
        z = np.cross(first, second)
        axes = np.array([first / np.linalg.norm(first), np.zeros(3), z / np.linalg.norm(z)])
        axes[1] = np.cross(axes[2], axes[0])
        frames.append((origin, axes))
    found = []
    for i, (origin, axes) in enumerate(frames):
        for j, (other, _) in enumerate(frames):
            if i != j:
                r = axes @ (other - origin) / np.array([0.5, 0.5, 0.3])
                length, gamma = np.linalg.norm(r), np.pi / 2.4
                inside = float(length < 2.4)
                found += [*(np.sin(gamma * length) * r / length * inside / gamma)]
                found += [(1 + np.cos(gamma * length)) * inside / gamma]
    return np.array(found)


def test_base_vectors_of_an_rna() -> None:
    built = RnaTetraloopSettings().build()
    topology, x = built.mdtraj_topology(), built.positions
    (resolved,) = resolve_features([BaseVectorSettings()], topology)
    module = resolved.build()
    assert module.n_features == 4 * 10 * 9
    values = module(torch.from_numpy(x), NO_BOX).numpy()[0]
    np.testing.assert_allclose(values, plain_g(x[0], topology), atol=1e-9)
    moved = x[0] + np.random.default_rng(0).normal(0, 0.02, x[0].shape)
    ermsd = np.sqrt(((module(torch.from_numpy(moved[None]), NO_BOX).numpy()[0] - values) ** 2).sum() / 10)
    assert 0.05 < ermsd < 1.5
    with pytest.raises(ConfigError, match="0 nucleobases in selection 'solute'"):
        BaseVectorSettings().resolve(TOPOLOGY)
