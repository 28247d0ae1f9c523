"""Walls: nothing inside, restoring outside."""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from latf_openmm.bias.potentials.base import Bias, BiasContext, BiasSettings
from latf_openmm.bias.potentials.components import force_constants, per_component, warn_beyond_period


class Walls(Bias):
    """V(z) = sum_i k_i (max(0, low_i - z_i)^p + max(0, z_i - high_i)^p) / p [kJ/mol].

    Parameters
    ----------
    low, high
        Where the walls begin, each of shape (dim,); -inf and inf for none.
    force_constant
        k, shape (dim,) [kJ/mol per unit of z to the power p].
    power
        p, 2 or more: energy and force are continuous.
    """

    def __init__(self, low: Tensor, high: Tensor, force_constant: Tensor, power: int = 2) -> None:
        super().__init__()
        self.low: Tensor
        self.high: Tensor
        self.force_constant: Tensor
        self.register_buffer("low", low.double())
        self.register_buffer("high", high.double())
        self.register_buffer("force_constant", force_constant.double())
        self.power = power

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        outside = (self.low - z).clamp_min(0.0) + (z - self.high).clamp_min(0.0)
        return (self.force_constant * outside**self.power).sum(dim=1) / self.power


class WallSettings(BiasSettings):
    """Lower and upper walls."""

    kind: Literal["walls"] = "walls"
    low: list[float | None] | None = Field(
        None, description="lower walls, one a variable [z]; null: none there"
    )
    high: list[float | None] | None = Field(
        None, description="upper walls, one a variable [z]; null: none there"
    )
    force_constant: float | list[float] = Field(description="force constant(s) [kJ/mol per z^power]")
    power: int = Field(2, ge=2, le=8, description="power of the distance beyond the wall")

    @model_validator(mode="after")
    def _check(self) -> "WallSettings":
        if self.low is None and self.high is None:
            raise ValueError("give 'low', 'high' or both")
        for low, high in zip(self.low or [], self.high or [], strict=False):
            if low is not None and high is not None and low >= high:
                raise ValueError(f"the lower wall {low} is not below the upper wall {high}")
        return self

    def make(self, context: BiasContext) -> Bias:
        """Make the walls."""
        sides = []
        for name, values, none in (("low", self.low, -torch.inf), ("high", self.high, torch.inf)):
            given = [none if value is None else value for value in values or [None] * context.dim]
            side = per_component(given, context.dim, name)
            warn_beyond_period(side, context.periods, name)
            sides.append(torch.tensor(side, dtype=torch.float64))
        return Walls(sides[0], sides[1], force_constants(self.force_constant, context.dim), self.power)
