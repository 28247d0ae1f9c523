"""The prior: normaliser against the closed form, density and samples against each other."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from numpy.typing import NDArray
from scipy import integrate, stats
from scipy.special import gammaln, hyp1f1, log_ndtr, ndtr

from latf_openmm.model.prior import TiltedGaussian, log_normaliser, mean_square_radius

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
DIMS = (1, 2, 3, 5)
TILTS = ((0.0, 1.0), (2.0, 0.5), (3.0, 4.0))
N_SAMPLES = 20_000


def closed_form(tau: float, t: float, dim: int) -> float:
    """log C with Kummer's function; overflows where tau^2 t / 2 exceeds about 700."""
    x = 0.5 * tau**2 * t
    ratio = np.exp(gammaln(0.5 * (dim + 1)) - gammaln(0.5 * dim))
    even = hyp1f1(0.5 * dim, 0.5, x)
    odd = tau * math.sqrt(2 * t) * ratio * hyp1f1(0.5 * (dim + 1), 1.5, x)
    return float(0.5 * dim * math.log(2 * math.pi * t) + np.log(even + odd))


def half_line_moment(tau: float, t: float, power: int) -> float:
    """log of the integral of r^power exp(tau r - r^2 / 2t) over r > 0, by moments of a cut Gaussian."""
    s, m = math.sqrt(t), tau * t
    tail = float(ndtr(m / s))
    edge = math.exp(-0.5 * (m / s) ** 2) / math.sqrt(2 * math.pi)
    moment = {0: tail, 2: (m**2 + t) * tail + m * s * edge}
    gauss = 0.5 * tau**2 * t + 0.5 * math.log(2 * math.pi * t)
    return gauss + (float(log_ndtr(m / s)) if power == 0 else math.log(moment[power]))


def radial_density(r: NDArray[np.float64], tau: float, t: float, dim: int) -> NDArray[np.float64]:
    """Density of |u|, not normalised."""
    return np.asarray(r ** (dim - 1) * np.exp(tau * r - r**2 / (2 * t) - 0.5 * tau**2 * t))


def radial_cdf(tau: float, t: float, dim: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Cumulative distribution of |u| on a grid of its own, independent of the sampler's."""
    r = np.linspace(0.0, tau * t + 20 * math.sqrt(t * dim), 200_001)
    cumulative = integrate.cumulative_simpson(radial_density(r, tau, t, dim), x=r, initial=0.0)
    return lambda x: np.interp(x, r, cumulative / cumulative[-1])


def draw(tau: float, t: float, dim: int, seed: int = 0) -> NDArray[np.float64]:
    generator = torch.Generator().manual_seed(seed)
    return TiltedGaussian(dim, tau).sample(N_SAMPLES, t, generator).numpy()


# Normaliser


@PROPERTY
@given(st.floats(0.0, 50.0), st.floats(1e-3, 1e3), st.integers(1, 10))
def test_normaliser_is_the_closed_form(tau, t, dim):
    assume(0.5 * tau**2 * t < 600)
    assert log_normaliser(tau, t, dim) == pytest.approx(closed_form(tau, t, dim), abs=1e-9, rel=1e-11)


@pytest.mark.parametrize("tau", [0.0, 1e-6, 5.0, 50.0])
@pytest.mark.parametrize("t", [1e-8, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("dim", [1, 3])
def test_normaliser_does_not_overflow(tau, t, dim):
    log_sphere = {1: math.log(2.0), 3: math.log(4.0 * math.pi)}[dim]
    expected = log_sphere + half_line_moment(tau, t, dim - 1)
    assert log_normaliser(tau, t, dim) == pytest.approx(expected, abs=1e-9, rel=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 10])
@pytest.mark.parametrize("t", [1e-8, 1e4])
def test_log_density_and_samples_are_finite_at_extreme_tilts(dim, t):
    prior = TiltedGaussian(dim, 50.0)
    u = prior.sample(1000, t, torch.Generator().manual_seed(0))
    assert u.shape == (1000, dim)
    assert torch.isfinite(u).all()
    assert torch.isfinite(prior.log_prob(u, torch.full((1000,), t, dtype=torch.float64))).all()


# Density


@pytest.mark.parametrize(("tau", "t"), TILTS)
def test_density_integrates_to_one_in_one_dimension(tau, t):
    reach = tau * t + 10 * math.sqrt(t)
    x = torch.linspace(-reach, reach, 20_001, dtype=torch.float64)
    density = TiltedGaussian(1, tau).log_prob(x[:, None], torch.full_like(x, t)).exp()
    assert float(torch.trapezoid(density, x)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("tau", "t"), TILTS)
def test_density_integrates_to_one_in_two_dimensions(tau, t):
    reach = tau * t + 10 * math.sqrt(t)
    x = torch.linspace(-reach, reach, 801, dtype=torch.float64)
    points = torch.cartesian_prod(x, x)
    density = TiltedGaussian(2, tau).log_prob(points, torch.full((len(points),), t)).exp()
    assert float(density.sum()) * float(x[1] - x[0]) ** 2 == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("dim", DIMS)
def test_temperatures_of_their_own_equal_one_at_a_time(dim):
    generator = torch.Generator().manual_seed(1)
    prior = TiltedGaussian(dim, 2.5)
    u = torch.randn(60, dim, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.7, 1.0, 2.3], dtype=torch.float64).repeat(20)
    together = prior.log_prob(u, t)
    alone = torch.cat([prior.log_prob(u[i : i + 1], t[i : i + 1]) for i in range(60)])
    assert together.shape == (60,)
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=1e-13)
    for value in (0.7, 1.0, 2.3):
        here = t == value
        expected = 2.5 * u[here].norm(dim=1) - u[here].square().sum(1) / (2 * value)
        expected = expected - closed_form(2.5, value, dim)
        torch.testing.assert_close(together[here], expected, rtol=1e-9, atol=1e-9)


def test_gradient_at_the_origin_is_finite():
    u = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(TiltedGaussian(2, 3.0).log_prob(u, torch.ones(1)).sum(), u)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


# Samples


@pytest.mark.parametrize(("tau", "t"), TILTS)
@pytest.mark.parametrize("dim", DIMS)
def test_radius_of_samples_follows_the_density(dim, tau, t):
    u = draw(tau, t, dim)
    assert u.shape == (N_SAMPLES, dim)
    assert stats.kstest(np.linalg.norm(u, axis=1), radial_cdf(tau, t, dim)).pvalue > 1e-3


@pytest.mark.parametrize("dim", DIMS)
def test_directions_of_samples_are_isotropic(dim):
    u = draw(2.0, 0.5, dim)
    direction = u / np.linalg.norm(u, axis=1, keepdims=True)
    assert np.abs(direction.mean(axis=0)).max() < 4.0 / math.sqrt(N_SAMPLES * dim)
    if dim == 1:
        return
    along = direction @ np.random.default_rng(2).permutation(np.eye(dim)[0] + 1) / math.sqrt(dim + 3)
    law = stats.beta(0.5 * (dim - 1), 0.5 * (dim - 1), loc=-1, scale=2)
    for component in (*direction.T, along):
        assert stats.kstest(component, law.cdf).pvalue > 1e-3


def test_radius_and_direction_of_samples_are_independent():
    u = draw(2.0, 0.5, 2)
    radius, angle = np.hypot(*u.T), np.arctan2(*u.T)
    near = radius < np.median(radius)
    assert stats.ks_2samp(angle[near], angle[~near]).pvalue > 1e-3


def test_samples_depend_on_their_generator_only():
    before = torch.get_rng_state()
    first, same, other = draw(2.0, 1.0, 2, seed=5), draw(2.0, 1.0, 2, seed=5), draw(2.0, 1.0, 2, seed=6)
    np.testing.assert_array_equal(first, same)
    assert (first != other).all()
    assert torch.equal(torch.get_rng_state(), before)


# Mean square radius


@PROPERTY
@given(st.floats(0.0, 20.0), st.floats(0.01, 10.0), st.integers(1, 10))
def test_mean_square_radius_is_a_ratio_of_normalisers(tau, t, dim):
    # The factor r^2 is a radial integral two dimensions higher; spheres differ by 2 pi / d.
    log_ratio = log_normaliser(tau, t, dim + 2) - log_normaliser(tau, t, dim)
    assert mean_square_radius(tau, t, dim) == pytest.approx(
        dim / (2 * math.pi) * math.exp(log_ratio), rel=1e-9
    )


@pytest.mark.parametrize("dim", DIMS)
def test_mean_square_radius_of_a_gaussian_and_of_samples(dim):
    assert mean_square_radius(0.0, 0.7, dim) == pytest.approx(0.7 * dim, rel=1e-10)
    square = (draw(2.0, 0.7, dim) ** 2).sum(axis=1)
    error = square.std() / math.sqrt(N_SAMPLES)
    assert square.mean() == pytest.approx(mean_square_radius(2.0, 0.7, dim), abs=4 * error)
