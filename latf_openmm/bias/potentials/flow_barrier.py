"""The flow's own free energy, flattened up to a barrier height."""

import copy
import math
from itertools import product
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from latf_openmm.bias.potentials.base import Bias, BiasContext, BiasSettings
from latf_openmm.bias.potentials.table import TabulatedBias
from latf_openmm.errors import ConfigError
from latf_openmm.model.latf import LogDensityModule


class FlowBarrier(Bias):
    """V(z) = (1 - 1/gamma) kT log(r_T(z)/r_max + eps) + DeltaE, the OPES form with the flow as density.

    eps = exp(-DeltaE / ((1 - 1/gamma) kT)), so V rises from 0 where the flow has no density to about
    DeltaE at its maximum: basins are lifted by DeltaE, unexplored regions are left flat (Invernizzi and
    Parrinello, 2020; Qiu et al., 2026).
    """

    def __init__(self, density: LogDensityModule, log_max: float, barrier: float, factor: float) -> None:
        super().__init__()
        self.density = density
        self.log_max = log_max
        self.barrier = barrier
        self.factor = factor  # (1 - 1/gamma) kT
        self.log_eps = -barrier / factor
        self.double()
        self.requires_grad_(False)

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        log_ratio = self.density(z) - self.log_max
        floor = torch.full_like(log_ratio, self.log_eps)
        return self.factor * torch.logaddexp(log_ratio, floor) + self.barrier


class FlowBarrierSettings(BiasSettings):
    """Flatten the learned free energy up to a barrier height.

    Up to three collective variables the potential is tabulated and interpolated with continuous second
    derivatives, which costs a few microseconds a step; beyond, the flow itself is evaluated.
    """

    kind: Literal["flow_barrier"] = "flow_barrier"
    barrier_kt: float = Field(8.0, gt=0, le=200, description="barrier height DeltaE [kT of the simulation]")
    bias_factor: float | None = Field(None, gt=1, description="gamma; default: DeltaE / kT")
    tabulate: bool | None = Field(None, description="default: yes up to three collective variables")
    points: int | None = Field(None, ge=8, le=2000, description="grid points along each axis")

    def make(self, context: BiasContext) -> Bias:
        """Make the bias for the simulation's temperature."""
        if context.model is None:
            raise ConfigError(
                "bias.kind: flow_barrier needs a trained model; these collective variables have none"
            )
        if context.components is not None:
            raise ConfigError("bias.components: flow_barrier acts on all collective variables of the model")
        dim = context.dim
        gamma = self.bias_factor if self.bias_factor is not None else max(self.barrier_kt, 1.5)
        factor = (1 - 1 / gamma) * context.kT
        low, high = context.region("bias")
        density = context.model.density(context.temperature)
        with torch.no_grad():
            log_max = float(density.log_prob(context.samples("bias").float()).max())
        if not math.isfinite(log_max):
            raise ConfigError("bias: the model's density is degenerate; train it on more varied data")

        module = LogDensityModule(copy.deepcopy(context.model), context.temperature)
        bias = FlowBarrier(module, log_max, self.barrier_kt * context.kT, factor)
        if not (dim <= 3 if self.tabulate is None else self.tabulate):
            return bias
        if dim > 3:
            raise ConfigError(f"bias.tabulate: a table of {dim} dimensions is too large; up to 3 are allowed")
        points = self.points or {1: 400, 2: 120, 3: 48}[dim]
        axes = [np.linspace(a, b, points) for a, b in zip(low, high, strict=True)]
        grid = torch.from_numpy(np.array(list(product(*axes))))
        with torch.no_grad():
            values = torch.cat([bias(part) for part in grid.split(16384)])
        return TabulatedBias(values.numpy().reshape([points] * dim), low, high)
