"""Differences and means of periodic variables."""

import numpy as np
import pytest
import torch

from latf_openmm.bias.potentials.base import wrap
from latf_openmm.periodic import nearest_difference, periodic_mean


@pytest.mark.parametrize("period", [2 * np.pi, 360.0, 0.0])
def test_differences_are_those_that_biases_have(period: float) -> None:
    """Of arrays as of tensors, on the borders too."""
    off = np.concatenate(
        [np.random.default_rng(0).uniform(-900, 900, 200), [period / 2, -period / 2, 1.5 * period]]
    )
    difference = nearest_difference(off, period)
    expected = wrap(torch.from_numpy(off), torch.tensor(period, dtype=torch.float64))
    np.testing.assert_array_equal(difference, expected.numpy())
    if period:
        assert np.abs(difference).max() <= period / 2 + 1e-9


@pytest.mark.parametrize("centre", [0.3, 3.1, -3.1])
def test_the_mean_of_angles_does_not_know_where_they_are_cut(centre: float) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(centre, 0.2, 5000)
    for first in (-np.pi, 0.0):
        cut = first + np.mod(values - first, 2 * np.pi)
        assert abs(nearest_difference(np.array(periodic_mean(cut, 2 * np.pi) - centre), 2 * np.pi)) < 0.01
    assert periodic_mean(values, 0.0) == values.mean()
