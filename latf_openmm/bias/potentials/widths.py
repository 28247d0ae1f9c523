"""Widths of kernels: checked, or from a trained model."""

import torch

from latf_openmm.bias.potentials.base import BiasContext
from latf_openmm.errors import ConfigError

_RARE = 0.02
"""Part of the samples from which a state counts."""


def positive(values: list[float], name: str) -> list[float]:
    """Return the values if all are above zero.

    Raises
    ------
    ConfigError
        If one is not.
    """
    for value in values:
        if not value > 0:
            raise ConfigError(f"bias.{name}: expected widths above 0, got {values}")
    return values


def within_state_widths(context: BiasContext, what: str) -> list[float]:
    """Standard deviation of each variable within the narrowest of the model's states, shape (dim,).

    Raises
    ------
    ConfigError
        If there is no model; `what` names the setting that has to be given then.
    """
    if context.model is None:
        raise ConfigError(f"{what}: has to be given for collective variables without a trained model")
    samples = BiasContext.of_model(context.model, context.temperature, context.kT).samples(what)
    with torch.no_grad():
        states = context.model.assign(samples.float())
    z = context.samples(what)
    widths = [
        z[states == state].std(dim=0)
        for state in range(context.model.n_states)
        if (states == state).double().mean() > _RARE
    ]
    return torch.stack(widths or [z.std(dim=0)]).min(dim=0).values.tolist()
