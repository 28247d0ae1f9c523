"""Ensembles from the frames there are: reweighted, or guided by the flow.

``reweighted``
    Every frame of every round, weighted by MBAR over the simulated temperatures. Exact up to sampling where
    enough frames overlap in energy with the temperature wanted.
``conditional``
    Where they do not: weighted by conditional energies of the collective variables between, and a little beyond, the
    simulated temperatures (`latf_openmm.reweighting.conditional`); with a part of MBAR where the overlap is partial.
``flow``
    Where that cannot be: latent points are drawn from r_T(z), and each stands for its nearest frames, which share its
    weight as exp(-U/kT) over the mixture they were simulated in. Where the basins lie is the flow's word; what is
    inside one is the frames'.

What new frames at the temperature itself add is in `latf_openmm.run.annealed`.
"""

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from latf_openmm.ensembles.combined import effective_samples
from latf_openmm.ensembles.ensemble import Array, Method, StructureEnsemble
from latf_openmm.ensembles.latent import distance_warning, temperature_warning
from latf_openmm.ensembles.pool import Pool
from latf_openmm.errors import ConfigError
from latf_openmm.frames.trajectory import energies_known
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.model.transfer import nearest_frames
from latf_openmm.reweighting.consistency import Certificate, certificate
from latf_openmm.reweighting.free_energy import committee_widening
from latf_openmm.reweighting.identities import Slopes
from latf_openmm.reweighting.inefficiency import run_inefficiencies
from latf_openmm.reweighting.reliability import (
    GOOD_SAMPLES,
    MIN_SEEN_SAMPLES,
    ONE_TRAJECTORY,
    Reliability,
    reliability_of,
    worst,
)
from latf_openmm.reweighting.replicates import Replicates
from latf_openmm.reweighting.temperatures import Basins
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.reweighting.weights import canonical_weights
from latf_openmm.sentences import condensed, states_text
from latf_openmm.units import SCALES

_SAMPLES = 20_000
"""Samples of the flow."""
_NEIGHBOURS = 24
"""Frames that stand for a sample of the flow."""
_HEAVY = 0.05
"""Weight of one frame from which a warning is given."""
_DISAGREE = 3.0  # errors
_PRESENT = 0.02
"""Population from which a state with few effective samples is warned of."""
_RARE = 0.01
"""Population from which the error of a state counts in what windows say."""
_DESCRIPTIONS = {1.0: "reweighted frames", 0.0: "frames by conditional energies"}
"""What is said of weights by MBAR alone, and without it."""
_WORDS: dict[Method, str] = {
    "reweighted": "reweighting says",
    "conditional": "conditional energies say",
    "annealed": "annealing says",
    "flow": "the flow says",
}
"""Methods in the texts of warnings."""


class Reweighter:
    """Makes ensembles at one temperature after the other; what they share is computed once.

    Parameters
    ----------
    trained
        The model.
    pool
        All frames under it.
    seed
        Of the bootstrap, whose samples are the same at every temperature, and of the flow's samples.
    slopes
        Slopes of slow variables along moves at all frames, by which forces correct weights; None: no forces.
    """

    def __init__(
        self, trained: TrainedModel, pool: Pool, seed: int = 0, slopes: Slopes | None = None
    ) -> None:
        self.trained = trained
        self.pool = pool
        self.seed = seed
        self.alone = len(pool.walkers) == 1
        self.weighting: TemperatureWeighting | None = None
        if energies_known(pool.trajectories):
            lag = int(trained.provenance.get("lag") or 2)
            basins = Basins(pool.z, pool.states, pool.n_states, max(2, lag))
            self.weighting = TemperatureWeighting(pool.trajectories, basins, seed, slopes)

    def at(self, temperature: float, method: Method | None = None) -> StructureEnsemble:
        """Return the ensemble at a temperature, as `ensemble_at` does."""
        if not temperature > 0:
            raise ConfigError(f"temperature: must be above 0, got {temperature:g}")
        weighting = self.weighting
        if method in ("reweighted", "conditional"):
            if weighting is None:
                raise ConfigError("method: reweighting needs the potential energies of the frames")
            if method == "conditional" and (lacking := weighting.lacking_for_conditional):
                raise ConfigError(f"method: conditional energies need {lacking}")
            return self._weighted(weighting, temperature, 1.0 if method == "reweighted" else 0.0)
        if weighting is None:
            return self._by_flow(temperature, None)
        if method is None:
            q = weighting.mbar_share(temperature)
            enough = q == 1.0 and (
                weighting.conditional_possible or weighting.reach(temperature) >= weighting.enough
            )
            if enough or (q < 1.0 and weighting.claims(temperature)):
                return self._weighted(weighting, temperature, q)
        return self._by_flow(temperature, self._weighted(weighting, temperature, 1.0))

    def weights(self, temperature: float) -> Array:
        """Weights of all frames by MBAR, which sum to one; frames with known energies only."""
        assert self.weighting is not None
        return self.weighting.mbar_weights(temperature)

    def reach(self, temperature: float) -> float:
        """Number of effective samples that can be reweighted to a temperature."""
        assert self.weighting is not None
        return self.weighting.reach(temperature)

    @cached_property
    def certificate(self) -> Certificate:
        """Test of consistency of the simulated temperatures; empty without energies."""
        return Certificate((), ()) if self.weighting is None else certificate(self.weighting)

    @cached_property
    def inefficiency(self) -> Array:
        """Statistical inefficiency of each frame's run, shape (n_frames,)."""
        if self.weighting is not None:
            return self.weighting.inefficiency
        return run_inefficiencies(self.pool.trajectories, self.pool.z)

    def reliability(self, n_effective: float) -> Reliability:
        """Return the reliability of an ensemble with so many effective samples."""
        n = n_effective / (ONE_TRAJECTORY if self.alone else 1.0)
        return reliability_of(n)

    def _kT(self, temperature: float) -> float:  # noqa: N802 - the field's own name
        return SCALES[self.trained.temperature_scale].kT(temperature)

    def _weighted(self, weighting: TemperatureWeighting, temperature: float, q: float) -> StructureEnsemble:
        """Frames with a share `q` of MBAR in their weights."""
        replicates = weighting.replicates(temperature, q)
        weights = replicates.weights
        n = weighting.n_effective(weights)
        ensemble = StructureEnsemble(
            temperature,
            self._kT(temperature),
            "reweighted" if q == 1.0 else "conditional",
            _description(q, weighting.corrects(replicates)),
            self.pool,
            weights,
            replicates,
            weighting.widening,
            np.arange(len(weights)),
            self.inefficiency,
            n,
            (),
            self.reliability(n),
            None if q == 1.0 else weighting.energies(temperature, q),
        )
        n = min(n, effective_samples(ensemble, _RARE))  # windows may hardly overlap, walkers may hardly cross
        ensemble = replace(ensemble, n_effective=n, reliability=self.reliability(n))
        return self._judged(weighting, ensemble, q)

    def _judged(
        self, weighting: TemperatureWeighting, ensemble: StructureEnsemble, q: float
    ) -> StructureEnsemble:
        """Add what has to be known of weights, and what follows for their reliability."""
        temperature, reliability, texts = ensemble.temperature, ensemble.reliability, self.warnings(ensemble)
        scale = SCALES[self.trained.temperature_scale]
        simulated = weighting.mbar.simulated
        texts += self.certificate.texts(scale)
        if self.certificate.wrong:
            reliability = worst("fair", reliability)
        if q < 1.0 and not simulated[0] <= temperature <= simulated[-1]:
            beyond = (
                f"{scale.label(temperature)} is beyond the simulated temperatures, whose energies do not overlap "
                "with it: states are carried on along their mean energies"
            )
            texts.insert(0, beyond)
            claimed = weighting.claims(temperature)
            reliability = worst("fair" if claimed else "poor", reliability)
        if q < 1.0 and (gaps := weighting.empty_gaps(temperature)):
            texts[:0] = [
                f"collective variables at {scale.label(a)} and {scale.label(b)} hardly overlap ({o:.2g}): nothing is "
                "claimed between"
                for a, b, o in gaps
            ]
            reliability = "poor"
        return replace(ensemble, warnings=tuple(texts), reliability=reliability)

    def warnings(self, ensemble: StructureEnsemble) -> list[str]:
        """Return what a reader has to know of the weights of an ensemble."""
        texts = []
        if ensemble.n_effective < GOOD_SAMPLES:
            label = SCALES[self.trained.temperature_scale].label(ensemble.temperature)
            texts.append(f"only about {ensemble.n_effective:.3g} effective samples stand for {label}")
        if self.alone:
            texts.append(
                "all frames come from one trajectory: whether another one would give the same, nothing says; "
                "simulate several walkers"
            )
        if ensemble.largest_weight > _HEAVY:
            texts.append(f"one frame has {100 * ensemble.largest_weight:.0f} % of the weight")
        visited = np.unique(np.concatenate([self.pool.states, ensemble.pool.states]))
        if never := sorted(set(range(ensemble.n_states)) - set(visited.tolist())):
            texts.append(f"nothing is known of {states_text(list(map(str, never)))}: no frame is there")
        return [*texts, *_unseen(ensemble)]

    def _by_flow(self, temperature: float, other: StructureEnsemble | None) -> StructureEnsemble:
        trained, pool = self.trained, self.pool
        logs = (
            np.log(np.maximum(np.concatenate(canonical_weights(pool.trajectories)), 1e-300))
            if self.weighting is None
            else self.weighting.mbar.log_weights(temperature)
        )
        members, distance = _near_samples(trained, pool, temperature, logs, self.seed)
        weights = members.mean(axis=0)
        n = float(1.0 / (self.inefficiency * weights**2).sum())
        ensemble = StructureEnsemble(
            temperature,
            self._kT(temperature),
            "flow",
            "frames near the flow's samples",
            pool,
            weights,
            Replicates(members.astype(np.float32), np.ones(len(weights))),
            committee_widening(len(members)) if len(members) > 1 else 1.0,
            np.arange(len(weights)),
            self.inefficiency,
            n,
            (),
            "poor" if not within_reach(trained, temperature) else worst("fair", self.reliability(n)),
        )
        reliability = ensemble.reliability
        reach = temperature_warning(trained, temperature)
        warnings = [*([reach] if reach else []), *self.warnings(ensemble)]  # what weighs most comes first
        if other is not None:
            contradictions = disagreement(ensemble, other) if other.reliability != "poor" else []
            warnings = [*contradictions, *warnings, *other.warnings[:1]]  # the last: that frames are too few
            reliability = "poor" if contradictions else reliability
        if warning := distance_warning(distance):
            warnings.append(warning)
        return replace(ensemble, warnings=tuple(dict.fromkeys(warnings)), reliability=reliability)


def ensemble_at(
    trained: TrainedModel, pool: Pool, temperature: float, method: Method | None = None, seed: int = 0
) -> StructureEnsemble:
    """Return structures with weights at a temperature.

    Parameters
    ----------
    trained
        The model.
    pool
        All frames under it.
    temperature
        In the model's scale.
    method
        How to weight; default: reweighting where it leaves 300 effective samples, or as many as the simulated
        temperature with fewest has; conditional energies where it leaves a third of that or fewer; both in between;
        frames near the flow's samples where reweighting leaves fewer and conditional energies cannot be fitted, or
        farther beyond the simulated temperatures than they claim.
    seed
        Of the bootstrap and of the flow's samples.

    Raises
    ------
    ConfigError
        If the temperature is not positive, or the method needs energies or frames that there are not.
    """
    return Reweighter(trained, pool, seed).at(temperature, method)


def _description(q: float, by_forces: bool) -> str:
    """Name of weights with a share `q` of MBAR, for people."""
    if by_forces:
        return f"{_DESCRIPTIONS[1.0]}, corrected by forces"
    return _DESCRIPTIONS.get(q, f"frames by conditional energies, {100 * q:.0f} % by MBAR")


@torch.no_grad()
def _near_samples(
    trained: TrainedModel, pool: Pool, temperature: float, logs: Array, seed: int
) -> tuple[Array, Array]:
    """Weights of all frames by each member of the committee, and the distance of each sample to a frame."""
    model = trained.model
    z = model.density(temperature).sample(_SAMPLES, torch.Generator().manual_seed(seed)).double().numpy()
    near, share, distance = nearest_frames(z, pool.z, logs, _NEIGHBOURS)
    members = []
    for i in range(model.n_members):
        turns = slice(i, None, model.n_members)
        counts = np.bincount(near[turns].ravel(), share[turns].ravel(), len(pool.z))
        members.append(counts / counts.sum())
    return np.array(members), distance


def _unseen(ensemble: StructureEnsemble) -> list[str]:
    """Sentence on the states that next to nothing stands for, the largest first; none where there are none."""
    unseen: list[tuple[float, str]] = []
    for state in range(ensemble.n_states):
        members = ensemble.pool.states == state
        n, share = ensemble.n_effective_in(members), float(ensemble.weights[members].sum())
        if 0 < n < MIN_SEEN_SAMPLES and share > _PRESENT:
            unseen.append((share, f"{state} ({ensemble.fraction(members)})"))
    if not unseen:
        return []
    names = states_text([name for _, name in sorted(unseen, reverse=True)])
    return [f"fewer than {MIN_SEEN_SAMPLES:g} effective samples stand for {names}"]


def within_reach(trained: TrainedModel, temperature: float) -> bool:
    """Return whether frames reach temperatures on both sides, or this one was simulated."""
    ladder = [rung for rung, _ in trained.provenance.get("ladder") or []]
    reached = [*ladder, *trained.temperatures]
    if not trained.model.sees_temperature:
        reached = list(trained.temperatures)
    return min(reached) * (1 - 1e-6) <= temperature <= max(reached) * (1 + 1e-6)


def disagreement(first: StructureEnsemble, second: StructureEnsemble) -> list[str]:
    """Sentence on the states whose populations by two methods are further apart than their errors; else none."""
    remarks: list[tuple[float, str, str]] = []
    for state, (a, b) in enumerate(zip(first.populations(), second.populations(), strict=True)):
        if abs(a.value - b.value) > max(0.02, _DISAGREE * float(np.hypot(a.error, b.error))):
            text = f"state {state}: {_WORDS[first.method]} {a}, {_WORDS[second.method]} {b}"
            remarks.append((abs(a.value - b.value), text, f"state {state}"))
    return condensed((text, place) for _, text, place in sorted(remarks, reverse=True))
