"""Programs and their machine code: every operation against torch, what is read from files, what is kept on disk."""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from helpers.forces import make_context
from torch import Tensor, nn
from torch.nn import functional as F

import latf_openmm as latf
from latf_openmm.bias.compiled import machine
from latf_openmm.bias.compiled.computation import CompiledComputation, compiled_force
from latf_openmm.bias.compiled.layout import Layout
from latf_openmm.bias.compiled.loops import instructions
from latf_openmm.bias.compiled.program import FUNCTION_NAMES, Operation, Program, Size, View
from latf_openmm.bias.compiled.program_file import check, from_bytes, to_bytes
from latf_openmm.bias.cv import CollectiveVariables, ModuleCV
from latf_openmm.bias.force import compiled as backend
from latf_openmm.bias.force.bias_energy import BiasEnergy
from latf_openmm.bias.force.compiled import program_of
from latf_openmm.bias.force.lowering import UnknownOperationError
from latf_openmm.bias.potentials import Bias
from latf_openmm.bias.potentials.base import cv_context
from latf_openmm.errors import BackendError, ConfigError, DataError, ModelError
from latf_openmm.force_groups import BIAS_GROUP

N = 6
"""Atoms of the small systems here."""
BOX = torch.tensor([[3.0, 0.0, 0.0], [0.9, 2.8, 0.0], [-0.7, 0.8, 2.6]], dtype=torch.float64)
"""Vectors of a triclinic box in reduced form [nm]."""


class Total(Bias):
    """V(z) = sum_i z_i."""

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        return z.sum(dim=1)


class Function(nn.Module):
    """A function of the positions as one variable."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, positions: Tensor) -> Tensor:
        return self.function(positions).reshape(1, -1).sum(dim=1)


def positions(seed: int = 0, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=spread, size=(N, 3))


def variables(function: Callable[[Tensor], Tensor]) -> CollectiveVariables:
    return ModuleCV(Function(function), positions(99))


def free_particles(n: int = N, box: bool = False) -> openmm.System:
    system = openmm.System()
    for _ in range(n):
        system.addParticle(12.0)
    if box:
        system.setDefaultPeriodicBoxVectors(*BOX.numpy())
        force = openmm.NonbondedForce()
        for _ in range(n):
            force.addParticle(0.0, 1.0, 0.0)
        force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
        force.setCutoffDistance(1.0)
        system.addForce(force)
    return system


def energy_and_forces(system: openmm.System, x: np.ndarray) -> tuple[float, np.ndarray]:
    context = make_context(system, "Reference")
    context.setPositions(x)
    state = context.getState(energy=True, forces=True, groups={BIAS_GROUP})
    return state.getPotentialEnergy()._value, np.array(state.getForces(asNumpy=True)._value)


def expected(cv: CollectiveVariables, bias: Bias, x: np.ndarray, box: Tensor) -> tuple[float, np.ndarray]:
    energy, forces = BiasEnergy(cv, bias).energy_and_forces(torch.from_numpy(x), box, bias.state)
    return float(energy), forces.numpy()


def assert_same(cv: CollectiveVariables, bias: Bias, *, box: bool = False) -> None:
    system = latf.add_bias(free_particles(cv.n_atoms, box), cv, bias, backend="compiled")
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(cv.n_atoms, 3))
        energy, forces = energy_and_forces(system, x)
        wanted = expected(cv, bias, x, BOX if box else torch.empty(0))
        assert energy == pytest.approx(wanted[0], rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(forces, wanted[1], rtol=1e-9, atol=1e-10)


# --- operations ------------------------------------------------------------------------------------

_WEIGHTS = torch.from_numpy(np.random.default_rng(5).normal(size=(N, 3)))
_MATRIX = torch.from_numpy(np.random.default_rng(6).normal(size=(3, 4)))
_FEW = torch.zeros(4, N, dtype=torch.float64)
_FEW[[0, 1, 3], [1, 2, 5]] = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
_SPARSE_RIGHT = _FEW.t().contiguous()
_PLACES = torch.tensor([[0], [2]])
_INDEX = torch.tensor([3, -1, 0, 3])


def _largest(x: Tensor) -> Tensor:
    return x.scatter_reduce(0, _PLACES, x[3:5], "amax", include_self=False)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": lambda x: x.abs(),
    "acos": lambda x: torch.acos(0.1 * x),
    "addcmul": lambda x: torch.addcmul(x, x, _WEIGHTS),
    "alpha": lambda x: torch.sub(x, x * x, alpha=3),
    "amax": lambda x: x.amax(dim=1) * x.amin(dim=0).sum(),
    "argmin": lambda x: x * torch.argmin(x, dim=0, keepdim=True).double(),
    "asin": lambda x: torch.asin(0.1 * x),
    "atan": lambda x: torch.atan(x),
    "atan2": lambda x: torch.atan2(x[:, 0], x[:, 1]),
    "bmm": lambda x: torch.bmm(x.reshape(2, 3, 3), x.reshape(2, 3, 3).transpose(1, 2)),
    "cat": lambda x: torch.cat([x[:2], 2.0 * x[1:]]) ** 2,
    "ceil": lambda x: x * torch.ceil(x),
    "clamp": lambda x: x.clamp(-0.5, 0.7) * x,
    "clamp_max": lambda x: x.clamp(max=0.7) ** 3,
    "cosh": lambda x: torch.cosh(x) + torch.sinh(x) * x,
    "cross": lambda x: torch.linalg.cross(x[:3], x[3:]) * _WEIGHTS[:3],
    "cumsum": lambda x: torch.cumsum(x * x, dim=1) ** 2,
    "dot": lambda x: torch.dot(x[0], x[1]).reshape(1),
    "elu": lambda x: F.elu(x),
    "erf": lambda x: torch.erf(x),
    "expand": lambda x: x[:1].expand(4, 3) * _MATRIX.t(),
    "expm1": lambda x: torch.expm1(x) * torch.log1p(x * x),
    "flip": lambda x: torch.flip(x, [0, 1]) * x * _WEIGHTS,
    "floor": lambda x: x * torch.floor(x) + x.trunc() * x,
    "full": lambda x: x * torch.full_like(x, 2.5),
    "gather": lambda x: torch.gather(x, 0, torch.argsort(x.detach(), dim=0)) ** 3,
    "gelu": lambda x: F.gelu(x),
    "hardshrink": lambda x: F.hardshrink(x, 0.4) * x,
    "index": lambda x: x[_INDEX] * x[_INDEX, torch.tensor([0, 1, 2, 0])].unsqueeze(1),
    "index_add": lambda x: torch.index_add(x, 0, torch.tensor([1, 1]), x[:2] ** 2) ** 2,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "log": lambda x: torch.log(x * x + 0.3) + torch.log2(x * x + 1.0),
    "logaddexp": lambda x: torch.logaddexp(x, _WEIGHTS),
    "logic": lambda x: x * ((x > 0) & (x < 0.5) | ~(x >= -0.5)).double() + x * (x != 0.1).double(),
    "logsumexp": lambda x: torch.logsumexp(3.0 * x, dim=1),
    "matrix": lambda x: torch.tanh(x @ _MATRIX),
    "maximum": lambda x: torch.maximum(x, _WEIGHTS) * torch.minimum(x, 2.0 * _WEIGHTS),
    "mean": lambda x: x.mean(dim=0) ** 2 + (x * x).mean(),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=1),
    "pad": lambda x: F.pad(x, (1, -1, 0, 2), value=0.5) ** 2 * 1.5,
    "permute": lambda x: (x @ x.t()).permute(1, 0) @ x,
    "pow": lambda x: (x * x + 0.1) ** 1.7 + x**4 + (x * x + 1.0) ** 0.5 + 2.0**x,
    "reciprocal": lambda x: torch.reciprocal(2.0 + x * x) + torch.rsqrt(1.0 + x * x),
    "relu": lambda x: F.relu(x) ** 2,
    "remainder": lambda x: x * torch.remainder(x.detach(), 0.7),
    "round": lambda x: x * torch.round(3.0 * x.detach()),
    "scatter": lambda x: (
        torch.zeros(3, 3, dtype=torch.float64).scatter_add(0, torch.argsort(x.detach()[:3], dim=0), x[3:])
        ** 2
    ),
    "scatter_reduce": lambda x: x * _largest(x.detach()),
    "scatter_reduce with itself": lambda x: (
        x * x.detach().scatter_reduce(0, _PLACES, x[3:5].detach(), "amin")
    ),
    "select": lambda x: x.select(0, 2) * x[4],
    "selu": lambda x: F.selu(x),
    "sigmoid": lambda x: torch.sigmoid(x),
    "sign": lambda x: x * torch.sign(x.detach() - 0.2),
    "silu": lambda x: F.silu(x),
    "sin": lambda x: torch.sin(x) * torch.cos(2.0 * x) + torch.tan(0.3 * x),
    "slice": lambda x: x[1:5:2] ** 2 * x[:2],
    "softmax": lambda x: torch.softmax(x, dim=1) * _WEIGHTS,
    "softplus": lambda x: F.softplus(x),
    "softshrink": lambda x: F.softshrink(x, 0.4) ** 2,
    "sort": lambda x: (
        torch.sort(x, dim=0).values * _WEIGHTS + torch.sort(x, dim=1, descending=True).values ** 2
    ),
    "sparse": lambda x: (_FEW @ x) ** 2,
    "sparse on the right": lambda x: (x.t() @ _SPARSE_RIGHT) ** 2,
    "stack": lambda x: torch.stack([x, x * x], dim=1) ** 2 * _WEIGHTS.unsqueeze(1),
    "sum": lambda x: x.sum(dim=(0, 1)) * x.sum() + x.sum(dim=0, keepdim=True) @ x.t(),
    "take": lambda x: (
        torch.take(_WEIGHTS.flatten(), (3.0 * x.detach().abs()).floor().long().clamp(0, 17)) * x
    ),
    "tanh": lambda x: torch.tanh(x @ _MATRIX) @ _MATRIX.t(),
    "unbind": lambda x: torch.stack([a * b for a, b in zip(x.unbind(0), x.unbind(0)[::-1], strict=True)]),
    "vector": lambda x: x @ _MATRIX[:, 0],
    "where": lambda x: torch.where(x > 0, x * x, torch.exp(x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operation_is_torchs(name: str) -> None:
    assert_same(variables(FUNCTIONS[name]), Total())


class Given:
    """In the place of a State: it has positions."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def _getVectorAsNumpy(self, kind: Any, out: np.ndarray) -> None:  # noqa: N802
        out[:] = self.x


def mapped(function: str, x: np.ndarray) -> np.ndarray:
    """A function of a map at each number of an array."""
    padded = np.zeros(3 * -(-len(x) // 3))
    padded[: len(x)] = x
    n = len(padded) // 3
    made = Program(np.arange(n), n)
    shape, strides = (Size(n), Size(3)), (Size(3), Size(1))
    views = [
        View(made.add_array(kind, Size(3 * n)), Size(0), shape, strides) for kind in ("positions", "scratch")
    ]
    made.operations = [Operation("map", function, (views[1],), (views[0],))]
    made.forces = views[1]
    made.energy = View(views[1].array, Size(0), (), ())
    check(made)
    _, values = CompiledComputation(made, 1, np.zeros(0))(Given(padded.reshape(n, 3)))  # type: ignore[arg-type]
    return np.array(values).ravel()[: len(x)]


RANGES = np.concatenate(
    [
        np.linspace(-708, 709, 40_001),
        np.linspace(-2, 2, 4001),
        np.geomspace(1e-300, 1, 601),
        -np.geomspace(1e-300, 1, 601),
    ]
)


@pytest.mark.parametrize(("name", "tolerance"), [("exp", 4.5e-16), ("tanh", 1e-15), ("sigmoid", 9e-16)])
def test_functions_that_are_written_out_are_exact(name: str, tolerance: float) -> None:
    exact = {"exp": np.exp, "tanh": np.tanh, "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x))}[name]
    np.testing.assert_allclose(mapped(name, RANGES), exact(RANGES), rtol=tolerance, atol=1e-320)


def test_beyond_the_range_of_an_exponential() -> None:
    x = np.array([-1e300, -np.inf, -745.0, 710.0, 1e300, np.inf, np.nan, 0.0, -0.0])
    np.testing.assert_array_equal(mapped("exp", x), [0.0, 0.0, 0.0, np.inf, np.inf, np.inf, np.nan, 1.0, 1.0])
    np.testing.assert_array_equal(mapped("tanh", x), [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0, np.nan, 0.0, 0.0])
    np.testing.assert_array_equal(mapped("sigmoid", x), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, np.nan, 0.5, 0.5])


def test_not_a_number_goes_through_every_function() -> None:
    silent = []
    for name, function in FUNCTIONS.items():
        x = torch.full((N, 3), torch.nan, dtype=torch.float64)
        cv = variables(function)
        if torch.isnan(cv(x.unsqueeze(0), torch.empty(0))).any():
            computation = compiled_force(program_of(BiasEnergy(cv, Total()), False), 1, np.zeros(0), False)
            system = free_particles()
            computation.setForceGroup(BIAS_GROUP)
            system.addForce(computation)
            energy, _ = energy_and_forces(system, np.full((N, 3), np.nan))
            silent += [] if np.isnan(energy) else [name]
    assert silent == []


def test_every_function_has_instructions() -> None:
    from latf_openmm.bias.compiled.instructions import FUNCTIONS as WRITTEN

    assert set(WRITTEN) == set(FUNCTION_NAMES["map"])


def test_an_unknown_operation_is_named_and_done_by_torch(caplog: pytest.LogCaptureFixture) -> None:
    cv, bias = variables(lambda x: torch.linalg.det(x[:3] + 2.0 * torch.eye(3, dtype=torch.float64))), Total()
    with pytest.raises(UnknownOperationError, match="no program has the operation aten"):
        latf.add_bias(free_particles(), cv, bias, backend="compiled")
    with caplog.at_level(logging.WARNING):
        system = latf.add_bias(free_particles(), cv, bias)
    assert "the bias is not compiled: no program has the operation" in caplog.text
    energy, forces = energy_and_forces(system, positions())
    wanted = expected(cv, bias, positions(), torch.empty(0))
    assert energy == pytest.approx(wanted[0])
    np.testing.assert_allclose(forces, wanted[1], atol=1e-10)


# --- copies, boxes, states, threads ----------------------------------------------------------------


def distances(molecules: list[int] | None = None) -> CollectiveVariables:
    return latf.distance_cv([(0, 1), (2, 5), (1, 4)], N, molecules)


@pytest.mark.parametrize("molecules", [None, [0, 0, 0, 1, 1, 1]])
def test_nearest_images_in_a_triclinic_box(molecules: list[int] | None) -> None:
    assert_same(distances(molecules), Total(), box=True)


def test_torsions_and_few_of_many_atoms_in_copies() -> None:
    n, copies = 60, 4
    cv = latf.torsion_cv([(50, 3, 21, 40), (7, 8, 9, 59)], n)
    bias = latf.HarmonicSettings(centre=[0.3, -0.5], force_constant=[4.0, 9.0]).build(
        cv_context(cv.periods.tolist(), 300.0)
    )
    system = latf.add_bias(free_particles(copies * n), cv, bias, n_copies=copies, backend="compiled")
    x = np.random.default_rng(3).normal(size=(copies, n, 3))
    energy, forces = energy_and_forces(system, x.reshape(-1, 3))
    singles = [expected(cv, bias, frame, torch.empty(0)) for frame in x]
    assert energy == pytest.approx(sum(single[0] for single in singles), rel=1e-12)
    np.testing.assert_allclose(forces.reshape(copies, n, 3), [single[1] for single in singles], atol=1e-10)


def opes(cv: CollectiveVariables) -> Any:
    settings = latf.OpesSettings(barrier=30.0, sigma=0.05, pace=1)
    return settings.build(cv_context(cv.periods.tolist(), 300.0))


def test_the_number_of_kernels_is_open_and_goes_back() -> None:
    cv = distances()
    bias = opes(cv)
    system = latf.add_bias(free_particles(), cv, bias, backend="compiled")
    x, seen = positions(), []
    context = make_context(system, "Reference")
    context.setPositions(x)
    updater = latf.BiasUpdater(cv, bias)

    def in_context() -> float:
        return float(context.getState(energy=True, groups={BIAS_GROUP}).getPotentialEnergy()._value)

    for index in range(60):
        context.setPositions(x + 0.01 * index)
        updater.update(context)
        seen.append((float(bias.sent), in_context()))
        assert seen[-1][1] == pytest.approx(
            expected(cv, bias, x + 0.01 * index, torch.empty(0))[0], abs=1e-10
        )
        x = x + 0.05 * np.random.default_rng(index).normal(size=x.shape)
    assert bias.n_kernels > 20
    context.setPositions(positions())
    first = seen[0]
    context.setParameter(updater.parameter, first[0])
    assert in_context() == pytest.approx(first[1], abs=1e-12)


def test_contexts_in_threads_share_a_computation() -> None:
    cv = distances()
    bias = latf.HarmonicSettings(centre=[1.0, 1.0, 1.0], force_constant=50.0).build(
        cv_context([0.0] * 3, 300.0)
    )
    system = latf.add_bias(free_particles(), cv, bias, backend="compiled")

    def run(seed: int) -> np.ndarray:
        integrator = openmm.VerletIntegrator(0.002)
        context = make_context(system, "Reference", integrator)
        context.setPositions(positions(seed))
        integrator.step(3000)
        return np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)

    alone = [run(seed) for seed in range(4)]
    results: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda s=seed: results.update({s: run(s)})) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        np.testing.assert_array_equal(results[seed], alone[seed])


# --- what is read from files -----------------------------------------------------------------------


def program() -> Program:
    return program_of(BiasEnergy(distances([0, 0, 0, 1, 1, 1]), opes(distances())), True)


def test_a_program_comes_back_as_it_was() -> None:
    first = program()
    second = from_bytes(to_bytes(first), "here")
    assert second.operations == first.operations
    assert second.arrays == first.arrays
    assert instructions(second, Layout(second)) == instructions(first, Layout(first))


def test_a_changed_program_is_refused() -> None:
    content = bytearray(to_bytes(program()))
    content[200] ^= 1
    with pytest.raises(DataError, match=r"bias\.program: damaged, or changed after it was written"):
        from_bytes(bytes(content), "bias.program")


def forged(change: Callable[[Program], None]) -> bytes:
    wrong = program()
    change(wrong)
    return to_bytes(wrong)


def _replaced(kind: str, change: Callable[[Operation], Operation]) -> Callable[[Program], None]:
    def apply(wrong: Program) -> None:
        index = next(i for i, item in enumerate(wrong.operations) if item.kind == kind)
        wrong.operations[index] = change(wrong.operations[index])

    return apply


def _moved(view: View, by: int) -> View:
    return replace(view, offset=Size(view.offset.fixed + by, view.offset.per_row))


def _with_first(item: Operation, view: View) -> Operation:
    return replace(item, inputs=(view, *item.inputs[1:]))


def _set_constant(wrong: Program) -> None:
    index = next(i for i, values in wrong.constants.items() if values.dtype == np.int64)
    wrong.constants[index][0] = 10**6


FORGERIES: dict[str, Callable[[Program], None]] = {
    "written outside": _replaced("map", lambda item: replace(item, out=(_moved(item.out[0], 10**6),))),
    "read before the start": _replaced(
        "map", lambda item: replace(item, inputs=(_moved(item.inputs[0], -9999), *item.inputs[1:]))
    ),
    "unknown function": _replaced("map", lambda item: replace(item, function="system")),
    "unknown kind": _replaced("map", lambda item: replace(item, kind="call")),
    "index outside": _set_constant,
    "indexed stride": _replaced("gather", lambda item: replace(item, numbers=(10**7, item.numbers[1]))),
    "shapes differ": _replaced(
        "map", lambda item: replace(item, inputs=(View(item.inputs[0].array, Size(0), (), ()),))
    ),
    "axis": _replaced("reduce", lambda item: replace(item, numbers=(9,))),
    "atoms": lambda wrong: wrong.atoms.__setitem__(0, -1),
    "forces": lambda wrong: setattr(wrong, "forces", wrong.energy),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_program_that_would_leave_its_arrays_is_refused(name: str) -> None:
    content = forged(FORGERIES[name])
    with pytest.raises(DataError, match=r"array|atoms|axis|index|operation|shapes"):
        from_bytes(content, "forged")
    check(program())


# --- machine code on disk --------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "code"
    monkeypatch.setenv(machine.FOLDER_VARIABLE, str(folder))
    machine.compiled.cache_clear()
    return folder


def _text() -> str:
    small = program_of(BiasEnergy(distances(), Total()), False)
    return instructions(small, Layout(small))


def _no_compiler(*_: Any) -> bytes:
    raise AssertionError("compiled again")


def test_machine_code_is_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.compiled(_text())
    (path,) = cache.iterdir()
    assert cache.stat().st_mode & 0o777 == 0o700
    machine.compiled.cache_clear()
    monkeypatch.setattr(machine, "_compile", _no_compiler)
    machine.compiled(_text())
    assert list(cache.iterdir()) == [path]


def test_other_weights_need_no_other_code() -> None:
    def text(seed: int) -> str:
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
        cv = ModuleCV(nn.Sequential(nn.Flatten(0), nn.Linear(3 * N, 3).double(), network), positions())
        bias = latf.HarmonicSettings(centre=[0.1 * seed, 0.0], force_constant=1.0 + seed).build(
            cv_context([0.0] * 2, 300.0)
        )
        made = program_of(BiasEnergy(cv, bias), False)
        return instructions(made, Layout(made))

    assert text(1) == text(2)


def test_damaged_code_is_compiled_again(cache: Path) -> None:
    machine.compiled(_text())
    (path,) = cache.iterdir()
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    machine.compiled.cache_clear()
    machine.compiled(_text())
    assert path.read_bytes() == good


def test_a_folder_that_others_may_write_is_not_used(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    machine.compiled(_text())
    cache.chmod(0o777)
    machine.compiled.cache_clear()
    with caplog.at_level(logging.WARNING):
        machine.compiled(_text())
    assert "open to, another user" in caplog.text


def test_without_a_folder_to_write_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(machine.FOLDER_VARIABLE, str(tmp_path / "file" / "below"))
    machine.compiled.cache_clear()
    assert callable(machine.compiled(_text()))


def test_without_llvm_another_backend_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    with pytest.raises(
        BackendError, match="backend 'compiled': the module llvmlite, which compiles, is missing"
    ):
        latf.add_bias(free_particles(), distances(), Total(), backend="compiled")
    with caplog.at_level(logging.WARNING):
        latf.add_bias(free_particles(), distances(), Total())
    assert "backend 'compiled' is unavailable (the module llvmlite" in caplog.text


# --- export ----------------------------------------------------------------------------------------

LABELS = [f"MOL1-C{i}" for i in range(N)]


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    cv = distances()
    bias = opes(cv)
    bias.update(cv(torch.from_numpy(positions(1)[None]), torch.empty(0)))
    latf.export_bias(cv, bias, tmp_path / "bias", periodic=False, atoms=LABELS, temperature=300.0)
    return tmp_path / "bias"


_PRODUCTION = """
import sys
sys.modules.update(torch=None, mdtraj=None, scipy=None, pandas=None, pydantic=None)
import openmm, numpy as np
import latf_openmm as latf
bias = latf.load_exported_bias(sys.argv[1])
system = openmm.System()
for _ in range(bias.n_atoms):
    system.addParticle(12.0)
reference = openmm.Platform.getPlatformByName("Reference")
context = openmm.Context(bias.add_to(system), openmm.VerletIntegrator(0.001), reference)
context.setPositions(np.random.default_rng(0).normal(size=(bias.n_atoms, 3)))
print(repr(context.getState(energy=True, groups={31}).getPotentialEnergy()._value))
"""


def test_an_exported_bias_needs_no_torch(exported: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(latf.__file__).parents[1])}
    child = subprocess.run(
        [sys.executable, "-c", _PRODUCTION, str(exported)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=120,
    )
    assert child.returncode == 0, child.stderr
    cv = distances()
    bias = opes(cv)
    bias.update(cv(torch.from_numpy(positions(1)[None]), torch.empty(0)))
    assert float(child.stdout) == pytest.approx(expected(cv, bias, positions(), torch.empty(0))[0], rel=1e-12)


def test_what_an_exported_bias_says_of_itself(exported: Path) -> None:
    facts = latf.load_exported_bias(exported).facts
    assert facts["temperature"] == 300.0
    assert facts["frozen"] is True
    assert facts["units"] == {"positions": "nm", "energy": "kJ/mol", "forces": "kJ/mol/nm"}
    assert facts["atoms"] == LABELS


@pytest.mark.parametrize("name", ["bias.program", "state.npy", "bias.json", "manifest.json"])
def test_a_changed_or_missing_file_of_an_export_is_named(exported: Path, name: str) -> None:
    path = exported / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=name):
        latf.load_exported_bias(exported)
    path.unlink()
    with pytest.raises(DataError, match=name):
        latf.load_exported_bias(exported)


def test_an_export_of_another_system_is_refused(exported: Path, tmp_path: Path) -> None:
    bias = latf.load_exported_bias(exported)
    with pytest.raises(ModelError, match=r"made for 6 atoms x 1 copies, the System has 7 particles"):
        bias.add_to(free_particles(7))
    with pytest.raises(ModelError, match="made for a System without a box, this is a System with a box"):
        bias.add_to(free_particles(N, box=True))
    topology = openmm.app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for index in range(N):
        topology.addAtom("O" if index == 3 else f"C{index}", openmm.app.element.carbon, residue)
    with pytest.raises(ModelError, match="atom 3 is O, the bias was made for C3 there"):
        bias.add_to(free_particles(), topology=topology)
    with pytest.raises(ConfigError, match="already exists; an exported bias is never overwritten"):
        latf.export_bias(distances(), Total(), exported, periodic=False)
    with pytest.raises(DataError, match="no exported bias; expected a folder"):
        latf.load_exported_bias(tmp_path)


def test_an_export_of_a_later_version_is_refused(exported: Path) -> None:
    facts = json.loads((exported / "bias.json").read_text()) | {"format": 99}
    (exported / "bias.json").write_text(json.dumps(facts))
    from latf_openmm.storage import write_manifest

    write_manifest(exported)
    with pytest.raises(DataError, match="format 99, this version reads 1; export it again"):
        latf.load_exported_bias(exported)


@pytest.mark.slow
def test_a_million_steps_do_not_grow() -> None:
    cv = distances()
    bias = latf.HarmonicSettings(centre=[1.0] * 3, force_constant=50.0).build(cv_context([0.0] * 3, 300.0))
    system = latf.add_bias(free_particles(), cv, bias, backend="compiled", multistep=True)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    context = make_context(system, "Reference", integrator)
    context.setPositions(positions())

    def memory() -> int:
        fields = Path("/proc/self/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    integrator.step(50_000)
    before = memory()
    integrator.step(1_000_000)
    assert memory() - before < 2**20
