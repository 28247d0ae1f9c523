"""One contract for every kind of flow: dimension x transform x context."""

import copy
import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.model.checkpoint import TrainedModel, load_model, save_model
from latf_openmm.model.flow import FlowSettings
from latf_openmm.model.latf import LatentThermodynamicFlow, LogDensityModule, ModelSettings
from latf_openmm.model.prior import mean_square_radius

T0, T1 = 300.0, 450.0
TAU = 2.0
N_SAMPLES = 20_000


@dataclass(frozen=True)
class Case:
    dim: int
    transform: Literal["spline", "affine"]
    context: Literal["none", "temperature"]

    def __str__(self) -> str:
        return f"{self.dim}-{self.transform}-{self.context}"


CASES = [
    Case(dim, transform, context)
    for dim, transform, context in product((1, 2, 3, 5), ("spline", "affine"), ("none", "temperature"))
    if not (dim == 1 and transform == "affine")
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
small_dimensions = pytest.mark.parametrize("case", [c for c in CASES if c.dim <= 2], ids=str)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@lru_cache
def new_model(case: Case) -> LatentThermodynamicFlow:
    flow = FlowSettings(transform=case.transform, layers=4, hidden=[16, 16], bins=6, context=case.context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = ModelSettings(latent_dim=case.dim, tau=TAU, flow=flow)
        return LatentThermodynamicFlow(settings, n_features=6, n_states=4, reference_temperature=T0)


def whitening(dim: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation the flows are whitened with."""
    return torch.linspace(-1.0, 2.0, dim), torch.linspace(0.5, 1.5, dim)


@lru_cache
def single_model(case: Case) -> LatentThermodynamicFlow:
    """A model whose flow has random, modest parameters and a whitening, in single precision."""
    model = copy.deepcopy(new_model(case)).eval()
    generator = torch.Generator().manual_seed(case.dim)
    model.flow.whiten(*whitening(case.dim))
    with torch.no_grad():
        for parameter in model.flow.parameters():
            parameter.add_(0.12 * torch.randn(parameter.shape, generator=generator))
    return model


@lru_cache
def double_model(case: Case) -> LatentThermodynamicFlow:
    return copy.deepcopy(single_model(case)).double()


def points(case: Case, n: int = 100, width: float = 3.0, seed: int = 0) -> Tensor:
    """Points around the data, some beyond the splines, float64."""
    mean, std = whitening(case.dim)
    noise = torch.randn(n, case.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mean + width * std * noise


def mixed_temperatures(n: int) -> Tensor:
    return torch.tensor([T0, T1], dtype=torch.float64).repeat((n + 1) // 2)[:n]


def context(model: LatentThermodynamicFlow, n: int) -> Tensor:
    return model.context(mixed_temperatures(n) / T0)


@lru_cache
def samples(case: Case, temperature: float) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return double_model(case).density(temperature).sample(N_SAMPLES, generator)


def box(case: Case, temperature: float, margin: float = 0.5) -> list[tuple[float, float]]:
    """Range of the samples along each axis, widened on both sides by `margin` of its length."""
    low, high = samples(case, temperature).aminmax(dim=0)
    extra = margin * (high - low)
    return list(zip((low - extra).tolist(), (high + extra).tolist(), strict=True))


def midpoints(ranges: list[tuple[float, float]], n: int) -> tuple[Tensor, float]:
    """Points of a regular grid of n cells an axis, shape (n^d, d), and the volume of a cell."""
    axes = [low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n for low, high in ranges]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(ranges))
    return grid, math.prod((high - low) / n for low, high in ranges)


# Shapes, inverse, Jacobian


@every_case
def test_shapes(case):
    model = single_model(case)
    z = points(case, 7).float()
    u, log_det = model.flow(z, context(model, 7))
    assert u.shape == (7, case.dim)
    assert log_det.shape == (7,)
    assert model.flow.inverse(u, context(model, 7)).shape == (7, case.dim)
    assert model.log_density(z, mixed_temperatures(7)).shape == (7,)
    assert model.density(T1).log_prob(z).shape == (7,)
    assert context(model, 7).shape == (7, int(case.context == "temperature"))
    for value in (u, log_det, model.log_density(z, mixed_temperatures(7))):
        assert value.dtype == torch.float32


@every_case
@pytest.mark.parametrize("width", [1.0, 5.0])
def test_inverse_in_both_directions(case, width):
    model = double_model(case)
    z = points(case, 500, width)
    c = context(model, 500)
    with torch.no_grad():
        u, _ = model.flow(z, c)
        torch.testing.assert_close(model.flow.inverse(u, c), z, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(model.flow(model.flow.inverse(z, c), c)[0], z, rtol=1e-7, atol=1e-7)
    assert (u - z).abs().max() > 0.1


@every_case
def test_log_determinant_is_that_of_the_jacobian(case):
    model = double_model(case)
    z = points(case, 50).requires_grad_()
    u, log_det = model.flow(z, context(model, 50))
    rows = [torch.autograd.grad(u[:, i].sum(), z, retain_graph=True)[0] for i in range(case.dim)]
    expected = torch.linalg.slogdet(torch.stack(rows, dim=1))[1]
    torch.testing.assert_close(log_det, expected, rtol=1e-9, atol=1e-9)
    assert log_det.std() > 0.1


@every_case
def test_new_flow_is_whitening_only(case):
    model = copy.deepcopy(new_model(case)).double()
    mean, std = whitening(case.dim)
    model.flow.whiten(mean, std)
    z = points(case)
    with torch.no_grad():
        u, log_det = model.flow(z, context(model, len(z)))
    size = math.sqrt(mean_square_radius(TAU, 1.0, case.dim) / case.dim)
    torch.testing.assert_close(u, (z - mean) / std * size, rtol=1e-6, atol=1e-6)
    expected = float(case.dim * math.log(size) - torch.log(std).sum())
    torch.testing.assert_close(log_det, torch.full_like(log_det, expected), rtol=1e-6, atol=1e-6)


@every_case
def test_only_the_flow_with_context_sees_the_temperature(case):
    model = double_model(case)
    z = points(case, 10)
    cold, _ = model.flow(z, model.context(torch.full((10,), 1.0, dtype=torch.float64)))
    warm, _ = model.flow(z, model.context(torch.full((10,), 1.5, dtype=torch.float64)))
    assert torch.equal(cold, warm) == (case.context == "none")


# Density and samples


@small_dimensions
@pytest.mark.parametrize("temperature", [T0, T1])
def test_density_integrates_to_one(case, temperature):
    model = double_model(case)
    grid, volume = midpoints(box(case, temperature), {1: 20_000, 2: 300}[case.dim])
    with torch.no_grad():
        density = model.log_density(grid, torch.full((len(grid),), temperature)).exp()
    assert float(density.sum()) * volume == pytest.approx(1.0, abs=2e-3)


@every_case
@pytest.mark.parametrize("temperature", [T0, T1])
def test_samples_are_finite_and_none_is_dropped(case, temperature):
    z = samples(case, temperature)
    assert z.shape == (N_SAMPLES, case.dim)
    assert torch.isfinite(z).all()
    single = single_model(case).density(temperature).sample(1001, torch.Generator().manual_seed(0))
    assert single.shape == (1001, case.dim)
    assert single.dtype == torch.float32
    assert torch.isfinite(single).all()


@small_dimensions
@pytest.mark.parametrize("temperature", [T0, T1])
def test_histogram_of_samples_agrees_with_the_density(case, temperature):
    bins, fine = {1: (40, 50), 2: (14, 15)}[case.dim]
    ranges = box(case, temperature, margin=0.0)
    grid, volume = midpoints(ranges, bins * fine)
    with torch.no_grad():
        density = double_model(case).density(temperature).log_prob(grid).exp().numpy() * volume
    expected = density.reshape([bins, fine] * case.dim).sum(axis=tuple(range(1, 2 * case.dim, 2))).ravel()
    counted = np.histogramdd(samples(case, temperature).numpy(), bins, ranges)[0].ravel()
    full = expected * N_SAMPLES > 5
    observed = np.append(counted[full], N_SAMPLES - counted[full].sum())
    expected = np.append(expected[full], 1 - expected[full].sum()) * N_SAMPLES
    assert stats.chisquare(observed, expected).pvalue > 1e-4


@every_case
@pytest.mark.parametrize("temperature", [T0, T1])
def test_samples_agree_with_the_density_around_several_points(case, temperature):
    # For any normalised kernel h the mean of h(z) / r(z) over samples z of r is one.
    z = samples(case, temperature)
    with torch.no_grad():
        log_r = double_model(case).density(temperature).log_prob(z)
    mean, covariance = z.mean(dim=0), torch.atleast_2d(torch.cov(z.T))
    axes = torch.linalg.cholesky(covariance).T
    for centre in (mean, mean + axes[0], mean - axes[-1]):
        kernel = torch.distributions.MultivariateNormal(centre, 0.4 * covariance)
        ratio = (kernel.log_prob(z) - log_r).exp()
        error = float(ratio.std()) / math.sqrt(N_SAMPLES)
        assert error < 0.05
        assert float(ratio.mean()) == pytest.approx(1.0, abs=4.5 * error)


@every_case
def test_samples_follow_their_generator(case):
    density = double_model(case).density(T1)
    first, same, other = (density.sample(50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


# Far outside the data


@every_case
@pytest.mark.parametrize("double", [True, False])
def test_gradients_are_finite_far_outside_the_data(case, double):
    model = copy.deepcopy(double_model(case) if double else single_model(case))
    direction = torch.nn.functional.normalize(points(case, 64), dim=1)
    z = (1e3 * direction).to(model.flow.shift).requires_grad_()
    log_r = model.log_density(z, mixed_temperatures(64))
    log_r.sum().backward()
    assert torch.isfinite(log_r).all()
    assert torch.isfinite(z.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in model.flow.parameters())
    assert (log_r < -1e3).all()


@every_case
def test_gradients_are_finite_at_the_edges_of_the_splines(case):
    model = double_model(case)
    mean, std = whitening(case.dim)
    bound = model.settings.flow.bound
    z = (mean + std * torch.tensor([[-bound], [0.0], [bound]], dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(model.log_density(z, mixed_temperatures(3)).sum(), z)
    assert torch.isfinite(gradient).all()


# Saved, scripted


@every_case
def test_saved_and_loaded_model_is_identical(case, tmp_path):
    model = copy.deepcopy(single_model(case))
    model.feature_mean.copy_(torch.linspace(0.0, 1.0, 6))
    model.feature_scale.copy_(torch.linspace(1.0, 2.0, 6))
    features = (CoordinateSettings(atoms=[0, 1], axes="xyz"),)
    save_model(TrainedModel(model, features, ("HOL1-AR1", "HOL1-AR2"), "K", (T0, T1)), tmp_path)
    loaded = load_model(tmp_path).model
    z, x = points(case).float(), torch.linspace(-1.0, 1.0, 60).reshape(10, 6)
    assert loaded.settings == model.settings
    assert not loaded.training
    assert torch.equal(
        loaded.log_density(z, mixed_temperatures(len(z))), model.log_density(z, mixed_temperatures(len(z)))
    )
    assert torch.equal(loaded.encode(x), model.encode(x))
    assert torch.equal(loaded.state_log_probabilities(z), model.state_log_probabilities(z))
    assert loaded.state_dict().keys() == model.state_dict().keys()


@every_case
def test_scripted_log_density_equals_the_eager_one(case):
    model = double_model(case)
    eager = LogDensityModule(model, T1)
    scripted = torch.jit.script(eager)
    for width in (1.0, 5.0):
        z = points(case, 50, width).requires_grad_()
        expected = model.density(T1).log_prob(z)
        (slope,) = torch.autograd.grad(expected.sum(), z)
        for module in (eager, scripted, scripted):  # twice: the second call is the optimised one
            log_r = module(z)
            (gradient,) = torch.autograd.grad(log_r.sum(), z)
            torch.testing.assert_close(log_r, expected, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", [Case(1, "spline", "none"), Case(2, "affine", "temperature")], ids=str)
def test_scripted_inverse_equals_the_eager_one(case):
    model = double_model(case)
    scripted = torch.jit.script(model.flow)
    u, c = points(case), context(model, 100)
    torch.testing.assert_close(scripted.inverse(u, c), model.flow.inverse(u, c), rtol=1e-12, atol=1e-12)


# Settings


def test_affine_flow_in_one_dimension_is_refused():
    with pytest.raises(ValueError, match="a one-dimensional flow needs transform 'spline'"):
        ModelSettings(latent_dim=1, flow=FlowSettings(transform="affine"))


def test_empty_hidden_layer_is_refused():
    with pytest.raises(ValueError, match=r"hidden widths must be at least 1, got \[16, 0\]"):
        FlowSettings(hidden=[16, 0])
