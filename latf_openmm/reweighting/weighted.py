"""Weighted frames and how they are redrawn for errors; the frames of one run, weighted by its own bias.

Frames weigh exp((V - c) / kT), with V and c as recorded while the run went on: a static bias (c = 0),
metadynamics with c(t) (Tiwary and Parrinello, 2015), OPES (c = 0; Invernizzi and Parrinello, 2020). Or
exp(V_last / kT) with the bias at its end, for frames after a burn-in (Branduardi, Bussi and Parrinello, 2012).

Errors are standard errors by a bootstrap of blocks of consecutive frames, redrawn within each run; walkers do
not share a block. They are widened by Student's t where blocks are few, so that twice the error covers what
two standard errors would.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from latf_openmm.errors import DataError
from latf_openmm.reweighting.biased_run import BiasedRun
from latf_openmm.reweighting.blocks import (
    BLOCK,
    MIN_BLOCKS,
    bootstrap_widening,
    number_of_blocks,
    redrawn_blocks,
)
from latf_openmm.reweighting.weights import effective_sample_size, normalised_weights
from latf_openmm.sentences import condensed

log = logging.getLogger(__name__)
Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_MAX_BLOCKS = 50
"""Blocks of a run, at most, where their number is not given."""


class WeightedSample(ABC):
    """Frames with weights at one temperature, and how they are redrawn for errors.

    Attributes
    ----------
    runs
        Where the frames come from, one after the other.
    kT
        Thermal energy the weights are for [kJ/mol].
    log_weights
        Logarithm of each frame's weight, up to a constant; shape (n_frames,).
    block, groups
        Block of each frame, and run of each block; what is redrawn.
    """

    def __init__(self, runs: Sequence[BiasedRun], kT: float, log_weights: Array, blocks: int | None) -> None:
        self.runs = tuple(runs)
        self.kT = kT
        self.log_weights = log_weights
        self.z = np.concatenate([run.z for run in runs])
        self.periods = runs[0].periods or (0.0,) * self.z.shape[1]
        self.block, self.groups = _blocks(runs, blocks)

    @property
    def weights(self) -> Array:
        """Weights that sum to one, shape (n_frames,)."""
        return normalised_weights(self.log_weights)

    @property
    def sample_size(self) -> float:
        """Kish's effective sample size; correlation in time is not considered."""
        return effective_sample_size(self.log_weights)

    @property
    def n_effective(self) -> float:
        """Effective sample size (sum w)^2 / sum g w^2, with the statistical inefficiency g of each frame's run."""
        log_g = np.concatenate([np.full(run.n_frames, np.log(run.inefficiency)) for run in self.runs])
        return float(np.exp(2 * logsumexp(self.log_weights) - logsumexp(2 * self.log_weights + log_g)))

    @abstractmethod
    def totals(self, labels: Indices, n: int, draws: int, seed: int) -> tuple[Array, Array]:
        """Weight of the frames of each label, over all frames and in bootstrap samples.

        Parameters
        ----------
        labels
            From 0 to n - 1, shape (n_frames,).

        Returns
        -------
        estimate, replicates
            Shapes (n,) and (draws, n); each sums to one over the labels.
        """

    def _redraw(self, draws: int, seed: int) -> Array:
        """Number of times that each block is in each bootstrap sample, shape (n_blocks, draws)."""
        return redrawn_blocks(self.groups, draws, np.random.default_rng(seed)).astype(np.float64)

    def widening(self) -> float:
        """Factor on standard deviations over bootstrap samples that makes them errors."""
        return bootstrap_widening(self.groups)


def _blocks(runs: Sequence[BiasedRun], wanted: int | None) -> tuple[Indices, Indices]:
    """Blocks of consecutive frames of one walker: block of each frame, run of each block."""
    block, groups, short = [], [], list[tuple[str, str]]()
    done = 0
    for number, run in enumerate(runs):
        walkers = run.walkers
        n = wanted
        if n is None:
            independent = run.n_frames / run.inefficiency
            n = number_of_blocks(independent, _MAX_BLOCKS)
            if independent < BLOCK * MIN_BLOCKS:
                text = (
                    f"{run.n_frames} frames are only {independent:.3g} times their statistical inefficiency"
                )
                short.append((f"{text}; errors may be too small (run {run.name})", run.name))
        numbers = np.empty(run.n_frames, dtype=np.int64)
        first = done
        for frames in walkers:
            pieces = np.array_split(frames, min(len(frames), max(1, -(-n // len(walkers)))))
            for piece in pieces:
                numbers[piece] = done
                done += 1
        if done - first < 2:
            raise DataError(f"{run.name}: errors need 2 blocks or more, got {done - first}")
        block.append(numbers)
        groups += [number] * (done - first)
    for text in condensed(short):
        log.warning("%s", text)
    return np.concatenate(block), np.array(groups)


class WeightedRun(WeightedSample):
    """One run whose frames' weights are known."""

    def totals(self, labels: Indices, n: int, draws: int, seed: int) -> tuple[Array, Array]:
        """Weight of the frames of each label, over all frames and in bootstrap samples."""
        shape = (len(self.groups), n)
        flat = np.bincount(self.block * n + labels, self.weights, minlength=shape[0] * shape[1])
        of_block = flat.reshape(shape)
        replicates = self._redraw(draws, seed).T @ of_block
        return of_block.sum(axis=0), replicates / np.maximum(replicates.sum(axis=1, keepdims=True), 1e-300)


def weighted(
    run: BiasedRun,
    use: Literal["recorded", "last"] = "recorded",
    burn_in: float = 0.0,
    blocks: int | None = None,
) -> WeightedRun:
    """Return the frames of one run with the weights that undo its bias.

    Parameters
    ----------
    use
        ``"recorded"``: exp((V - offset) / kT) with both at the time of the frame; ``"last"``: exp(V / kT) with
        the bias at its end, which is only right once that hardly changes: give a `burn_in`.
    burn_in
        Fraction of each walker's frames that is left out at its beginning.
    blocks
        Blocks for the errors, at least as many as walkers; default: as long as 5 times the statistical
        inefficiency or longer, 5 to 50 of them.

    Raises
    ------
    DataError
        If what is needed was not recorded, or frames are too few.
    """
    kept = run.without_burn_in(burn_in)
    if use == "last":
        if run.bias is None:
            raise DataError(f"{run.name}: weights by its last bias need that bias")
        energy = kept.last_bias_energy()
    elif kept.bias_energy is None:
        energy = kept.last_bias_energy()
    else:
        energy = kept.bias_energy if kept.offset is None else kept.bias_energy - kept.offset
    return WeightedRun([kept], run.kT, energy / run.kT, blocks)
