"""The recorded graph: fewer operations, the same results."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from latf_openmm.bias.force.traced_forces import record, simplify

WEIGHT = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).reshape(4, 3)
SHIFT = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)


def example(rows: int = 5, seed: int = 0) -> Tensor:
    return torch.rand(rows, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 0.3


def gradient(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def call(x: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_(True)
        energy = f(leaf)
        (slope,) = torch.autograd.grad(energy, leaf, -torch.ones_like(energy))
        return torch.cat([energy.detach().reshape(1), slope.reshape(-1)])

    return call


def network(x: Tensor) -> Tensor:
    hidden = torch.nn.functional.silu(torch.addmm(SHIFT, x, WEIGHT))
    return (hidden * hidden).sum(dim=1).mul(0.5).sum()


def lengths(x: Tensor) -> Tensor:
    return torch.sqrt((x * x).sum(dim=-1)).sin().sum()


def written_derivative(x: Tensor) -> Tensor:
    y = x @ WEIGHT
    return (y.detach().cos() + ((y - y.detach()) * -torch.sin(y.detach())).sum(dim=1, keepdim=True)).sum()


def one_twice(x: Tensor) -> Tensor:
    return (torch.exp(x) + torch.exp(x)).sum()


CASES = {
    "network": network,
    "lengths": lengths,
    "written derivative": written_derivative,
    "one thing twice": one_twice,
}


@pytest.mark.parametrize("name", CASES)
def test_same_results_by_fewer_operations(name: str) -> None:
    call = gradient(CASES[name])
    before = make_fx(call)(example())
    count = len(before.graph.nodes)
    after = simplify(make_fx(call)(example()), [(example(),)])
    assert len(after.graph.nodes) < count - 3
    for seed in range(3):
        x = example(seed=seed)
        torch.testing.assert_close(after(x), call(x), rtol=1e-14, atol=1e-15)


def test_the_gradient_of_a_length_is_exact() -> None:
    call = gradient(lengths)
    after = simplify(make_fx(call)(example()), [(example(),)])
    text = after.code
    assert "mul.Scalar" not in text, "the factor 2 of d(r^2) and of d sqrt(r^2) should be gone"
    assert torch.equal(after(example(seed=3)), call(example(seed=3)))


def test_a_derivative_written_into_the_graph_leaves_nothing_behind() -> None:
    call = gradient(written_derivative)
    after = simplify(make_fx(call)(example()), [(example(),)])
    assert "aten.sub" not in after.code


@pytest.mark.parametrize("rows", [1, 2, 7, 40])
def test_sizes_in_which_the_examples_differ_stay_open(rows: int) -> None:
    def call(x: Tensor) -> Tensor:
        ones = torch.ones_like(x)
        total = torch.exp(-(x * x).sum(dim=1)) @ (ones.sum(dim=1) + SHIFT.sum())
        return total.expand(3) * SHIFT

    module = record(call, [(example(3),), (example(5),)])
    torch.testing.assert_close(module(example(rows)), call(example(rows)))
    frozen = torch.jit.freeze(module)
    for _ in range(3):  # TorchScript specialises after the first calls
        torch.testing.assert_close(frozen(example(rows)), call(example(rows)))


def test_what_is_random_is_not_taken_for_constant() -> None:
    def call(x: Tensor) -> Tensor:
        return x + torch.bernoulli(torch.full((5, 4), 0.5, dtype=torch.float64))

    after = simplify(make_fx(call)(example()), [(example(),)])
    values = {float(after(example()).sum()) for _ in range(20)}
    assert len(values) > 3


def test_two_random_numbers_are_two() -> None:
    def call(x: Tensor) -> Tensor:
        return x + torch.rand(5, 4, dtype=torch.float64) - torch.rand(5, 4, dtype=torch.float64)

    after = simplify(make_fx(call)(example()), [(example(),)])
    assert float((after(example()) - example()).abs().min()) > 0


def test_a_copy_made_for_its_layout_stays() -> None:
    def call(x: Tensor) -> Tensor:
        return (x.T.reshape(2, 10) @ torch.ones(10, 1, dtype=torch.float64)).view(-1)

    module = record(call, [(example(),)])
    torch.testing.assert_close(module(example(seed=2)), call(example(seed=2)))


def test_numbers_of_several_lengths() -> None:
    double = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)

    def call(x: Tensor) -> Tensor:
        single = x.to(torch.float32)
        return (single * double.float()) / (double + 0.5) + torch.zeros(5, 4, dtype=torch.float64)

    after = simplify(make_fx(call)(example()), [(example(),)])
    found, expected = after(example(seed=1)), call(example(seed=1))
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)


def test_a_graph_that_changes_tensors_in_place_is_left_alone() -> None:
    def call(x: Tensor) -> Tensor:
        total = torch.zeros(5, 4, dtype=torch.float64)
        total[1:3] = x[1:3]
        total.add_(1.0)
        return total * 2.0

    graph = make_fx(call)(example())
    count = len(graph.graph.nodes)
    after = simplify(graph, [(example(),)])
    assert len(after.graph.nodes) == count
    for seed in (1, 2):
        assert torch.equal(after(example(seed=seed)), call(example(seed=seed)))


def test_a_number_that_is_not_finite_is_not_hidden() -> None:
    call = gradient(network)
    after = simplify(make_fx(call)(example()), [(example(),)])
    x = example()
    x[0, 0] = torch.nan
    assert not torch.isfinite(after(x)[0])


@pytest.mark.parametrize("copies", [1, 3])
def test_frozen_batches_of_any_size(copies: int) -> None:
    """TorchScript's shape analysis of frozen graphs is wrong for addmm and for -1 in the shape of a view."""

    def call(x: Tensor) -> Tensor:
        y = torch.addmm(SHIFT, x, WEIGHT)
        powers = y.reshape(-1, 1) ** torch.arange(4, dtype=torch.float64)
        return (powers @ torch.ones(4, 8, dtype=torch.float64)).reshape(-1, 3, 4, 2).sum(dim=(1, 3))

    module = torch.jit.freeze(record(call, [(example(copies),)]))
    for seed in range(4):
        x = example(copies, seed)
        torch.testing.assert_close(module(x), call(x))


# --- products --------------------------------------------------------------------------------------

ROW = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
WIDE = torch.tensor([1.0, -2.0, 3.0, 0.25], dtype=torch.float64)
COLUMN = torch.arange(1.0, 6.0, dtype=torch.float64).unsqueeze(1)
PLACES = torch.tensor([3, 0, 7, 2, 6])
PRODUCTS: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "length": (lambda x: torch.sqrt((x * x).sum(dim=-1)), ["linalg_vector_norm"]),
    "length, kept": (lambda x: torch.sqrt((x * x).sum(dim=-1, keepdim=True)), ["mul", "sum", "sqrt"]),
    "lengths of columns": (lambda x: torch.sqrt((x * x).sum(dim=0)), ["mul", "sum", "sqrt"]),
    "shifted twice": (lambda x: x @ WEIGHT + SHIFT - ROW, ["mm", "add"]),
    "shifted and scaled": (lambda x: ROW * (SHIFT + x @ WEIGHT), ["mm", "add"]),
    "scaled": (lambda x: (x @ WEIGHT) * 0.5, ["mm"]),
    "scaled and shifted": (lambda x: torch.addcmul(SHIFT, x @ WEIGHT + ROW, ROW), ["mm", "add"]),
    "scaled before": (lambda x: (x * WIDE) @ WEIGHT, ["mm"]),
    "doubled before": (lambda x: (x + x) @ WEIGHT, ["mm"]),
    "scaled by row": (lambda x: (x * COLUMN) @ WEIGHT, ["mul", "mm"]),
    "dot": (lambda x: 0.5 * (WIDE * x).sum(dim=1), ["mv"]),
    "dot of columns": (lambda x: (WIDE * x).sum(dim=0), ["mul", "sum"]),
    "used twice": (
        lambda x: (lambda y: y * ROW + y.sin())(x @ WEIGHT + SHIFT),
        ["mm", "add", "mul", "sin", "add"],
    ),
    "rows": (lambda x: torch.zeros(9, 4).double().index_add(0, PLACES, x), ["index_copy"]),
    "rows that meet": (lambda x: torch.zeros(9, 4).double().index_add(0, PLACES // 2, x), ["index_add"]),
    "single precision": (lambda x: (x.float() * 2.0) @ WEIGHT.float(), ["_to_copy", "mul", "mm"]),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_take_in_constants(name: str) -> None:
    call, expected = PRODUCTS[name]
    after = simplify(make_fx(call)(example()), [(example(),)])
    called = [str(node.target).split(".")[1] for node in after.graph.nodes if node.op == "call_function"]
    assert called == expected
    module = torch.jit.freeze(record(call, [(example(),)]))
    for seed in range(3):
        x = example(seed=seed)
        torch.testing.assert_close(after(x), call(x), rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(module(x), call(x), rtol=1e-13, atol=1e-14)
