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
    model.flows[0].whiten(*whitening(case.dim))
    with torch.no_grad():
        for parameter in model.flows[0].parameters():
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
    u, log_det = model.flows[0](z, context(model, 7))
    assert u.shape == (7, case.dim)
    assert log_det.shape == (7,)
    assert model.flows[0].inverse(u, context(model, 7)).shape == (7, case.dim)
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
        u, _ = model.flows[0](z, c)
        torch.testing.assert_close(model.flows[0].inverse(u, c), z, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(
            model.flows[0](model.flows[0].inverse(z, c), c)[0], z, rtol=1e-7, atol=1e-7
        )
    assert (u - z).abs().max() > 0.1


@every_case
def test_log_determinant_is_that_of_the_jacobian(case):
    model = double_model(case)
    z = points(case, 50).requires_grad_()
    u, log_det = model.flows[0](z, context(model, 50))
    rows = [torch.autograd.grad(u[:, i].sum(), z, retain_graph=True)[0] for i in range(case.dim)]
    expected = torch.linalg.slogdet(torch.stack(rows, dim=1))[1]
    torch.testing.assert_close(log_det, expected, rtol=1e-9, atol=1e-9)
    assert log_det.std() > 0.1


@every_case
def test_new_flow_is_whitening_only(case):
    model = copy.deepcopy(new_model(case)).double()
    mean, std = whitening(case.dim)
    model.flows[0].whiten(mean, std)
    z = points(case)
    with torch.no_grad():
        u, log_det = model.flows[0](z, context(model, len(z)))
    size = math.sqrt(mean_square_radius(TAU, 1.0, case.dim) / case.dim)
    torch.testing.assert_close(u, (z - mean) / std * size, rtol=1e-6, atol=1e-6)
    expected = float(case.dim * math.log(size) - torch.log(std).sum())
    torch.testing.assert_close(log_det, torch.full_like(log_det, expected), rtol=1e-6, atol=1e-6)


@every_case
def test_only_the_flow_with_context_sees_the_temperature(case):
    model = double_model(case)
    z = points(case, 10)
    cold, _ = model.flows[0](z, model.context(torch.full((10,), 1.0, dtype=torch.float64)))
    warm, _ = model.flows[0](z, model.context(torch.full((10,), 1.5, dtype=torch.float64)))
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
    z = (1e3 * direction).to(model.flows[0].shift).requires_grad_()
    log_r = model.log_density(z, mixed_temperatures(64))
    log_r.sum().backward()
    assert torch.isfinite(log_r).all()
    assert torch.isfinite(z.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in model.flows[0].parameters())
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
    scripted = torch.jit.script(model.flows[0])
    u, c = points(case), context(model, 100)
    torch.testing.assert_close(scripted.inverse(u, c), model.flows[0].inverse(u, c), rtol=1e-12, atol=1e-12)


# A committee: the mean of its members' densities

COMMITTEES = [Case(1, "spline", "none"), Case(2, "spline", "temperature"), Case(3, "affine", "temperature")]
every_committee = pytest.mark.parametrize("case", COMMITTEES, ids=str)
LOW, HIGH = 280.0, 500.0


@lru_cache
def committee(case: Case) -> LatentThermodynamicFlow:
    """Three members with different random parameters and whitenings, in double precision."""
    model = copy.deepcopy(new_model(case))
    model.renew_flows(3)
    generator = torch.Generator().manual_seed(10 + case.dim)
    mean, std = whitening(case.dim)
    with torch.no_grad():
        for number, flow in enumerate(model.flows):
            flow.whiten(mean + 0.7 * number, std * (1.0 + 0.3 * number))
            for parameter in flow.parameters():
                parameter.add_(0.12 * torch.randn(parameter.shape, generator=generator))
    model.set_temperature_range(LOW, HIGH)
    return model.eval().double()


def by_hand(case: Case, z: Tensor, temperature: float) -> Tensor:
    """Density of each member from its flow and the prior, shape (members, n)."""
    model, width = committee(case), int(case.context == "temperature")
    held = min(temperature, HIGH) / T0 if width else temperature / T0
    t = torch.full((len(z),), held, dtype=torch.float64)
    told = torch.full((len(z), width), math.log(held), dtype=torch.float64)
    each = []
    for flow in model.flows:
        u, log_det = flow(z, told)
        each.append((model.prior.log_prob(u, t) + log_det).exp())
    return torch.stack(each).detach()


def test_renewed_flows_start_as_the_identity():
    model = copy.deepcopy(committee(COMMITTEES[1]))
    model.renew_flows(5)
    assert model.n_members == 5
    z = points(COMMITTEES[1], 10).float()
    each = model.float().member_log_densities(z, mixed_temperatures(10))
    assert each.shape == (5, 10)
    assert (each == each[0]).all()


@every_committee
@pytest.mark.parametrize("temperature", [T0, T1, 900.0])
def test_committee_is_the_mean_of_its_members(case, temperature):
    model, z = committee(case), points(case, 200)
    members = by_hand(case, z, temperature)
    assert (members.std(dim=0) > 1e-3 * members.mean(dim=0)).all()
    at = torch.full((200,), temperature, dtype=torch.float64)
    exact = members.mean(dim=0)
    # The ends of the range of temperatures are kept in single precision.
    torch.testing.assert_close(model.log_density(z, at).exp(), exact, rtol=2e-5, atol=0.0)
    torch.testing.assert_close(model.density(temperature).log_prob(z).exp(), exact, rtol=2e-5, atol=0.0)
    torch.testing.assert_close(model.member_log_densities(z, at).exp(), members, rtol=2e-5, atol=0.0)
    assert torch.equal(model.density(temperature).member_log_probs(z), model.member_log_densities(z, at))


def committee_box(case: Case, temperature: float, margin: float) -> list[tuple[float, float]]:
    low, high = committee_samples(case, temperature).aminmax(dim=0)
    extra = margin * (high - low)
    return list(zip((low - extra).tolist(), (high + extra).tolist(), strict=True))


@lru_cache
def committee_samples(case: Case, temperature: float) -> Tensor:
    return committee(case).density(temperature).sample(N_SAMPLES, torch.Generator().manual_seed(4))


@pytest.mark.parametrize("case", [case for case in COMMITTEES if case.dim <= 2], ids=str)
@pytest.mark.parametrize("temperature", [T0, T1, 900.0])
def test_committee_density_integrates_to_one(case, temperature):
    grid, volume = midpoints(committee_box(case, temperature, 0.5), {1: 20_000, 2: 300}[case.dim])
    with torch.no_grad():
        density = committee(case).density(temperature).log_prob(grid).exp()
    assert float(density.sum()) * volume == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("case", [case for case in COMMITTEES if case.dim <= 2], ids=str)
@pytest.mark.parametrize("temperature", [T1, 900.0])
def test_histogram_of_a_committees_samples_agrees_with_its_density(case, temperature):
    bins, fine = {1: (40, 50), 2: (14, 15)}[case.dim]
    ranges = committee_box(case, temperature, 0.0)
    grid, volume = midpoints(ranges, bins * fine)
    with torch.no_grad():
        density = committee(case).density(temperature).log_prob(grid).exp().numpy() * volume
    expected = density.reshape([bins, fine] * case.dim).sum(axis=tuple(range(1, 2 * case.dim, 2))).ravel()
    drawn = committee_samples(case, temperature)
    counted = np.histogramdd(drawn.numpy(), bins, ranges)[0].ravel()
    full = expected * N_SAMPLES > 5
    observed = np.append(counted[full], N_SAMPLES - counted[full].sum())
    expected = np.append(expected[full], 1 - expected[full].sum()) * N_SAMPLES
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_samples_of_a_committee_come_from_its_members_in_turn():
    # Far from each other, so that a sample tells its member.
    model = copy.deepcopy(committee(COMMITTEES[0]))
    for number, flow in enumerate(model.flows):
        flow.shift.fill_(1000.0 * number)
    for n in (1, 2, 3, 10):
        z = model.density(T1).sample(n, torch.Generator().manual_seed(0))
        assert (z[:, 0] / 1000.0).round().tolist() == [i % 3 for i in range(n)]


@every_committee
@pytest.mark.parametrize("temperature", [T1, 900.0])
def test_scripted_committee_equals_the_eager_one(case, temperature):
    model = committee(case)
    eager = LogDensityModule(model, temperature)
    scripted = torch.jit.script(eager)
    for width in (1.0, 5.0):
        z = points(case, 50, width).requires_grad_()
        expected = model.density(temperature).log_prob(z)
        (slope,) = torch.autograd.grad(expected.sum(), z)
        for module in (eager, scripted, scripted):
            log_r = module(z)
            (gradient,) = torch.autograd.grad(log_r.sum(), z)
            torch.testing.assert_close(log_r, expected, rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(gradient, slope, rtol=1e-8, atol=1e-8)


@every_committee
def test_gradients_of_a_committee_are_finite(case):
    model = copy.deepcopy(committee(case))
    far = 1e3 * torch.nn.functional.normalize(points(case, 32), dim=1)
    z = torch.cat([points(case, 32), far]).requires_grad_()
    log_r = model.log_density(z, mixed_temperatures(64))
    log_r.sum().backward()
    assert torch.isfinite(log_r).all()
    assert torch.isfinite(z.grad).all()
    for flow in model.flows:
        assert all(torch.isfinite(p.grad).all() for p in flow.parameters())
        assert all(layer.conditioner[-1].weight.grad.abs().max() > 0 for layer in flow.layers)


@pytest.mark.parametrize(("end", "beyond"), [(LOW, 100.0), (HIGH, 2000.0)])
def test_beyond_the_range_of_temperatures_the_density_is_held(end, beyond):
    case = COMMITTEES[1]
    model, z = committee(case), points(case, 50)

    def log_r(temperature: float) -> Tensor:
        return model.density(temperature).log_prob(z).detach()

    # Within the range it does move with the temperature.
    assert (log_r(350.0) - log_r(400.0)).abs().max() > 1e-3
    torch.testing.assert_close(log_r(beyond), log_r(end), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(LogDensityModule(model, beyond)(z).detach(), log_r(end), rtol=1e-9, atol=1e-9)
    samples = [model.density(t).sample(9, torch.Generator().manual_seed(0)) for t in (beyond, end)]
    torch.testing.assert_close(*samples)


def test_without_context_the_prior_steers_everywhere():
    """log r_T(z) = tau |u| - |u|^2 / 2t - log C(t) + log|det|, at any T, with one and the same u = g(z)."""
    model = copy.deepcopy(new_model(Case(2, "spline", "none"))).double()
    model.set_temperature_range(LOW, HIGH)
    z = torch.randn((50, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = model.flows[0](z, torch.zeros((50, 0), dtype=torch.float64))[0].detach()
    change = (model.density(2000.0).log_prob(z) - model.density(100.0).log_prob(z)).detach()
    rest = change + 0.5 * u.square().sum(dim=1) * (T0 / 2000.0 - T0 / 100.0)
    torch.testing.assert_close(rest, rest.mean().expand(50), rtol=0.0, atol=1e-9)


def test_range_of_temperatures_is_in_the_systems_scale():
    model = copy.deepcopy(committee(COMMITTEES[1]))
    model.set_temperature_range(150.0, 600.0)
    seen = model.reduced(torch.tensor([30.0, 150.0, 300.0, 600.0, 2700.0], dtype=torch.float64))
    torch.testing.assert_close(seen, torch.tensor([0.5, 0.5, 1.0, 2.0, 2.0], dtype=torch.float64))


# Settings


def test_affine_flow_in_one_dimension_is_refused():
    with pytest.raises(ValueError, match="a one-dimensional flow needs transform 'spline'"):
        ModelSettings(latent_dim=1, flow=FlowSettings(transform="affine"))


def test_empty_hidden_layer_is_refused():
    with pytest.raises(ValueError, match=r"hidden widths must be at least 1, got \[16, 0\]"):
        FlowSettings(hidden=[16, 0])
