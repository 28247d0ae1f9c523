"""A test of whether frames inside metastable states are in equilibrium between temperatures, along z.

A region r of collective variables has Z_b(r), the integral of exp(-b U) over it, with b = 1 / k_B T and

    d ln Z_b(r) / db = -<U | r>_b .

So energies say how the density of a region changes from one simulated temperature to the next, relative to others of
the same state: by MBAR inside the region where energies overlap, else by the integral of its mean energies at both ends
(`latf_openmm.reweighting.connected`, without any crossing). What the frames hold is the ratio D of their numbers. The
residual, D less what energies say, is zero in every region but for errors, or walkers did not sample the state in
proportion at one of the two temperatures. Its error is that of bootstrap samples of blocks, and of what comes after
mean energies at both ends; its chance that of Student's t, times the number of residuals (Bonferroni). A region that
hardly has frames at one temperature is expected to have as many there as those at the other and their energies say.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, expit, ndtri, stdtr

from latf_openmm.reweighting.blocks import redrawn_freedom
from latf_openmm.reweighting.cells import clusters
from latf_openmm.reweighting.connected import LocalFrames, StateEnergies, energy_links
from latf_openmm.reweighting.shrinkage import certain_part
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_SAMPLES_A_REGION = 15.0
"""Effective samples at each temperature that a region of a state has on average, at least."""
_MOST = 8
"""Regions of a state, at most."""
_LEAST = 8.0
"""Effective samples of a region at both temperatures from which its residual is looked at."""
_CHANCE = 0.01
"""Chance of any residual in a run that is sampled in proportion, at which it is said."""
_RATIO = 1.2
"""Factor between densities that is said, at least."""
_SOLVED = 30
"""Bootstrap samples."""
_FRAMES = 5000
"""Frames of a state that free energies are solved from, at most."""


@dataclass(frozen=True)
class DensityStep:
    """Region of a state whose density changes most unlike energies say, from a temperature to the next.

    Attributes
    ----------
    temperatures, state, z
        Both, and the centre of the region.
    residual, error
        Logarithm of the ratio of its densities, second over first, less what energies say, and its error.
    chance
        Of as large a residual anywhere in a run that is sampled in proportion, at most.
    """

    temperatures: tuple[float, float]
    state: int
    z: tuple[float, ...]
    residual: float
    error: float
    chance: float

    @property
    def off(self) -> bool:
        """True where the state is not sampled in proportion inside."""
        return self.chance < _CHANCE and abs(self.residual) > np.log(_RATIO)

    def text(self, scale: TemperatureScale) -> str:
        """For people."""
        low, high = (scale.label(t) for t in self.temperatures)
        more, less = (high, low) if self.residual > 0 else (low, high)
        at = ", ".join(f"{value:.2g}" for value in self.z)
        return (
            f"state {self.state} between {low} and {high}: the density at z = ({at}), at {more} over that at {less}, "
            f"is {np.exp(abs(self.residual)):.2g} times what the energies say "
            f"({abs(self.residual) / self.error:.2g} standard errors): not sampled in proportion inside the state"
        )


@dataclass(frozen=True)
class _Regions:
    """Regions of one state.

    Attributes
    ----------
    state
        Which.
    rows, region
        Its frames, and the region of each.
    centres
        Shape (n_regions, dim).
    """

    state: int
    rows: Indices
    region: Indices
    centres: Array

    @property
    def n(self) -> int:
        """Number of regions."""
        return len(self.centres)

    def at(self, region: int) -> tuple[float, ...]:
        """Centre of a region."""
        return tuple(float(x) for x in self.centres[region])


def density_steps(weighting: TemperatureWeighting) -> tuple[DensityStep, ...]:
    """Return the largest residual of each state between neighbouring simulated temperatures, where there is one."""
    mbar, basins = weighting.mbar, weighting.basins
    if basins is None or len(mbar.simulated) == 1:
        return ()
    every = [
        test
        for state in range(mbar.n_states)
        for regions in _regions(weighting, state)
        for test in _tests(weighting, regions)
    ]
    largest: dict[tuple[int, tuple[float, float]], DensityStep] = {}
    for test in every:
        key = test.state, test.temperatures
        if key not in largest or test.chance < largest[key].chance:
            largest[key] = test
    return tuple(replace(test, chance=min(1.0, len(every) * test.chance)) for test in largest.values())


def _regions(weighting: TemperatureWeighting, state: int) -> Iterator[_Regions]:
    """Two regions of a state, and as many as there are frames for; none where there are not enough for two.

    Two have the smallest errors, many show what is in one place.
    """
    mbar, basins = weighting.mbar, weighting.basins
    assert basins is not None
    rows = np.flatnonzero(basins.states == state)
    counts = np.sort(mbar.counts[:, state])
    most = int(min(_MOST, counts[-2] / _SAMPLES_A_REGION))
    if most < 2:
        return
    z = basins.z[rows]
    for n in sorted({2, most}):
        centres, region = clusters(z / (z.std(axis=0) + 1e-12), n, weighting.seed)
        if len(centres) > 1:
            means = np.stack([np.bincount(region, x) for x in z.T], axis=1) / np.bincount(region)[:, None]
            yield _Regions(state, rows, region, means)


def _tests(weighting: TemperatureWeighting, regions: _Regions) -> Iterator[DensityStep]:
    """All residuals of the regions of a state, with the chance of each alone."""
    mbar, solver = weighting.mbar, _Solver(weighting, regions)
    weights = np.exp(mbar.log_w)
    enough = solver.effective(weights) >= _LEAST
    tested = enough[1:] & enough[:-1]
    tested &= tested.sum(axis=1, keepdims=True) > 1
    values, beyond = solver.residuals(weights, tested), solver.beyond_means(weights)
    samples = weighting.resamples[:_SOLVED]
    errors = np.std([solver.residuals(np.exp(s.log_w), tested) for s in samples], axis=0, ddof=1)
    for k in range(len(values)):
        pair = (float(mbar.simulated[k]), float(mbar.simulated[k + 1]))
        freedom = min(redrawn_freedom(weighting.blocks, mbar.level, (k, k + 1)), _SOLVED - 1)
        widened = errors[k] * np.sqrt((freedom + 1) / freedom)
        widened = np.hypot(widened, beyond[k])
        for region in np.flatnonzero(tested[k]).tolist():
            value, error = float(values[k, region]), max(float(widened[region]), 1e-12)
            chance = 2.0 * float(stdtr(freedom, -abs(value) / error))
            yield DensityStep(pair, regions.state, regions.at(region), value, error, chance)
        for level, other, sign in ((k, k + 1, -1.0), (k + 1, k, 1.0)):
            for region in np.flatnonzero(enough[other] & ~enough[level]).tolist():
                value, chance = solver.lacking(weights, region, level, other, enough[level] & enough[other])
                if value < 0:
                    error = -value / max(-float(ndtri(chance / 2)), 1e-3)
                    yield DensityStep(pair, regions.state, regions.at(region), sign * value, error, chance)


class _Solver:
    """Residuals of the regions of one state from frames with weights."""

    def __init__(self, weighting: TemperatureWeighting, regions: _Regions) -> None:
        mbar, rows = weighting.mbar, regions.rows
        self.regions, self.betas = regions, mbar.betas
        self.level, self.flat = mbar.level[rows], mbar.level[rows] * regions.n + regions.region
        self.shape = (len(mbar.betas), regions.n)
        averaged = mbar.averaged.above(mbar.lowest)
        self.energy, self.averaged = mbar.energy[rows], averaged.in_cells[rows]
        few = np.linspace(0, len(rows) - 1, min(len(rows), _FRAMES)).astype(np.int64)
        self.few = few
        region, level = regions.region[few], self.level[few]
        self.local = LocalFrames(self.energy[few], level, region, mbar.betas, regions.n)
        self.start: Array | None = None

    def effective(self, weights: Array) -> Array:
        """Effective samples at each temperature in each region."""
        given = weights[self.regions.rows]
        counts, squares = self._sums(given), self._sums(given**2)
        largest = np.zeros(self.shape)
        np.maximum.at(largest.reshape(-1), self.flat, given)
        return np.asarray(counts**2 / np.maximum(squares, 1e-300) * np.minimum(largest, 1.0))

    def energies(self, weights: Array) -> StateEnergies:
        """Energies in each region at each temperature."""
        given = weights[self.regions.rows]
        counts = self._sums(given)
        n = np.maximum(counts, 1e-300)
        means, instant = self._sums(given * self.averaged) / n, self._sums(given * self.energy) / n
        scatters = np.maximum(self._sums(given * self.averaged**2) / n - means**2, 0.0)
        variances = np.maximum(self._sums(given * self.energy**2) / n - instant**2, 0.0)
        return StateEnergies(counts, means, variances, scatters)

    def beyond_means(self, weights: Array) -> Array:
        """Errors of free energies from mean energies at both ends but for their noise; shape as of `residuals`."""
        energies = self.energies(weights)
        links = energy_links(energies, self.betas)
        if links is None:
            return np.zeros((self.shape[0] - 1, self.shape[1]))
        noise = energies.scatters / np.maximum(energies.counts, 1.0) * 0.25
        squares = links.errors**2 - np.diff(self.betas)[:, None] ** 2 * (noise[1:] + noise[:-1])
        return np.asarray(np.sqrt(np.clip(np.where(np.isfinite(links.errors), squares, 0.0), 0.0, None)))

    def residuals(self, weights: Array, tested: NDArray[np.bool_]) -> Array:
        """Residuals (n_temperatures - 1, n_regions) about their mean over those that are tested."""
        given, energies = weights[self.regions.rows], self.energies(weights)
        counts, n = energies.counts, np.maximum(energies.counts, 1e-300)
        links = energy_links(energies, self.betas)
        few = given[self.few] * (len(given) / len(self.few))
        f = self.local.solve(few, (), links, self.start)
        self.start = f if self.start is None else self.start
        ratios = np.diff(np.log(np.maximum(counts, 0.5)), axis=0) + np.diff(f, axis=0)
        part = np.where(tested, n[1:] * n[:-1] / (n[1:] + n[:-1]), 0.0)
        mean = (part * ratios).sum(axis=1, keepdims=True) / np.maximum(
            part.sum(axis=1, keepdims=True), 1e-300
        )
        return np.where(tested, ratios - mean, 0.0)

    def lacking(
        self, weights: Array, region: int, level: int, other: int, reference: NDArray[np.bool_]
    ) -> tuple[float, float]:
        """Residual of a region with hardly any frames at a temperature, against those with many, and its chance.

        Its share follows from that at the other temperature and its energies there: by their means, and by their
        variances as far as these differ by more than noise, half of which counts as an error. The chance is that of so
        few effective samples.
        """
        energies, h = self.energies(weights), float(self.betas[level] - self.betas[other])
        n, rest = energies.counts, np.flatnonzero(reference)
        if len(rest) == 0:
            return 0.0, 1.0
        part = n[other, rest] / n[other, rest].sum()
        n_other, n_rest = float(n[other, region]), float(n[other, rest].sum())
        mean = float(energies.means[other, region] - part @ energies.means[other, rest])
        variance, scatter = (float(part @ x[other, rest]) for x in (energies.variances, energies.scatters))
        bend = float(energies.variances[other, region]) - variance
        certain = float(
            certain_part(np.array(bend), np.array(2.0 * variance**2 * (1 / n_other + 1 / n_rest)))
        )
        second = 0.5 * h**2 * certain * bend
        expected = np.log(n_other / n_rest) - h * mean + second
        error = np.sqrt((1.0 + h**2 * scatter) * (1 / n_other + 1 / n_rest) + (0.5 * second) ** 2)
        seen, all_seen = float(n[level, region]), float(n[level, region] + n[level, rest].sum())
        shares = expit(expected + error * ndtri((np.arange(200) + 0.5) / 200))
        tries = int(all_seen)
        chance = 2.0 * float(bdtr(min(np.ceil(seen), tries), tries, shares).mean())
        return float(np.log((seen + 0.5) / (all_seen - seen + 0.5)) - expected), min(1.0, chance)

    def _sums(self, values: Array) -> Array:
        sums = np.bincount(self.flat, values, self.shape[0] * self.shape[1])
        return np.asarray(sums.reshape(self.shape), dtype=np.float64)
