"""Settings that are one number for all collective variables, or one for each."""

import torch
from torch import Tensor

from latf_openmm.errors import ConfigError


def per_component(value: float | list[float], dim: int, name: str) -> list[float]:
    """One value for each collective variable, from one for all or a list of them.

    Raises
    ------
    ConfigError
        If the list has another length.
    """
    values = value if isinstance(value, list) else [value] * dim
    if len(values) != dim:
        raise ConfigError(f"bias.{name}: {len(values)} values for {dim} collective variables")
    return values


def force_constants(value: float | list[float], dim: int, name: str = "force_constant") -> Tensor:
    """Force constants, one for each collective variable.

    Raises
    ------
    ConfigError
        If the list has another length, or one is negative.
    """
    values = per_component(value, dim, name)
    if any(number < 0 for number in values):
        raise ConfigError(f"bias.{name}: must not be negative, got {values}")
    return torch.tensor(values, dtype=torch.float64)
