"""What an answer at a temperature rests on, and what would make it better: what ``latf-openmm explain`` says."""

import math
from dataclasses import dataclass, replace

import numpy as np

from latf_openmm.display import card
from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.reweighting.consistency import Certificate
from latf_openmm.reweighting.reliability import FAIR_SAMPLES, GOOD_SAMPLES, reliability_text
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.loop import round_state
from latf_openmm.run.slopes import reweighter_of_round
from latf_openmm.run.strategies.active import ActiveSettings
from latf_openmm.run.strategies.error_model import ErrorModel
from latf_openmm.units import TemperatureScale, check_temperature

_SHOWN = 0.005
"""Share of the weight below which a simulated temperature is not named."""
_HALF = 3.0
"""Independent frames to be added, over those there are, for half the error."""
_FEW = 1.0
"""Entries into the rarest state in a round, below which a walker is said to be stuck."""
_TOO_MANY = 1000
"""Rounds from which on it is said that more of them do not help."""


@dataclass(frozen=True)
class Source:
    """Frames of one simulated temperature: how many, and their share of the weight."""

    temperature: float
    frames: int
    weight: float


@dataclass(frozen=True)
class Remedy:
    """More frames of the temperature that helps most.

    Attributes
    ----------
    temperature
        To simulate at.
    rounds
        Like the configured one, at this temperature, that are expected to halve the error.
    picoseconds
        Simulated in them by all walkers.
    visits
        Expected entries of a walker into its rarest state in one round; None where there is one state.
    configured
        True where the next round is at the temperatures of the configuration, not at one that helps.
    """

    temperature: float
    rounds: float
    picoseconds: float
    visits: float | None
    configured: bool = False


@dataclass(frozen=True, repr=False)
class Explanation:
    """Grounds of an answer.

    Attributes
    ----------
    ensemble
        The answer.
    round
        Whose model and frames it is of.
    sources
        Frames that have weight, by simulated temperature, those with most of it first.
    certificate
        Test of consistency of the simulated temperatures.
    remedy
        What would lower the error; None where nothing can be simulated, or energies are not known.
    scale
        Of the temperatures.
    """

    ensemble: StructureEnsemble
    round: int
    sources: tuple[Source, ...]
    certificate: Certificate
    remedy: Remedy | None
    scale: TemperatureScale

    def __repr__(self) -> str:
        return f"Explanation(round {self.round}, {self.ensemble!r})"

    def _repr_html_(self) -> str:
        label = self.scale.label(self.ensemble.temperature)
        return card(f"What the answer at {label} rests on", {}, notes=self.sentences())

    def sentences(self) -> list[str]:
        """Return paragraphs for people."""
        return [
            self._grounds(),
            self._verdict(),
            self._values(),
            self._objections(),
            *([self._advice(self.remedy)] if self.remedy is not None else []),
        ]

    def _grounds(self) -> str:
        ensemble, label = self.ensemble, self.scale.label
        named = [source for source in self.sources if source.weight >= _SHOWN]
        listed = ", ".join(
            f"{100 * source.weight:.0f} % from {label(source.temperature)} ({source.frames:,} frames)"
            for source in named
        )
        return (
            f"{label(ensemble.temperature)} after round {self.round}: {ensemble.description}. The weight comes to "
            f"{listed}."
        )

    def _verdict(self) -> str:
        ensemble = self.ensemble
        verdict = reliability_text(ensemble.reliability)
        return (
            f"R{verdict[1:]}. {ensemble.n_effective:.3g} effective samples stand for it; "
            f"{FAIR_SAMPLES:g} are needed for fair, {GOOD_SAMPLES:g} for good."
        )

    def _values(self) -> str:
        ensemble = self.ensemble
        populations = ensemble.populations()
        worst = max(range(len(populations)), key=lambda state: populations[state].error)
        listed = ", ".join(f"state {state} {p}" for state, p in enumerate(populations) if p.value >= _SHOWN)
        return f"Populations: {listed}; the least certain is state {worst}."

    def _objections(self) -> str:
        texts = list(dict.fromkeys([*self.ensemble.warnings, *self.certificate.texts(self.scale)]))
        if texts:
            return f"Against it: {'; '.join(texts)}."
        if not self.certificate.energies:
            return "Nothing is known against it; frames of one temperature cannot contradict each other."
        return "Nothing is known against it: states, energies and densities at the simulated temperatures fit together."

    def _advice(self, remedy: Remedy) -> str:
        label = self.scale.label(float(f"{remedy.temperature:.3g}"))
        if not remedy.rounds < _TOO_MANY:
            return (
                f"Frames of no temperature of a round like the configured one bring much; those of {label} bring most. "
                "Simulate nearer."
            )
        text = (
            f"To halve the errors, simulate at {label}: about {math.ceil(remedy.rounds):,} times the walkers of a "
            f"round ({self.scale.duration(remedy.picoseconds)} in all)."
        )
        if remedy.configured:
            text += (
                " A further round is at the temperatures of the configuration; with `strategy: {kind: active}` in its "
                "section `loop`, which may change in a run, rounds go where errors are expected to fall most."
            )
        if remedy.visits is not None and remedy.visits < _FEW:
            text += (
                f" But a walker is expected to enter its rarest state {remedy.visits:.2g} times in a round: walkers "
                "that move among temperatures (simulation.tempering), or a bias, are worth more than more of the same."
            )
        return text


def explain(
    run: RunFolder, temperature: float, *, round_index: int | None = None, forces: bool = False
) -> Explanation:
    """Return what the answer at a temperature rests on, from the frames there are; nothing is simulated.

    Parameters
    ----------
    run
        A run with a complete round.
    temperature
        In the scale of the system.
    round_index
        Round whose model and frames are used; None: the last complete one.
    forces
        Whether forces at the frames correct weights where that lowers errors.

    Raises
    ------
    ConfigError
        If the temperature is not possible, or the round is not complete.
    DataError
        If a file that is used was damaged.
    """
    check_temperature("--temperature", temperature)
    index = run.chosen_round(round_index)
    reweighter = reweighter_of_round(run, index, forces)
    ensemble = reweighter.at(temperature)
    at = ensemble.pool.temperatures()
    sources = [
        Source(float(t), int((at == t).sum()), float(ensemble.weights[at == t].sum())) for t in np.unique(at)
    ]
    return Explanation(
        ensemble,
        index,
        tuple(sorted(sources, key=lambda source: -source.weight)),
        reweighter.certificate,
        _remedy(run, index, reweighter, temperature) if reweighter.weighting is not None else None,
        run.scale,
    )


def _remedy(run: RunFolder, index: int, reweighter: Reweighter, temperature: float) -> Remedy | None:
    """More frames of the temperature that brings most independent ones to the one asked for."""
    config = run.config
    if not config.system.simulated:
        return None
    state = round_state(run, run.round(index), reweighter.trained, reweighter.pool)
    # What the round has changed is not asked for.
    known = ErrorModel(replace(state, targets=(temperature,), before=0), ActiveSettings(), reweighter)
    row = known.target(temperature)
    candidates = [entry["temperature"] for entry in known.temperatures([row])[1]]
    gains = {t: known.new_frames(t) * known.share(t, temperature) for t in candidates}
    best = max(gains, key=lambda t: gains[t])
    rounds = _HALF * row.n_effective / gains[best] if gains[best] > 0 else math.inf
    simulation = config.simulation
    each = simulation.walkers * simulation.timestep
    steps = simulation.frames * simulation.frame_interval + simulation.equilibration
    visits = known.visits(best) if known.s.n_states > 1 else None
    configured = (
        not any(np.isclose(best, t) for t in simulation.temperatures) and config.loop.strategy.kind == "fixed"
    )
    return Remedy(best, rounds, min(rounds, _TOO_MANY) * each * steps, visits, configured)
