"""Widths of kernels: checked, or from a trained model."""

from collections.abc import Sequence

import torch

from latf_openmm.bias.potentials.base import BiasContext
from latf_openmm.bias.potentials.components import per_component
from latf_openmm.errors import ConfigError

_RARE = 0.02
"""Part of the samples from which a state counts."""
_WIDEST = 0.5
"""Width of a kernel that covers all of a variable [its extent]."""


def given_widths(value: float | list[float], extents: Sequence[float], name: str) -> list[float]:
    """Return the widths that a setting gives, one for each variable.

    Parameters
    ----------
    value
        One for all variables, or a list of them.
    extents
        Period of each variable, or the width of the region it is biased in; infinite where nobody knows.
    name
        Of the setting.

    Raises
    ------
    ConfigError
        If the list has another length, or one is not above zero or covers all of its variable.
    """
    widths = per_component(value, len(extents), name)
    for index, (width, extent) in enumerate(zip(widths, extents, strict=True)):
        if not width > 0:
            raise ConfigError(f"bias.{name}: expected widths above 0, got {widths}")
        if width > _WIDEST * extent:
            raise ConfigError(
                f"bias.{name}: {width:g} covers all of variable {index}, whose extent is {extent:.4g}; expected less "
                f"than {_WIDEST * extent:.3g} (angles are in radians, lengths in nm)"
            )
    return widths


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
