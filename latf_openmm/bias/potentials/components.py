"""Settings that are one number for all collective variables, or one for each."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from latf_openmm.errors import ConfigError

log = logging.getLogger(__name__)


def check_energy(energy: float, kT: float, most: float, name: str) -> None:
    """Raise `ConfigError` where an energy [kJ/mol] of a setting is above `most`, in units of kT."""
    if energy > most * kT:
        raise ConfigError(
            f"bias.{name}: {energy:g} kJ/mol is {energy / kT:.0f} kT; expected {most * kT:.4g} kJ/mol or less; "
            "is it in J/mol?"
        )


def warn_beyond_period(values: Sequence[float], periods: Sequence[float], name: str) -> None:
    """Warn of finite values of periodic variables that are farther from 0 than the period."""
    for index, (value, period) in enumerate(zip(values, periods, strict=True)):
        if 0 < period < abs(value) < math.inf:
            log.warning(
                "bias.%s: %g of variable %d is more than its period of %.4g: are these degrees? Angles are in radians",
                name,
                value,
                index,
                period,
            )


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
