"""Harmonic restraint (umbrella) on the collective variables."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from latf_openmm.errors import ConfigError
from latf_openmm.md.bias.base import Bias, BiasContext, BiasSettings


class Harmonic(Bias):
    """V(z) = sum_i k_i (z_i - c_i)^2 / 2 [kJ/mol].

    Parameters
    ----------
    centre
        c, shape (latent_dim,).
    strength
        k, shape (latent_dim,) [kJ/mol per unit of z squared].
    """

    def __init__(self, centre: Tensor, strength: Tensor) -> None:
        super().__init__()
        self.centre: Tensor
        self.strength: Tensor
        self.register_buffer("centre", centre.double())
        self.register_buffer("strength", strength.double())

    def forward(self, z: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        return 0.5 * (self.strength * (z - self.centre) ** 2).sum(dim=1)


class HarmonicSettings(BiasSettings):
    """A restraint to one point of the latent space."""

    kind: Literal["harmonic"] = "harmonic"
    centre: list[float] = Field(description="one value for each collective variable")
    strength: float | list[float] = Field(description="force constant(s) [kJ/mol per z^2]")

    def build(self, context: BiasContext) -> Bias:
        """Make the restraint."""
        dim = context.model.latent_dim
        strength = self.strength if isinstance(self.strength, list) else [self.strength] * dim
        for name, values in (("centre", self.centre), ("strength", strength)):
            if len(values) != dim:
                raise ConfigError(f"bias.{name}: {len(values)} values for {dim} collective variables")
        if any(value < 0 for value in strength):
            raise ConfigError(f"bias.strength: must not be negative, got {strength}")
        return Harmonic(
            torch.tensor(self.centre, dtype=torch.float64), torch.tensor(strength, dtype=torch.float64)
        )
