"""Weights of all frames at any temperature: MBAR where energies overlap, conditional energies where not."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.averaging import AveragedEnergies, averaged_energies
from latf_openmm.reweighting.blocks import FrameBlocks, bootstrap_widening
from latf_openmm.reweighting.cells import make_cells
from latf_openmm.reweighting.conditional import LEAST, ConditionalFit, ConditionalFrames
from latf_openmm.reweighting.connected import OVERLAP, bhattacharyya
from latf_openmm.reweighting.identities import Identities, Slopes, corrected
from latf_openmm.reweighting.inefficiency import local_inefficiencies, run_inefficiencies
from latf_openmm.reweighting.paths import Order
from latf_openmm.reweighting.reliability import MBAR_SAMPLES
from latf_openmm.reweighting.replicates import Replicates
from latf_openmm.reweighting.temperatures import Basins, Resample, Reweighting
from latf_openmm.reweighting.weights import normalised_weights
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]

_PART = 3.0
"""Factor below `MBAR_SAMPLES` at which MBAR has no part any more."""
_MAX_FACTOR = 1e30
"""Factor on the weight of a frame in a bootstrap sample, at most: single precision ends at 3e38."""
_DRAWS = 60
"""Bootstrap samples."""
_BLOCKS = 20
"""Blocks of each run and temperature that are redrawn; fewer where frames are correlated."""
_FOLDS = 5
"""Parts of the blocks that penalties are scored on."""
_MIN_FRAMES = 200
"""Frames from which conditional energies are fitted."""
_STRETCH = 0.5
"""Distance in 1/kT beyond the simulated temperatures, over their own, that conditional energies claim, at most."""
_LEAST_OVERLAP = 0.1
"""Overlap (Bhattacharyya's) of collective variables of neighbouring temperatures below which nothing is claimed."""
_HIGHEST = 60.0
"""Logarithm of the largest factor of a bootstrap sample on a weight, over the median one."""
_ORDERS = 0.5
"""Part of the difference between the straight path and the cubic that is taken for a standard error."""


@dataclass(frozen=True)
class _Sample:
    """A bootstrap sample: how often each frame counts (float32, n_frames), its conditional fit."""

    times: NDArray[np.float32]
    fit: ConditionalFit


class TemperatureWeighting:
    """Weights of all frames at any temperature, and in bootstrap samples.

    MBAR has the share q, conditional energies the rest: q is one where MBAR leaves `enough` effective samples, zero
    where it leaves a third of them, and linear in the logarithm of their number in between, so that nothing jumps.

    Parameters
    ----------
    trajectories
        Frames with known potential energies.
    basins
        Collective variables and states of all frames; None: MBAR alone, every temperature in equilibrium, every frame
        by itself.
    seed
        Of the bootstrap, whose samples are the same at every temperature.
    slopes
        Slopes of slow variables at all frames, by which forces correct the weights of MBAR where bootstrap samples then
        differ less (`latf_openmm.reweighting.identities`); None: no forces.

    Attributes
    ----------
    scale
        Of the temperatures.
    mbar
        Weights by MBAR, without forces.
    inefficiency
        Statistical inefficiency of each frame's run, of the slowest variable, shape (n_frames,).
    enough
        Number of effective samples from which MBAR alone is used.
    """

    def __init__(
        self,
        trajectories: Sequence[FeatureTrajectory],
        basins: Basins | None = None,
        seed: int = 0,
        slopes: Slopes | None = None,
    ) -> None:
        self.basins, self.seed, self.scale = basins, seed, trajectories[0].scale
        self._identities = None if slopes is None else Identities.about_frames(slopes, seed)
        n = sum(t.n_frames for t in trajectories)
        self.inefficiency = local = np.ones(n)
        averaged: AveragedEnergies | None = None
        if basins is not None:
            self.inefficiency = run_inefficiencies(trajectories, basins.z)
            averaged = averaged_energies(trajectories, basins.z, basins.states, basins.n_states)
            local = local_inefficiencies(
                trajectories, basins.z, basins.states, basins.n_states, averaged.of_states
            )
        self.mbar = Reweighting(trajectories, local, basins, averaged)
        self.blocks = FrameBlocks(trajectories, _BLOCKS, self.inefficiency)
        fewest = min(self.reach(float(t)) for t in self.mbar.simulated)
        self.enough = min(MBAR_SAMPLES, fewest)

    @property
    def widening(self) -> float:
        """Factor on standard deviations over the bootstrap samples that makes them errors."""
        return bootstrap_widening(self.blocks.groups)

    def not_averaged(self, scale: TemperatureScale) -> list[str]:
        """Sentence for people about energies that were recorded around frames in vain; empty where none were."""
        refused = self.mbar.averaged.refused
        if not refused:
            return []
        (level, state), reason = next(iter(refused.items()))
        label = scale.label(float(self.mbar.simulated[level]))
        return [
            f"energies recorded between frames have no part along z in {len(refused)} of "
            f"{int((self.mbar.counts > 0).sum())} states at simulated temperatures, such as state {state} at {label}: "
            f"{reason}; where that is for frames too far apart, lower simulation.frame_interval"
        ]

    @cached_property
    def conditional_possible(self) -> bool:
        """True where conditional energies can be fitted."""
        return not self.lacking_for_conditional

    @property
    def lacking_for_conditional(self) -> str:
        """Words on what conditional energies need and lack; empty where they can be fitted."""
        mbar = self.mbar
        if self.basins is None:
            return "collective variables of the frames"
        if len(mbar.simulated) == 1:
            return f"two simulated temperatures, there is {self.scale.label(float(mbar.simulated[0]))} alone"
        if len(mbar.energy) < _MIN_FRAMES:
            return f"{_MIN_FRAMES} frames with energies, there are {len(mbar.energy)}"
        most = mbar.counts.max(axis=1)
        if (most >= LEAST).all():
            return ""
        few = self.scale.label(float(mbar.simulated[most.argmin()]))
        return f"{LEAST:g} frames of a state at each temperature, undone biases counted; {few} has {most.min():.2g}"

    def n_effective(self, weights: Array) -> float:
        """Number of effective samples of weights that sum to one, with correlation in time."""
        return float(1.0 / (self.inefficiency * weights**2).sum())

    def mbar_weights(self, temperature: float) -> Array:
        """Weights of all frames by MBAR, which sum to one."""
        return normalised_weights(self.mbar.log_weights(temperature))

    def reach(self, temperature: float) -> float:
        """Number of effective samples that MBAR leaves at a temperature."""
        return self.n_effective(self.mbar_weights(temperature))

    def sample_size(self, temperature: float) -> float:
        """Kish's effective sample size at a temperature; by MBAR alone where conditional energies claim nothing."""
        q = self.mbar_share(temperature) if self.claims(temperature) else 1.0
        return float(1.0 / (self._with_share(temperature, q) ** 2).sum())

    def mbar_share(self, temperature: float) -> float:
        """Return the share q of MBAR at a temperature."""
        if not self.conditional_possible:
            return 1.0
        above = np.log(_PART * max(self.reach(temperature), 1e-300) / self.enough) / np.log(_PART)
        return float(np.clip(above, 0.0, 1.0)) * self._seen_part(temperature)

    def _seen_part(self, temperature: float) -> float:
        """One, but less where a state lacks frames at a neighbouring simulated temperature: the overlap with the next.

        Without overlap MBAR knows nothing of such a state there, not even at the temperature itself.
        """
        counts, part = self.mbar.counts, 1.0
        visited = counts.max(axis=0) > 0
        for k in self._gaps(temperature):
            if (counts[k : k + 2, visited] == 0).any():
                part = min(part, self._overlaps[k] / OVERLAP)
        return part

    def _gaps(self, temperature: float) -> list[int]:
        """Intervals from k to k + 1 of simulated temperatures that one is in; beyond all of them the last one."""
        simulated, last = self.mbar.simulated, len(self.mbar.simulated) - 2
        return [
            k
            for k in range(last + 1)
            if (k == 0 or simulated[k] <= temperature) and (k == last or temperature <= simulated[k + 1])
        ]

    @cached_property
    def _overlaps(self) -> list[float]:
        """Overlap (Bhattacharyya's) of the energies of neighbouring simulated temperatures."""
        energies = self.mbar.energies_of_states()
        counts, means, variances = energies.counts, energies.means, energies.variances
        overlaps = []
        for k in range(len(counts) - 1):
            both = np.minimum(counts[k], counts[k + 1])
            pairs = bhattacharyya(means[k : k + 2], variances[k : k + 2])[0]
            overlaps.append(float(both @ pairs / both.sum()) if both.any() else 0.0)
        return overlaps

    def claims(self, temperature: float) -> bool:
        """Return whether a temperature is near enough to the simulated ones for conditional energies."""
        betas, beta = self.mbar.betas, self._beta(temperature)
        reach = _STRETCH * (betas[0] - betas[-1])
        return bool(betas[-1] - reach <= beta <= betas[0] + reach)

    def conditional_weights(self, temperature: float) -> Array:
        """Weights of all frames by conditional energies, which sum to one."""
        return self._conditional_weights(temperature, "cubic")

    def straight_weights(self, temperature: float) -> Array:
        """Conditional weights on the straight path between temperatures: without the slopes that energies give."""
        return self._conditional_weights(temperature, "linear")

    def weights(self, temperature: float) -> Array:
        """Weights of all frames at a temperature, which sum to one."""
        return self._with_share(temperature, self.mbar_share(temperature))

    def _with_share(self, temperature: float, q: float) -> Array:
        """Weights of which MBAR has the share `q`."""
        if q == 1.0:
            return self.mbar_weights(temperature)
        conditional = self.conditional_weights(temperature)
        return conditional if q == 0.0 else q * self.mbar_weights(temperature) + (1 - q) * conditional

    def empty_gaps(self, temperature: float) -> list[tuple[float, float, float]]:
        """Return the neighbouring simulated temperatures around one whose collective variables hardly overlap.

        Both temperatures, and the sum over cells of the geometric mean of their densities, below 0.1.
        """
        counts, simulated = self.conditional.counts, self.mbar.simulated
        gaps = []
        for k in self._gaps(temperature):
            low, high = (row / row.sum() for row in counts[k : k + 2])
            overlap = float(np.sqrt(low * high).sum())
            if overlap < _LEAST_OVERLAP:
                gaps.append((float(simulated[k]), float(simulated[k + 1]), overlap))
        return gaps

    def latent_share(self, start: float, target: float) -> float:
        """Share of frames at one temperature that count at another, by their collective variables alone; from 0 to 1.

        1 / sum_c p_target(c)^2 / p_start(c) over cells c; zero where conditional energies claim nothing.
        """
        if not (self.claims(start) and self.claims(target)):
            return 0.0
        fit = self.conditional
        cells = fit.frames.cells
        last = np.bincount(cells.of_frame, self.conditional_weights(target), cells.n)
        seen = last > 0
        last, ratio = last[seen], fit.log_ratio(self._beta(start), self._beta(target))[seen]
        first = last * np.exp(
            ratio - ratio.max()
        )  # smooth: a cell may have no frames of the first temperature
        return float(1.0 / (last**2 / np.maximum(first / first.sum(), 1e-300)).sum())

    def replicates(self, temperature: float, q: float) -> Replicates:
        """Weights in bootstrap samples with a share `q` of MBAR."""
        if q == 1.0:
            return self._with_forces(Replicates(self.factors, self.mbar_weights(temperature)), temperature)
        weights = self.conditional_weights(temperature)
        conditional = Replicates(self._conditional_factors(temperature), weights)
        if q == 0.0:
            return conditional
        return Replicates(self.factors, self.mbar_weights(temperature)).blend(conditional, q)

    def _with_forces(self, replicates: Replicates, temperature: float) -> Replicates:
        """Weights as forces correct them, if they do; by the noise of the mean energy and of shares of states."""
        if self._identities is None:
            return replicates
        mbar = self.mbar
        shares = mbar.states[:, None] == np.arange(mbar.n_states)
        columns = np.column_stack([mbar.energy, shares[:, np.flatnonzero(shares.any(axis=0))[1:]]])
        return corrected(self._identities, replicates, mbar.boltzmann * temperature, columns)

    def corrects(self, replicates: Replicates) -> bool:
        """Return whether forces have corrected weights that `replicates` returned."""
        return self._identities is not None and replicates.factors is not self.factors

    def energies(self, temperature: float, q: float) -> Array:
        """Energies of all frames as the ensemble at a temperature has them, shape (n_frames,) [kJ/mol].

        Their own by MBAR; of conditional energies such that mean and variance go over to those of the neighbouring
        temperatures. Of both, each counts as much as its part of the frame's weight.
        """
        lowest, energies = self.mbar.lowest, self.mbar.energy
        if q == 1.0:
            return np.asarray(energies + lowest)
        shifted = self.conditional.energies(self._beta(temperature))
        if q == 0.0:
            return np.asarray(shifted + lowest)
        weights = q * self.mbar_weights(temperature), (1 - q) * self.conditional_weights(temperature)
        return np.asarray(_of_both((energies, shifted), weights, self.mbar.states) + lowest)

    @cached_property
    def conditional(self) -> ConditionalFit:
        """Conditional energies of all frames."""
        assert self.basins is not None
        cells = make_cells(self.basins.z, self.basins.states, self.basins.n_states, self.seed)
        averaged = self.mbar.averaged.above(self.mbar.lowest)
        frames = ConditionalFrames(cells, self.mbar.level, self.mbar.energy, averaged, self.mbar.betas)
        part = np.repeat(np.arange(len(self.blocks)) % _FOLDS, self.blocks.lengths)
        folds = [part == fold for fold in range(_FOLDS)]
        return ConditionalFit(frames, np.exp(self.mbar.log_w), self.mbar.free_energies, None, folds)

    @cached_property
    def factors(self) -> NDArray[np.float32]:
        """Factors on MBAR's weights of all frames in bootstrap samples, at any temperature; (n_samples, n_frames)."""
        factors = np.empty((_DRAWS, len(self.mbar.energy)), np.float32)
        for row, sample in zip(factors, self.resamples, strict=True):
            # Frames that only others in the sample made likely, as ones far from equilibrium, go to infinity.
            row[:] = np.minimum(self.mbar.factors(sample), _MAX_FACTOR)
        return factors

    @cached_property
    def resamples(self) -> list[Resample]:
        """Bootstrap samples of blocks of frames, the same at every temperature."""
        rng = np.random.default_rng([self.seed, 1])
        return [self.mbar.resample(self.blocks.bootstrap(rng), rng) for _ in range(_DRAWS)]

    @cached_property
    def _fits(self) -> list[_Sample]:
        """Conditional energies of the bootstrap samples."""
        base = self.conditional
        samples = []
        for sample in self.resamples:
            fit = ConditionalFit(base.frames, np.exp(sample.log_w), sample.free_energies, base.penalties)
            samples.append(_Sample(np.exp(sample.log_w - self.mbar.log_w).astype(np.float32), fit))
        return samples

    def _conditional_factors(self, temperature: float) -> NDArray[np.float32]:
        """Factors on the conditional weights in each bootstrap sample, (n_samples, n_frames).

        Half the difference between the straight path and the cubic is added with a random sign and size of one: what
        the next order might be.
        """
        beta, rng = self._beta(temperature), np.random.default_rng([self.seed, 2])
        base = self.conditional.log_factors(beta)
        straight = self.conditional.log_factors(beta, "linear")
        known = np.isfinite(base)
        off = np.where(known, straight - np.where(known, base, 0.0), 0.0)
        where = (self.mbar.level, self.conditional.frames.cells.of_frame)
        factors = np.empty((_DRAWS, len(self.mbar.energy)), np.float32)
        for row, sample in zip(factors, self._fits, strict=True):
            change = sample.fit.log_factors(beta) - np.where(known, base, 0.0)
            change += _ORDERS * rng.normal() * off
            seen = known & np.isfinite(change)  # a state may have too few frames in the sample
            if not seen.any():
                row[:] = sample.times
                continue
            change = np.minimum(change - np.median(change[seen]), _HIGHEST)
            row[:] = sample.times * np.exp(np.where(seen, change, -np.inf))[where]
        return factors

    def _conditional_weights(self, temperature: float, order: Order) -> Array:
        fit = self.conditional
        table = fit.log_factors(self._beta(temperature), order)
        return normalised_weights(self.mbar.log_w + table[self.mbar.level, fit.frames.cells.of_frame])

    def _beta(self, temperature: float) -> float:
        return 1.0 / (self.mbar.boltzmann * temperature)


def _of_both(energies: tuple[Array, Array], weights: tuple[Array, Array], states: NDArray[np.int64]) -> Array:
    """One energy for each frame with the mean and the variance, inside each state, of two weighted together.

    Parameters
    ----------
    energies, weights
        Two of each for each frame, shape (n_frames,).
    states
        Of each frame, shape (n_frames,).
    """
    total = weights[0] + weights[1]
    part = np.divide(weights[1], total, out=np.zeros_like(total), where=total > 0)
    blended = (1 - part) * energies[0] + part * energies[1]
    inside = np.maximum(np.bincount(states, total), 1e-300)
    centre = (np.bincount(states, total * blended) / inside)[states]
    square = np.bincount(states, sum(w * (u - centre) ** 2 for w, u in zip(weights, energies, strict=True)))
    least = np.bincount(states, total * (blended - centre) ** 2)
    wider = np.sqrt(np.divide(square, least, out=np.ones_like(square), where=least > 0))
    return np.asarray(centre + wider[states] * (blended - centre))
