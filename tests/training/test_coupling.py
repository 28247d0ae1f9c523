"""The layers of the flow stage against those of the flow: the same values, and the same gradients."""

import pytest
import torch
from torch import Tensor

from latf_openmm.model.flow import FlowSettings, SplineCoupling
from latf_openmm.training.coupling import coupled

MEMBERS, BOUND = 2, 3.0
SHAPES = [(1, 16), (2, 16), (2, 2), (3, 5), (5, 6), (2, 0), (3, 0)]
every_shape = pytest.mark.parametrize(("dim", "bins"), SHAPES)


def layer_of(dim: int, bins: int) -> SplineCoupling:
    if bins:
        settings = FlowSettings(bins=bins, bound=BOUND)
    else:
        settings = FlowSettings(transform="affine", bound=BOUND)
    return SplineCoupling(dim, 0, settings, 0).double()


def noise(*shape: int, width: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return width * torch.randn(shape, generator=generator, dtype=torch.float64)


def given(layer: SplineCoupling, n: int, width: float = 2.0) -> tuple[Tensor, Tensor]:
    """Points (members, d, n) and parameters (members, n_moved, n_out, n); some points are beyond the spline."""
    dim = len(layer.back)
    parameters = noise(MEMBERS, layer.n_moved, layer.n_out, n, width=width, seed=1)
    return noise(MEMBERS, dim, n, width=BOUND / 2), parameters


def by_training(layer: SplineCoupling, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    return coupled(x, parameters, layer.moved, layer.bins, layer.bound)


def by_the_flow(layer: SplineCoupling, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """The same by the layer itself, which has points first and no members."""
    members, dim, n = x.shape
    rows = x.transpose(1, 2).reshape(-1, dim)
    said = parameters.permute(0, 3, 1, 2).reshape(-1, layer.n_moved, layer.n_out)
    y, log_det = layer.transformed(rows[:, layer.kept], rows[:, layer.moved], said)
    return y.reshape(members, n, dim).transpose(1, 2), log_det.reshape(members, n)


def compare(layer: SplineCoupling, x: Tensor, parameters: Tensor, log_det_counts: float = 1.0) -> None:
    """Values, log-determinants, and gradients of a random sum of both; without the latter where it counts nothing."""
    x, parameters = x.detach().requires_grad_(), parameters.detach().requires_grad_()
    found = []
    for function in (by_training, by_the_flow):
        y, log_det = function(layer, x, parameters)
        total = (y * noise(*y.shape, seed=2)).sum()
        total = total + log_det_counts * (log_det * noise(*log_det.shape, seed=3)).sum()
        found.append((y, log_det, *torch.autograd.grad(total, (x, parameters))))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@every_shape
def test_layer_is_the_flows(dim, bins):
    layer = layer_of(dim, bins)
    x, parameters = given(layer, 200)
    if dim == 2:
        assert (x[:, layer.moved].abs() > BOUND).any()
    compare(layer, x, parameters)


@every_shape
def test_layer_is_the_flows_at_the_ends_of_the_spline_and_far_beyond(dim, bins):
    layer = layer_of(dim, bins)
    at = [-BOUND, BOUND, BOUND * (1 - 1e-12), -BOUND * (1 + 1e-12), 100.0, -1e6]
    _, parameters = given(layer, len(at))
    x = torch.tensor(at, dtype=torch.float64).expand(MEMBERS, dim, -1)
    compare(layer, x, parameters)
    compare(layer, x, torch.zeros_like(parameters))


@pytest.mark.parametrize("bins", [2, 5, 16])
def test_layer_is_the_flows_on_knots(bins):
    """Log slopes have a kink there: which of its two slopes is taken is up to rounding."""
    layer = layer_of(1, bins)
    _, parameters = given(layer, bins - 1)
    parameters = parameters[..., :1].expand(-1, -1, -1, bins - 1)
    widths = 1e-3 + (1 - 1e-3 * bins) * parameters[:, :, 2 : 2 + bins, 0].softmax(dim=-1)
    knots = 2 * BOUND * widths.cumsum(dim=-1)[..., :-1] - BOUND
    compare(layer, knots, parameters, log_det_counts=0.0)
    # Of equal bins with slope one everywhere there is no kink.
    even = 2 * BOUND * torch.arange(1, bins, dtype=torch.float64) / bins - BOUND
    compare(layer, even.expand(MEMBERS, 1, -1), torch.zeros_like(parameters))


@every_shape
def test_gradient_is_the_slope_of_the_values(dim, bins):
    layer = layer_of(dim, bins)
    x, parameters = (a.requires_grad_() for a in given(layer, 5, width=1.0))
    assert torch.autograd.gradcheck(lambda a, b: by_training(layer, a, b), (x, parameters))


@pytest.mark.parametrize("size", [30.0, 300.0])
def test_gradients_of_extreme_parameters_are_finite(size):
    layer = layer_of(2, 16)
    x, parameters = (a.float().requires_grad_() for a in given(layer, 2000, width=size))
    y, log_det = by_training(layer, x, parameters)
    (y.sum() + log_det.sum()).backward()
    for value in (y, log_det, x.grad, parameters.grad):
        assert torch.isfinite(value).all()


def test_gradient_cannot_be_differentiated_again():
    layer = layer_of(2, 4)
    x, parameters = (a.requires_grad_() for a in given(layer, 3))
    y, _ = by_training(layer, x, parameters)
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
