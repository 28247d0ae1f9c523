"""Well-tempered metadynamics on a grid, updated while the simulation runs."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import logsumexp
from torch import Tensor, nn

from latf_openmm.bias.potentials.base import (
    AdaptiveBias,
    AdaptiveBiasSettings,
    Bias,
    BiasContext,
    StateUpdate,
)
from latf_openmm.bias.potentials.components import check_energy, force_constants, per_component
from latf_openmm.bias.potentials.sum import AdaptiveSum
from latf_openmm.bias.potentials.table import GridSpline
from latf_openmm.bias.potentials.walls import Walls
from latf_openmm.bias.potentials.widths import given_widths, within_state_widths
from latf_openmm.errors import ConfigError

_POINTS_PER_SIGMA = 3.0
"""Grid points for each width of a hill."""
_MAX_POINTS = {1: 2000, 2: 400, 3: 80}
"""Largest number of grid points along an axis, by the number of axes."""
_MIN_POINTS = 40
"""Smallest number of grid points along an axis."""
_MAX_HEIGHT = 100.0
"""Largest height of a Gaussian [kT]; one of a hundredth of that is high."""
_COVERED = 0.9
"""Part of the samples of the model that has to lie inside the grid."""


class _AxisGaussian(nn.Module):
    """Spline coefficients along one axis of a Gaussian of unit height, with its images."""

    def __init__(self, spline: GridSpline, axis: int, sigma: float) -> None:
        super().__init__()
        points = spline.axis(axis)
        step = float(spline.spacing[axis])
        period = step * spline.points[axis] if spline.periodic[axis] else 0.0
        self.low, self.high, self.period, self.sigma = float(points[0]), float(points[-1]), period, sigma
        self.points: Tensor
        self.operator: Tensor
        self.register_buffer("points", torch.from_numpy(points))
        self.register_buffer("operator", torch.from_numpy(spline.operator(axis)))

    def values(self, centre: Tensor) -> Tensor:
        """Values on the grid, shape (points,)."""
        if self.period > 0:
            delta = self.points - centre
            delta = delta - self.period * torch.round(delta / self.period)
            images = [delta, delta - self.period, delta + self.period]
        else:
            images = [
                self.points - centre,
                self.points - (2 * self.low - centre),
                self.points - (2 * self.high - centre),
            ]
        total = torch.zeros_like(self.points)
        for delta in images:
            total = total + torch.exp(-0.5 * (delta / self.sigma) ** 2)
        return total

    def forward(self, centre: Tensor) -> Tensor:
        """Padded coefficients, shape (points + 4,)."""
        return self.operator @ self.values(centre)


class AddGaussian(StateUpdate):
    """The message is (centre, height): a Gaussian is added to the spline's coefficients."""

    def __init__(self, spline: GridSpline, sigma: Sequence[float]) -> None:
        super().__init__()
        self.dim = spline.dim
        self.axes = nn.ModuleList(_AxisGaussian(spline, axis, width) for axis, width in enumerate(sigma))

    def forward(self, state: Tensor, message: Tensor) -> Tensor:
        """Return the new coefficients."""
        product = message[self.dim : self.dim + 1]
        for index, axis in enumerate(self.axes):
            product = (product.unsqueeze(1) * axis(message[index]).unsqueeze(0)).reshape(-1)
        return state + product


class Metadynamics(AdaptiveBias):
    """Well-tempered metadynamics (Barducci, Bussi and Parrinello, 2008).

    Every `pace` steps each walker adds a Gaussian of height h exp(-V(z) / (kT (gamma - 1))) at its z. The
    bias is kept as a spline on a grid; Gaussians near an edge are mirrored there, so that the bias is flat,
    without a jump, beyond (the boundary correction of McGovern and de Pablo, 2013); a walker outside adds
    nothing. Walkers at other temperatures may share the bias; its kT is that of the bias, which only sets how
    the heights fall, and c(t), which only has to follow the constant by which V grows.

    Parameters
    ----------
    spline
        The grid.
    sigma
        Widths of the Gaussians, shape (dim,).
    height
        h [kJ/mol].
    bias_factor
        gamma; None: not tempered.
    kT
        Thermal energy [kJ/mol].
    pace
        Steps between Gaussians.
    """

    def __init__(
        self,
        spline: GridSpline,
        sigma: Sequence[float],
        height: float,
        bias_factor: float | None,
        kT: float,
        pace: int,
    ) -> None:
        super().__init__(AddGaussian(spline, sigma), spline.dim + 1, pace)
        self.spline = spline
        self.sigma = list(sigma)
        self.height = height
        self.bias_factor = float("inf") if bias_factor is None else bias_factor
        self.kT = kT
        self.values: Tensor
        self.grid: Tensor
        self.register_buffer("values", torch.zeros(spline.points, dtype=torch.float64))
        self.register_buffer("grid", torch.cat([spline.low, spline.spacing]))
        self.state = torch.zeros(int(np.prod([n + 4 for n in spline.points])), dtype=torch.float64)

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        return self.spline(z, state)

    def adapt(self, z: Tensor, kT: Tensor | None = None) -> list[Tensor]:
        """Add a Gaussian for each walker, one after the other."""
        inside = self._inside(z)
        if int(self.updates) == 0 and not bool(inside.all()):
            raise ConfigError(
                f"bias.low/high: the grid does not cover the start: z = {z[~inside][0].tolist()}, the grid is "
                f"from {self.spline.low.tolist()} to {self._high()}"
            )
        rows = []
        for centre in z[inside]:
            height = self.height
            if self.bias_factor < float("inf"):
                now = float(self.energy(centre.unsqueeze(0), self.state))
                height *= float(np.exp(-now / (self.kT * (self.bias_factor - 1))))
            rows.append(self._add(torch.cat([centre, torch.tensor([height], dtype=torch.float64)])))
        self.added = torch.stack(rows) if rows else torch.empty(0, self.width, dtype=torch.float64)
        return rows

    @property
    def width(self) -> int:
        """Centre and height."""
        return self.spline.dim + 1

    def absorb(self, rows: Tensor) -> list[Tensor]:
        """Add the Gaussians of other walkers."""
        return [self._add(row) for row in rows]

    def _add(self, gaussian: Tensor) -> Tensor:
        self.values = self.values + gaussian[-1] * self._product(gaussian[:-1])
        return self.receive(gaussian)

    def free_energy(self) -> NDArray[np.float64]:
        """Estimate -V gamma / (gamma - 1) on the grid, minimum at zero [kJ/mol], shape `spline.points`."""
        factor = 1.0 if self.bias_factor == float("inf") else self.bias_factor / (self.bias_factor - 1)
        surface = -factor * self.values.numpy()
        return np.asarray(surface - surface.min())

    def thermal_energy(self) -> float:
        """Return kT [kJ/mol]."""
        return self.kT

    def offset(self) -> float:
        """c(t) of Tiwary and Parrinello (2015) [kJ/mol]: frames weigh exp((V(z, t) - c(t)) / kT)."""
        v = self.values.numpy().ravel() / self.kT
        if self.bias_factor == float("inf"):
            return float(self.kT * (logsumexp(v) - np.log(len(v))))
        scale = 1.0 / (self.bias_factor - 1)
        return float(self.kT * (logsumexp(self.bias_factor * scale * v) - logsumexp(scale * v)))

    def _changing(self) -> tuple[str, ...]:
        return (*super()._changing(), "values", "grid")

    def _form(self, name: str, value: Tensor) -> str:
        if name != "grid":
            return super()._form(name, value)
        return "low, spacing " + ", ".join(f"{number:.6g}" for number in value.tolist())

    def _high(self) -> list[float]:
        return (self.spline.low + self.spline.spacing * self.spline.cells).tolist()

    def _inside(self, z: Tensor) -> Tensor:
        scaled = (z - self.spline.low) / self.spline.spacing
        within = (scaled >= 0) & (scaled <= self.spline.cells)
        return (within | (self.spline.wraps > 0)).all(dim=1)

    def _product(self, centre: Tensor) -> Tensor:
        assert isinstance(self.state_update, AddGaussian)
        product = torch.ones((), dtype=torch.float64)
        for value, axis in zip(centre, self.state_update.axes, strict=True):
            product = product.unsqueeze(-1) * axis.values(value)  # type: ignore[operator]
        return product


class MetadynamicsSettings(AdaptiveBiasSettings):
    """Well-tempered metadynamics, updated while the simulation runs; up to three variables."""

    kind: Literal["metadynamics"] = "metadynamics"
    sigma: float | list[float] | None = Field(
        None,
        description="widths of the Gaussians [z]; default: half of the narrowest state of the trained model",
    )
    height: float | None = Field(None, gt=0, description="first height [kJ/mol]; default: kT / 2")
    bias_factor: float | None = Field(10.0, gt=1, description="gamma; null: not tempered")
    pace: int = Field(500, ge=1, description="steps between Gaussians")
    low: list[float] | None = Field(
        None, description="lower end of the grid [z]; default: around the model's density, or the period"
    )
    high: list[float] | None = Field(
        None, description="upper end of the grid [z]; default: around the model's density, or the period"
    )
    points: list[int] | None = Field(None, description="grid points; default: three for each sigma")
    outside: Literal["flat", "wall"] = Field("flat", description="beyond the grid: no force, or walls")
    wall_force_constant: float | list[float] = Field(
        500.0, description="force constant(s) of those walls [kJ/mol per z^2]"
    )

    def make(self, context: BiasContext) -> Bias:
        """Make the bias without any Gaussian."""
        dim = context.dim
        if dim > 3:
            raise ConfigError(
                f"bias.kind: metadynamics has a grid of up to 3 dimensions, not {dim}; 'opes' has none"
            )
        low, high = self._limits(context)
        if self.sigma is None:
            sigma = [0.5 * width for width in within_state_widths(context, "bias.sigma")]
        else:
            sigma = given_widths(self.sigma, [b - a for a, b in zip(low, high, strict=True)], "sigma")
        if self.height is not None:
            check_energy(self.height, context.kT, _MAX_HEIGHT, "height")
        points = self.points or [
            int(np.clip(np.ceil(_POINTS_PER_SIGMA * (b - a) / s), _MIN_POINTS, _MAX_POINTS[dim]))
            for a, b, s in zip(low, high, sigma, strict=True)
        ]
        points = [int(n) for n in per_component(list(points), dim, "points")]
        for i, (a, b, n, s) in enumerate(zip(low, high, points, sigma, strict=True)):
            if n < 4 or (b - a) / (n - 1) > s:
                raise ConfigError(
                    f"bias.points: {n} points from {a:g} to {b:g} are too few for sigma {s:g} of variable {i}; "
                    f"expected {int(np.ceil((b - a) / s)) + 1} or more"
                )
        spline = GridSpline(low, high, points, [period > 0 for period in context.periods])
        bias = Metadynamics(
            spline, sigma, self.height or 0.5 * context.kT, self.bias_factor, context.kT, self.pace
        )
        if self.outside == "flat":
            return bias
        free = [period > 0 for period in context.periods]
        ends = [
            torch.tensor(
                [sign * torch.inf if wraps else edge for edge, wraps in zip(edges, free, strict=True)],
                dtype=torch.float64,
            )
            for sign, edges in ((-1, low), (1, high))
        ]
        force_constant = force_constants(self.wall_force_constant, dim, "wall_force_constant")
        return AdaptiveSum(bias, [Walls(ends[0], ends[1], force_constant)])

    def _limits(self, context: BiasContext) -> tuple[list[float], list[float]]:
        dim = context.dim
        if (self.low is None) != (self.high is None):
            raise ConfigError("bias.low/high: give both or neither")
        if self.low is not None and self.high is not None:
            low, high = per_component(self.low, dim, "low"), per_component(self.high, dim, "high")
            for i, (a, b) in enumerate(zip(low, high, strict=True)):
                if a >= b:
                    raise ConfigError(f"bias.low/high: {a:g} is not below {b:g} for variable {i}")
                if context.periods[i] > 0 and abs(b - a - context.periods[i]) > 1e-6 * context.periods[i]:
                    raise ConfigError(
                        f"bias.low/high: variable {i} has the period {context.periods[i]:g}; {a:g} to {b:g} is not one"
                    )
            if context.model is not None:
                _check_cover(context, low, high)
            return low, high
        if all(period > 0 for period in context.periods):
            return [-0.5 * p for p in context.periods], [0.5 * p for p in context.periods]
        return context.region("bias.low/high")


def _check_cover(context: BiasContext, low: list[float], high: list[float]) -> None:
    z = context.samples("bias.low/high")
    inside = ((z >= torch.tensor(low)) & (z <= torch.tensor(high))).all(dim=1).double().mean()
    if float(inside) < _COVERED:
        a, b = context.region("bias.low/high")
        raise ConfigError(
            f"bias.low/high: the grid covers only {float(inside):.0%} of the model's density; "
            f"it reaches from {[round(v, 3) for v in a]} to {[round(v, 3) for v in b]}"
        )
