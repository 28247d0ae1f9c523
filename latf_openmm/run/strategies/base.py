"""What every strategy is: settings that turn what is known after a round into the plan of the next one."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latf_openmm.ensembles.pool import Pool
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.sampling.tempering import TemperingSettings
from latf_openmm.settings import Settings
from latf_openmm.units import SCALES, TemperatureScale

Frames = NDArray[np.int64]


@dataclass(frozen=True)
class RoundState:
    """State of a run after a round.

    Attributes
    ----------
    trained
        The round's model.
    pool
        All frames so far under it.
    before
        Walkers of the rounds before this one; those after them are new.
    targets
        Temperatures whose ensembles are wanted.
    configured
        Temperatures of the configuration; there are as many in every round.
    walkers, frames
        At each temperature, and of each walker.
    can_bias
        Whether the configuration has a bias.
    seed
        Of everything random in the decision.
    tempering
        How walkers can move among the configured temperatures; None: they cannot.
    """

    trained: TrainedModel
    pool: Pool
    before: int
    targets: tuple[float, ...]
    configured: tuple[float, ...]
    walkers: int
    frames: int
    can_bias: bool
    seed: int
    tempering: TemperingSettings | None = None

    @property
    def scale(self) -> TemperatureScale:
        """Temperature scale of the system."""
        return SCALES[self.trained.temperature_scale]

    @cached_property
    def reweighter(self) -> Reweighter:
        """Makes ensembles of all frames at any temperature."""
        return Reweighter(self.trained, self.pool, self.seed)

    @property
    def n_states(self) -> int:
        """Metastable states of the model."""
        return self.pool.n_states


@dataclass(frozen=True)
class Decision:
    """The plan of the next round.

    Attributes
    ----------
    temperatures
        Where to simulate.
    biased
        Those of them with the configured bias.
    starts
        Frames of the pool to start from, by temperature, one for each walker.
    stop
        Whether there is to be no next round.
    reasons
        Why, for people.
    diagnostics
        The numbers behind it: rows of names and values.
    moving
        Whether walkers move among the temperatures; only where the configuration has a tempering.
    """

    temperatures: tuple[float, ...]
    biased: tuple[float, ...]
    starts: Mapping[float, Frames]
    stop: bool = False
    reasons: tuple[str, ...] = ()
    diagnostics: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    moving: bool = False


class StrategySettings(Settings):
    """Settings of one strategy; subclasses add a literal ``kind`` and live in one file each."""

    kind: str

    @abstractmethod
    def decide(self, round_state: RoundState) -> Decision:
        """Plan the next round."""


def even_over_states(round_state: RoundState, temperature: float, rng: np.random.Generator) -> Frames:
    """Frames to start from, evenly over the states, of the same temperature where there are any."""
    pool = round_state.pool
    states = np.unique(pool.states)
    same_temperature = pool.temperatures() == temperature
    chosen = []
    for walker in range(round_state.walkers):
        state = pool.states == states[walker % len(states)]
        candidates = np.flatnonzero(state & same_temperature)
        chosen.append(rng.choice(candidates if len(candidates) else np.flatnonzero(state)))
    return np.array(chosen, dtype=np.int64)


def default_decision(round_state: RoundState, temperatures: tuple[float, ...], reason: str) -> Decision:
    """Return a decision that starts evenly over the states, and biases and moves all walkers where configured."""
    rng = np.random.default_rng([round_state.seed, 7])
    return Decision(
        temperatures,
        temperatures if round_state.can_bias else (),
        {t: even_over_states(round_state, t, rng) for t in temperatures},
        reasons=(reason, "walkers start evenly over the metastable states"),
        moving=round_state.tempering is not None,
    )
