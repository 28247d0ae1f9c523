"""Weights of all frames at any temperature, by MBAR where energies overlap and by conditional energies where they do not."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.blocks import FrameBlocks, bootstrap_widening
from latf_openmm.reweighting.cells import make_cells
from latf_openmm.reweighting.conditional import ConditionalFit, ConditionalFrames
from latf_openmm.reweighting.inefficiency import local_inefficiencies, run_inefficiencies
from latf_openmm.reweighting.reliability import GOOD_SAMPLES
from latf_openmm.reweighting.replicates import Replicates
from latf_openmm.reweighting.temperatures import Basins, Resample, Reweighting
from latf_openmm.reweighting.weights import normalised_weights

Array = NDArray[np.float64]

_SHARE = 0.3
"""Share of the effective samples of the simulated temperatures from which MBAR alone is used."""
_PART = 3.0
"""Factor below that number at which MBAR has no part any more."""
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
_ORDERS = 0.5
"""Part of the difference between the straight path and the cubic that is taken for a standard error."""


@dataclass(frozen=True)
class _Sample:
    """A bootstrap sample: how often each frame counts (float32, n_frames), its conditional fit."""

    times: NDArray[np.float32]
    fit: ConditionalFit


class TemperatureWeighting:
    """Weights of all frames at any temperature, and in bootstrap samples.

    MBAR has the share q, conditional energies the rest: q is one where MBAR leaves `enough` effective samples, zero where
    it leaves a third of them, and linear in the logarithm of their number in between, so that nothing jumps.

    Parameters
    ----------
    trajectories
        Frames with known potential energies.
    basins
        Collective variables and states of all frames; None: MBAR alone, every temperature in equilibrium, every frame
        by itself.
    seed
        Of the bootstrap, whose samples are the same at every temperature.

    Attributes
    ----------
    mbar
        Weights by MBAR.
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
    ) -> None:
        self.basins, self.seed = basins, seed
        n = sum(t.n_frames for t in trajectories)
        self.inefficiency = local = np.ones(n)
        if basins is not None:
            self.inefficiency = run_inefficiencies(trajectories, basins.z)
            local = local_inefficiencies(trajectories, basins.z, basins.states, basins.n_states)
        self.mbar = Reweighting(trajectories, local, basins)
        self.blocks = FrameBlocks(trajectories, _BLOCKS, self.inefficiency)
        fewest = min(self.reach(float(t)) for t in self.mbar.simulated)
        self.enough = min(GOOD_SAMPLES, _SHARE * fewest)

    @property
    def widening(self) -> float:
        """Factor on standard deviations over the bootstrap samples that makes them errors."""
        return bootstrap_widening(self.blocks.groups)

    @property
    def conditional_possible(self) -> bool:
        """Whether conditional energies can be fitted: two temperatures, and enough frames with known variables."""
        return (
            self.basins is not None
            and len(self.mbar.simulated) > 1
            and len(self.mbar.energy) >= _MIN_FRAMES
        )

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
        q = self.mbar_share(temperature)
        weights = self.weights(temperature) if q == 1.0 or self.claims(temperature) else self.mbar_weights(temperature)
        return float(1.0 / (weights**2).sum())

    def mbar_share(self, temperature: float) -> float:
        """Return the share q of MBAR at a temperature."""
        if not self.conditional_possible:
            return 1.0
        above = np.log(_PART * max(self.reach(temperature), 1e-300) / self.enough) / np.log(_PART)
        return float(np.clip(above, 0.0, 1.0))

    def claims(self, temperature: float) -> bool:
        """Return whether a temperature is near enough to the simulated ones for conditional energies."""
        betas, beta = self.mbar.betas, self._beta(temperature)
        reach = _STRETCH * (betas[0] - betas[-1])
        return bool(betas[-1] - reach <= beta <= betas[0] + reach)

    def conditional_weights(self, temperature: float) -> Array:
        """Weights of all frames by conditional energies, which sum to one."""
        return normalised_weights(self.mbar.log_w + self._of_frames(self.conditional, temperature))

    def weights(self, temperature: float) -> Array:
        """Weights of all frames at a temperature, which sum to one."""
        q = self.mbar_share(temperature)
        if q == 1.0:
            return self.mbar_weights(temperature)
        conditional = self.conditional_weights(temperature)
        return conditional if q == 0.0 else q * self.mbar_weights(temperature) + (1 - q) * conditional

    def latent_share(self, start: float, target: float) -> float:
        """Share of frames at one temperature that count at another, by their collective variables alone; from 0 to 1.

        1 / sum_c p_target(c)^2 / p_start(c) over cells c; zero where conditional energies claim nothing.
        """
        if not (self.claims(start) and self.claims(target)):
            return 0.0
        fit = self.conditional
        cells = fit.frames.cells
        first, last = (
            np.bincount(cells.of_frame, self.conditional_weights(t), cells.n) for t in (start, target)
        )
        seen = last > 0
        return float(1.0 / (last[seen] ** 2 / np.maximum(first[seen], 1e-300)).sum())

    def replicates(self, temperature: float, q: float) -> Replicates:
        """Weights in bootstrap samples with a share `q` of MBAR."""
        mbar = Replicates(self.factors, self.mbar_weights(temperature))
        if q == 1.0:
            return mbar
        weights = self.conditional_weights(temperature)
        conditional = Replicates(self._conditional_factors(temperature), weights)
        return conditional if q == 0.0 else mbar.blend(conditional, q)

    def energies(self, temperature: float, q: float) -> Array:
        """Energies of all frames as the ensemble at a temperature has them, shape (n_frames,) [kJ/mol].

        Their own by MBAR; of conditional energies such that mean and variance go over to those of the neighbouring
        temperatures.
        """
        own = self.mbar.energy
        if q < 1.0:
            own = q * own + (1 - q) * self.conditional.energies(self._beta(temperature))
        return np.asarray(own + self.mbar.lowest)

    @cached_property
    def conditional(self) -> ConditionalFit:
        """Conditional energies of all frames."""
        assert self.basins is not None
        cells = make_cells(self.basins.z, self.basins.states, self.basins.n_states, self.seed)
        frames = ConditionalFrames(cells, self.mbar.level, self.mbar.energy, self.mbar.betas)
        part = np.repeat(np.arange(len(self.blocks)) % _FOLDS, self.blocks.lengths)
        folds = [part == fold for fold in range(_FOLDS)]
        return ConditionalFit(frames, np.exp(self.mbar.log_w), self.mbar.free_energies, None, folds)

    @cached_property
    def factors(self) -> NDArray[np.float32]:
        """Factors on MBAR's weights of all frames in each bootstrap sample, (n_samples, n_frames); at any temperature."""
        factors = np.empty((_DRAWS, len(self.mbar.energy)), np.float32)
        for row, sample in zip(factors, self._resamples, strict=True):
            row[:] = self.mbar.factors(sample)
        return factors

    @cached_property
    def _resamples(self) -> list[Resample]:
        rng = np.random.default_rng([self.seed, 1])
        return [self.mbar.resample(self.blocks.bootstrap(rng), rng) for _ in range(_DRAWS)]

    @cached_property
    def _fits(self) -> list[_Sample]:
        """Conditional energies of the bootstrap samples."""
        base = self.conditional
        samples = []
        for sample in self._resamples:
            fit = ConditionalFit(
                base.frames, np.exp(sample.log_w), sample.free_energies, base.penalties
            )
            samples.append(_Sample(np.exp(sample.log_w - self.mbar.log_w).astype(np.float32), fit))
        return samples

    def _conditional_factors(self, temperature: float) -> NDArray[np.float32]:
        """Factors on the conditional weights in each bootstrap sample, (n_samples, n_frames).

        Half the difference between the straight path and the cubic is added with a random sign and size of one: what the
        next order might be.
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
            row[:] = sample.times * np.exp(np.where(known, change, -np.inf))[where]
        return factors

    def _of_frames(self, fit: ConditionalFit, temperature: float) -> Array:
        table = fit.log_factors(self._beta(temperature))
        return np.asarray(table[self.mbar.level, fit.frames.cells.of_frame])

    def _beta(self, temperature: float) -> float:
        return 1.0 / (self.mbar.boltzmann * temperature)
