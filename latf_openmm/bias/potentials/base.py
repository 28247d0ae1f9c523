"""What every bias potential is."""

import logging
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from openmm import unit
from pydantic import Field
from torch import Tensor, nn

from latf_openmm.bias.potentials.messages import MessageFile
from latf_openmm.errors import ConfigError
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.model.latf import LatentThermodynamicFlow
from latf_openmm.settings import Settings
from latf_openmm.units import SCALES, plain

log = logging.getLogger(__name__)
_FAR = 2.0
"""Factor between the temperature of a bias and those of its model from which another number may be meant."""
_SAMPLES = 20_000
"""Points drawn from a model to find the region where its collective variables are."""
_MARGIN = 0.35
"""Part of the width of that region that is added on each side."""


class Bias(nn.Module):
    """V(z): ``forward(z)`` takes (n, dim) and returns energies (n,) [kJ/mol].

    Attributes
    ----------
    state
        What an adaptive bias has learned so far; empty for a static one.
    components
        Collective variables it acts on; empty for all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state: Tensor
        self.components: Tensor
        self.register_buffer("state", torch.empty(0, dtype=torch.float64))
        self.register_buffer("components", torch.empty(0, dtype=torch.long))

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        """Return the energies of the bias's own components z (n, k), shape (n,) [kJ/mol]; differentiable."""
        raise NotImplementedError

    def evaluate(self, z: Tensor, state: Tensor) -> Tensor:
        """Return energies for a given state, shape (n,) [kJ/mol]."""
        if self.components.numel() > 0:
            z = z.index_select(1, self.components)
        return self.energy(z, state)

    def forward(self, z: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        return self.evaluate(z, self.state)

    def example_states(self) -> tuple[Tensor, ...]:
        """States to record the operations of `evaluate` with, which must not depend on their values.

        Two of different numbers of rows, where that number changes.
        """
        return (self.state,)


class StateUpdate(nn.Module):
    """Applies a message to the state of an adaptive bias: ``forward(state, message)`` -> new state.

    The same module runs in Python and inside the force, so that both have the same state to the last bit.
    """

    def forward(self, state: Tensor, message: Tensor) -> Tensor:
        """Return the new state."""
        raise NotImplementedError


class AdaptiveBias(Bias):
    """A bias whose state changes while the simulation runs.

    `update` is called with the collective variables of all walkers every `pace` steps. It changes the
    state here and returns the messages that make the same change inside the force, which reads them from the
    file of `messages`.

    Parameters
    ----------
    state_update
        Applies a message.
    message_size
        Numbers in a message.
    pace
        Steps between updates.

    Attributes
    ----------
    sent
        Messages sent to the force so far.
    updates
        Updates so far.
    has_updater
        Whether a `BiasUpdater` was made for it.
    added
        What the last update added, one row (z, weight) for each walker: what other walkers that share the
        bias need to add it, too; empty where walkers cannot share.
    """

    def __init__(self, state_update: StateUpdate, message_size: int, pace: int) -> None:
        super().__init__()
        if pace < 1:
            raise ConfigError(f"bias.pace: expected 1 step or more, got {pace}")
        self.state_update = state_update
        self.message_size = message_size
        self.pace = pace
        self.sent: Tensor
        self.updates: Tensor
        self.added = torch.empty(0)
        self.has_updater = False
        self.register_buffer("sent", torch.zeros((), dtype=torch.long))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self._messages: MessageFile | None = None

    def messages(self) -> MessageFile:
        """Return the file from which forces made from now on read the messages."""
        if self._messages is None:
            self._messages = MessageFile(int(self.sent), self.has_updater)
        return self._messages

    @property
    def width(self) -> int:
        """Numbers in a row of `added`; 0 where walkers cannot share the bias."""
        return 0

    @torch.no_grad()
    def update(self, z: Tensor, others: Tensor | None = None, kT: Tensor | None = None) -> list[Tensor]:
        """Adapt to the walkers' collective variables; return messages for the force.

        Parameters
        ----------
        z
            Shape (n_walkers, dim).
        others
            What walkers elsewhere added since the last time, rows of their `added`.
        kT
            Thermal energy of each walker [kJ/mol], shape (n_walkers,), where it is not that of the bias.

        Raises
        ------
        ConfigError
            If a collective variable is not finite.
        """
        if not bool(torch.isfinite(z).all()):
            raise ConfigError(f"a collective variable is not finite: {z.tolist()}")
        variables = z.double() if self.components.numel() == 0 else z.double()[:, self.components]
        messages = [] if others is None or len(others) == 0 else self.absorb(others)
        messages += self.adapt(variables, kT)
        self.sent += len(messages)
        self.updates += 1
        return messages

    def adapt(self, z: Tensor, kT: Tensor | None = None) -> list[Tensor]:
        """Change the state by `receive`, from the bias's own components, and return the messages."""
        raise NotImplementedError

    def absorb(self, rows: Tensor) -> list[Tensor]:
        """Add what walkers elsewhere added, and return the messages."""
        raise ConfigError(f"{type(self).__name__} cannot be shared by several walkers")

    def receive(self, message: Tensor) -> Tensor:
        """Apply one message to the state here, and return it."""
        self.state = self.state_update(self.state, message)
        return message

    def thermal_energy(self) -> float | None:
        """Thermal energy that what is added depends on [kJ/mol]; None: on none."""
        return None

    def offset(self) -> float:
        """Energy subtracted from the bias before frames are weighted by exp((V - offset)/kT) [kJ/mol]."""
        return 0.0

    def snapshot(self) -> dict[str, Tensor]:
        """Everything that changes, to be restored by `restore`."""
        return {name: value.clone() for name, value in self.named_buffers() if name in self._changing()}

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Continue from a snapshot of the same bias.

        Raises
        ------
        ConfigError
            If the snapshot is of another kind of bias, or of one with another number of variables or grid.
        """
        current = self.snapshot()
        if set(snapshot) != set(current):
            raise ConfigError(
                f"a snapshot of {sorted(snapshot)} does not belong to this bias, which has {sorted(current)}"
            )
        for name, value in snapshot.items():
            given, expected = self._form(name, value), self._form(name, current[name])
            if given != expected:
                raise ConfigError(
                    f"a snapshot with {name!r} of {given} does not belong to this bias, which has {expected}"
                )
        for name, value in snapshot.items():
            setattr(self, name, value.clone())
        self._messages = None  # forces made before do not have this state

    def _form(self, name: str, value: Tensor) -> str:
        """Describe a buffer by properties that never change during a run."""
        return f"shape {tuple(value.shape)}"

    def _changing(self) -> tuple[str, ...]:
        """Names of the buffers that `adapt` changes."""
        return ("state", "sent", "updates")


@dataclass(frozen=True)
class BiasContext:
    """The simulation and the model that a bias is built for.

    Parameters
    ----------
    periods
        Period of each collective variable, 0 where it has none.
    temperature
        Temperature of the simulation, in the model's scale.
    kT
        Its thermal energy [kJ/mol].
    model
        The trained model whose collective variables are biased, where there is one.
    components
        Which of the model's variables these are; None: all.
    """

    periods: tuple[float, ...]
    temperature: float
    kT: float  # noqa: N815 - the field's own name
    model: LatentThermodynamicFlow | None = None
    components: tuple[int, ...] | None = None

    @staticmethod
    def of_model(model: LatentThermodynamicFlow, temperature: float, kT: float) -> "BiasContext":
        """The context of a model's own variables."""
        return BiasContext((0.0,) * model.latent_dim, temperature, kT, model)

    @property
    def dim(self) -> int:
        """Number of collective variables."""
        return len(self.periods)

    def on(self, components: Sequence[int]) -> "BiasContext":
        """The context of some of the variables.

        Raises
        ------
        ConfigError
            If one of them does not exist.
        """
        for component in components:
            if not 0 <= component < self.dim:
                raise ConfigError(
                    f"bias.components: there is no component {component}; "
                    f"the collective variables are 0 to {self.dim - 1}"
                )
        if len(set(components)) < len(components):
            raise ConfigError(f"bias.components: {list(components)} names one twice")
        periods = tuple(self.periods[i] for i in components)
        selected = range(self.dim) if self.components is None else self.components
        return replace(self, periods=periods, components=tuple(selected[i] for i in components))

    def samples(self, what: str) -> Tensor:
        """Points of the model's density at this temperature, shape (n, dim).

        Raises
        ------
        ConfigError
            If there is no model; `what` names the setting that has to be given then.
        """
        if self.model is None:
            raise ConfigError(f"{what}: has to be given for collective variables without a trained model")
        density = self.model.density(self.temperature)
        z = density.sample(_SAMPLES, torch.Generator().manual_seed(0)).double()
        return z if self.components is None else z[:, list(self.components)]

    def region(self, what: str) -> tuple[list[float], list[float]]:
        """Box that holds the model's density with a margin."""
        z = self.samples(what)
        low, high = z.quantile(0.0005, dim=0), z.quantile(0.9995, dim=0)
        margin = _MARGIN * (high - low)
        if not bool((margin > 0).all()):
            raise ConfigError("bias: the model's density is degenerate; train it on more varied data")
        return (low - margin).tolist(), (high + margin).tolist()

    def extents(self, what: str) -> list[float]:
        """Width of each variable's range: its period, or that of the model's density; infinite where it has neither."""
        if self.model is None:
            return [period if period > 0 else math.inf for period in self.periods]
        low, high = self.region(what)
        return [b - a for a, b in zip(low, high, strict=True)]


def bias_context(trained: TrainedModel, temperature: Any) -> BiasContext:
    """Return the context of a trained model at one temperature.

    Parameters
    ----------
    trained
        The model.
    temperature
        A number in the model's temperature scale, or an OpenMM quantity for models in kelvin. A warning says so where
        it is a factor of two or more from those that the model was trained at.
    """
    value, scale = plain(temperature, unit.kelvin, "temperature"), SCALES[trained.temperature_scale]
    low, high = min(trained.temperatures), max(trained.temperatures)
    if not low / _FAR < value < high * _FAR:
        at, trained_at = scale.label(value), f"{scale.label(low)} to {scale.label(high)}"
        log.warning(
            "the bias is for %s, and the model was trained at %s: is another number meant?", at, trained_at
        )
    return BiasContext.of_model(trained.model, value, scale.kT(value))


def cv_context(periods: Sequence[float], temperature: Any) -> BiasContext:
    """Return the context of collective variables without a trained model.

    Parameters
    ----------
    periods
        Period of each collective variable, 0 where it has none (``cv.periods.tolist()``).
    temperature
        Temperature [K], a number or an OpenMM quantity.
    """
    value = plain(temperature, unit.kelvin, "temperature")
    return BiasContext(tuple(periods), value, SCALES["K"].kT(value))


def wrap(delta: Tensor, periods: Tensor) -> Tensor:
    """Differences of collective variables, periodic ones to their nearest image; shape (..., dim)."""
    safe = torch.where(periods > 0, periods, torch.ones_like(periods))
    return delta - periods * torch.round(delta.detach() / safe)


class BiasSettings(Settings):
    """Settings of one bias; subclasses add a literal ``kind`` and live in one file each."""

    components: list[int] | None = Field(
        None, min_length=1, description="collective variables it acts on, from 0; default: all"
    )

    @property
    def adapts(self) -> bool:
        """Return whether walkers add to it while they are simulated, and can share what they add."""
        return False

    def build(self, context: BiasContext) -> Bias:
        """Make the bias, in double precision and without trainable parameters.

        Raises
        ------
        ConfigError
            If the settings do not fit the collective variables.
        """
        if context.model is not None:
            self._check_units()
        if self.components is None:
            return self.make(context)
        bias = self.make(context.on(self.components))
        bias.components = torch.tensor(self.components)
        return bias

    def _check_units(self) -> None:
        """Raise `ConfigError` where angles or lengths were given for learned variables."""
        for name, variables_unit in self.given_units.items():
            if variables_unit == "z" or " per z" in variables_unit:
                raise ConfigError(f"bias.{name}: expected a number, since the learned variables have no unit")

    @abstractmethod
    def make(self, context: BiasContext) -> Bias:
        """Make the bias on all collective variables of the context."""


class AdaptiveBiasSettings(BiasSettings):
    """Settings of a bias that is updated while the simulation runs."""

    @property
    def adapts(self) -> bool:
        """Return True."""
        return True

    def build(self, context: BiasContext) -> AdaptiveBias:
        """Make the bias; see `BiasSettings.build`."""
        bias = super().build(context)
        assert isinstance(bias, AdaptiveBias)
        return bias
