"""Collective variables of any origin: their values, the atoms they look at, and forces along them."""

import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from openmm import unit
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from latf_openmm.bias import torchscript
from latf_openmm.bias.biased_system import add_bias
from latf_openmm.bias.cv import (
    CollectiveVariables,
    FeatureCV,
    ModuleCV,
    SingleFrameCV,
    distance_cv,
    export_cv,
    torsion_cv,
)
from latf_openmm.bias.potentials import Bias
from latf_openmm.bias.potentials.base import AdaptiveBias, cv_context
from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.bias.updater import BiasUpdater
from latf_openmm.errors import ModelError
from latf_openmm.features import FEATURE_KINDS, FeatureSettings, build_features, resolve_features
from latf_openmm.features.base_vectors import BaseVectorSettings
from latf_openmm.features.contacts import AtomContact, ContactSettings, NativeContactSettings
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.coordination import CoordinationSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.hydrogen_bonds import HydrogenBond, HydrogenBondSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.force_groups import BIAS_GROUP
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings

Array = NDArray[np.float64]
_KJ = unit.kilojoule_per_mole
NO_BOX = torch.empty(0)
TAU = 2 * np.pi
STEP = 1e-6  # nm, of the finite differences
BACKENDS: dict[str, dict[str, Any]] = {
    "compiled": {"backend": "compiled"},
    "torchforce-traced": {"backend": "torchforce", "forces": "traced"},
    "torchforce-autograd": {"backend": "torchforce", "forces": "autograd"},
    "python": {"backend": "python"},
}
each_backend = pytest.mark.parametrize("backend", BACKENDS)
QUICK = settings(max_examples=20, deadline=None, derandomize=True)

DIPEPTIDE = AlanineDipeptideSettings().build()
TOPOLOGY = DIPEPTIDE.mdtraj_topology()
N_ATOMS = DIPEPTIDE.n_atoms
PHI_PSI = [(4, 6, 8, 14), (6, 8, 14, 16)]
PAIRS = [(0, 21), (4, 16), (5, 17)]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def frames(n: int, seed: int = 0) -> Array:
    """Perturbed dipeptide positions, exact in single precision, shape (n, 22, 3) [nm]."""
    noise = np.random.default_rng(seed).normal(0.0, 0.03, (n, N_ATOMS, 3))
    return (DIPEPTIDE.positions + noise).astype(np.float32).astype(np.float64)


def values(cv: CollectiveVariables, x: Array, box: Array | None = None) -> Array:
    cell = NO_BOX if box is None else torch.from_numpy(box).expand(len(x), 3, 3)
    return np.asarray(cv(torch.from_numpy(x), cell).numpy())


def free_particles(n: int, box: Array | None = None) -> openmm.System:
    """Particles without forces; in a periodic box where there is one."""
    system = openmm.System()
    for _ in range(n):
        system.addParticle(12.0)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
        force = openmm.CustomBondForce("0*r")
        force.setUsesPeriodicBoundaryConditions(True)
        system.addForce(force)
    return system


def bias_context(
    cv: CollectiveVariables, bias: Bias, backend: str, n_copies: int = 1, box: Array | None = None
) -> openmm.Context:
    system = free_particles(n_copies * cv.n_atoms, box)
    biased = add_bias(system, cv, bias, n_copies=n_copies, **BACKENDS[backend])
    platform = openmm.Platform.getPlatformByName("Reference")
    return openmm.Context(biased, openmm.VerletIntegrator(0.001), platform)


def energy(context: openmm.Context, x: Array) -> float:
    context.setPositions(x.reshape(-1, 3))
    state = context.getState(energy=True, groups={BIAS_GROUP})
    return float(state.getPotentialEnergy().value_in_unit(_KJ))


def forces(context: openmm.Context, x: Array) -> Array:
    context.setPositions(x.reshape(-1, 3))
    state = context.getState(forces=True, groups={BIAS_GROUP})
    return np.asarray(state.getForces(asNumpy=True).value_in_unit(_KJ / unit.nanometer)).reshape(x.shape)


def difference_error(context: openmm.Context, x: Array, directions: int = 8) -> float:
    """Deviation of the forces from central differences along random directions, relative to the largest."""
    exact = forces(context, x)
    rng, worst = np.random.default_rng(3), 0.0
    for _ in range(directions):
        direction = rng.normal(size=x.shape)
        direction /= np.linalg.norm(direction)
        slope = (energy(context, x + STEP * direction) - energy(context, x - STEP * direction)) / (2 * STEP)
        worst = max(worst, abs(slope + float((direction * exact).sum())))
    return worst / float(np.abs(exact).max())


def harmonic(cv: CollectiveVariables, z: Array, force_constant: float = 30.0) -> Bias:
    """Centred a bit away from z."""
    centre = (z + 0.3 * np.arange(1, len(z) + 1)).tolist()
    return HarmonicSettings(centre=centre, force_constant=force_constant).build(
        cv_context(cv.periods.tolist(), 300.0)
    )


# --- values ------------------------------------------------------------------------------------------


def test_values_against_mdtraj() -> None:
    x = frames(20)
    trajectory = mdtraj.Trajectory(x, TOPOLOGY)
    distances = distance_cv(PAIRS, N_ATOMS)
    np.testing.assert_allclose(values(distances, x), mdtraj.compute_distances(trajectory, PAIRS), atol=1e-6)
    assert distances.periods.tolist() == [0.0, 0.0, 0.0]
    torsions = torsion_cv(PHI_PSI, N_ATOMS)
    angles = mdtraj.compute_dihedrals(trajectory, PHI_PSI)
    difference = values(torsions, x) - angles
    np.testing.assert_allclose(difference - TAU * np.round(difference / TAU), 0.0, atol=1e-5)
    np.testing.assert_allclose(torsions.periods, TAU)
    np.testing.assert_allclose(mdtraj.compute_phi(trajectory)[1], angles[:, :1], atol=1e-6)  # the right atoms
    for cv in (distances, torsions):
        assert values(cv, x).dtype == np.float64
        assert cv.n_atoms == N_ATOMS
        assert values(cv, x.astype(np.float32)).dtype == np.float64  # type: ignore[arg-type]


@pytest.mark.parametrize("box", [np.diag([1.1, 1.3, 1.2]), [[1.3, 0, 0], [-0.5, 1.2, 0], [0.4, -0.4, 1.1]]])
def test_values_in_a_box_against_mdtraj(box: Any) -> None:
    box = np.array(box, dtype=float)
    x = frames(10)
    shifts = np.random.default_rng(1).integers(-2, 3, x.shape).astype(float)
    scattered = x + shifts @ box
    trajectory = mdtraj.Trajectory(scattered, TOPOLOGY)
    trajectory.unitcell_vectors = np.repeat(box[None], 10, axis=0)
    pairs = [(0, 4), (5, 6), (8, 14)]  # shorter than half the box
    near = mdtraj.compute_distances(trajectory, pairs, periodic=True)
    np.testing.assert_allclose(values(distance_cv(pairs, N_ATOMS), scattered, box), near, atol=1e-5)
    assert np.abs(near - mdtraj.compute_distances(trajectory, pairs, periodic=False)).max() > 0.5
    np.testing.assert_allclose(
        values(torsion_cv(PHI_PSI, N_ATOMS), scattered, box),
        values(torsion_cv(PHI_PSI, N_ATOMS), x),
        atol=1e-9,
    )


def test_a_network_on_descriptors() -> None:
    torch.manual_seed(0)
    features = build_features([DistanceSettings(pairs=PAIRS)])
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, 2))
    before = [parameter.clone() for parameter in network.parameters()]
    cv = FeatureCV(features, network, N_ATOMS, periods=[0.0, 2.0])
    x = frames(5)
    network.eval()
    with torch.no_grad():
        expected = network(torch.from_numpy(values(distance_cv(PAIRS, N_ATOMS), x)).float())
    np.testing.assert_allclose(values(cv, x), expected, atol=1e-5)
    assert (cv.dim, cv.periods.tolist()) == (2, [0.0, 2.0])
    # The network is left as it was, and can be changed later without an effect.
    assert all(p.dtype == torch.float32 and p.requires_grad for p in network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    was = values(cv, x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(values(cv, x), was)
    assert not any(p.requires_grad for p in cv.parameters())


# --- a periodic variable ------------------------------------------------------------------------------


def twisted(phi: float) -> Array:
    """Four atoms with a torsion angle of phi, shape (1, 4, 3)."""
    return np.array(
        [
            [
                [0.14, 0.0, -0.05],
                [0.0, 0.0, 0.0],
                [0.0, 0.0, 0.15],
                [0.14 * np.cos(phi), 0.14 * np.sin(phi), 0.2],
            ]
        ]
    )


@each_backend
def test_a_restraint_across_pi(backend: str) -> None:
    cv = torsion_cv([(0, 1, 2, 3)], 4)
    for phi in (-3.0, 0.5, 2.0):
        np.testing.assert_allclose(values(cv, twisted(phi)), [[phi]], atol=1e-12)
    bias = HarmonicSettings(centre=[2.9], force_constant=50.0).build(cv_context(cv.periods.tolist(), 300.0))
    context = bias_context(cv, bias, backend)
    angles = np.linspace(2.0, 4.3, 47)  # through pi = 3.14; the far side of 2.9 is -0.24
    np.testing.assert_allclose(
        [energy(context, twisted(phi)) for phi in angles], 25.0 * (angles - 2.9) ** 2, rtol=0, atol=1e-10
    )
    for phi in (np.pi - 1e-9, np.pi + 1e-9):
        assert energy(context, twisted(phi)) == pytest.approx(25.0 * (np.pi - 2.9) ** 2, abs=1e-6)
    # The force turns the same way on both sides, and is right right there (the differences reach across).
    for phi in (np.pi - 1e-7, np.pi - 1e-9, np.pi + 1e-9, 3.2, 2.7):
        assert difference_error(context, twisted(phi)) < 1e-6
    one, other = forces(context, twisted(np.pi - 1e-7)), forces(context, twisted(np.pi + 1e-7))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
    assert np.abs(one).max() > 10.0


@given(z=st.floats(-20, 20), centre=st.floats(-20, 20), turns=st.integers(-3, 3))
@QUICK
def test_a_periodic_restraint_has_no_preferred_image(z: float, centre: float, turns: int) -> None:
    context = cv_context([TAU], 300.0)
    one = HarmonicSettings(centre=[centre], force_constant=2.0).build(context)
    other = HarmonicSettings(centre=[centre + turns * TAU], force_constant=2.0).build(context)
    at = torch.tensor([[z], [z - TAU * turns]], dtype=torch.float64)
    nearest = min(abs(z - centre + n * TAU) for n in range(-10, 11))
    expected = torch.full((2,), nearest**2, dtype=torch.float64)
    torch.testing.assert_close(one(at), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(other(at), expected, rtol=0, atol=1e-10)


# --- only atoms that are used ---------------------------------------------------------------------------

# One line for each kind, on some of the atoms and out of order.
FEATURES: dict[str, FeatureSettings] = {
    "base_vectors": BaseVectorSettings(bases=[(16, 4, 10), (3, 8, 14)]),
    "contacts": ContactSettings(
        contacts=[
            AtomContact(first=[4, 5], second=[16, 18], name="a"),
            AtomContact(first=[5], second=[14], name="b"),
        ],
        beta=1.0,
    ),
    "coordinates": CoordinateSettings(atoms=[14, 3], axes="xz"),
    "coordination": CoordinationSettings(atoms=[18, 4, 8, 5], r0=0.3, exponent=6),
    "distances": DistanceSettings(pairs=[(16, 4), (4, 10)]),
    "hydrogen_bonds": HydrogenBondSettings(
        bonds=[HydrogenBond(donor=16, hydrogens=[17], acceptor=5, name="h")]
    ),
    "native_contacts": NativeContactSettings(pairs=[(16, 4), (10, 5)], lengths=[0.17, 0.23]),
    "torsions": TorsionSettings(atoms=[(16, 14, 8, 6), (4, 6, 8, 14)]),
}
USED = {
    "base_vectors": {3, 4, 8, 10, 14, 16},
    "contacts": {4, 5, 14, 16, 18},
    "coordinates": {3, 14},
    "coordination": {4, 5, 8, 18},
    "distances": {4, 10, 16},
    "hydrogen_bonds": {5, 16, 17},
    "native_contacts": {4, 5, 10, 16},
    "torsions": {4, 6, 8, 14, 16},
    "joined": {3, 4, 5, 6, 8, 10, 14, 16, 17, 18},
}


def resolved(kind: str) -> list[FeatureSettings]:
    return resolve_features(list(FEATURES.values()) if kind == "joined" else [FEATURES[kind]], TOPOLOGY)


def test_every_kind_of_feature_is_here() -> None:
    assert set(FEATURES) == set(FEATURE_KINDS)
    assert set(USED) == {*FEATURES, "joined"}


@pytest.mark.parametrize("gathered", [True, False])
@pytest.mark.parametrize("kind", USED)
def test_only_the_atoms_used_matter(kind: str, gathered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if gathered:
        monkeypatch.setattr("latf_openmm.bias.cv._FEW_ATOMS", 0)
    features = build_features(resolved(kind))
    cv = FeatureCV(features, None, N_ATOMS)
    assert set(cv.atoms.tolist()) == (USED[kind] if gathered else set())
    x = frames(4)
    for box in (None, np.diag([2.0, 2.1, 2.2])):
        cell = NO_BOX if box is None else torch.from_numpy(box).expand(4, 3, 3)
        np.testing.assert_array_equal(values(cv, x, box), features(torch.from_numpy(x), cell))
    # The features given are as they were: they can be used again.
    np.testing.assert_array_equal(values(FeatureCV(features, None, N_ATOMS), x), values(cv, x))
    # Others may be anywhere.
    lost = x.copy()
    lost[:, sorted(set(range(N_ATOMS)) - USED[kind])] = np.nan if gathered else 1e4
    np.testing.assert_array_equal(values(cv, lost), values(cv, x))


@pytest.mark.parametrize("kind", USED)
def test_other_atoms_feel_exactly_nothing(kind: str) -> None:
    cv = FeatureCV(build_features(resolved(kind)), None, N_ATOMS)
    x = frames(2)
    backend = "compiled" if kind == "joined" else "python"
    context = bias_context(cv, harmonic(cv, values(cv, x).mean(0)), backend, n_copies=2)
    f = forces(context, x)
    used = sorted(USED[kind])
    others = sorted(set(range(N_ATOMS)) - USED[kind])
    assert np.abs(f[:, others]).max() == 0.0
    assert np.abs(f[:, used]).max(axis=2).min() > 1e-3
    assert difference_error(context, x) < 1e-6


def test_features_of_all_atoms() -> None:
    settings_ = CoordinationSettings(r0=0.3).resolve(TOPOLOGY)
    cv = FeatureCV(settings_.build(), None, N_ATOMS)
    x = frames(2)
    assert cv.atoms.numel() == 0
    np.testing.assert_array_equal(values(cv, x), settings_.build()(torch.from_numpy(x), NO_BOX))


# --- modules of one's own -----------------------------------------------------------------------------


class EndToEnd(nn.Module):
    """The distance of the ends and a learned function, from one frame or a batch of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(3, 1)

    def forward(self, positions: Tensor) -> Tensor:
        first, last = positions.select(-2, 0), positions.select(-2, 3)
        end = torch.linalg.vector_norm(last - first, dim=-1, keepdim=True)
        return torch.cat([end, torch.tanh(self.layer(positions.select(-2, 1) - first))], dim=-1)


class InABox(nn.Module):
    """The distance of two atoms to the nearest image in a rectangular box."""

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        edges = torch.diagonal(box, dim1=-2, dim2=-1)
        delta = positions.select(-2, 3) - positions.select(-2, 0)
        delta = delta - edges * torch.round(delta / edges)
        return torch.linalg.vector_norm(delta, dim=-1, keepdim=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("torchscript")
    for dtype in (torch.float32, torch.float64):
        module = EndToEnd().to(dtype)
        torch.jit.script(module).save(str(folder / f"scripted {dtype}.pt"))
        torch.jit.trace(module, torch.zeros(4, 3, dtype=dtype)).save(str(folder / f"traced {dtype}.pt"))
    torch.jit.script(InABox()).save(str(folder / "box.pt"))
    return {path.stem: path for path in folder.iterdir()}


def quartet(n: int, seed: int = 5) -> Array:
    return np.random.default_rng(seed).normal(0.0, 0.3, (n, 4, 3))


def reference(x: Array) -> Array:
    module = EndToEnd().double()
    with torch.no_grad():
        return np.stack([module(frame).numpy() for frame in torch.from_numpy(x)])


SOURCES = ["module", "scripted", "scripted torch.float32", "scripted torch.float64", "traced torch.float32"]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("source", SOURCES)
def test_a_module_of_ones_own(source: str, batched: bool, files: dict[str, Path]) -> None:
    if batched and source.startswith("traced"):
        pytest.skip("the file was traced with one frame")
    x = quartet(3)
    given = {"module": EndToEnd(), "scripted": torch.jit.script(EndToEnd())}
    cv = ModuleCV(given.get(source) or files[source], x[0], batched=batched)
    assert (cv.n_atoms, cv.dim, cv.periods.tolist()) == (4, 2, [0.0, 0.0])
    np.testing.assert_allclose(values(cv, x), reference(x), rtol=0, atol=1e-12)
    assert not any(parameter.requires_grad for parameter in cv.parameters())
    as_string = ModuleCV(str(files["scripted torch.float32"]), x[0].tolist(), periods=[0.0, 3.0])
    assert as_string.periods.tolist() == [0.0, 3.0]


@pytest.mark.parametrize(
    ("source", "batched", "backend"),
    [
        *product(["module"], [False, True], BACKENDS),
        *product(["scripted torch.float32"], [False], BACKENDS),
        ("scripted torch.float32", True, "python"),
        ("scripted torch.float64", False, "torchforce-traced"),
        ("traced torch.float32", False, "torchforce-traced"),
        ("traced torch.float32", False, "torchforce-autograd"),
    ],
)
def test_a_module_of_ones_own_is_biased(
    source: str, batched: bool, backend: str, files: dict[str, Path]
) -> None:
    x = quartet(2)
    cv = ModuleCV(EndToEnd() if source == "module" else files[source], x[0], batched=batched)
    bias = harmonic(cv, reference(x)[0])
    context = bias_context(cv, bias, backend, n_copies=2)
    expected = float(bias(torch.from_numpy(reference(x))).sum())
    for _ in range(3):  # TorchScript optimises its graph in the first calls
        assert energy(context, x) == pytest.approx(expected, rel=1e-10)
        assert difference_error(context, x, directions=4) < 1e-6
    assert np.abs(forces(context, x)[:, 2]).max() == 0.0


@pytest.mark.parametrize(
    ("source", "batched", "backend"),
    [
        ("module", True, "torchforce-traced"),
        ("module", False, "python"),
        ("box", False, "torchforce-autograd"),
    ],
)
def test_a_module_that_takes_the_box(
    source: str, batched: bool, backend: str, files: dict[str, Path]
) -> None:
    box = np.diag([1.0, 1.1, 1.2])
    x = quartet(2)
    x[:, 3] += [2.0, 0.0, -1.2]
    cv = ModuleCV(InABox() if source == "module" else files[source], x[0], box=box, batched=batched)
    bias = harmonic(cv, np.array([0.1]))
    context = bias_context(cv, bias, backend, n_copies=2, box=box)
    for scale in (1.0, 1.1):
        context.setPeriodicBoxVectors(*(scale * box))
        z = values(distance_cv([(0, 3)], 4), x, scale * box)
        assert energy(context, x) == pytest.approx(float(bias(torch.from_numpy(z)).sum()), rel=1e-10)
        assert difference_error(context, x, directions=4) < 1e-6


@each_backend
def test_a_module_that_computes_in_single_precision(backend: str) -> None:
    class Single(nn.Module):
        def forward(self, positions: Tensor) -> Tensor:
            return (positions[3].float() - positions[0].float()).norm().reshape(1)

    x = quartet(2)
    cv = ModuleCV(Single(), x[0])
    z = values(cv, x)
    assert z.dtype == np.float64
    np.testing.assert_allclose(z, values(distance_cv([(0, 3)], 4), x), rtol=1e-6)
    bias = harmonic(cv, np.array([1.0]))
    assert energy(bias_context(cv, bias, backend, n_copies=2), x) == pytest.approx(
        float(bias(torch.from_numpy(z)).sum()), rel=1e-6
    )


class Bent(nn.Module):
    """Takes a branch that depends on the positions."""

    def forward(self, positions: Tensor) -> Tensor:
        length = (positions[3] - positions[0]).norm().reshape(1)
        if float(length) > 0.5:
            return 2.0 * length - 0.5
        return length


@pytest.mark.torchforce
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_a_branch_that_depends_on_the_positions_is_not_recorded_wrongly() -> None:
    x = quartet(1)[:1]
    cv = ModuleCV(Bent(), x[0])
    bias = harmonic(cv, np.array([1.0]))
    for backend in ("compiled", "python"):
        with pytest.raises(Exception, match=r"(?s)control flow|tracing"):
            bias_context(cv, bias, backend)
    context = bias_context(cv, bias, "torchforce-autograd")
    for scale in (0.2, 2.0):
        z = values(cv, scale * x)
        assert (z[0, 0] > 0.5) == (scale == 2.0)
        assert energy(context, scale * x) == pytest.approx(float(bias(torch.from_numpy(z))), rel=1e-10)
        assert difference_error(context, scale * x, directions=4) < 1e-6


@pytest.mark.parametrize("kind", ["torsions", "module"])
def test_export(kind: str, tmp_path: Path) -> None:
    x = frames(3)
    cv: CollectiveVariables
    if kind == "torsions":
        cv = torsion_cv(PHI_PSI, N_ATOMS)
    else:
        cv = ModuleCV(EndToEnd(), x[0])
    export_cv(cv, tmp_path / "new" / "cv.pt")
    np.testing.assert_allclose(
        SingleFrameCV(cv)(torch.from_numpy(x[1])), values(cv, x)[1], rtol=0, atol=1e-14
    )
    again = ModuleCV(tmp_path / "new" / "cv.pt", x[0], periods=cv.periods.tolist())
    np.testing.assert_allclose(values(again, x), values(cv, x), rtol=0, atol=1e-14)


# --- mlcolvar --------------------------------------------------------------------------------------------


def mlcolvar_network() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cvs = pytest.importorskip("mlcolvar.cvs", exc_type=ImportError)
        torch.manual_seed(0)
        network: nn.Module = cvs.DeepTICA([len(PAIRS), 8, 2])
    return network


@pytest.mark.parametrize("backend", ["compiled", "torchforce-traced", "python"])
def test_a_model_of_mlcolvar(backend: str) -> None:
    network = mlcolvar_network()
    cv = FeatureCV(build_features([DistanceSettings(pairs=PAIRS)]), network, N_ATOMS)
    x = frames(2)
    network.double().eval()
    with torch.no_grad():
        expected = network(torch.from_numpy(values(distance_cv(PAIRS, N_ATOMS), x)))
    np.testing.assert_allclose(values(cv, x), expected, rtol=0, atol=1e-12)
    bias = harmonic(cv, values(cv, x)[0])
    context = bias_context(cv, bias, backend, n_copies=2)
    assert energy(context, x) == pytest.approx(float(bias(expected).sum()), rel=1e-10)
    assert difference_error(context, x) < 1e-6


@pytest.mark.torchforce
def test_an_exported_model_of_mlcolvar_with_autograd() -> None:
    """A Lightning module itself cannot be TorchScript; what its own export makes can."""
    network = mlcolvar_network().double().eval()
    if not hasattr(network, "to_torchscript"):
        pytest.skip("this Lightning does not export TorchScript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = network.to_torchscript(method="trace")  # type: ignore[operator]
    cv = FeatureCV(build_features([DistanceSettings(pairs=PAIRS)]), network, N_ATOMS)
    x = frames(2)
    context = bias_context(cv, harmonic(cv, values(cv, x)[0]), "torchforce-autograd", n_copies=2)
    assert difference_error(context, x) < 1e-6


# --- periodic boxes ----------------------------------------------------------------------------------------

BOXES = {
    "rectangular": np.diag([1.3, 1.5, 1.4]),
    "triclinic": np.array([[1.5, 0.0, 0.0], [0.5, 1.4, 0.0], [-0.6, -0.5, 1.3]]),
}
_FLAT = build_features(
    [
        DistanceSettings(pairs=[(0, 1), (2, 3)]),
        CoordinationSettings(atoms=[0, 1, 4], r0=0.4),
    ]
)
PERIODIC_CVS: dict[str, Callable[[], CollectiveVariables]] = {
    "distances": lambda: distance_cv([(0, 1), (2, 3)], 5),
    "torsion": lambda: torsion_cv([(0, 1, 2, 3)], 5),
    "features": lambda: FeatureCV(_FLAT, None, 5),
}


def cluster() -> Array:
    """Five atoms across the corner of the box, shape (1, 5, 3)."""
    x = [[0.1, 0.05, 0.1], [-0.1, 0.1, -0.05], [-0.2, -0.15, 0.1], [0.1, -0.3, 0.05], [0.2, 0.2, -0.1]]
    return np.array([x])


def nearest_distance(delta: Array, box: Array) -> float:
    shifts = np.array(list(product(range(-2, 3), repeat=3))) @ box
    return float(np.linalg.norm(delta + shifts, axis=1).min())


@given(
    edges=st.lists(st.floats(1.2, 3.0), min_size=3, max_size=3),
    tilt=st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3),
    seed=st.integers(0, 2**20),
)
@QUICK
def test_values_do_not_depend_on_the_image(edges: list[float], tilt: list[float], seed: int) -> None:
    a, b, c = edges
    box = np.array([[a, 0.0, 0.0], [tilt[0] * a, b, 0.0], [tilt[1] * a, tilt[2] * b, c]])
    x = cluster()
    shifts = np.random.default_rng(seed).integers(-1, 2, x.shape).astype(float)
    scattered = x + shifts @ box
    for make in PERIODIC_CVS.values():
        cv = make()
        np.testing.assert_allclose(values(cv, scattered, box), values(cv, x), rtol=0, atol=1e-10)
    pair = values(distance_cv([(0, 1)], 5), scattered, box)[0, 0]
    assert pair == pytest.approx(nearest_distance(scattered[0, 1] - scattered[0, 0], box), abs=1e-10)


@pytest.mark.parametrize(
    ("name", "box", "backend"),
    [
        *product(["distances"], BOXES, BACKENDS),
        ("torsion", "triclinic", "torchforce-traced"),
        ("features", "triclinic", "python"),
        ("features", "rectangular", "torchforce-autograd"),
    ],
)
def test_forces_in_a_box(name: str, box: str, backend: str) -> None:
    cv, vectors = PERIODIC_CVS[name](), BOXES[box]
    x = np.mod(cluster() @ np.linalg.inv(vectors), 1.0) @ vectors  # wrapped into the box
    open_distance = np.linalg.norm(x[0, 1] - x[0, 0])
    assert nearest_distance(x[0, 1] - x[0, 0], vectors) < 0.5 * open_distance  # the pair is across a face
    bias = harmonic(cv, values(cv, x, vectors)[0], force_constant=100.0)
    context = bias_context(cv, bias, backend, box=vectors)
    expected = float(bias(torch.from_numpy(values(cv, x, vectors))))
    assert expected > 1.0
    assert energy(context, x) == pytest.approx(expected, rel=1e-10)
    assert difference_error(context, x) < 1e-6
    # Atoms that are moved by box vectors.
    f = forces(context, x)
    for seed in range(3):
        shifts = np.random.default_rng(seed).integers(-2, 3, x.shape).astype(float)
        moved = x + shifts @ vectors
        assert energy(context, moved) == pytest.approx(expected, rel=1e-9)
        np.testing.assert_allclose(forces(context, moved), f, rtol=0, atol=1e-8 * np.abs(f).max())
    # The box changes, as a barostat does it: atoms stay, or are scaled with it.
    for factors in ([1.1, 1.1, 1.1], [1.0, 1.05, 1.2], [0.95, 0.95, 0.95]):
        changed = vectors * factors
        context.setPeriodicBoxVectors(*changed)
        for y in (x, x * factors):
            now = float(bias(torch.from_numpy(values(cv, y, changed))))
            assert energy(context, y) == pytest.approx(now, rel=1e-10)
        assert energy(context, x) != pytest.approx(expected, rel=1e-3)
        assert difference_error(context, x * factors, directions=4) < 1e-6
    context.setPeriodicBoxVectors(*vectors)
    assert energy(context, x) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("backend", ["compiled", "torchforce", "python"])
def test_an_adaptive_bias_at_constant_pressure(backend: str) -> None:
    """The barostat changes the box; the bias in Python and that in the Context see the same one."""
    box = np.diag([1.5, 1.5, 1.5])
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*box)
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.6)
    positions = 0.05 + 0.5 * np.array(list(product(range(3), repeat=3)))[:, [2, 1, 0]]
    for _ in positions:
        system.addParticle(39.9)
        force.addParticle(0.0, 0.34, 0.99)
    system.addForce(force)
    barostat = openmm.MonteCarloBarostat(1000.0, 120.0, 2)
    barostat.setRandomNumberSeed(5)
    system.addForce(barostat)
    cv = distance_cv([(0, 2), (9, 15)], len(positions))
    bias = OpesSettings(sigma=0.02, barrier=10.0, pace=5).build(cv_context(cv.periods.tolist(), 120.0))
    assert isinstance(bias, AdaptiveBias)
    integrator = openmm.LangevinMiddleIntegrator(120.0, 1.0, 0.004)
    integrator.setRandomNumberSeed(6)
    context = openmm.Context(
        add_bias(system, cv, bias, backend=backend),
        integrator,
        openmm.Platform.getPlatformByName("Reference"),
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(120.0, 7)
    updater = BiasUpdater(cv, bias)
    volumes = set()
    for _ in range(30):
        integrator.step(5)
        z = updater.update(context)
        state = context.getState(positions=True, energy=True, groups={BIAS_GROUP})
        x = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        vectors = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
        volumes.add(float(np.linalg.det(vectors)))
        direct = [nearest_distance(x[j] - x[i], np.array(vectors)) for i, j in ((0, 2), (9, 15))]
        np.testing.assert_allclose(z[0], direct, rtol=0, atol=1e-12)
        now = state.getPotentialEnergy().value_in_unit(_KJ)
        assert now == pytest.approx(float(bias(z)), rel=1e-12, abs=1e-12)
    assert len(volumes) > 5


# --- errors -------------------------------------------------------------------------------------------------


class Returns(nn.Module):
    """Returns what it is made with."""

    def __init__(self, what: Any) -> None:
        super().__init__()
        self.what = what

    def forward(self, positions: Tensor) -> Any:
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what


@pytest.mark.parametrize(
    ("what", "batched", "message"),
    [
        (torch.tensor(1.0), False, r"Returns returns \(\); expected a tensor of shape \(dim,\)"),
        (torch.zeros(1, 2), False, r"Returns returns \(1, 2\); expected a tensor of shape \(dim,\)"),
        (torch.zeros(2), True, r"Returns returns \(2,\); expected a tensor of shape \(1, dim\)"),
        ({"z": torch.zeros(2)}, False, "Returns returns dict; expected a tensor"),
        (None, False, "Returns returns NoneType; expected a tensor"),
        (torch.tensor([1.0, float("nan")]), False, r"Returns returns \[1\.0, nan\] for the given positions"),
        (
            torch.tensor([[float("inf")]]),
            True,
            r"Returns returns \[inf\] for the given positions; expected finite",
        ),
        (ValueError("atoms\nare missing"), False, r"Returns cannot be evaluated on .*\(4, 3\): are missing"),
        (AssertionError(), False, r"Returns cannot be evaluated on positions \(4, 3\): AssertionError"),
    ],
)
def test_modules_that_cannot_be_used(what: Any, batched: bool, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        ModuleCV(Returns(what), quartet(1)[0], batched=batched)
    assert "\n" not in str(error.value)


def test_modules_that_do_not_fit(files: dict[str, Path]) -> None:
    x = quartet(1)[0]
    with pytest.raises(ModelError, match="3 periods for the 2 variables of EndToEnd"):
        ModuleCV(EndToEnd(), x, periods=[0.0, 0.0, 1.0])
    with pytest.raises(ModelError, match=r"EndToEnd cannot be evaluated on positions \(2, 3\): "):
        ModuleCV(EndToEnd(), x[:2])
    with pytest.raises(ModelError, match=r"InABox cannot be evaluated on positions \(4, 3\): .*box"):
        ModuleCV(InABox(), x)
    with pytest.raises(ModelError, match=r"box\.pt cannot be evaluated on positions \(4, 3\)"):
        ModuleCV(files["box"], x)
    with pytest.raises(ModelError, match=r"EndToEnd cannot be evaluated on positions \(4, 3\): .*argument"):
        ModuleCV(EndToEnd(), x, box=np.eye(3))


@pytest.mark.parametrize("how", ["missing", "a folder", "text", "empty", "weights"])
def test_files_that_are_not_torchscript(how: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    if how == "a folder":
        path.mkdir()
    elif how == "text":
        path.write_text("import torch\n")
    elif how == "empty":
        path.touch()
    elif how == "weights":
        torch.save(EndToEnd().state_dict(), path)
    expected = "no such" if how in ("missing", "a folder") else "not a"
    with pytest.raises(ModelError, match=rf"model\.pt: {expected} TorchScript file") as error:
        ModuleCV(path, quartet(1)[0])
    assert "\n" not in str(error.value)


def test_an_error_of_torch_without_words_is_told_by_its_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(torchscript, "load", fails)
    (tmp_path / "model.pt").touch()
    with pytest.raises(ModelError, match=r"model\.pt: not a TorchScript file \(RuntimeError\)"):
        ModuleCV(tmp_path / "model.pt", 2)


@pytest.mark.parametrize(
    ("network", "periods", "message"),
    [
        (nn.Linear(2, 1), None, "the network cannot be evaluated on 3 descriptors: "),
        (Returns(torch.zeros(3)), None, r"the network returns \(3,\); expected a tensor of shape \(1, dim\)"),
        (Returns([1.0]), None, "the network returns list; expected a tensor"),
        (Returns(KeyError("x")), None, "the network cannot be evaluated on 3 descriptors: 'x'"),
        (nn.Linear(3, 2), [0.0], "1 periods for 2 collective variables"),
        (None, [0.0], "1 periods for 3 collective variables"),
    ],
)
def test_networks_that_do_not_fit(
    network: nn.Module | None, periods: list[float] | None, message: str
) -> None:
    features = DistanceSettings(pairs=PAIRS).build()
    with pytest.raises(ModelError, match=message):
        FeatureCV(features, network, N_ATOMS, periods)


def test_atoms_that_do_not_exist() -> None:
    expected = "atom {} does not exist: the system has atoms 0 to 21"
    with pytest.raises(ModelError, match=expected.format(22)):
        distance_cv([(0, 1), (3, 22)], N_ATOMS)
    with pytest.raises(ModelError, match=expected.format(-1)):
        torsion_cv([(0, 1, 2, -1)], N_ATOMS)
    for settings_ in (DistanceSettings(pairs=[(0, 30)]), CoordinateSettings(atoms=[30])):
        with pytest.raises(ModelError, match=expected.format(30)):
            FeatureCV(settings_.build(), None, N_ATOMS)


@pytest.mark.parametrize("n_copies", [1, 3])
def test_a_system_of_another_size(n_copies: int) -> None:
    cv = distance_cv([(0, 1)], 4)
    with pytest.raises(
        ModelError, match=f"4 atoms x {n_copies} copies = {4 * n_copies} particles, the System has 8"
    ):
        add_bias(free_particles(8), cv, harmonic(cv, np.zeros(1)), n_copies=n_copies)
