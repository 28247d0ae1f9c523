"""Weights of frames at any temperature from conditional energies, where the energies of temperatures do not overlap.

MBAR needs overlap of the total energy, which a solvent destroys. The density of collective variables z needs less: with
b = 1 / k_B T and Z_b(c) the integral of exp(-b U) over a cell c of them,

    d ln Z_b(c) / db = -<U | c>_b ,

so every simulated temperature gives a value and a slope in b for each cell. Values are differences of ln Z between
neighbouring temperatures: those of metastable states (`latf_openmm.reweighting.connected`), and inside a state the
density ratio by a classifier of the frames by temperature (penalised logistic regression). Slopes are mean energies:
their departure from the straight line between the two values is estimated by penalised regression of the frames'
energies. Between two temperatures ln Z is the cubic with these values and slopes, beyond the last one it goes on
straight. Penalties shrink to the straight line where frames are few.

A frame n of temperature k in cell c then has the weight

    w_n a_k(b) Z_b(c) / sum_j a_j(b) N_j(c),

with N_j(c) the smoothed number of frames of temperature j in the cell, and shares a_k(b) that are linear between the
two temperatures around b: so what is inside a cell changes linearly in b as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from latf_openmm.reweighting.averaging import AveragedEnergies
from latf_openmm.reweighting.cells import Cells, StateCells
from latf_openmm.reweighting.paths import Order, StatePath, energy_path
from latf_openmm.reweighting.shrinkage import KnownNoise, certain_part, posterior_part, true_spread

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

LEAST = 10.0
"""Weight of the frames of a temperature in a state from which they are used."""
_LEAST_CELLS = 5
"""Cells with frames from which energies are regressed on more than their mean."""
_BENDING = 0.1
"""What departures may do half-way although they are not seen, over what the straight line does between temperatures."""
_ALONE = 3.0
"""Spread of the slopes of states of one temperature alone, over the largest of the others."""
_PENALTIES = np.geomspace(1e-3, 1e3, 7)
"""Inverse penalties of the classifier that are tried."""
_RIDGES = np.geomspace(1e-3, 1e6, 19)
"""Penalties of the regression that are tried, over the variance of the energy."""


@dataclass(frozen=True)
class ConditionalFrames:
    """Frames that are fitted to.

    Attributes
    ----------
    cells
        Of all frames.
    level, energy
        Index of the temperature and potential energy of each frame, shape (n_frames,).
    averaged
        What mean energies are taken of.
    betas
        1 / k_B T of the simulated temperatures, descending.
    """

    cells: Cells
    level: Indices
    energy: Array
    averaged: AveragedEnergies
    betas: Array


@dataclass(frozen=True)
class Penalties:
    """Chosen once and kept in bootstrap samples, by temperature and state.

    Attributes
    ----------
    classifiers, regressions
        Penalties.
    states
        Departures of mean energies, and the part of each that is more than noise.
    """

    classifiers: dict[tuple[int, int], float] = field(default_factory=dict)
    regressions: dict[tuple[int, int], float] = field(default_factory=dict)
    states: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)


class ConditionalFit:
    """ln Z_b of all cells, fitted to frames with weights.

    Parameters
    ----------
    frames
        Fitted to.
    weights
        Of the frames, 1/g without bias, shape (n_frames,).
    free_energies
        -ln Z of the states, shape (n_levels, n_states).
    penalties
        Of an earlier fit; None: chosen.
    folds
        Sets of frames that penalties of the classifier are scored on, left out one after the other; masks (n_frames,).

    Attributes
    ----------
    paths
        Of each state; None for one with hardly any frames.
    """

    def __init__(
        self,
        frames: ConditionalFrames,
        weights: Array,
        free_energies: Array,
        penalties: Penalties | None = None,
        folds: Sequence[NDArray[np.bool_]] = (),
    ) -> None:
        self.frames = frames
        self.penalties = Penalties() if penalties is None else penalties
        cells, n_levels = frames.cells, len(frames.betas)
        self.counts = cells.sums(frames.level, n_levels, weights)
        self._folds = [cells.sums(frames.level, n_levels, weights * fold) for fold in folds]
        self._inside = (cells.state == np.arange(len(cells.states))[:, None]).T
        self.state_counts = self.counts @ self._inside
        sums = self._take_energies(weights)
        common = self._common()
        self._means = sums / np.maximum(self.counts, 1e-300) - _over(common, self.state_means)
        self._relative_means = self.state_means - _over(common, self.state_means)
        relative = free_energies - _over(common, free_energies)
        drafts = [self._draft(state, relative) for state in range(len(cells.states))]
        departures = self._departures(drafts)
        self.paths = [
            None if draft is None else self._with_slopes(state, draft, departures)
            for state, draft in enumerate(drafts)
        ]

    def _take_energies(self, weights: Array) -> Array:
        """Means and variances of the energy in the states; return its sums over cells, (n_levels, n_cells).

        Means are of averaged energies, with their scatter as noise; variances are those of the energy itself.
        """
        frames, n_levels = self.frames, len(self.frames.betas)
        averaged, n = frames.averaged, np.maximum(self.state_counts, 1e-300)

        def sums(values: Array) -> Array:
            return frames.cells.sums(frames.level, n_levels, weights * values)

        def means(values: Array) -> Array:
            return np.asarray(sums(values) @ self._inside / n)

        self._frame_means = means(frames.energy)
        self.state_means = means(averaged.of_states)
        scatters = np.maximum(means(averaged.of_states**2) - self.state_means**2, 1e-12)
        self.state_variances = scatters + means(averaged.variances)
        self._scatters = self._shrunk(scatters)
        self._variances = self._shrunk(self.state_variances)
        in_cells = means(averaged.in_cells**2) - means(averaged.in_cells) ** 2
        self._scatters_in_cells = self._shrunk(np.maximum(in_cells, 1e-12))
        return sums(averaged.in_cells)

    def log_factors(self, beta: float, order: Order = "cubic") -> Array:
        """Logarithm of the factor on the weight of frames at each temperature in each cell, (n_levels, n_cells)."""
        table = np.full(self.counts.shape, -np.inf)
        for path, state in zip(self.paths, self.frames.cells.states, strict=True):
            if path is None:
                continue
            shares = path.shares(beta)
            used = shares > 0
            log_shares = np.log(shares[used])[:, None]
            mixture = np.logaddexp.reduce(
                log_shares + path.log_counts[used][:, None] + path.values[used], axis=0
            )
            table[np.ix_(path.levels[used], state.cells)] = log_shares + path.at(beta, order) - mixture
        return table

    def log_ratio(self, beta: float, other: float) -> Array:
        """Ln Z of the cells at one temperature less that at another, up to a constant, shape (n_cells,)."""
        ratio = np.zeros(self.counts.shape[1])
        for path, state in zip(self.paths, self.frames.cells.states, strict=True):
            if path is not None:
                ratio[state.cells] = path.at(beta) - path.at(other)
        return ratio

    def energies(self, beta: float) -> Array:
        """Energies of the frames as they would be at `beta`, shape (n_frames,).

        Departures from the mean of the frame's state and temperature, scaled, about the mean that `energy_path` gives.
        """
        frames, shape = self.frames, self.state_counts.shape
        shift, scale = np.zeros(shape), np.ones(shape)
        variances = self._variances
        for state, path in enumerate(self.paths):
            if path is None:
                continue
            k = path.levels
            mean, variance = energy_path(
                frames.betas[k], self.state_means[k, state], variances[k, state], beta
            )
            scale[k, state] = np.sqrt(variance / variances[k, state])
            shift[k, state] = mean - scale[k, state] * self._frame_means[k, state]
        state_of = frames.cells.state[frames.cells.of_frame]
        return np.asarray(shift[frames.level, state_of] + scale[frames.level, state_of] * frames.energy)

    def _common(self) -> Array:
        """Weights (n_levels, n_states) of the states that ln Z and energies are relative to; each row sums to one.

        Of those with frames at all temperatures, the same at each: what is common to all states, such as a solvent's
        energy, is no part of any path then. Of all states where none has.
        """
        least = np.where(self.state_counts < LEAST, 0.0, self.state_counts).min(axis=0)
        weights = np.tile(least, (len(self.state_counts), 1)) if least.any() else self.state_counts
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def _shrunk(self, variances: Array) -> Array:
        """Variances (n_levels, n_states), drawn to their mean at the temperature as far as they are noise."""
        n = np.maximum(self.state_counts, 1e-300)
        mean = _over(n / n.sum(axis=1, keepdims=True), variances)
        off = variances - mean
        return np.asarray(mean + certain_part(off, 2.0 * variances**2 / np.maximum(n, 2.0)) * off)

    def _draft(self, state: int, f: Array) -> StatePath | None:
        """The path of a state with the slopes of the straight lines."""
        levels = np.flatnonzero(self.state_counts[:, state] >= LEAST)
        cells = self.frames.cells.states[state]
        if len(levels) == 0:
            return None
        ratios = np.zeros((len(levels), len(cells.cells)))
        for i in range(1, len(levels)):
            ratios[i] = ratios[i - 1] + self._ratio(state, cells, int(levels[i - 1]), int(levels[i]))
        values = ratios - f[levels, state][:, None]
        betas = self.frames.betas[levels]
        log_counts = np.log(self.state_counts[levels, state]) + f[levels, state]
        return StatePath(levels, betas, values, _straight_slopes(betas, values), log_counts)

    def _ratio(self, state: int, cells: StateCells, k: int, j: int) -> Array:
        """Ln of the density ratio of temperature j over k at the cells of a state."""
        if cells.basis.shape[1] == 0:
            return np.zeros(len(cells.cells))
        rows = np.ix_(np.array([k, j]), cells.cells)
        if (k, state) not in self.penalties.classifiers:
            parts = [fold[rows] for fold in self._folds]
            self.penalties.classifiers[k, state] = _best_penalty(cells.basis, self.counts[rows], parts)
        pair = self.counts[rows]
        return _log_ratio(cells.basis, pair, self.penalties.classifiers[k, state])

    def _departures(self, drafts: Sequence[StatePath | None]) -> Array:
        """Mean energies of the states over the slopes of the straight lines, as far as they are not noise.

        Shape (n_levels, n_states). True departures are taken to be spread about zero as makes all of them likeliest,
        each times an eighth of the interval in b, which is what it does half-way; those of states of one temperature,
        which have no straight line, as makes these likeliest, and at least as the lines of the others. What is common
        to all states only shifts ln Z.
        """
        off, straight, n = (np.zeros(self.state_counts.shape) for _ in range(3))
        alone = np.zeros(off.shape, dtype=bool)
        for state, draft in enumerate(drafts):
            if draft is None:
                continue
            alone[draft.levels, state] = len(draft.levels) == 1
            for k, slopes in zip(draft.levels, draft.slopes, strict=True):
                counts = self.counts[k, self.frames.cells.states[state].cells]
                straight[k, state] = counts @ slopes / counts.sum()
                off[k, state] = -self._relative_means[k, state] - straight[k, state]
                n[k, state] = self.state_counts[k, state]
        weights = np.where(alone, 0.0, n) / np.maximum(
            np.where(alone, 0.0, n).sum(axis=1, keepdims=True), 1e-300
        )
        common = np.where(alone, 0.0, _over(weights, off))
        noise = np.sqrt(self._scatters / np.maximum(n, 1e-300))
        lines = np.abs(np.where(weights > 0, straight - _over(weights, straight), 0.0)).max(
            axis=1, keepdims=True
        )
        used = n > 0
        spread, most = self._spreads(off - common, noise, lines, used & ~alone)
        lone = np.maximum(
            _ALONE * lines,
            [
                [true_spread(row[seen], error[seen])]
                for row, error, seen in zip(off - common, noise, alone, strict=True)
            ],
        )
        spread, most = (np.where(alone, lone, x) for x in (spread, most))
        for k, state in zip(*np.nonzero(used), strict=True):
            part = posterior_part(spread[k, state], noise[k, state])
            first = (float(off[k, state] - common[k, state]), part)
            value, part = self.penalties.states.setdefault((int(k), int(state)), first)
            # What is shrunk away may be there: it has a part in the spread of bootstrap samples.
            wide = np.sqrt(posterior_part(most[k, state], noise[k, state]))
            change = off[k, state] - common[k, state] - value
            off[k, state] = common[k, state] + part * value + wide * change
        return off

    def _spreads(
        self, off: Array, noise: Array, lines: Array, used: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        """Spread of the true departures, likeliest and at most, at each temperature; shape (n_levels, 1)."""
        if len(self.frames.betas) == 1:
            return np.ones((1, 1)), np.ones((1, 1))
        h = np.abs(np.diff(self.frames.betas))
        width = 0.5 * (np.append(h[0], h) + np.append(h, h[-1]))[:, None] / 8.0
        likeliest = true_spread((off * width)[used], (noise * width)[used]) / width
        return likeliest, np.maximum(likeliest, _BENDING * 8.0 * lines)

    def _with_slopes(self, state: int, draft: StatePath, departures: Array) -> StatePath:
        """Return the path of a state with slopes from energies."""
        cells = self.frames.cells.states[state]
        slopes = draft.slopes.copy()
        for i, k in enumerate(draft.levels):
            slopes[i] += departures[k, state] + self._regressed(state, cells, int(k), draft.slopes[i])
        return StatePath(draft.levels, draft.betas, draft.values, slopes, draft.log_counts)

    def _regressed(self, state: int, cells: StateCells, k: int, straight: Array) -> Array:
        """Departure of -<U | c> from the slopes of the straight lines inside a state, about its mean."""
        n = self.counts[k, cells.cells]
        seen = n > 0
        if cells.basis.shape[1] == 0 or seen.sum() < _LEAST_CELLS:
            return np.zeros(len(cells.cells))
        y = -self._means[k, cells.cells] - straight
        y -= n @ y / n.sum()
        centred = cells.basis - (n @ cells.basis) / n.sum()
        noise = KnownNoise(centred[seen], y[seen], n[seen] / self._scatters_in_cells[k, state])
        if (k, state) not in self.penalties.regressions:
            self.penalties.regressions[k, state] = noise.best_penalty(_RIDGES)
        return np.asarray(centred @ noise.coefficients(self.penalties.regressions[k, state]))


def _over(weights: Array, values: Array) -> Array:
    """Weighted mean over the states, shape (n_levels, 1)."""
    return np.asarray((weights * values).sum(axis=1, keepdims=True))


def _straight_slopes(betas: Array, values: Array) -> Array:
    """Slopes of the straight lines between values (n, n_cells): at an inner one that of the parabola through three."""
    slopes = np.zeros_like(values)
    if len(betas) == 1:
        return slopes
    h = np.diff(betas)[:, None]
    secants = np.diff(values, axis=0) / h
    slopes[0], slopes[-1] = secants[0], secants[-1]
    slopes[1:-1] = (h[1:] * secants[:-1] + h[:-1] * secants[1:]) / (h[1:] + h[:-1])
    return slopes


def _log_ratio(basis: Array, pair: Array, penalty: float) -> Array:
    """Ln of the second density over the first at cells, from frames (2, n_cells) of both in each.

    The ratio inside the cells as a whole is one: that of their numbers is taken out.
    """
    from sklearn.linear_model import LogisticRegression  # half a second, and few commands need it

    x, y = np.concatenate([basis, basis]), np.repeat([0, 1], len(basis))
    weights = pair.ravel()
    used = weights > 0
    model = LogisticRegression(C=penalty, solver="newton-cholesky", max_iter=50)
    model.fit(x[used], y[used], weights[used])
    return np.asarray(model.decision_function(basis) - np.log(pair[1].sum() / pair[0].sum()))


def _best_penalty(basis: Array, pair: Array, folds: Sequence[Array]) -> float:
    """The inverse penalty that predicts left-out frames best; each fold has frames (2, n_cells)."""
    scores = np.zeros(len(_PENALTIES))
    for out in folds:
        rest = pair - out
        if (rest.sum(axis=1) < 1e-9).any() or (out.sum(axis=1) < 1e-9).any():
            continue
        share = np.log(out[1].sum() / out[0].sum())
        for i, penalty in enumerate(_PENALTIES):
            logit = share + _log_ratio(basis, rest, float(penalty))
            scores[i] -= (out[1] * np.logaddexp(0, -logit) + out[0] * np.logaddexp(0, logit)).sum()
    return float(_PENALTIES[scores.argmax()])
