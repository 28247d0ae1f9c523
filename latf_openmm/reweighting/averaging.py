"""Energies averaged around frames: what mean energies are taken of, where that is without bias.

With many solvent molecules the energy fluctuates faster and further than what collective variables z say of it. Its
mean over recordings around a frame (`simulation.energy_interval`) has less of this noise, and the same mean at given z
as long as z hardly moves in the window, which reaches half-way to the neighbouring frames. If z forgets exponentially,
with the correlation C from a frame to the next, what z says of the energy is recovered up to the factor

    1/F integral over |s| < F/2 of C^(|s|/F) ds = 2 (1 - C^(1/2)) / ln(1/C) ,

F the time between frames: 0.95 where C = 0.8. For shares of time that walkers stay in a state it is the same to first
order, 1 - (1 - C)/4.

So in a metastable state at a temperature, means over the state are of averaged energies where walkers stay in it from a
frame to the next in `_STAYS` of the cases; inside a state, where the slope of the next frame's z against z, which is C,
is as large in every range of z. And averaged energies
have to agree with those at the frames: the mean of their difference has to be zero in a state, and the same over
ranges of z (chi-squared), or one would have seen the error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtri

from latf_openmm.frames.trajectory import FeatureTrajectory

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_STAYS = 0.8
"""Correlation of z, and share of walkers that stay in a state, from a frame to the next: an error of a twentieth."""
_PARTS, _ERRORS = 4, 2.0
"""Ranges of each variable that its correlation is looked at in, beside all: of basins in one state, that of each; and
the errors of it that are granted."""
_LEAST = 100
"""Pairs of consecutive frames in a state that are needed to say so."""
_RANGES = 8
"""Ranges of each variable, with about the same number of frames, that differences of energies are compared in."""
_CHANCE = 1e-3
"""Chance that energies without bias are refused."""


@dataclass(frozen=True)
class AveragedEnergies:
    """Energies of frames that means are taken of: averaged around the frame, or at it where that is not without bias.

    Attributes
    ----------
    of_states, in_cells
        For means over states and for those at collective variables, shape (n_frames,) [kJ/mol].
    variances
        Of the recordings around each frame about `of_states`, shape (n_frames,); zero where it is the frame's energy.
    refused
        Why they are not averaged, by index of the temperature and state.
    """

    of_states: Array
    in_cells: Array
    variances: Array
    refused: dict[tuple[int, int], str]

    @classmethod
    def of_frames(cls, energy: Array) -> "AveragedEnergies":
        """Return the energies of the frames themselves."""
        return cls(energy, energy, np.zeros(len(energy)), {})

    def above(self, lowest: float) -> "AveragedEnergies":
        """Return the same relative to an energy."""
        return replace(self, of_states=self.of_states - lowest, in_cells=self.in_cells - lowest)


def averaged_energies(
    trajectories: Sequence[FeatureTrajectory], z: Array, states: Indices, n_states: int
) -> AveragedEnergies:
    """Return energies averaged as far as recordings around frames allow.

    Parameters
    ----------
    trajectories
        Frames; those without recordings have their energies.
    z, states
        Collective variables (n_frames, dim) and states (n_frames,) of all frames.
    n_states
        Number of states.
    """
    energy = np.concatenate([t.potential_energy for t in trajectories])
    if all(t.recorded is None for t in trajectories):
        return AveragedEnergies.of_frames(energy)
    means = np.concatenate(
        [t.potential_energy if t.recorded is None else t.recorded.means for t in trajectories]
    )
    inner = np.concatenate(
        [np.zeros(t.n_frames) if t.recorded is None else t.recorded.variances for t in trajectories]
    )
    result = AveragedEnergies(energy.copy(), energy.copy(), np.zeros(len(energy)), {})
    temperature = np.concatenate([np.full(t.n_frames, t.temperature) for t in trajectories])
    follows = _follows(trajectories)
    for level, simulated in enumerate(np.unique(temperature)):
        for state in range(n_states):
            rows = np.flatnonzero((temperature == simulated) & (states == state))
            if not len(rows):
                continue
            first = rows[follows[rows]]
            off = means[rows] - energy[rows]
            text = _leaves(states, first) or _shifted(off)
            if not text:
                result.of_states[rows], result.variances[rows] = means[rows], inner[rows]
                text = _forgets(z, first[states[first + 1] == state]) or _depends(off, z[rows])
            if text:
                result.refused[level, state] = text
            else:
                result.in_cells[rows] = means[rows]
    return result


def _follows(trajectories: Sequence[FeatureTrajectory]) -> NDArray[np.bool_]:
    """Return whether the next frame follows on each frame, shape (n_frames,)."""
    follows = np.ones(sum(t.n_frames for t in trajectories), dtype=bool)
    start = 0
    for t in trajectories:
        for stretch in t.stretches:
            follows[start + stretch.stop - 1] = False
        start += t.n_frames
    return follows


def _leaves(states: Indices, first: Indices) -> str:
    """Reason why frames that others follow on say that walkers do not stay in their state; empty where they do."""
    if len(first) < _LEAST:
        return f"{len(first)} frames of it that others follow on, {_LEAST} are needed"
    stay = float((states[first + 1] == states[first]).mean())
    return (
        ""
        if stay >= _STAYS
        else f"walkers stay in it from a frame to the next in {100 * stay:.0f} % of the cases"
    )


def _forgets(z: Array, first: Indices) -> str:
    """Reason why collective variables move too far from frames to those that follow; empty where they do not."""
    if len(first) < _LEAST:
        return f"{len(first)} pairs of frames in it, {_LEAST} are needed"
    for column in z.T:
        for part in (first, *np.array_split(first[np.argsort(column[first])], _PARTS)):
            now, later = column[part] - column[part].mean(), column[part + 1] - column[part + 1].mean()
            squares = max(float(now @ now), 1e-300)
            kept = float(now @ later) / squares
            error = float(np.std(later - kept * now)) / np.sqrt(squares)
            if kept + _ERRORS * error < _STAYS:
                return f"collective variables keep {kept:.2f} of a departure from a frame to the next"
    return ""


def _shifted(off: Array) -> str:
    """Reason why averaged less plain energies (n,) are not zero in the mean; empty where they are."""
    error = off.std() / np.sqrt(len(off))
    if abs(off.mean()) <= -ndtri(_CHANCE / 2) * error:
        return ""
    return f"averaged energies are {off.mean():.3g} ± {error:.2g} kJ/mol above those at the frames"


def _depends(off: Array, z: Array) -> str:
    """Reason why averaged less plain energies (n,) change with z (n, dim); empty where they do not."""
    off = off - off.mean()
    chances = []
    for column in z.T:
        edges = np.quantile(column, np.linspace(0, 1, _RANGES + 1)[1:-1])
        at = np.searchsorted(edges, column)
        counts, sums = np.bincount(at, minlength=_RANGES), np.bincount(at, off, _RANGES)
        squares = (sums**2 / np.maximum(counts, 1)).sum() / max(float(off.var()), 1e-300)
        chances.append(float(chdtrc(_RANGES - 1, squares)))
    if len(chances) * min(chances) >= _CHANCE:
        return ""
    return "averaged energies less those at the frames change with the collective variables"
