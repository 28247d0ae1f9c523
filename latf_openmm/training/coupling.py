"""What a coupling layer does to its points, with the way back written out: for training alone.

The same numbers as `SplineCoupling.transformed` gives, in less time: points are the last dimension, so that operations
run over long rows; few of them are on all bins; and gradients are written into one array. It cannot be scripted, and
its gradient cannot be differentiated again.
"""

import math
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from latf_openmm.model.flow import CouplingFlow, SplineCoupling

_LEAST = 1e-3
"""Least width and height of a bin, as a fraction of all, and least slope of a knot before slopes are scaled."""
_SLOPE_ONE = math.log(math.e - 1.0)
"""softplus of it is one."""


Parameters = dict[str, Tensor]
"""Parameters of the flows of a committee by their names in one, each with the members as its first dimension."""


def mapped(flow: CouplingFlow, parameters: Parameters, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Map the points of all members to prior space, each by its own flow, as `CouplingFlow` does by one.

    All points go through a layer at once; only its conditioners differ.

    Parameters
    ----------
    flow
        One of them, for what they share.
    parameters
        Of all members.
    z, context
        Points and context, those of each member one after the other, shapes (n_members n, d) and (n_members n, c).

    Returns
    -------
    u, log_det
        Shapes (n_members n, d) and (n_members n,).
    """
    x, log_det = flow.whitened(z)
    # Members first, points last: rows of the arrays are long.
    log_det = log_det.reshape(len(next(iter(parameters.values()))), -1)
    x, context = (a.reshape(*log_det.shape, a.shape[1]).transpose(1, 2) for a in (x, context))
    for index, module in enumerate(flow.layers):
        layer = cast(SplineCoupling, module)
        out = layer.inputs(x.index_select(1, layer.kept), context)
        for place, step in enumerate(layer.conditioner):
            if isinstance(step, nn.Linear):
                name = f"layers.{index}.conditioner.{place}"
                weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
                out = torch.bmm(weight, out).add_(bias.unsqueeze(2))  # faster than baddbmm
            else:
                out = step(out)
        out = out.unflatten(1, (layer.n_moved, layer.n_out))
        x, change = coupled(x, out, layer.moved, layer.bins, layer.bound)
        log_det = log_det + change
    return flow.to_prior(x.transpose(1, 2).reshape(z.shape), log_det.reshape(-1))


def coupled(x: Tensor, parameters: Tensor, moved: Tensor, bins: int, bound: float) -> tuple[Tensor, Tensor]:
    """Return what a layer makes of its points, and the log-determinant.

    Parameters
    ----------
    x
        Points, shape (members, d, n).
    parameters
        What the conditioner says, shape (members, n_moved, n_out, n).
    moved
        Which coordinates it transforms, shape (n_moved,).
    bins, bound
        Of the spline; no bins: scale and shift alone.

    Returns
    -------
    y, log_det
        Shapes (members, d, n) and (members, n).
    """
    y, log_det = _Coupling.apply(x, parameters, moved, bins, bound)
    return y, log_det


class _Coupling(torch.autograd.Function):
    """A spline on [-bound, bound], then a scale and a shift."""

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, parameters: Tensor, moved: Tensor, bins: int, bound: float
    ) -> tuple[Tensor, Tensor]:
        x = points.index_select(1, moved)
        tanh = torch.tanh(parameters[:, :, 0] / 3.0)
        log_slope = 3.0 * tanh
        scale = torch.exp(log_slope)
        ctx.spline = None
        if bins:
            ctx.spline = _Spline(x, parameters[:, :, 2:], bins, bound)
            x, change = ctx.spline.values(x)
            log_slope += change
        ctx.save_for_backward(tanh, scale, x, moved)
        ctx.shape = parameters.shape
        y = torch.addcmul(parameters[:, :, 1], x, scale)
        return points.index_copy(1, moved, y), log_slope.sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_points: Tensor, by_log_det: Tensor) -> tuple[Tensor | None, ...]:
        tanh, scale, x, moved = ctx.saved_tensors
        gradient = by_points.new_empty(ctx.shape)
        by_y, by_log = by_points.index_select(1, moved), by_log_det.unsqueeze(1)
        by_x = by_y * scale
        gradient[:, :, 0] = torch.addcmul(by_log, by_x, x) * (1.0 - tanh.square())
        gradient[:, :, 1] = by_y
        if ctx.spline is not None:
            by_x = ctx.spline.backward(by_x, by_log, gradient[:, :, 2:])
        return by_points.index_copy(1, moved, by_x), gradient, None, None, None


class _Spline:
    """`flow._spline` at points, and its gradient.

    In a point's own bin, of width w and height h, slope s = h / w and slopes d0 and d1 at its ends, with
    theta = (x - x0) / w and rest = 1 - theta:

    * bottom = s + (d0 + d1 - 2 s) theta rest
    * risen = (s theta^2 + d0 theta rest) / bottom; the value is y0 + h risen
    * top = d1 theta^2 + 2 s theta rest + d0 rest^2; the slope is s^2 top / bottom^2

    Where a tensor has a dimension of two before that of bins or points, it is x and y, or the left and the right knot.

    Parameters
    ----------
    x
        Shape (members, n_moved, n).
    raw
        Shape (members, n_moved, 3 bins - 1, n).
    bins, bound
        Shape of the spline.
    """

    def __init__(self, x: Tensor, raw: Tensor, bins: int, bound: float) -> None:
        self.bins = bins
        self.inside = x.abs() < bound
        self.mask = self.inside.to(x.dtype)
        at = x.clamp(-bound, bound)
        least, self.share = 2.0 * bound * _LEAST, 2.0 * bound * (1.0 - _LEAST * bins)
        self.fractions = torch.softmax(raw[:, :, : 2 * bins].unflatten(2, (2, bins)), dim=3)
        self.before = self._bins_before(at, bound)
        place = self.before.sum(dim=2, keepdim=True)
        self.index = place.long()
        self.passed = (self.fractions * self.before.unsqueeze(2)).sum(dim=3)
        self.fraction = self.fractions.gather(3, self._both()).squeeze(3)
        x0, self.y0 = torch.add(place * least - bound, self.passed, alpha=self.share).unbind(2)
        self.w, self.h = (self.fraction * self.share).add_(least).unbind(2)
        self.d0, self.d1 = self._slopes(raw[:, :, 2 * bins :])
        self.theta = (at - x0).div_(self.w)

    def _both(self) -> Tensor:
        """Index of the own bin, for widths and heights."""
        return self.index.unsqueeze(2).expand(-1, -1, 2, -1, -1)

    def _bins_before(self, at: Tensor, bound: float) -> Tensor:
        """One for each bin that ends left of the point, else zero; shape (members, n_moved, bins, n)."""
        members, moved, n = at.shape
        ends, sums = _ends_of_bins(self.bins, bound, at.dtype, at.device)
        widths = self.fractions[:, :, 0].reshape(members * moved, self.bins, n)
        knots = torch.baddbmm(ends, sums.expand(members * moved, -1, -1), widths)
        torch.ge(at.reshape(-1, 1, n), knots, out=knots)
        return knots.reshape(members, moved, self.bins, n)

    def _slopes(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Slopes of the knots left and right of each point; those of the outer knots are one."""
        knots = torch.cat([self.index - 1, self.index], dim=2)
        self.knots = knots.clamp(0, self.bins - 2)
        free = (knots == self.knots).to(raw.dtype)
        shifted = raw.gather(2, self.knots).mul_(free).add_(_SLOPE_ONE)
        self.slope_by_raw = torch.sigmoid(shifted).mul_(free).div_(1.0 + _LEAST)
        return F.softplus(shifted).add_(_LEAST).div_(1.0 + _LEAST).unbind(2)

    def values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and log slopes, shapes as `x`."""
        theta, d0, d1 = self.theta, self.d0, self.d1
        s = self.s = self.h / self.w
        self.rest = 1.0 - theta
        self.mixed = theta * self.rest
        self.square, self.rest_square = theta * theta, self.rest * self.rest
        self.curvature = (d0 + d1).sub_(s, alpha=2.0)
        self.bottom = torch.addcmul(s, self.curvature, self.mixed)
        self.top = (d1 * self.square).addcmul_(s, self.mixed, value=2.0).addcmul_(d0, self.rest_square)
        self.risen = (s * self.square).addcmul_(d0, self.mixed).div_(self.bottom)
        self.slope = (s / self.bottom).square_().mul_(self.top)
        value = torch.addcmul(self.y0, self.h, self.risen)
        return torch.where(self.inside, value, x), torch.log(self.slope).mul_(self.mask)

    def backward(self, by_value: Tensor, by_log: Tensor, gradient: Tensor) -> Tensor:
        """Write the gradient of `raw`, by those of values and log slopes; return that of `x`."""
        gv, gl = by_value * self.mask, by_log * self.mask
        theta, s, mixed = self.theta, self.s, self.mixed
        by_rise = (gv * self.h).div_(self.bottom)  # of what `risen` is before it is divided
        by_top, quotient = gl / self.top, gl / self.bottom
        half = torch.addcmul(quotient, by_rise, self.risen, value=0.5)  # -1/2 of the bottom's
        by_d1 = (by_top * self.square).addcmul_(half, mixed, value=-2.0)
        by_d0 = (by_top * self.rest_square).addcmul_(torch.sub(by_rise, half, alpha=2.0), mixed)
        by_s = (by_rise * self.square).addcmul_(torch.add(by_top, half, alpha=2.0), mixed, value=2.0)
        by_s.sub_(half, alpha=2.0).addcdiv_(gl, s, value=2.0)
        # What theta does to the value is the slope; what it does to the log slope is twice this.
        turn = self.rest - theta
        top_turn = (self.d1 * theta).addcmul_(self.d0, self.rest, value=-1.0).addcmul_(s, turn)
        turned = (by_top * top_turn).addcmul_(quotient * self.curvature, turn, value=-1.0)
        by_x = (gv * self.slope).addcdiv_(turned, self.w, value=2.0)
        by_h = by_s.div_(self.w)
        less_by_w = (by_x * theta).addcmul_(by_h, s)
        by_h.addcmul_(gv, self.risen)
        self._by_sizes(torch.stack([by_x, -gv, less_by_w, -by_h], dim=2), gradient[:, :, : 2 * self.bins])
        by_slopes = torch.stack([by_d0, by_d1], dim=2).mul_(self.slope_by_raw)
        gradient[:, :, 2 * self.bins :].zero_().scatter_add_(2, self.knots, by_slopes)
        return torch.where(self.inside, by_x, by_value)

    def _by_sizes(self, less: Tensor, gradient: Tensor) -> None:
        """Write the gradient of raw sizes; `less` is -1 times that of x0 and y0, then of w and h."""
        start, size = less.mul_(self.share).split(2, dim=2)
        size.mul_(self.fraction)
        # Through the softmax: fractions times what each has beyond their mean.
        mean = torch.addcmul(size, start, self.passed).unsqueeze(3)
        raw = gradient.unflatten(2, (2, self.bins))
        torch.addcmul(mean, self.before.unsqueeze(2), start.unsqueeze(3), value=-1.0, out=raw)
        raw.mul_(self.fractions).scatter_add_(3, self._both(), -size.unsqueeze(3))


@lru_cache(maxsize=8)
def _ends_of_bins(bins: int, bound: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a (bins, 1) and B (bins, bins), by which bins end at a + B @ fractions.

    A point at the end of the last one is in it: nothing lies beyond.
    """
    ends = 2.0 * bound * _LEAST * torch.arange(1.0, bins + 1, dtype=dtype, device=device) - bound
    ends[-1] = torch.inf
    share = 2.0 * bound * (1.0 - _LEAST * bins)
    return ends.unsqueeze(1), torch.full((bins, bins), share, dtype=dtype, device=device).tril()
