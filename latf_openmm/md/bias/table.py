"""A potential tabulated on a regular grid, with continuous second derivatives."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import spline_filter
from torch import Tensor

from latf_openmm.md.bias.base import Bias

_BASIS = [[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]]
"""Six times the cubic B-spline basis; row p is the power f^p, column the neighbour -1, 0, 1, 2."""


class TabulatedBias(Bias):
    """Tensor-product cubic B-spline through the values of a table; constant beyond its edges.

    The spline is built with mirror boundaries, so its slope is zero at the edges and the constant
    continuation outside has no jump in value or force.

    Parameters
    ----------
    values
        Energies on the grid, one axis for each collective variable [kJ/mol].
    low, high
        First and last grid point along each axis.
    """

    def __init__(self, values: NDArray[np.float64], low: Sequence[float], high: Sequence[float]) -> None:
        super().__init__()
        coefficients = np.pad(spline_filter(values, order=3, mode="mirror"), 2, mode="reflect")
        self.shape = list(values.shape)
        self.dim = values.ndim
        strides = [int(np.prod(coefficients.shape[axis + 1 :])) for axis in range(values.ndim)]
        spacing = [(b - a) / (n - 1) for a, b, n in zip(low, high, values.shape, strict=True)]
        self.coefficients: Tensor
        self.low: Tensor
        self.spacing: Tensor
        self.last: Tensor
        self.strides: Tensor
        self.offsets: Tensor
        self.basis: Tensor
        self.register_buffer("basis", torch.tensor(_BASIS, dtype=torch.float64) / 6.0)
        self.register_buffer("coefficients", torch.from_numpy(coefficients.ravel().copy()))
        self.register_buffer("low", torch.tensor(list(low), dtype=torch.float64))
        self.register_buffer("spacing", torch.tensor(spacing, dtype=torch.float64))
        self.register_buffer("last", torch.tensor([float(n - 1) for n in values.shape], dtype=torch.float64))
        self.register_buffer("strides", torch.tensor(strides))
        corners = np.stack(np.meshgrid(*[range(4)] * values.ndim, indexing="ij"), -1).reshape(-1, values.ndim)
        self.register_buffer("offsets", torch.from_numpy((corners + 1) @ np.array(strides)))

    def forward(self, z: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        scaled = torch.minimum(((z - self.low) / self.spacing).clamp_min(0.0), self.last)
        cell = torch.minimum(torch.floor(scaled.detach()), self.last - 1.0)
        f = scaled - cell
        square = f * f
        powers = torch.stack([torch.ones_like(f), f, square, square * f], dim=2)
        basis = powers @ self.basis  # (n, d, 4)
        weight = basis[:, 0]
        for axis in range(1, self.dim):
            weight = (weight.unsqueeze(2) * basis[:, axis].unsqueeze(1)).reshape(z.shape[0], -1)
        index = (cell.to(torch.long) * self.strides).sum(dim=1, keepdim=True) + self.offsets
        return (weight * self.coefficients[index]).sum(dim=1)
