"""Harmonic restraint (umbrella) on the collective variables, at rest or moving."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from latf_openmm.bias.potentials.base import (
    AdaptiveBias,
    Bias,
    BiasContext,
    BiasSettings,
    StateUpdate,
    wrap,
)
from latf_openmm.bias.potentials.components import force_constants, per_component, warn_beyond_period


class Harmonic(Bias):
    """V(z) = sum_i k_i (z_i - c_i)^2 / 2 [kJ/mol].

    Parameters
    ----------
    centre
        c, shape (dim,).
    force_constant
        k, shape (dim,) [kJ/mol per unit of z squared].
    periods
        Period of each variable, 0 where it has none; default: none has.
    """

    def __init__(
        self, centre: Tensor, force_constant: Tensor, periods: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.centre: Tensor
        self.force_constant: Tensor
        self.periods: Tensor
        self.register_buffer("centre", centre.double())
        self.register_buffer("force_constant", force_constant.double())
        self.register_buffer("periods", torch.tensor(periods or [0.0] * len(centre), dtype=torch.float64))
        self.any_wraps = any(period > 0 for period in periods or [])

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        delta = z - self.centre
        if self.any_wraps:
            delta = wrap(delta, self.periods)
        return 0.5 * (self.force_constant * (delta * delta)).sum(dim=1)


class HarmonicSettings(BiasSettings):
    """A restraint to one point of the latent space."""

    kind: Literal["harmonic"] = "harmonic"
    centre: list[float] = Field(description="one value for each collective variable [z]")
    force_constant: float | list[float] = Field(description="force constant(s) [kJ/mol per z^2]")

    def make(self, context: BiasContext) -> Bias:
        """Make the restraint."""
        centre = per_component(self.centre, context.dim, "centre")
        warn_beyond_period(centre, context.periods, "centre")
        force_constant = force_constants(self.force_constant, context.dim)
        return Harmonic(torch.tensor(centre, dtype=torch.float64), force_constant, context.periods)


class MovingHarmonic(AdaptiveBias):
    """A harmonic restraint whose centre moves (steered dynamics), and the work it does.

    The centre stays for `pace` steps and then takes the next of equal steps along a straight line, the
    shorter way round where a variable is periodic.

    Parameters
    ----------
    start, end
        Centre before the first and after the last step, each of shape (dim,).
    force_constant
        Shape (dim,) [kJ/mol per unit of z squared].
    periods
        Period of each variable, 0 where it has none.
    steps
        Integration steps from start to end.
    pace
        Integration steps between updates.

    Attributes
    ----------
    work
        Done on the system so far, V(z; new centre) - V(z; old centre) summed over updates [kJ/mol].
    """

    def __init__(
        self,
        start: Tensor,
        end: Tensor,
        force_constant: Tensor,
        periods: Sequence[float],
        steps: int,
        pace: int,
    ) -> None:
        super().__init__(_TakeAll(), len(start), pace)
        self.start: Tensor
        self.path: Tensor
        self.force_constant: Tensor
        self.periods: Tensor
        self.work: Tensor
        self.register_buffer("start", start.double())
        self.register_buffer("force_constant", force_constant.double())
        self.register_buffer("periods", torch.tensor(list(periods), dtype=torch.float64))
        self.register_buffer("path", wrap(end.double() - start.double(), self.periods))
        self.register_buffer("work", torch.zeros((), dtype=torch.float64))
        self.any_wraps = any(period > 0 for period in periods)
        self.n_updates = max(1, -(-steps // pace))
        self.state = self.start.clone()

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        delta = z - state
        if self.any_wraps:
            delta = wrap(delta, self.periods)
        return 0.5 * (self.force_constant * (delta * delta)).sum(dim=1)

    def adapt(self, z: Tensor, kT: Tensor | None = None) -> list[Tensor]:
        """Move the centre on, if it has not arrived."""
        if int(self.updates) >= self.n_updates:
            return []
        done = (int(self.updates) + 1) / self.n_updates
        before = self.energy(z, self.state).sum()
        message = self.receive(self.start + done * self.path)
        self.work = self.work + self.energy(z, self.state).sum() - before
        return [message]

    def _changing(self) -> tuple[str, ...]:
        return (*super()._changing(), "work")


class _TakeAll(StateUpdate):
    """The message is the new state."""

    def forward(self, state: Tensor, message: Tensor) -> Tensor:
        return message.clone()


class MovingHarmonicSettings(BiasSettings):
    """A harmonic restraint that moves from one point to another (steered dynamics)."""

    kind: Literal["moving_harmonic"] = "moving_harmonic"
    start: list[float] = Field(description="centre at first, one value for each collective variable [z]")
    end: list[float] = Field(description="centre at last [z]")
    force_constant: float | list[float] = Field(description="force constant(s) [kJ/mol per z^2]")
    steps: int = Field(ge=1, description="integration steps from start to end")
    pace: int = Field(20, ge=1, description="integration steps between moves of the centre")

    def make(self, context: BiasContext) -> Bias:
        """Make the restraint."""
        start, end = (
            per_component(values, context.dim, name)
            for name, values in (("start", self.start), ("end", self.end))
        )
        warn_beyond_period(start, context.periods, "start")
        warn_beyond_period(end, context.periods, "end")
        first, last = (torch.tensor(centre, dtype=torch.float64) for centre in (start, end))
        force_constant = force_constants(self.force_constant, context.dim)
        return MovingHarmonic(first, last, force_constant, context.periods, self.steps, self.pace)
