"""An invertible flow u = g(z) of coupling layers, in any dimension, scriptable, with optional context.

Each layer transforms half of the coordinates, given the other half and the context, by a monotone
rational-quadratic spline (Durkan et al., "Neural spline flows", 2019) followed by a scale and a shift
(RealNVP, Dinh et al. 2017). The affine kind leaves the spline out: smoother, less expressive.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from latf_openmm.model.encoder import mlp
from latf_openmm.settings import Settings


class FlowSettings(Settings):
    """Shape of the flow."""

    transform: Literal["spline", "affine"] = Field("spline", description="elementwise transform of a layer")
    layers: int = Field(6, ge=1, le=64, description="number of coupling layers")
    hidden: list[int] = Field([32, 32], description="widths of the hidden layers of each conditioner")
    bins: int = Field(16, ge=2, le=64, description="spline bins")
    bound: float = Field(4.0, gt=0, description="splines act within +- this many standard deviations")
    context: Literal["auto", "none", "temperature"] = Field(
        "auto",
        description="'none': only the prior knows the temperature, the paper's form; 'temperature': the flow "
        "sees ln(T/T0) too; 'auto': the latter when frames can be reweighted to other temperatures",
    )

    @model_validator(mode="after")
    def _widths(self) -> "FlowSettings":
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden widths must be at least 1, got {self.hidden}")
        return self


class SplineCoupling(nn.Module):
    """One coupling layer; see the module's docstring."""

    def __init__(self, dim: int, parity: int, settings: FlowSettings, n_context: int) -> None:
        super().__init__()
        moved = [i for i in range(dim) if dim == 1 or i % 2 == parity % 2]
        kept = [i for i in range(dim) if i not in moved]
        self.moved: Tensor
        self.kept: Tensor
        self.back: Tensor
        self.register_buffer("moved", torch.tensor(moved))
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.long))
        self.register_buffer("back", torch.argsort(torch.tensor(kept + moved)))
        self.bins = settings.bins if settings.transform == "spline" else 0
        self.bound = settings.bound
        self.n_moved = len(moved)
        self.n_out = 2 + (3 * self.bins - 1 if self.bins > 0 else 0)
        # The constant 1 stands in for an input where nothing is kept and there is no context.
        widths = [len(kept) + n_context + 1, *settings.hidden, self.n_moved * self.n_out]
        self.conditioner = _identity_start(mlp(widths))

    def inputs(self, kept: Tensor, context: Tensor) -> Tensor:
        """Inputs of the conditioner, shape (n, n_in)."""
        constant = torch.ones_like(kept.sum(dim=1, keepdim=True))
        # Saturate far outside the data, so that the flow's tails are those of a fixed affine map.
        seen = 2.0 * self.bound * torch.tanh(kept / (2.0 * self.bound))
        return torch.cat([constant, seen, context.to(kept.dtype)], dim=1)

    def _conditioned(self, kept: Tensor, context: Tensor) -> Tensor:
        out = self.conditioner(self.inputs(kept, context))
        return out.reshape(kept.shape[0], self.n_moved, self.n_out)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return transformed points (n, d) and the log-determinant (n,)."""
        kept = z.index_select(1, self.kept)
        return self.transformed(kept, z.index_select(1, self.moved), self._conditioned(kept, context))

    def transformed(self, kept: Tensor, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `forward` does, by what the conditioner says: `parameters` (n, n_moved, n_out)."""
        log_det = torch.zeros_like(x)
        # Splitting, here and in the spline, costs less on the way back than slices do.
        raw_scale, shift, raw = torch.split(parameters, [1, 1, self.n_out - 2], dim=-1)
        if self.bins > 0:
            x, log_det = _spline(x, raw, self.bins, self.bound, False)
        log_scale = _log_scale(raw_scale.squeeze(-1))
        y = x * torch.exp(log_scale) + shift.squeeze(-1)
        joined = torch.cat([kept, y], dim=1).index_select(1, self.back)
        return joined, (log_det + log_scale).sum(dim=1)

    @torch.jit.export
    def inverse(self, u: Tensor, context: Tensor) -> Tensor:
        """Return the points that `forward` maps to `u`, shape (n, d)."""
        kept, y = u.index_select(1, self.kept), u.index_select(1, self.moved)
        parameters = self._conditioned(kept, context)
        x = (y - parameters[..., 1]) * torch.exp(-_log_scale(parameters[..., 0]))
        if self.bins > 0:
            x, _ = _spline(x, parameters[..., 2:], self.bins, self.bound, True)
        return torch.cat([kept, x], dim=1).index_select(1, self.back)


class CouplingFlow(nn.Module):
    """Whitening, coupling layers of alternating halves, and a final scale to the prior's size.

    Parameters
    ----------
    dim
        Dimension of z and u.
    settings
        Shape of the flow.
    prior_scale
        Standard deviation of the prior along each axis; a new flow maps whitened z to this size.
    n_context
        Number of context values given with each point.
    """

    def __init__(self, dim: int, settings: FlowSettings, prior_scale: float, n_context: int = 0) -> None:
        super().__init__()
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.log_prior_scale = math.log(prior_scale)
        self.dim = dim
        self.n_context = n_context
        self.layers = nn.ModuleList(
            [SplineCoupling(dim, parity, settings, n_context) for parity in range(settings.layers)]
        )

    def whiten(self, mean: Tensor, std: Tensor) -> None:
        """Set the whitening from the data's mean and standard deviation, each of shape (d,)."""
        self.shift.copy_(mean)
        self.scale.copy_(std.clamp_min(1e-8))

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map z to prior space.

        Parameters
        ----------
        z
            Shape (n, d).
        context
            Shape (n, n_context).

        Returns
        -------
        u, log_det
            Shapes (n, d) and (n,): g(z) and log|det dg/dz|.
        """
        x, log_det = self.whitened(z)
        for layer in self.layers:
            x, change = layer(x, context)
            log_det = log_det + change
        return self.to_prior(x, log_det)

    def whitened(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the first layer is given, (n, d), with its log-determinant (n,)."""
        x = (z - self.shift) / self.scale
        return x, torch.zeros_like(x[:, 0]) - torch.log(self.scale).sum()

    def to_prior(self, x: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and the whole log-determinant, by what the last layer gave, (n, d) and (n,)."""
        return x * math.exp(self.log_prior_scale), log_det + self.dim * self.log_prior_scale

    @torch.jit.export
    def inverse(self, u: Tensor, context: Tensor) -> Tensor:
        """Map prior space to z, shape (n, d)."""
        x = u * math.exp(-self.log_prior_scale)
        for layer in self.layers[::-1]:
            x = layer.inverse(x, context)  # type: ignore[operator]
        return x * self.scale + self.shift


def _identity_start(network: nn.Sequential) -> nn.Sequential:
    """Zero the last layer, so that a new coupling layer is the identity."""
    for parameter in network[-1].parameters():
        nn.init.zeros_(parameter)
    return network


def _log_scale(raw: Tensor) -> Tensor:
    return 3.0 * torch.tanh(raw / 3.0)  # within +-3


def _spline(x: Tensor, raw: Tensor, bins: int, bound: float, inverse: bool) -> tuple[Tensor, Tensor]:
    """Monotone rational-quadratic spline on [-bound, bound], identity outside.

    `x` has shape (n, m), `raw` (n, m, 3 bins - 1); returns values and log slopes, both (n, m). Zero
    parameters give the identity. What is not of a point's own bin is computed as little as can be: all
    widths and heights together, slopes of the two knots beside the point alone.
    """
    raw_sizes, raw_slopes = torch.split(raw, [2 * bins, bins - 1], dim=-1)
    sizes = _fractions(raw_sizes.unflatten(-1, [2, bins])) * (2 * bound)
    knots = F.pad(torch.cumsum(sizes, dim=-1), [1, 0], value=0.0) - bound
    inside = x.abs() < bound
    clipped = x.clamp(-bound, bound).unsqueeze(-1)
    seen = knots.select(-2, 1 if inverse else 0)
    index = ((clipped >= seen).sum(dim=-1, keepdim=True) - 1).clamp(0, bins - 1)
    both = index.unsqueeze(-2).expand(-1, -1, 2, -1)
    x0, y0 = torch.unbind(torch.gather(knots, -1, both), dim=-2)
    w, h = torch.unbind(torch.gather(sizes, -1, both), dim=-2)
    # Zero parameters are slope one; so are the outer knots.
    slopes = torch.gather(F.pad(raw_slopes, [1, 1]), -1, torch.cat([index, index + 1], dim=-1))
    slopes = (F.softplus(slopes + math.log(math.e - 1.0)) + 1e-3) / (1.0 + 1e-3)
    d0, d1 = torch.split(slopes, 1, dim=-1)
    s = h / w
    curvature = d0 + d1 - 2 * s
    theta = _solve(clipped - y0, h, s, d0, curvature) if inverse else (clipped - x0) / w
    mixed = theta * (1 - theta)
    bottom = s + curvature * mixed
    value = x0 + theta * w if inverse else y0 + h * (s * theta**2 + d0 * mixed) / bottom
    top = s**2 * (d1 * theta**2 + 2 * s * mixed + d0 * (1 - theta) ** 2)
    log_slope = torch.log(top) - 2 * torch.log(bottom)
    zero = torch.zeros_like(x)
    return torch.where(inside, value.squeeze(-1), x), torch.where(inside, log_slope.squeeze(-1), zero)


def _fractions(raw: Tensor) -> Tensor:
    bins = raw.shape[-1]
    return 1e-3 + (1 - 1e-3 * bins) * torch.softmax(raw, dim=-1)


def _solve(dy: Tensor, h: Tensor, s: Tensor, d0: Tensor, curvature: Tensor) -> Tensor:
    """Root theta in [0, 1] of the quadratic that inverts the spline within a bin."""
    a = h * (s - d0) + dy * curvature
    b = h * d0 - dy * curvature
    c = -s * dy
    root = torch.sqrt((b * b - 4 * a * c).clamp_min(0.0))
    return (2 * c / (-b - root)).clamp(0.0, 1.0)
