"""Crossings between metastable states, and what they say of the shares of the states in one run.

Frames that a walker spends in a state say little of its share: they say where the walker was put, until it has crossed
often. Crossings do say it. With t_a the (weighted) time in state a and c_ab the crossings from a to b, rates are
k_ab = c_ab / t_a, and detailed balance p_a k_ab = p_b k_ba gives the shares p wherever walkers started. The likelihood
of exponential waiting times, with the rates that are best for given shares, is

    ln L = - sum_{a<b} [ (c_ab + c_ba) ln(t_a / p_a + t_b / p_b) + c_ab ln p_a + c_ba ln p_b ],

as in reversible Markov state models (Wu, Paul, Wehmeyer and Noe, "Multiensemble Markov models", PNAS 2016, equation 1,
for rates instead of steps). It is concave in ln p; of two states its information is (c_ab + c_ba) / 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.estimators import statistical_inefficiency
from latf_openmm.reweighting.weights import members_of_runs
from latf_openmm.reweighting.windows import window_groups

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_UNSEEN = 0.5
"""Crossings each way that stand for those that were not seen: Jeffreys' prior of a rate."""


@dataclass(frozen=True)
class RunCrossings:
    """Crossings of the walkers of one run, and the time in each state.

    Attributes
    ----------
    temperature
        Of the run.
    frames
        All frames of the run, indices into those of all trajectories, shape (n,).
    states
        State of each, shape (n,).
    at, before, after
        Frame at which each crossing was complete (an index as in `frames`), the state left and that entered,
        shape (n_crossings,).
    scale
        Independent crossings for one counted between two states, at most 1, shape (n_states, n_states).
    joined
        Whether the shares are known without crossings: umbrella windows, joined by MBAR.
    """

    temperature: float
    frames: Indices
    states: Indices
    at: Indices
    before: Indices
    after: Indices
    scale: Array
    joined: bool

    def counted(self, multiplicity: NDArray[np.number] | None = None) -> Array:
        """Independent crossings from a to b, shape (n_states, n_states).

        Parameters
        ----------
        multiplicity
            How often each frame of all trajectories counts, as in a bootstrap sample; None: once.
        """
        n = len(self.scale)
        times = None if multiplicity is None else multiplicity[self.at].astype(np.float64)
        flat = np.bincount(self.before * n + self.after, times, n * n)
        return np.asarray(self.scale * flat.reshape(n, n), dtype=np.float64)

    def times(self, weights: Array) -> Array:
        """Weight of the frames in each state, from that of every frame of all trajectories; shape (n_states,)."""
        return np.asarray(np.bincount(self.states, weights[self.frames], len(self.scale)))


def find_crossings(
    trajectories: Sequence[FeatureTrajectory], states: Indices, n_states: int
) -> list[RunCrossings]:
    """Return the crossings of every run: walkers with one bias at one temperature.

    A crossing is complete when a walker is seen in a state for two frames in a row; what it does before, such as to
    recross a boundary, does not count. No more crossings are counted as independent than the correlation in time of the
    states says, 4 p (1 - p) N / g, so that recrossings have no weight.

    Parameters
    ----------
    states
        Of every frame, walkers one after the other, shape (n_frames,).
    """
    ends = np.cumsum([t.n_frames for t in trajectories])
    starts = ends - [t.n_frames for t in trajectories]
    windows = window_groups(trajectories)
    free = [m for m in members_of_runs(trajectories) if trajectories[m[0]].windows is None]
    runs = []
    for members in [*free, *windows]:
        parts, crossed = [], []
        for i in members:
            parts.append(np.arange(starts[i], ends[i]))
            for stretch in trajectories[i].stretches:
                rows = starts[i] + np.arange(stretch.start, stretch.stop)
                crossed.append(_crossings(rows, states[rows]))
        frames = np.concatenate(parts)
        at, before, after = (np.concatenate(column) for column in zip(*crossed, strict=True))
        joined = trajectories[members[0]].windows is not None
        scale = np.zeros((n_states, n_states))
        if not joined:
            crossings = np.bincount(np.concatenate([before, after]), minlength=n_states)
            part = _independent([states[part] for part in parts], n_states) / np.maximum(crossings, 1)
            scale = np.minimum(np.minimum(part[:, None], part), 1.0)
        temperature = trajectories[members[0]].temperature
        runs.append(RunCrossings(temperature, frames, states[frames], at, before, after, scale, joined))
    return runs


def _crossings(rows: Indices, states: Indices) -> tuple[Indices, Indices, Indices]:
    """Frames at which crossings of one stretch of frames are complete, states left and states entered."""
    settled = np.flatnonzero(states[1:] == states[:-1]) + 1
    order, at = states[settled], rows[settled]
    changes = np.flatnonzero(order[1:] != order[:-1]) + 1
    return at[changes], order[changes - 1], order[changes]


def _independent(walkers: Sequence[Indices], n_states: int) -> Array:
    """Crossings of each state, in and out, that its correlation in time leaves independent, shape (n_states,)."""
    n = sum(len(walker) for walker in walkers)
    most = np.zeros(n_states)
    for state in range(n_states):
        inside = [(walker == state).astype(np.float64)[:, None] for walker in walkers]
        share = sum(float(x.sum()) for x in inside) / n
        if 0 < share < 1:
            most[state] = 4 * share * (1 - share) * n / statistical_inefficiency(inside)
    return most


def known_shares(times: Array, weights: Array) -> Array:
    """Crossings that say as much of the shares of states as independent frames do, shape (n_states, n_states).

    n frames say n p_a p_b of the shares p of two states, crossings a quarter of their number.

    Parameters
    ----------
    times
        Weight of the frames in each state, shape (n_states,).
    weights
        Of the frames, shape (n_frames,).
    """
    shares = times / times.sum()
    n = weights.sum() ** 2 / (weights**2).sum()
    return np.asarray(2.0 * n * np.outer(shares, shares) * (1 - np.eye(len(shares))))


def log_likelihood(free_energies: Array, times: Array, counts: Array) -> tuple[float, Array, Array]:
    """Logarithm of the likelihood of the crossings of one run, its gradient and its second derivative.

    Parameters
    ----------
    free_energies
        f_a = -ln p_a + const, shape (n_states,).
    times
        Weighted time in each state, shape (n_states,); states without any take no part.
    counts
        Crossings from a to b, shape (n_states, n_states).
    """
    present = np.flatnonzero(times > 0)
    value, slope, curvature = 0.0, np.zeros(len(times)), np.zeros((len(times), len(times)))
    for i, a in enumerate(present):
        for b in present[i + 1 :]:
            forth, back = counts[a, b], counts[b, a]
            both = forth + back
            if both == 0:
                continue
            u, v = np.log(times[a]) + free_energies[a], np.log(times[b]) + free_energies[b]
            share = 1.0 / (1.0 + np.exp(np.clip(v - u, -700, 700)))
            value += forth * free_energies[a] + back * free_energies[b] - both * np.logaddexp(u, v)
            slope[a] += forth - both * share
            slope[b] += back - both * (1 - share)
            bend = both * share * (1 - share)
            curvature[[a, b], [a, b]] -= bend
            curvature[[a, b], [b, a]] += bend
    return value, slope, curvature


def with_unseen(counts: Array, rng: np.random.Generator | None = None) -> Array:
    """Return crossings with those that stand for unseen ones, shape (n_states, n_states).

    Half a crossing each way between any two states; or, for a bootstrap sample, one drawn with that mean, so that the
    spread of samples says how little none or few say.
    """
    n = len(counts)
    extra = np.full((n, n), _UNSEEN) if rng is None else rng.gamma(_UNSEEN, size=(n, n))
    share = 1.0 / max(1, n - 1)
    return np.asarray(counts + share * extra * (1 - np.eye(n)))
