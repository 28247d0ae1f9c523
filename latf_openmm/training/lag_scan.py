"""The states stage at several lag times: what each lag sees, and which one to train with.

A short lag is sensitive to fast recrossings, a long one blurs states that do not live that long and leaves
fewer independent pairs. The implied timescales of the states say where that begins: t_i = -lag / ln lambda_i
with lambda_i the eigenvalues of the transition matrix at that lag. They grow with the lag until the states
are metastable at it, and level off.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from latf_openmm.errors import DataError
from latf_openmm.frames.trajectory import FeatureTrajectory, check_same_features
from latf_openmm.model.latf import ModelSettings
from latf_openmm.progress import bar
from latf_openmm.reweighting.weights import training_weights
from latf_openmm.training.kept_lags import KeptLags, origin_of
from latf_openmm.training.run import prepare, seeded
from latf_openmm.training.settings import TrainingSettings
from latf_openmm.training.states import find_states, populations

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

_LAGS = 6
"""Number of lags in a default scan."""
_MAX_DEFAULT_LAG = 200
"""Longest lag of a default scan [frames]."""
_REACHED = 0.8
"""Part of the largest timescale that the recommended lag has to reach."""
_BLOCKS = 10
"""Blocks of frames for the bootstrap, at least."""
_RESAMPLES = 50
"""Resamples of the bootstrap."""


@dataclass(frozen=True)
class LagRow:
    """Result of the states stage at one lag.

    Attributes
    ----------
    lag
        Lag [frames].
    time
        The same as time [ps].
    n_states
        Metastable states.
    settled
        Whether they stopped changing before the refinements ran out.
    information
        Predictive information on held-out pairs (nats).
    timescales
        Implied timescales of the states, descending [frames], one less than there are states; of several
        temperatures the longest.
    error
        Standard error of the slowest timescale, by bootstrap over blocks of frames; 0 without one [frames].
    populations
        Weighted fraction of the frames in each state.
    """

    lag: int
    time: float
    n_states: int
    settled: bool
    information: float
    timescales: tuple[float, ...]
    error: float
    populations: tuple[float, ...]

    @property
    def metastable(self) -> bool:
        """Return whether there are two states at least, and the slowest exchange takes longer than the lag."""
        return bool(self.timescales) and self.timescales[0] > self.lag


@dataclass(frozen=True)
class LagScan:
    """The scan, by ascending lag, with the recommended lag [frames] and why."""

    rows: tuple[LagRow, ...]
    recommended: int
    reason: str


def scan_lags(
    trajectories: Sequence[FeatureTrajectory],
    model_settings: ModelSettings,
    settings: TrainingSettings,
    lags: Sequence[int],
    seed: int,
    progress: Progress | None = None,
    kept: Path | None = None,
) -> LagScan:
    """Find the states at each lag and recommend one; the same seed gives the same scan.

    Parameters
    ----------
    trajectories
        Training data; not changed.
    model_settings, settings
        Architecture and training; `settings.lag` does not matter.
    lags
        Lags to try [frames], in any order.
    seed
        Seeds every lag alike.
    progress
        Where to draw a progress bar.
    kept
        Folder for the lags that are done: those of the same data, settings and seed are not done again; None: none is
        kept. Whoever writes the result removes it.

    Raises
    ------
    DataError
        If a lag is impossible for the data, or the data cannot be used (see `fit`).
    """
    check_lags(trajectories, lags, "lags")
    # The states stage does not use the ladder of temperatures.
    settings = settings.model_copy(update={"energies": "ignore"})
    done = KeptLags(kept, "" if kept is None else origin_of(trajectories, model_settings, settings, seed))
    ascending, rows = sorted(set(lags)), []
    done.plan(ascending)
    with bar(progress, "  lag scan", len(ascending)) as advance:
        for lag in ascending:
            if (result := done.read(lag)) is not None:
                row = _row_of(result)
            else:
                row = _scan_one(trajectories, model_settings, settings, lag, seed)
                done.write(lag, asdict(row))
            log.info("lag %d: %d states, information %.3f", lag, row.n_states, row.information)
            advance(1, f"lag {lag}: {row.n_states} states")
            rows.append(row)
        recommended, reason = recommend(rows)
        advance(0, f"recommended: lag {recommended}")
    log.info("recommended lag: %d (%s)", recommended, reason)
    return LagScan(tuple(rows), recommended, reason)


def default_lags(trajectories: Sequence[FeatureTrajectory]) -> list[int]:
    """About six lags [frames], evenly in ln lag from 1 to a twentieth of the shortest trajectory, at most 200."""
    check_same_features(trajectories)
    longest = max(1, min(_MAX_DEFAULT_LAG, min(t.n_frames for t in trajectories) // 20))
    return sorted({round(lag) for lag in np.geomspace(1, longest, _LAGS)})


def check_lags(trajectories: Sequence[FeatureTrajectory], lags: Sequence[int], name: str) -> None:
    """Raise `DataError` when a lag is impossible for the data; `name` says where the lags came from."""
    check_same_features(trajectories)
    intervals = sorted({t.frame_interval for t in trajectories})
    if len(intervals) > 1:
        raise DataError(
            f"trajectories have frames every {intervals[0]:g} and every {intervals[-1]:g} ps; "
            "a lag in frames needs one frame interval"
        )
    n_frames = max(s.stop - s.start for t in trajectories for s in t.stretches)
    longest = n_frames // 5
    if not lags:
        raise DataError(f"{name}: there are none; expected one at least")
    for lag in lags:
        if not 1 <= lag <= longest:
            raise DataError(
                f"{name}: {lag} frames is too {'short' if lag < 1 else 'long'} for trajectories of "
                f"{n_frames} frames; expected 1 to {longest} (a fifth)"
            )


def recommend(rows: Sequence[LagRow]) -> tuple[int, str]:
    """Return the recommended lag [frames] and why.

    It is the shortest lag whose slowest implied timescale has reached 80 % of the largest of the scan: from
    there on the states are metastable. The largest of several noisy numbers is too large, so its standard
    error is taken off first. What cannot be trusted takes no part:

    * lags with fewer than two states have no timescale;
    * where the slowest timescale is not longer than the lag, nothing is remembered for one lag: the eigenvalue
      is mostly noise, and the timescale computed from it grows with the lag whatever the system does;
    * where the states had not settled, there are too many of them, and timescales of ever finer states are
      longer; such lags count only if all are like that;
    * timescales longer than all data together were cut there before (`implied_timescales`).

    If nothing is left, it is the shortest lag with two states; if there is none, the shortest of all; the
    reason says so.

    Parameters
    ----------
    rows
        By ascending lag.
    """
    several = [row for row in rows if row.n_states >= 2]
    if not several:
        return rows[0].lag, "the shortest lag: no lag gives two states"
    trusted = [row for row in several if row.metastable]
    if not trusted:
        return several[0].lag, "the shortest lag with two states: no state lives longer than its lag"
    kept = [row for row in trusted if row.settled] or trusted
    largest = max(kept, key=lambda row: row.timescales[0])
    enough = _REACHED * (largest.timescales[0] - largest.error)
    chosen = next(row for row in kept if row.timescales[0] >= enough)
    note = "" if len(kept) == len(trusted) else " with settled states"
    return chosen.lag, (
        f"the shortest lag{note} whose slowest timescale ({chosen.timescales[0]:.3g} frames) has reached "
        f"{_REACHED:.0%} of the largest ({largest.timescales[0]:.3g} ± {largest.error:.2g} frames "
        f"at lag {largest.lag}), within its error"
    )


def transition_counts(
    states: Sequence[NDArray[np.int64]], weights: Sequence[Array], lag: int, n_states: int
) -> Array:
    """Weighted transitions from each state to each other one lag later, shape (n_states, n_states).

    Parameters
    ----------
    states, weights
        State and weight of every frame, for each trajectory; a pair has the weight of its first frame, as in
        training, and never crosses trajectories.
    lag
        Lag [frames].
    n_states
        Number of states.
    """
    counts = np.zeros(n_states**2)
    for labels, weight in zip(states, weights, strict=True):
        if len(labels) > lag:
            pairs = labels[:-lag] * n_states + labels[lag:]
            counts += np.bincount(pairs, weight[:-lag], minlength=n_states**2)
    return counts.reshape(n_states, n_states)


def implied_timescales(counts: Array, lag: int, longest: float) -> tuple[float, ...]:
    """Implied timescales of the reversible transition matrix of `counts`, descending [frames].

    The counts C become (C + C^T) / 2, normalised by rows; the timescales are -lag / ln lambda_i of all its
    eigenvalues but the first. With a bias they are those of the biased dynamics: a measure to compare lags
    with, no rate to report.

    Parameters
    ----------
    counts
        Shape (n_states, n_states); of one temperature.
    lag
        Lag they were counted at [frames].
    longest
        Where timescales are cut: the data cannot tell of longer ones than all of it together [frames].
    """
    symmetric = (counts + counts.T) / 2
    # Similar to the row-normalised matrix, and symmetric, so that its eigenvalues are real.
    root = np.sqrt(np.maximum(symmetric.sum(axis=1), np.finfo(float).tiny))
    eigenvalues = np.linalg.eigvalsh(symmetric / np.outer(root, root))[:-1][::-1]
    within = np.clip(eigenvalues, 1e-12, np.exp(-lag / longest))
    return tuple((-lag / np.log(within)).tolist())


def longest_timescales(
    trajectories: Sequence[FeatureTrajectory],
    states: Sequence[NDArray[np.int64]],
    lag: int,
    n_states: int,
    rng: np.random.Generator,
) -> tuple[tuple[float, ...], float]:
    """Implied timescales at each temperature, of which the longest of each rank, descending [frames].

    Temperatures are not counted together: a walker never forgets its temperature, so a mixture has a
    timescale that grows with the lag without end, as soon as populations depend on temperature.

    Parameters
    ----------
    trajectories
        With temperatures and weights.
    states
        State of every frame, for each trajectory.
    lag
        Lag [frames].
    n_states
        Number of states.
    rng
        Draws the bootstrap samples.

    Returns
    -------
    timescales, error
        And the standard error of the slowest [frames].
    """
    weights = training_weights(trajectories)
    each, errors = [], []
    for temperature in sorted({t.temperature for t in trajectories}):
        indices = [i for i, t in enumerate(trajectories) if t.temperature == temperature]
        longest = sum(trajectories[i].n_frames for i in indices)
        parts = [(i, stretch) for i in indices for stretch in trajectories[i].stretches]
        blocks = _block_counts(
            [states[i][part] for i, part in parts], [weights[i][part] for i, part in parts], lag, n_states
        )
        each.append(implied_timescales(blocks.sum(axis=0), lag, longest))
        errors.append(_error_of_slowest(blocks, lag, longest, rng))
    timescales = tuple(max(rank) for rank in zip(*each, strict=True))
    return timescales, max(zip(each, errors, strict=True))[1]


def _block_counts(
    states: Sequence[NDArray[np.int64]], weights: Sequence[Array], lag: int, n_states: int
) -> Array:
    """Transition counts of at least `_BLOCKS` blocks of pairs, shape (n_blocks, n_states, n_states)."""
    parts = -(-_BLOCKS // len(states))
    counts = []
    for labels, weight in zip(states, weights, strict=True):
        edges = np.linspace(0, max(0, len(labels) - lag), parts + 1).astype(int)
        for start, end in pairwise(edges):
            # The pairs whose first frames are in the block.
            block = slice(start, end + lag)
            counts.append(transition_counts([labels[block]], [weight[block]], lag, n_states))
    return np.array(counts)


def _error_of_slowest(blocks: Array, lag: int, longest: float, rng: np.random.Generator) -> float:
    """Half the width of the central 68 % of bootstrap samples of the slowest timescale [frames]."""
    if blocks.shape[1] < 2:
        return 0.0
    slowest = []
    for _ in range(_RESAMPLES):
        drawn = blocks[rng.integers(len(blocks), size=len(blocks))].sum(axis=0)
        slowest.append(implied_timescales(drawn, lag, longest)[0])
    low, high = np.quantile(slowest, [0.16, 0.84])
    return float(high - low) / 2


def _row_of(result: dict[str, Any]) -> LagRow:
    """Return a row that was kept; JSON has lists where it has tuples."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in result.items()
    }
    return LagRow(**values)


def _scan_one(
    trajectories: Sequence[FeatureTrajectory],
    model_settings: ModelSettings,
    settings: TrainingSettings,
    lag: int,
    seed: int,
) -> LagRow:
    with seeded(seed, settings.threads):
        run = prepare(trajectories, model_settings, settings, lag, seed)
        outcome = find_states(run, seed, None)
    n_states = run.model.n_states
    ends = np.cumsum([t.n_frames for t in trajectories])
    states = np.split(outcome.labels.cpu().numpy(), ends[:-1])
    rng = np.random.default_rng(seed)
    timescales, error = longest_timescales(trajectories, states, lag, n_states, rng)
    return LagRow(
        lag,
        lag * trajectories[0].frame_interval,
        n_states,
        outcome.settled,
        outcome.information,
        timescales,
        error,
        tuple(populations(outcome.labels, run.weights, n_states).tolist()),
    )
