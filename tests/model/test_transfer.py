"""Frames weighted by points of r_T(z), against two-dimensional oscillators known at every temperature."""

import numpy as np
import pytest
import torch

from latf_openmm.model.transfer import frame_weights


class Oscillator:
    """The exact density of z: U = |x|^2 / 2 in three dimensions, z the first two; it samples as a flow does."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def sample(self, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
        return self.temperature**0.5 * torch.randn((n, 2), generator=generator)


@pytest.mark.parametrize("temperature", [0.8, 1.4, 2.2])
def test_weighted_frames_have_the_ensemble_at_the_temperature(temperature: float) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.sqrt(t) * rng.standard_normal((20_000, 3)) for t in (1.0, 2.0)])
    energy = 0.5 * (x**2).sum(axis=1)
    mixture = sum(np.exp(-energy / t) / t**1.5 for t in (1.0, 2.0))
    weights = frame_weights(
        Oscillator(temperature),  # type: ignore[arg-type]
        x[:, :2],
        -energy / temperature - np.log(mixture),
    )
    assert weights.sum() == pytest.approx(1.0)
    # z follows the density; the third coordinate, which it does not know, follows the MBAR weights.
    assert weights @ x[:, 0] ** 2 == pytest.approx(temperature, rel=0.05)
    assert weights @ x[:, 2] ** 2 == pytest.approx(temperature, rel=0.05)
    assert weights @ energy == pytest.approx(1.5 * temperature, rel=0.04)


def test_fewer_frames_than_neighbours_share_everything() -> None:
    z = np.array([[0.0, 0.0], [1.0, 1.0]])
    weights = frame_weights(Oscillator(1.0), z, np.log([3.0, 1.0]), samples=100)  # type: ignore[arg-type]
    np.testing.assert_allclose(weights, [0.75, 0.25])
