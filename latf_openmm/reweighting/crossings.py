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
from latf_openmm.reweighting.inefficiency import frames_of
from latf_openmm.reweighting.weights import members_of_runs
from latf_openmm.reweighting.windows import window_groups

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_UNSEEN = 0.5
"""Crossings each way that stand for those that were not seen: Jeffreys' prior of a rate."""


@dataclass(frozen=True)
class Events:
    """Changes of state.

    Attributes
    ----------
    at, before, after
        Frame at which the state was entered (an index among all frames), the state left and that entered, shape
        (n_events,).
    scale
        Independent crossings for one of them, shape (n_states, n_states).
    """

    at: Indices
    before: Indices
    after: Indices
    scale: Array

    def among(self, frames: Indices) -> "Events":
        """Events at some of the frames; as many of each are independent."""
        chosen = np.isin(self.at, frames)
        return Events(self.at[chosen], self.before[chosen], self.after[chosen], self.scale)

    def counted(self, multiplicity: NDArray[np.number] | None) -> Array:
        """Events from a to b, shape (n_states, n_states), each as often as its frame is counted; None: once."""
        n = len(self.scale)
        times = None if multiplicity is None else multiplicity[self.at].astype(np.float64)
        flat = np.bincount(self.before * n + self.after, times, n * n)
        return np.asarray(flat.reshape(n, n), dtype=np.float64)


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
    settled, passing
        Crossings after which a walker stayed, and all of them.
    joined
        Whether the shares are known without crossings: umbrella windows, joined by MBAR.
    """

    temperature: float
    frames: Indices
    states: Indices
    settled: Events
    passing: Events
    joined: bool

    def counted(self, multiplicity: NDArray[np.number] | None = None) -> Array:
        """Independent crossings from a to b, shape (n_states, n_states).

        Parameters
        ----------
        multiplicity
            How often each frame of all trajectories counts, as in a bootstrap sample; None: once.
        """
        settled = self.settled.counted(multiplicity)
        others = np.maximum(self.passing.counted(multiplicity) - settled, 0.0)
        return np.asarray(self.settled.scale * settled + self.passing.scale * others)

    def times(self, weights: Array) -> Array:
        """Weight of the frames in each state, from that of every frame of all trajectories; shape (n_states,)."""
        return np.asarray(np.bincount(self.states, weights[self.frames], len(self.settled.scale)))


def find_crossings(
    trajectories: Sequence[FeatureTrajectory], states: Indices, n_states: int, settle: int = 2
) -> list[RunCrossings]:
    """Return the crossings of every run: walkers with one bias at one temperature.

    A crossing is settled when a walker is seen in a state for `settle` frames in a row. The correlation in time of
    state a, which has the share p of N frames, leaves 4 p (1 - p) N / g crossings independent; one for each walker of
    these says where it was put and not that it crossed. Of crossings that did not settle as many count as are left:
    many where frames are sparse, so that a visit is one frame, and none where a walker only recrosses a boundary.

    Parameters
    ----------
    states
        Of every frame, walkers one after the other, shape (n_frames,).
    settle
        Frames; the lag time that the states were made with, which is when they are left for good.

    Notes
    -----
    Where walkers move among temperatures, each is followed through all of them, and a crossing belongs to the
    temperature at which the state was entered. As many go one way as the other at every temperature, so that rates
    there say the shares there; that a move brings a walker in another state to a temperature is no crossing.
    """
    ranges = frames_of(trajectories)
    windows = window_groups(trajectories)
    free = [m for m in members_of_runs(trajectories) if trajectories[m[0]].windows is None]
    moved = {
        stage: _events(stretches, states, n_states, settle)
        for stage, stretches in _walks(trajectories, ranges).items()
    }
    runs = []
    for members in [*free, *windows]:
        first = trajectories[members[0]]
        frames = np.concatenate([np.arange(ranges[i].start, ranges[i].stop) for i in members])
        if first.paths is not None:
            settled, passing = moved[first.paths.stage]
            events = settled.among(frames), passing.among(frames)
        else:
            stretches = [
                ranges[i].start + np.arange(stretch.start, stretch.stop)
                for i in members
                for stretch in trajectories[i].stretches
            ]
            events = _events(stretches, states, n_states, settle)
        runs.append(
            RunCrossings(first.temperature, frames, states[frames], *events, first.windows is not None)
        )
    return runs


def _walks(trajectories: Sequence[FeatureTrajectory], ranges: Sequence[slice]) -> dict[str, list[Indices]]:
    """Frames that follow on each other of walkers that move among temperatures, by the name of their simulation."""
    parts: dict[str, list[tuple[Indices, Indices, Indices]]] = {}
    for trajectory, span in zip(trajectories, ranges, strict=True):
        if (paths := trajectory.paths) is not None:
            part = np.arange(span.start, span.stop), paths.walkers, paths.frames
            parts.setdefault(paths.stage, []).append(part)
    walks = {}
    for stage, every in parts.items():
        rows, walkers, frames = (np.concatenate(column) for column in zip(*every, strict=True))
        order = np.lexsort((frames, walkers))
        rows, walkers, frames = rows[order], walkers[order], frames[order]
        breaks = np.flatnonzero((np.diff(walkers) != 0) | (np.diff(frames) != 1)) + 1
        walks[stage] = np.split(rows, breaks)
    return walks


def _events(
    stretches: Sequence[Indices], states: Indices, n_states: int, settle: int
) -> tuple[Events, Events]:
    """Settled crossings and all, with how many of each are independent."""
    parts = [(_changes(rows, states[rows], settle), _changes(rows, states[rows], 1)) for rows in stretches]
    settled, passing = (
        [np.concatenate(column) for column in zip(*kind, strict=True)] for kind in zip(*parts, strict=True)
    )
    counts = [np.bincount(np.concatenate(kind[1:]), minlength=n_states) for kind in (settled, passing)]
    most = _independent([states[rows] for rows in stretches], n_states)
    others = np.maximum(counts[1] - counts[0], 0)
    wanted = np.minimum(np.maximum(counts[0], np.minimum(counts[1], most - len(stretches))), most)
    scales = [
        np.minimum(wanted / np.maximum(counts[0], 1e-12), 1.0),
        np.clip((wanted - counts[0]) / np.maximum(others, 1e-12), 0.0, 1.0),
    ]
    first, second = (np.minimum(scale[:, None], scale) for scale in scales)
    return Events(settled[0], settled[1], settled[2], first), Events(
        passing[0], passing[1], passing[2], second
    )


def _changes(rows: Indices, states: Indices, settle: int) -> tuple[Indices, Indices, Indices]:
    """Frames of one stretch at which a state was entered for good, states left and states entered."""
    places = np.arange(len(states))
    entered = np.maximum.accumulate(np.where(np.append(True, states[1:] != states[:-1]), places, 0))
    stayed = places - entered >= settle - 1
    states, rows = states[stayed], rows[entered[stayed]]
    changes = np.flatnonzero(states[1:] != states[:-1]) + 1
    return rows[changes], states[changes - 1], states[changes]


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


def independent_samples(times: Array, counts: Array) -> Array:
    """Frames that say as much of the shares of states as crossings do, each in its state; shape (n_states,).

    They have the shares of the time, which says where walkers were put until they have crossed often: as many as
    `known_shares` has crossings, for the state that was crossed into and out of least.

    Parameters
    ----------
    times
        Weighted time in each state, shape (n_states,).
    counts
        Crossings from a to b, shape (n_states, n_states).
    """
    present = times > 0
    shares = times / times.sum()
    rest = 4 * shares * (1 - shares)
    if present.sum() < 2:
        return np.zeros_like(times)
    crossed = counts[np.ix_(present, present)]
    n = (crossed.sum(axis=0) + crossed.sum(axis=1)) / rest[present]
    return np.asarray(n.min() * shares)


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


def with_unseen(counts: Array, part: float = 1.0, rng: np.random.Generator | None = None) -> Array:
    """Return crossings with those that stand for unseen ones, shape (n_states, n_states).

    Half a crossing out of each state, and into it, in all runs together; or, for a bootstrap sample, one drawn with
    that mean, so that the spread of samples says how little none or few say.

    Parameters
    ----------
    counts
        Crossings of one run from a to b, shape (n_states, n_states).
    part
        Of the unseen crossings that this run has. Were it 1 for all, many short runs in which nothing crossed would say
        together that the states have the shares of their frames.
    rng
        Draws for a bootstrap sample.
    """
    n = len(counts)
    extra = np.full((n, n), _UNSEEN) if rng is None else rng.gamma(_UNSEEN, size=(n, n))
    share = part / max(1, n - 1)
    return np.asarray(counts + share * extra * (1 - np.eye(n)))
