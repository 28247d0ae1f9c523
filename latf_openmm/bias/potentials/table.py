"""Potentials on a regular grid, with continuous second derivatives."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import spline_filter1d
from torch import Tensor, nn

from latf_openmm.bias.potentials.base import Bias

_BASIS = [[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]]
"""Six times the cubic B-spline basis; row p is the power f^p, column the neighbour -1, 0, 1, 2."""
_PAD = 2
"""Grid points added on each side of an axis."""


def _corner_offsets(strides: Sequence[int]) -> NDArray[np.float64]:
    """Offsets of the 4**dim coefficients around a cell in the flat table, the first axis fastest."""
    dim = len(strides)
    order = [*range(1, dim), 0]
    corners = np.stack(np.meshgrid(*[range(4)] * dim, indexing="ij"), -1).reshape(-1, dim)
    offsets = (corners + _PAD - 1) @ np.array(strides, dtype=float)[order]
    return np.asarray(offsets, dtype=np.float64)


def _basis_with_slopes() -> Tensor:
    """Return the basis and its derivative, value and slope side by side, shape (4, 8)."""
    value = torch.tensor(_BASIS, dtype=torch.float64) / 6.0
    slope = torch.zeros_like(value)
    slope[:3] = value[1:] * torch.tensor([[1.0], [2.0], [3.0]])
    return torch.stack([value, slope], dim=2).reshape(4, 8)


class GridSpline(nn.Module):
    """Tensor-product cubic B-spline on a grid; ``forward(z, coefficients)`` returns its values.

    Along an axis without a period the spline is a mirror image of itself at both edges, so its slope is
    zero there and the constant continuation outside has no jump in value or force. A periodic axis covers
    one period, the last point being one spacing before the first one's image.

    Parameters
    ----------
    low, high
        First and last grid point along each axis; of a periodic axis both ends of the period.
    points
        Grid points along each axis.
    periodic
        Whether each axis is periodic; default: none is.
    """

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        points: Sequence[int],
        periodic: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.dim = len(points)
        self.points = list(points)
        self.periodic = list(periodic or [False] * self.dim)
        padded = [n + 2 * _PAD for n in points]
        strides = [int(np.prod(padded[axis + 1 :])) for axis in range(self.dim)]
        cells = [n if wraps else n - 1 for n, wraps in zip(points, self.periodic, strict=True)]
        spacing = [(b - a) / n for a, b, n in zip(low, high, cells, strict=True)]
        self.low: Tensor
        self.spacing: Tensor
        self.inverse: Tensor
        self.shift: Tensor
        self.cells: Tensor
        self.wraps: Tensor
        self.below: Tensor
        self.limit: Tensor
        self.strides: Tensor
        self.offsets: Tensor
        self.basis: Tensor
        self.powers: Tensor
        self.slopes: Tensor
        self.register_buffer("low", torch.tensor(list(low), dtype=torch.float64))
        self.register_buffer("spacing", torch.tensor(spacing, dtype=torch.float64))
        self.register_buffer("inverse", 1.0 / self.spacing)
        self.register_buffer("shift", -self.low / self.spacing)
        self.register_buffer("cells", torch.tensor([float(n) for n in cells], dtype=torch.float64))
        self.register_buffer("wraps", torch.tensor([float(w) for w in self.periodic], dtype=torch.float64))
        self.any_wraps = any(self.periodic)
        # The last point is in the last cell; along a periodic axis nothing is beyond it.
        self.register_buffer("below", torch.nextafter(self.cells, torch.zeros_like(self.cells)))
        self.register_buffer("limit", torch.where(self.wraps > 0, self.below, torch.inf))
        # Coefficients around a cell, the first axis fastest, as the products in `forward` want them.
        offsets = _corner_offsets(strides)
        self.register_buffer("offsets", torch.from_numpy(offsets))
        wide = np.repeat(np.array(strides, dtype=float)[:, None], len(offsets), axis=1)
        self.register_buffer("strides", torch.from_numpy(wide))
        self.register_buffer("powers", torch.arange(4, dtype=torch.float64))
        self.register_buffer("basis", _basis_with_slopes())
        self.register_buffer("slopes", torch.tensor([2 ** (self.dim - 1 - i) for i in range(self.dim)]))

    def axis(self, index: int) -> NDArray[np.float64]:
        """Grid points along one axis, shape (points[index],)."""
        first, step = float(self.low[index]), float(self.spacing[index])
        return np.asarray(first + step * np.arange(self.points[index]), dtype=np.float64)

    def coefficients(self, values: NDArray[np.float64]) -> Tensor:
        """Coefficients of the spline through `values`, an array of shape `points`; flat, padded."""
        for axis in range(self.dim):
            values = np.moveaxis(np.tensordot(self.operator(axis), values, (1, axis)), 0, axis)
        return torch.from_numpy(np.ascontiguousarray(values).ravel())

    def operator(self, axis: int) -> NDArray[np.float64]:
        """Matrix from values along one axis to padded coefficients, shape (points + 4, points)."""
        wraps = self.periodic[axis]
        filtered = spline_filter1d(
            np.eye(self.points[axis]), order=3, axis=0, mode="grid-wrap" if wraps else "mirror"
        )
        padded = np.pad(filtered, ((_PAD, _PAD), (0, 0)), mode="wrap" if wraps else "reflect")
        return np.asarray(padded, dtype=np.float64)

    def forward(self, z: Tensor, coefficients: Tensor) -> Tensor:
        """Return the values at z (n, dim), shape (n,), with their first derivatives only."""
        scaled = torch.addcmul(self.shift, z, self.inverse)  # in cells from the first point
        x = scaled.detach()
        if self.any_wraps:
            x = torch.minimum(x - self.wraps * self.cells * torch.floor(x / self.cells), self.limit)
        inside = torch.clamp(x, torch.zeros_like(self.cells), self.below)
        cell = torch.floor(inside)
        index = (cell @ self.strides + self.offsets).to(torch.long)
        # Along each axis the four basis functions and their slopes, shape (n, dim, 4, 2).
        powers = (inside - cell).reshape(-1, 1) ** self.powers
        basis = torch.unbind((powers @ self.basis).reshape(-1, self.dim, 4, 2), dim=1)
        table = torch.take(coefficients, index).reshape(z.shape[0], -1, 4)
        for axis in range(self.dim):
            if axis > 0:
                table = table.reshape(z.shape[0], 4, -1).transpose(1, 2)
            table = torch.bmm(table, basis[axis])
        table = table.reshape(z.shape[0], -1)  # value or slope along each axis, the last one fastest
        total = table[:, 0]
        if z.requires_grad:
            # Beyond an edge it is the slope at the edge, which is zero.
            slope = table.index_select(1, self.slopes)
            total = total + ((scaled - scaled.detach()) * slope).sum(dim=1)
        return total


class TabulatedBias(Bias):
    """A table interpolated by `GridSpline`; constant beyond its edges.

    Parameters
    ----------
    values
        Energies on the grid, one axis for each collective variable [kJ/mol].
    low, high
        First and last grid point along each axis.
    periodic
        Whether each axis is periodic; default: none is.
    """

    def __init__(
        self,
        values: NDArray[np.float64],
        low: Sequence[float],
        high: Sequence[float],
        periodic: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.spline = GridSpline(low, high, values.shape, periodic)
        self.coefficients: Tensor
        self.register_buffer("coefficients", self.spline.coefficients(values))

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        return self.spline(z, self.coefficients)
