"""Several biases at once."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor, nn

from latf_openmm.bias.potentials.base import AdaptiveBias, Bias, BiasContext, BiasSettings
from latf_openmm.errors import ConfigError
from latf_openmm.settings import validate


class Sum(Bias):
    """The sum of static biases."""

    def __init__(self, parts: Sequence[Bias]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        total = torch.zeros_like(z[:, 0])
        for part in self.parts:
            total = total + part.evaluate(z, state)  # type: ignore[operator]
        return total


class AdaptiveSum(AdaptiveBias):
    """One adaptive bias and static ones; everything adaptive is that one's."""

    def __init__(self, lead: AdaptiveBias, others: Sequence[Bias]) -> None:
        super().__init__(lead.state_update, lead.message_size, lead.pace)
        self.lead = lead
        self.others = nn.ModuleList(others)
        self.state = lead.state

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        total = self.lead.evaluate(z, state)
        for part in self.others:
            total = total + part.evaluate(z, state)  # type: ignore[operator]
        return total

    def example_states(self) -> tuple[Tensor, ...]:
        """Those of the adaptive part."""
        return self.lead.example_states()

    def adapt(self, z: Tensor, kT: Tensor | None = None) -> list[Tensor]:
        """Update the adaptive part."""
        messages = self.lead.update(z, kT=kT)
        self.state, self.added = self.lead.state, self.lead.added
        return messages

    @property
    def width(self) -> int:
        """Row of the adaptive part."""
        return self.lead.width

    def absorb(self, rows: Tensor) -> list[Tensor]:
        """Let the adaptive part add what other walkers added."""
        messages = self.lead.absorb(rows)
        self.lead.sent += len(messages)
        self.state = self.lead.state
        return messages

    def thermal_energy(self) -> float | None:
        """Thermal energy of the adaptive part [kJ/mol]."""
        return self.lead.thermal_energy()

    def offset(self) -> float:
        """Offset of the adaptive part [kJ/mol]."""
        return self.lead.offset()

    def snapshot(self) -> dict[str, Tensor]:
        """Everything that changes."""
        return self.lead.snapshot()

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Continue from a snapshot."""
        self.lead.restore(snapshot)
        self._messages = None
        self.state, self.sent, self.updates = (
            self.lead.state,
            self.lead.sent.clone(),
            self.lead.updates.clone(),
        )


def add_up(parts: Sequence[Bias]) -> Bias:
    """Return the sum of biases, at most one of them adaptive.

    Raises
    ------
    ConfigError
        If two or more are adaptive: put those into the System one by one, by `add_bias` with a name each.
    """
    adaptive = [part for part in parts if isinstance(part, AdaptiveBias)]
    static = [part for part in parts if not isinstance(part, AdaptiveBias)]
    if len(adaptive) > 1:
        raise ConfigError(
            f"bias.parts: {len(adaptive)} of them change while the simulation runs; one sum can have one"
        )
    return AdaptiveSum(adaptive[0], static) if adaptive else Sum(static)


class SumSettings(BiasSettings):
    """The sum of several biases, of which one may change while the simulation runs."""

    kind: Literal["sum"] = "sum"
    parts: list[SerializeAsAny[BiasSettings]] = Field(min_length=1, description="biases, each with its kind")

    @field_validator("parts", mode="before")
    @classmethod
    def _by_kind(cls, parts: Any) -> Any:
        from latf_openmm.bias.potentials import BIAS_KINDS  # the family this module is part of

        if not isinstance(parts, list):
            return parts
        validated = []
        for index, part in enumerate(parts):
            if isinstance(part, dict):
                kind = part.get("kind")
                if kind not in BIAS_KINDS:
                    raise ValueError(f"[{index}].kind: expected one of {', '.join(BIAS_KINDS)}, got {kind!r}")
                try:
                    validated.append(validate(BIAS_KINDS[kind], part, f"[{index}]"))
                except ConfigError as error:
                    raise ValueError("; ".join(error.problems)) from None
            else:
                validated.append(part)
        return validated

    @property
    def adapts(self) -> bool:
        """Return whether one of the parts does."""
        return any(part.adapts for part in self.parts)

    def make(self, context: BiasContext) -> Bias:
        """Make all parts."""
        return add_up([part.build(context) for part in self.parts])
