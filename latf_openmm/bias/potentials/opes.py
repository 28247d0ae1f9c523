"""On-the-fly probability enhanced sampling (OPES), in its metadynamics and its explore flavour."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from latf_openmm.bias.potentials.base import (
    AdaptiveBias,
    AdaptiveBiasSettings,
    Bias,
    BiasContext,
    StateUpdate,
    wrap,
)
from latf_openmm.bias.potentials.components import check_energy
from latf_openmm.bias.potentials.widths import given_widths, within_state_widths
from latf_openmm.errors import ConfigError

_MAX_BARRIER = 500.0
"""Largest barrier [kT]: at 300 K it is more than any bond holds, and exp(-barrier / kT) is 0 from 745 on."""
_RESUM = 200
"""Updates after which the normalisation is summed afresh, so that rounding errors do not add up."""


class ChangeKernel(StateUpdate):
    """The message is (row, normalisation, centre, sigma, height): a kernel is set, added or, below 0, removed."""

    def forward(self, state: Tensor, message: Tensor) -> Tensor:
        """Return the new kernels: row 0 is (normalisation, 0, ...), others are (centre, sigma, height)."""
        row = int(message[0])
        kernel = message[2:].unsqueeze(0)
        if float(message[-1]) < 0.0:
            new = torch.cat([state[:row], state[row + 1 :]])
        else:
            new = torch.cat([state[:row], kernel, state[row + 1 :]])
        new[0, 0] = message[1]
        return new


class Opes(AdaptiveBias):
    """OPES (Invernizzi and Parrinello, 2020; explore flavour: Invernizzi and Parrinello, 2022).

    V(z) = a kT log(P(z) / Z + eps), with P a sum of compressed Gaussian kernels added every `pace` steps.

    * ``"metad"``: a = 1 - 1/gamma; kernels weigh exp(V/kT), so P is the unbiased distribution;
    * ``"explore"``: a = gamma - 1; kernels weigh 1, so P is the biased, well-tempered one.

    Z is the mean of P over the kernels' centres, eps = exp(-barrier / (a kT)); kernels are cut at
    sqrt(2 barrier / (a kT)) sigma (explore: sqrt(2 barrier / kT) sigma), narrow with the number of effective
    samples by Silverman's rule, and merge where they are closer than the threshold. The algorithm and its
    constants are PLUMED's. Walkers at several temperatures may share the bias: each weighs its kernels with its
    own kT, and P is a mixture of their distributions.

    Parameters
    ----------
    sigma
        Widths of the first kernels, shape (dim,).
    barrier
        Highest free-energy barrier to cross [kJ/mol].
    kT
        Thermal energy [kJ/mol].
    bias_factor
        gamma; None: infinite (metad flavour only).
    pace
        Steps between kernels.
    periods
        Period of each variable, 0 where it has none.
    explore
        Whether it is the explore flavour.
    compression_threshold
        Distance below which kernels merge [sigma].
    min_sigma
        Kernels do not become narrower than this fraction of the first ones.
    """

    def __init__(
        self,
        sigma: Sequence[float],
        barrier: float,
        kT: float,
        bias_factor: float | None,
        pace: int,
        periods: Sequence[float],
        explore: bool = False,
        compression_threshold: float = 1.0,
        min_sigma: float = 0.05,
    ) -> None:
        dim = len(sigma)
        super().__init__(ChangeKernel(), 2 * dim + 3, pace)
        self.dim = dim
        self.kT = kT
        self.explore = explore
        self.compression_threshold = compression_threshold
        self.min_sigma = min_sigma
        if explore:
            if bias_factor is None:
                raise ConfigError("bias.bias_factor: the explore flavour needs a finite one")
            self.prefactor = bias_factor - 1
            widths = np.asarray(sigma) * np.sqrt(bias_factor)
        else:
            self.prefactor = 1.0 if bias_factor is None else 1 - 1 / bias_factor
            widths = np.asarray(sigma)
        self.epsilon = float(np.exp(-barrier / (self.prefactor * kT)))
        # Of the squared distance; the explore flavour's kernels would be cut too close by its prefactor.
        self.cutoff = float(2 * barrier / (kT if explore else self.prefactor * kT))
        self.at_cutoff = float(np.exp(-0.5 * self.cutoff))
        self.first: Tensor
        self.periods: Tensor
        self.weight: Tensor
        self.square: Tensor
        self.counter: Tensor
        self.overlap: Tensor
        self.register_buffer("first", torch.from_numpy(widths.astype(float)))
        self.register_buffer("periods", torch.tensor(list(periods), dtype=torch.float64))
        start = torch.tensor(self.epsilon**self.prefactor, dtype=torch.float64)
        self.register_buffer("weight", start)
        self.register_buffer("square", start**2)
        self.register_buffer("counter", torch.ones((), dtype=torch.float64))
        self.register_buffer("overlap", torch.zeros((), dtype=torch.float64))
        self.any_wraps = any(period > 0 for period in periods)
        self.state = torch.zeros(1, 2 * dim + 1, dtype=torch.float64)
        self.state[0, 0] = 1.0

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        density = self._sum(z, state[1:]) * state[0, 0]
        return self.prefactor * self.kT * torch.log(density + self.epsilon)

    def _sum(self, z: Tensor, kernels: Tensor) -> Tensor:
        """Sum of the kernels at z, shape (n,), and its first derivatives; a recorded graph has no kernel count."""
        x = z.detach()
        centre, sigma, height = torch.split(kernels, [self.dim, self.dim, 1], dim=1)
        height = height.squeeze(1)
        delta = centre - x.unsqueeze(1)
        if self.any_wraps:
            delta = wrap(delta, self.periods)
        scaled = delta / sigma
        kernel = torch.exp(-0.5 * (scaled * scaled).sum(dim=2))
        total = F.softshrink(kernel, self.at_cutoff) @ height  # of max(0, kernel - at_cutoff)
        if z.requires_grad:
            inside = F.hardshrink(kernel, self.at_cutoff) * height
            slope = torch.bmm(inside.unsqueeze(1), scaled / sigma).squeeze(1)
            total = total + ((z - x) * slope).sum(dim=1)
        return total

    def example_states(self) -> tuple[Tensor, ...]:
        """Three kernels, and five."""
        return tuple(torch.ones(n, 2 * self.dim + 1, dtype=torch.float64) for n in (4, 6))

    @property
    def n_kernels(self) -> int:
        """Number of kernels after compression."""
        return len(self.state) - 1

    @property
    def effective_size(self) -> float:
        """Effective number of samples, from the kernels' weights."""
        return float((1 + self.weight) ** 2 / (1 + self.square))

    def thermal_energy(self) -> float:
        """Return kT [kJ/mol]."""
        return self.kT

    def offset(self) -> float:
        """Nothing: frames weigh exp(V / kT) with the bias at their time (Invernizzi and Parrinello, 2020)."""
        return 0.0

    def adapt(self, z: Tensor, kT: Tensor | None = None) -> list[Tensor]:
        """Add a kernel for each walker and normalise."""
        weights = torch.exp(self.energy(z, self.state) / (self.kT if kT is None else kT))
        self.added = torch.cat([z, weights.unsqueeze(1)], dim=1)
        return self.absorb(self.added)

    @property
    def width(self) -> int:
        """Centre and weight."""
        return self.dim + 1

    def absorb(self, rows: Tensor) -> list[Tensor]:
        """Add a kernel for each row (z, exp(V/kT)) and normalise."""
        z, heights = rows[:, : self.dim], rows[:, self.dim]
        self.counter = self.counter + len(z)
        self.weight = self.weight + heights.sum()
        self.square = self.square + (heights**2).sum()
        size = float(self.counter) if self.explore else self.effective_size
        shrink = max(self.min_sigma, (size * (self.dim + 2) / 4) ** (-1 / (4 + self.dim)))
        sigma = self.first * shrink
        if self.explore:
            heights = torch.ones_like(heights)
        heights = heights * float(torch.prod(self.first / sigma))
        book = _Kernels(self, self.state[1:])
        for centre, height in zip(z, heights, strict=True):
            book.add(torch.cat([centre, sigma, height.unsqueeze(0)]))
        fresh = int(self.updates) % _RESUM == 0
        self.overlap = book.total_overlap() if fresh else self.overlap + book.overlap_change
        norm = len(book.kernels) / self.overlap.clamp_min(1e-300)
        messages = []
        for row, kernel in book.changes:
            head = torch.stack([torch.tensor(float(row), dtype=torch.float64), norm])
            messages.append(self.receive(torch.cat([head, kernel])))
        return messages

    def _changing(self) -> tuple[str, ...]:
        return (*super()._changing(), "weight", "square", "counter", "overlap")

    def _form(self, name: str, value: Tensor) -> str:
        return f"rows of shape {tuple(value.shape[1:])}"  # any number of kernels


class _Kernels:
    """The kernels while some are added: what changes, and by how much the sum over all pairs does.

    `overlap` is sum_ij h_i K_i(c_j); Z is it over the number of kernels and the total weight.
    """

    def __init__(self, bias: Opes, kernels: Tensor) -> None:
        self.bias = bias
        self.kernels = kernels.clone()
        self.changes: list[tuple[int, Tensor]] = []
        self.overlap_change = torch.zeros((), dtype=torch.float64)

    def add(self, kernel: Tensor) -> None:
        """Add a kernel (centre, sigma, height), merged with others as long as there is one near enough."""
        near = self._nearest(kernel, -1)
        if near < 0:
            self._insert(kernel)
            return
        self._replace(near, self._merge(self.kernels[near], kernel))
        giver = near
        while (near := self._nearest(self.kernels[giver], giver)) >= 0:
            taker, giver = min(near, giver), max(near, giver)
            merged = self._merge(self.kernels[taker], self.kernels[giver])
            self._remove(giver)
            self._replace(taker, merged)
            giver = taker

    def total_overlap(self) -> Tensor:
        """Sum over all pairs, afresh."""
        return self._between(self.kernels, self.kernels)

    def _between(self, kernels: Tensor, centres: Tensor) -> Tensor:
        return self.bias._sum(centres[:, : self.bias.dim], kernels).sum()

    def _nearest(self, kernel: Tensor, itself: int) -> int:
        """Kernel nearest in units of its own sigma, if nearer than the threshold; else -1."""
        if len(self.kernels) == 0 or self.bias.compression_threshold == 0:
            return -1
        d = self.bias.dim
        delta = wrap(kernel[:d] - self.kernels[:, :d], self.bias.periods) / self.kernels[:, d : 2 * d]
        squared = (delta**2).sum(dim=1)
        if itself >= 0:
            squared[itself] = torch.inf
        best = int(squared.argmin())
        return best if float(squared[best]) < self.bias.compression_threshold**2 else -1

    def _merge(self, first: Tensor, second: Tensor) -> Tensor:
        """Kernel with the weight, mean and variance of both."""
        d = self.bias.dim
        height = first[-1] + second[-1]
        a, b = first[-1] / height, second[-1] / height
        nearest = first[:d] + wrap(second[:d] - first[:d], self.bias.periods)
        centre = a * first[:d] + b * nearest
        variance = a * first[d : 2 * d] ** 2 + b * second[d : 2 * d] ** 2 + a * b * (nearest - first[:d]) ** 2
        return torch.cat([wrap(centre, self.bias.periods), torch.sqrt(variance), height.unsqueeze(0)])

    def _insert(self, kernel: Tensor) -> None:
        self.kernels = torch.cat([self.kernels, kernel.unsqueeze(0)])
        self.overlap_change = self.overlap_change + self._share(len(self.kernels) - 1)
        self.changes.append((len(self.kernels), kernel))

    def _replace(self, index: int, kernel: Tensor) -> None:
        self.overlap_change = self.overlap_change - self._share(index)
        self.kernels[index] = kernel
        self.overlap_change = self.overlap_change + self._share(index)
        self.changes.append((index + 1, kernel.clone()))

    def _remove(self, index: int) -> None:
        self.overlap_change = self.overlap_change - self._share(index)
        gone = self.kernels[index].clone()
        gone[-1] = -1.0
        self.kernels = torch.cat([self.kernels[:index], self.kernels[index + 1 :]])
        self.changes.append((index + 1, gone))

    def _share(self, index: int) -> Tensor:
        """Contribution of one kernel to the sum over all pairs."""
        kernel = self.kernels[index : index + 1]
        return (
            self._between(kernel, self.kernels)
            + self._between(self.kernels, kernel)
            - self._between(kernel, kernel)
        )


class OpesSettings(AdaptiveBiasSettings):
    """OPES, updated while the simulation runs; any number of variables."""

    kind: Literal["opes"] = "opes"
    flavour: Literal["metad", "explore"] = Field(
        "metad", description="'explore' explores faster, converges later"
    )
    barrier: float = Field(gt=0, description="highest free-energy barrier to cross [kJ/mol]")
    sigma: float | list[float] | None = Field(
        None,
        description="widths of the first kernels [z], one for all variables or a list: about the standard deviation of "
        "each within its narrowest state; they narrow by themselves. Default: that of the trained model's "
        "states, which variables of your own do not have",
    )
    bias_factor: float | None = Field(None, gt=1, description="gamma; default: barrier / kT")
    pace: int = Field(500, ge=1, description="steps between kernels")
    compression_threshold: float = Field(
        1.0, ge=0, description="kernels nearer than this merge [sigma]; 0: none do"
    )
    min_sigma: float = Field(0.05, gt=0, le=1, description="least width of kernels [first width]")

    def make(self, context: BiasContext) -> Bias:
        """Make the bias without any kernel."""
        if self.sigma is None:
            sigma = within_state_widths(context, "bias.sigma")
        else:
            sigma = given_widths(self.sigma, context.extents("bias.sigma"), "sigma")
        check_energy(self.barrier, context.kT, _MAX_BARRIER, "barrier")
        if self.barrier <= context.kT:
            raise ConfigError(
                f"bias.barrier: {self.barrier:g} kJ/mol is not above kT = {context.kT:.3g} kJ/mol"
            )
        return Opes(
            sigma,
            self.barrier,
            context.kT,
            self.bias_factor or self.barrier / context.kT,
            self.pace,
            context.periods,
            self.flavour == "explore",
            self.compression_threshold,
            self.min_sigma,
        )
