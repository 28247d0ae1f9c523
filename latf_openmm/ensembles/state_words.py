"""States in words: the ranges of a few descriptors or observables that tell each state from the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mdtraj
import numpy as np
from numpy.typing import NDArray

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.features.base import Features
from latf_openmm.features.readings import Array, Reading
from latf_openmm.frames.trajectory import featurise
from latf_openmm.periodic import frame_cells
from latf_openmm.reweighting.reliability import MIN_DESCRIBED_SAMPLES
from latf_openmm.reweighting.weights import systematic

_FRAMES = 400
"""Frames drawn of each state."""
_LEAST_FRAMES = 20
"""Frames of a state below which nothing else is said of it."""
_RANGE = (5.0, 95.0)
"""Percentiles of a state that its ranges reach from and to."""
_MOST = 3
"""Ranges given for a state."""
_LEAST = 0.2
"""Share of the frames of other states that a range has to leave out, to be worth a word."""
_ENOUGH = 0.95
"""Share of the frames in all ranges that are of the state, at which no further range is given."""
_ASKED, _ANGLE = 0.2, 0.15
"""Share of frames left out by which an observable that was asked for, or a torsion, may be behind other descriptors."""


@dataclass(frozen=True)
class StateWords:
    """Ranges that tell a state from the others.

    Attributes
    ----------
    ranges
        In words, the one that tells most first; empty where none does, or where the frames are too few.
    share
        Of the weight of all frames within the ranges, how much is of the state; nan without ranges.
    samples
        Effective samples of the state.
    """

    ranges: tuple[str, ...]
    share: float
    samples: float

    def __str__(self) -> str:
        few = (
            f"fewer than {MIN_DESCRIBED_SAMPLES:g} independent structures"
            if self.samples < MIN_DESCRIBED_SAMPLES
            else ""
        )
        if not self.ranges:
            return few or "no single descriptor tells it from the others"
        many = "this range" if len(self.ranges) == 1 else "these ranges"
        told = f"{', '.join(self.ranges)}; {self.share:.0%} of all structures in {many} are of this state"
        return f"{told}, by {few}" if few else told


@dataclass(frozen=True)
class _Sample:
    """Frames drawn of several states: their state, the weight of each, what was measured, how many differ."""

    states: NDArray[np.int64]
    weights: Array
    readings: list[Reading]
    preference: Array
    different: dict[int, int]


def describe_states(
    ensemble: StructureEnsemble,
    features: Features,
    topology: mdtraj.Topology,
    observables: Mapping[str, Array] | None = None,
    seed: int = 0,
) -> dict[int, StateWords]:
    """Say what tells each state from the others.

    Each range holds the middle 90 % of the state. The first is the one that leaves out most of the weight of the
    other states, the next leaves out most of what remains. Of each state 400 frames are drawn by their weights.

    Parameters
    ----------
    ensemble
        Frames with weights.
    features
        Descriptors that may be named.
    topology
        Of the structures.
    observables
        Values of every frame of the ensemble, by name; named before descriptors that tell as much.
    seed
        Of the draw.

    Returns
    -------
    dict
        For each state with frames; none where there is one state only.
    """
    shares = np.bincount(ensemble.pool.states, ensemble.weights, ensemble.n_states)
    samples = {
        state: ensemble.n_effective_in(ensemble.pool.states == state)
        for state in np.flatnonzero(shares).tolist()
    }
    if len(samples) < 2:
        return {}
    sample = _draw(ensemble, features, topology, observables or {}, list(samples), seed)
    return {state: _tell(sample, state, n) for state, n in samples.items()}


def _draw(
    ensemble: StructureEnsemble,
    features: Features,
    topology: mdtraj.Topology,
    observables: Mapping[str, Array],
    present: Sequence[int],
    seed: int,
) -> _Sample:
    """Draw frames of each state by their weights, and measure them."""
    rng, drawn, weights = np.random.default_rng(seed), [], []
    for state in present:
        inside = np.where(ensemble.pool.states == state, ensemble.weights, 0.0)
        drawn.append(systematic(inside / inside.sum(), _FRAMES, rng))
        weights.append(np.full(_FRAMES, inside.sum() / _FRAMES))
    frames = np.concatenate(drawn)
    each, back = np.unique(frames, return_inverse=True)
    structures = ensemble.pool.structures(each, topology)
    values = featurise(features, structures.xyz, frame_cells(structures))[back]
    asked = [Reading(name, values_of[frames]) for name, values_of in observables.items()]
    described = features.readings(values)
    preference = [_ASKED for _ in asked] + [_ANGLE if reading.period else 0.0 for reading in described]
    states = np.repeat(np.asarray(present, dtype=np.int64), _FRAMES)
    different = {state: len(np.unique(rows)) for state, rows in zip(present, drawn, strict=True)}
    return _Sample(states, np.concatenate(weights), [*asked, *described], np.array(preference), different)


def _tell(sample: _Sample, state: int, samples: float) -> StateWords:
    """Choose ranges one after the other."""
    inside = sample.states == state
    if sample.different[state] < _LEAST_FRAMES:
        return StateWords((), float("nan"), samples)
    within = np.ones(len(inside), dtype=bool)
    texts: list[str] = []
    ranges = [_range(reading, inside) for reading in sample.readings]
    share = float("nan")
    while len(texts) < _MOST and not share >= _ENOUGH:
        others = sample.weights * (within & ~inside)
        left_out = np.array([others[~rows].sum() for rows, _ in ranges]) / max(others.sum(), 1e-300)
        best = int((left_out + sample.preference).argmax())
        if left_out[best] < _LEAST:
            break
        rows, text = ranges[best]
        within &= rows
        texts.append(text)
        share = float(sample.weights[within & inside].sum() / sample.weights[within].sum())
    return StateWords(tuple(texts), share, samples)


def _range(reading: Reading, inside: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], str]:
    """Rows of all frames within the range of a state, and the range in words."""
    centre = reading.centre(inside)
    off = reading.around(centre)
    low, high = np.percentile(off[inside], _RANGE)
    return (off >= low) & (off <= high), reading.text(centre + low, centre + high)
