"""Unbiased free energies from biased runs of every kind, with errors.

* A run by itself (`weighted`): frames weigh exp((V - c) / kT), with V and c as recorded while it ran: a static
  bias (c = 0), metadynamics with c(t) (Tiwary and Parrinello, 2015), OPES (c = 0; Invernizzi and Parrinello,
  2020). Or exp(V_last / kT) with the bias at its end, for frames after a burn-in (Branduardi, Bussi and
  Parrinello, 2012).
* Several runs with static biases, or with biases that hardly changed any more, at one or several temperatures
  (`combine`, `window_runs`): MBAR (Shirts and Chodera, 2008),

      w(n) ~ exp(-U_n / kT) / sum_k N_k exp(f_k - (U_n + V_k(z_n)) / kT_k).

Errors are standard errors by a bootstrap of blocks of consecutive frames, redrawn within each run; walkers do
not share a block. For MBAR the f_k are solved again in every draw. They are widened by Student's t where
blocks are few, so that twice the error covers what two standard errors would.
"""

import importlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse, stats
from scipy.sparse import csgraph
from scipy.special import logsumexp
from torch import Tensor

from latf_openmm.analysis.free_energy import LatentGrid, free_energy
from latf_openmm.data.weights import effective_sample_size, normalised_weights
from latf_openmm.errors import DataError

log = logging.getLogger(__name__)
Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Potential = Callable[[Tensor], Tensor]
"""z (n, dim) -> energies (n,) [kJ/mol]; every `Bias` is one."""

_FEWEST_FRAMES = 10
_BLOCK = 5.0  # length of a block, in statistical inefficiencies, at least
_FEWEST_BLOCKS, _MOST_BLOCKS = 5, 50
_MOST_FOR_MBAR = 4000
_MOST_NUMBERS = 10_000_000  # of the matrix that MBAR is solved from
_CHUNK = 2_000_000  # numbers of other matrices at a time
_OVERLAP = 0.03
_NEWTON_STEPS, _NEWTON_TOLERANCE = 200, 1e-7


@dataclass(frozen=True)
class BiasedRun:
    """The frames of one run: one temperature, one bias, any number of walkers.

    Parameters
    ----------
    z
        Collective variables, shape (n_frames, dim); frames of a walker in the order of time.
    kT
        Thermal energy [kJ/mol].
    bias_energy
        As recorded, at the time of each frame [kJ/mol], shape (n_frames,); default: that of `bias`.
    offset
        Recorded with it, `AdaptiveBias.offset` [kJ/mol], shape (n_frames,); default: zero.
    bias
        The static bias, or an adaptive one as it was at the end; None: not known, or none.
    potential_energy
        Without bias [kJ/mol], shape (n_frames,); only needed to change the temperature.
    walker
        Number of the walker of each frame, shape (n_frames,); default: one walker.
    periods
        Period of each variable, 0 where it has none; default: none has.
    name
        What to call it in messages.

    Raises
    ------
    DataError
        If shapes disagree, a number is not finite, or frames are too few.
    """

    z: Array
    kT: float  # noqa: N815 - the field's own name
    bias_energy: Array | None = None
    offset: Array | None = None
    bias: Potential | None = None
    potential_energy: Array | None = None
    walker: Indices | None = None
    periods: tuple[float, ...] | None = None
    name: str = "run"

    def __post_init__(self) -> None:
        if self.z.ndim != 2 or self.z.shape[1] == 0:
            raise DataError(f"{self.name}: z must have shape (n_frames, dim), got {self.z.shape}")
        if len(self.z) < _FEWEST_FRAMES:
            raise DataError(f"{self.name}: {len(self.z)} frames are too few; {_FEWEST_FRAMES} are needed")
        if not self.kT > 0:
            raise DataError(f"{self.name}: kT must be positive, got {self.kT}")
        if self.periods is not None and len(self.periods) != self.z.shape[1]:
            raise DataError(
                f"{self.name}: {len(self.periods)} periods for {self.z.shape[1]} collective variables"
            )
        for label in ("z", "bias_energy", "offset", "potential_energy", "walker"):
            values = getattr(self, label)
            if values is None:
                continue
            if label != "z" and values.shape != (len(self.z),):
                raise DataError(f"{self.name}: {label} has shape {values.shape}, expected ({len(self.z)},)")
            if not np.isfinite(values).all():
                frame = int(np.argwhere(~np.isfinite(values))[0][0])
                raise DataError(f"{self.name}: {label} is not finite at frame {frame}")

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.z)

    @property
    def walkers(self) -> list[Indices]:
        """Frames of each walker."""
        if self.walker is None:
            return [np.arange(self.n_frames)]
        return [np.flatnonzero(self.walker == number) for number in np.unique(self.walker)]

    def without_burn_in(self, fraction: float) -> "BiasedRun":
        """Return the run without the first fraction of each walker's frames.

        Raises
        ------
        DataError
            If the fraction is not from 0 to below 1, or what is left is too few.
        """
        if not 0 <= fraction < 1:
            raise DataError(f"{self.name}: burn_in must be from 0 to below 1, got {fraction}")
        parts = [frames[int(np.ceil(fraction * len(frames))) :] for frames in self.walkers]
        kept = np.sort(np.concatenate(parts))

        def part(values: Array | None) -> Array | None:
            return None if values is None else values[kept]

        return replace(
            self,
            z=self.z[kept],
            bias_energy=part(self.bias_energy),
            offset=part(self.offset),
            potential_energy=part(self.potential_energy),
            walker=None if self.walker is None else self.walker[kept],
        )

    def last_bias_energy(self) -> Array:
        """Energies of `bias` [kJ/mol], shape (n_frames,); zero for a run without any bias.

        Raises
        ------
        DataError
            If the run was biased, and `bias` is not known.
        """
        if self.bias is not None:
            return _evaluate(self.bias, self.z)
        if self.bias_energy is not None and np.ptp(self.bias_energy) > 0:
            raise DataError(f"{self.name}: was biased, but its bias is not given")
        return np.zeros(self.n_frames)

    @cached_property
    def inefficiency(self) -> float:
        """Statistical inefficiency g of the collective variables: one independent frame in every g."""
        return statistical_inefficiency([self.z[frames] for frames in self.walkers], self.periods)


@torch.no_grad()
def _evaluate(potential: Potential, z: Array) -> Array:
    values = potential(torch.from_numpy(np.ascontiguousarray(z, dtype=np.float64)))
    return np.asarray(values.numpy(), dtype=np.float64)


def statistical_inefficiency(walkers: Sequence[Array], periods: Sequence[float] | None = None) -> float:
    """Return g = 1 + 2 tau of the slowest variable, by pymbar (Chodera et al., 2007); at least 1.

    Parameters
    ----------
    walkers
        Collective variables of each walker, shape (n_frames, dim).
    periods
        Period of each variable, 0 where it has none; of periodic ones the sine and cosine are looked at.
    """
    timeseries = _pymbar().timeseries
    slowest = 1.0
    for axis in range(walkers[0].shape[1]):
        period = 0.0 if periods is None else periods[axis]
        columns = [[z[:, axis] for z in walkers]]
        if period > 0:
            columns = [[turn(2 * np.pi / period * x) for x in columns[0]] for turn in (np.sin, np.cos)]
        for column in columns:
            if np.ptp(np.concatenate(column)) > 0:
                slowest = max(slowest, float(timeseries.statistical_inefficiency_multiple(column)))
    return slowest


# --- samples with weights --------------------------------------------------------------------------


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
    def independent_size(self) -> float:
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
        """How often each block is in each bootstrap sample, shape (n_blocks, draws)."""
        rng = np.random.default_rng(seed)
        counts = np.empty((len(self.groups), draws))
        for group in np.unique(self.groups):
            mine = np.flatnonzero(self.groups == group)
            counts[mine] = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=draws).T
        return counts

    def widening(self) -> float:
        """Factor on standard deviations over bootstrap samples that makes them errors.

        sqrt(m / (m - 1)) for the variance of m blocks, and Student's t with m - 1 degrees of freedom at two
        standard errors; root mean square over the runs, as if each had the same part in the variance.
        """
        m = np.bincount(self.groups)
        factors = np.sqrt(m / (m - 1)) * stats.t.ppf(stats.norm.cdf(2.0), m - 1) / 2.0
        return float(np.sqrt((factors**2).mean()))


def _blocks(runs: Sequence[BiasedRun], wanted: int | None) -> tuple[Indices, Indices]:
    """Blocks of consecutive frames of one walker: block of each frame, run of each block."""
    block, groups = [], []
    done = 0
    for number, run in enumerate(runs):
        walkers = run.walkers
        n = wanted
        if n is None:
            independent = run.n_frames / (_BLOCK * run.inefficiency)
            n = int(np.clip(independent, _FEWEST_BLOCKS, _MOST_BLOCKS))
            if independent < _FEWEST_BLOCKS:
                log.warning(
                    "%s: %d frames are only %.3g times their statistical inefficiency; its errors may be too small",
                    run.name,
                    run.n_frames,
                    run.n_frames / run.inefficiency,
                )
        own = np.empty(run.n_frames, dtype=np.int64)
        first = done
        for frames in walkers:
            pieces = np.array_split(frames, min(len(frames), max(1, -(-n // len(walkers)))))
            for piece in pieces:
                own[piece] = done
                done += 1
        if done - first < 2:
            raise DataError(f"{run.name}: errors need 2 blocks or more, got {done - first}")
        block.append(own)
        groups += [number] * (done - first)
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


# --- several runs ----------------------------------------------------------------------------------


class CombinedRuns(WeightedSample):
    """Frames of several runs, weighted by MBAR; made by `combine`.

    The reduced free energies f_k are solved by pymbar from frames taken evenly from each run, two for each
    independent one and at most 4000; weights of all frames follow from them, in pieces that fit into memory.
    A frame counts 1/g of its run's statistical inefficiency g.

    Attributes
    ----------
    inefficiencies
        Statistical inefficiency g of each run, shape (n_runs,).
    reduced_free_energies
        f_k, shape (n_runs,).
    overlap
        O_ij, the probability that a frame of run i could be taken for one of run j (Klimovich, Shirts and
        Mobley, 2015), shape (n_runs, n_runs).
    """

    def __init__(self, runs: Sequence[BiasedRun], kT: float, blocks: int | None) -> None:
        super().__init__(runs, kT, np.empty(0), blocks)
        self.owner = np.repeat(np.arange(len(runs)), [run.n_frames for run in runs])
        self.energy = np.concatenate([_energy(run) for run in runs])
        self.energy -= self.energy.min()
        self.inefficiencies = np.array([run.inefficiency for run in runs])
        self.counts = np.bincount(self.owner) / self.inefficiencies
        self.chosen = self._choose()
        self.chosen_counts = np.bincount(self.owner[self.chosen])
        reduced = self._reduced(self.chosen)
        self.reduced_free_energies, self.overlap = _solve(reduced, self.chosen_counts)
        self.shares = _shares(reduced, self.reduced_free_energies, self.chosen_counts)[0]
        mixture = [
            _shares(self._reduced(rows), self.reduced_free_energies, self.counts)[1]
            for rows in self._pieces()
        ]
        self.log_weights = (
            -self.energy / kT - np.concatenate(mixture) - np.log(self.inefficiencies)[self.owner]
        )

    @property
    def connected(self) -> Indices:
        """A number for each run, the same where runs overlap, directly or by others between them; (n_runs,).

        Two overlap where sqrt(O_ij O_ji / (O_ii O_jj)) is 0.03 or more, which is Klimovich's limit for
        neighbours, made independent of how many runs there are.
        """
        own = np.diag(self.overlap)
        relative = np.sqrt(self.overlap * self.overlap.T / np.outer(own, own))
        return np.asarray(csgraph.connected_components(relative >= _OVERLAP, directed=False)[1])

    def totals(self, labels: Indices, n: int, draws: int, seed: int) -> tuple[Array, Array]:
        """Weight of the frames of each label, over all frames and in bootstrap samples."""
        redrawn = self._redraw(draws, seed)
        shift = self._solve_again(redrawn)
        weights = self.weights
        grown = self._growth(np.arange(len(self.owner)), redrawn)
        factors = grown * np.exp(shift)
        replicates = np.zeros((n, draws))
        for rows in self._pieces(draws):
            shares = _shares(self._reduced(rows), self.reduced_free_energies, self.counts)[0]
            redone = weights[rows, None] * redrawn[self.block[rows]] / (shares @ factors)
            members = sparse.csr_array(
                (np.ones(len(rows)), (labels[rows], np.arange(len(rows)))), (n, len(rows))
            )
            replicates += members @ redone
        return np.asarray(np.bincount(labels, weights, minlength=n)), (replicates / replicates.sum(axis=0)).T

    def _solve_again(self, redrawn: Array) -> Array:
        """Change of f_k in each bootstrap sample, shape (n_runs, draws).

        pymbar takes no weights of frames and would begin anew for every draw. Here, with p_nk the share of run k
        in the mixture at frame n, m_n how often the frame is drawn and r_k how much run k has grown by it, the
        change d solves

            r_k exp(d_k) sum_n m_n p_nk / sum_j p_nj r_j exp(d_j) = r_k N_k,

        by Newton's method with the Jacobian of the first solution, for all draws at once.
        """
        p, counts = self.shares, self.chosen_counts
        inverse = np.linalg.pinv(np.diag(counts) - p.T @ p, rcond=1e-12, hermitian=True)
        times = redrawn[self.block[self.chosen]]
        grown = self._growth(self.chosen, redrawn)
        shift = np.zeros_like(grown)
        for _ in range(_NEWTON_STEPS):
            factors = grown * np.exp(shift)
            excess = factors * (p.T @ (times / (p @ factors))) - grown * counts[:, None]
            step = np.clip(inverse @ excess, -1.0, 1.0)
            shift -= step
            if np.abs(step).max() < _NEWTON_TOLERANCE:
                return shift
        log.warning("MBAR did not converge in every bootstrap sample; errors are uncertain")
        return shift

    def _growth(self, frames: Indices, redrawn: Array) -> Array:
        """Frames of each run in each bootstrap sample, over those there are, shape (n_runs, draws)."""
        blocks = np.zeros((len(self.runs), len(self.groups)))
        np.add.at(blocks, (self.owner[frames], self.block[frames]), 1.0)
        return np.asarray(blocks @ redrawn / blocks.sum(axis=1, keepdims=True))

    def _choose(self) -> Indices:
        """Frames that the reduced free energies are solved from."""
        most = min(_MOST_FOR_MBAR, max(50, _MOST_NUMBERS // len(self.runs) ** 2))
        chosen, first = [], 0
        for run in self.runs:
            n = int(min(run.n_frames, most, np.ceil(2 * run.n_frames / run.inefficiency)))
            frames = np.concatenate(run.walkers)
            chosen.append(first + frames[np.linspace(0, run.n_frames - 1, n).round().astype(np.int64)])
            first += run.n_frames
        return np.concatenate(chosen)

    def _reduced(self, frames: Indices) -> Array:
        """Reduced energies u_k of frames, shape (n, n_runs)."""
        z, energy = self.z[frames], self.energy[frames]
        columns = [
            (energy + (0.0 if run.bias is None else _evaluate(run.bias, z))) / run.kT for run in self.runs
        ]
        return np.stack(columns, axis=1)

    def _pieces(self, width: int = 0) -> Iterator[Indices]:
        """All frames, in pieces."""
        n = len(self.owner)
        size = max(1, _CHUNK // max(width, len(self.runs)))
        for start in range(0, n, size):
            yield np.arange(start, min(n, start + size))


def _energy(run: BiasedRun) -> Array:
    return np.zeros(run.n_frames) if run.potential_energy is None else run.potential_energy


def _shares(reduced: Array, f: Array, counts: NDArray[np.number]) -> tuple[Array, Array]:
    """Share of each run in the mixture at each frame, (n, n_runs), and log of the mixture, (n,)."""
    terms = np.log(counts) + f - reduced
    total = np.asarray(logsumexp(terms, axis=1))
    return np.exp(terms - total[:, None]), total


def _solve(reduced: Array, counts: Indices) -> tuple[Array, Array]:
    """Reduced free energies and overlap matrix by pymbar."""
    if len(counts) == 1:
        return np.zeros(1), np.ones((1, 1))
    mbar = _pymbar().MBAR(reduced.T.copy(), counts)
    return np.asarray(mbar.f_k), np.asarray(mbar.compute_overlap()["matrix"])


def combine(runs: Sequence[BiasedRun], kT: float | None = None, blocks: int | None = None) -> CombinedRuns:
    """Return the frames of several runs, weighted by MBAR to an unbiased sample at one temperature.

    Parameters
    ----------
    runs
        Each with its static bias, or an adaptive one as it was at the end (frames after a burn-in, then, see
        `BiasedRun.without_burn_in`), or none. Frames of different biases are of the same variables.
    kT
        Thermal energy wanted [kJ/mol]; default: that of the runs.
    blocks
        Blocks of each run for the errors, at least as many as walkers; default: as long as 5 times the
        statistical inefficiency or longer, 5 to 50 of them.

    Raises
    ------
    DataError
        If the variables differ, a bias is missing, or temperatures differ and potential energies are missing.
    """
    if not runs:
        raise DataError("there are no runs to combine")
    for run in runs:
        if run.z.shape[1] != runs[0].z.shape[1] or (run.periods or ()) != (runs[0].periods or ()):
            raise DataError(f"{run.name}: its collective variables are not those of {runs[0].name}")
        run.last_bias_energy()
    thermal = np.array([run.kT for run in runs])
    if kT is None:
        if not np.allclose(thermal, thermal[0]):
            raise DataError("the runs have several temperatures; say for which kT they are to be combined")
        kT = float(thermal[0])
    if not kT > 0:
        raise DataError(f"kT must be positive, got {kT}")
    if not np.allclose(thermal, kT):
        for run in runs:
            if run.potential_energy is None:
                raise DataError(f"{run.name}: has no potential energies, which another temperature needs")
    else:
        runs = [replace(run, potential_energy=None) for run in runs]
    combined = CombinedRuns(runs, kT, blocks)
    _warn_of_gaps(combined)
    return combined


def _warn_of_gaps(combined: CombinedRuns) -> None:
    parts = combined.connected
    for part in range(1, int(parts.max()) + 1):
        mine, others = np.flatnonzero(parts == part), np.flatnonzero(parts != part)
        pair = combined.overlap[np.ix_(mine, others)]
        i, j = np.unravel_index(pair.argmax(), pair.shape)
        log.warning(
            "%s and %s do not overlap (%.2g), nor do other runs connect them: free energies between them mean "
            "nothing; simulate between them, or with a weaker restraint",
            combined.runs[mine[i]].name,
            combined.runs[others[j]].name,
            pair.max(),
        )


class Windows(Protocol):
    """What umbrella sampling left, `latf_openmm.md.windows.WindowSamples`."""

    @property
    def z(self) -> tuple[Array, ...]:
        """Collective variables of each window."""

    @property
    def potential_energy(self) -> tuple[Array, ...]:
        """Energies without the restraint [kJ/mol]."""

    @property
    def periods(self) -> tuple[float, ...]:
        """Period of each variable."""

    @property
    def kT(self) -> float:  # noqa: N802 - the field's own name
        """Thermal energy [kJ/mol]."""

    @property
    def biases(self) -> Sequence[Potential]:
        """The restraint of each window."""


def window_runs(windows: Windows) -> list[BiasedRun]:
    """Return the windows of umbrella sampling as runs, to be given to `combine` (with others, if you like)."""
    each = zip(windows.z, windows.potential_energy, windows.biases, strict=True)
    return [
        BiasedRun(
            z,
            windows.kT,
            bias=bias,
            potential_energy=energy,
            periods=windows.periods,
            name=f"window {number}",
        )
        for number, (z, energy, bias) in enumerate(each)
    ]


# --- free energies ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class FreeEnergySurface:
    """A free-energy surface with errors.

    Attributes
    ----------
    grid
        Its cells.
    kT
        Thermal energy [kJ/mol].
    probability
        Of each cell; frames beyond the grid count, so the sum is one at most. Shape of the grid.
    errors
        Standard errors of -kT log(probability) [kJ/mol]; infinite where there is no frame. No minimum is
        taken off, so a constant that is common to all cells is not part of them.
    """

    grid: LatentGrid
    kT: float  # noqa: N815 - the field's own name
    probability: Array
    errors: Array

    @property
    def values(self) -> Array:
        """Free energies [kJ/mol], minimum at zero; infinite where there is no frame."""
        return free_energy(self.probability, self.kT)


def free_energy_surface(
    sample: WeightedSample, grid: LatentGrid, draws: int = 100, seed: int = 0
) -> FreeEnergySurface:
    """Free energies of the cells of a grid, by a weighted histogram.

    Parameters
    ----------
    grid
        Over the first one or two variables. Periodic ones are put into the period that begins where it does.
    draws, seed
        Bootstrap samples for the errors.

    Raises
    ------
    DataError
        If the grid has more axes than there are variables, or no frame is in it.
    """
    shape = tuple(len(edges) - 1 for edges in grid.edges)
    if len(shape) > sample.z.shape[1]:
        raise DataError(f"a grid of {len(shape)} axes does not fit {sample.z.shape[1]} collective variables")
    labels = _cells(sample.z, grid, sample.periods)
    n = int(np.prod(shape))
    if (labels == n).all():
        raise DataError("no frame is inside the grid")
    estimate, replicates = sample.totals(labels, n + 1, draws, seed)
    probability = estimate[:n]
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(probability > 0, replicates[:, :n].std(axis=0, ddof=1) / probability, np.inf)
    errors = sample.kT * sample.widening() * relative
    return FreeEnergySurface(grid, sample.kT, probability.reshape(shape), errors.reshape(shape))


def _cells(z: Array, grid: LatentGrid, periods: Sequence[float]) -> Indices:
    """Number of the cell each frame is in, as `LatentGrid.histogram` counts; those outside have the next number."""
    inside = np.ones(len(z), dtype=bool)
    number = np.zeros(len(z), dtype=np.int64)
    for axis, edges in enumerate(grid.edges):
        x = z[:, axis]
        if periods[axis] > 0:
            x = edges[0] + np.mod(x - edges[0], periods[axis])
        place = np.searchsorted(edges, x, side="right") - 1
        place[x == edges[-1]] = len(edges) - 2
        inside &= (place >= 0) & (place < len(edges) - 1)
        number = number * (len(edges) - 1) + place
    return np.where(inside, number, int(np.prod([len(edges) - 1 for edges in grid.edges])))


@dataclass(frozen=True)
class FreeEnergyDifference:
    """F of one region minus F of another, with its standard error [kJ/mol]."""

    value: float
    error: float


def free_energy_difference(
    sample: WeightedSample,
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    draws: int = 100,
    seed: int = 0,
) -> FreeEnergyDifference:
    """F(second) - F(first) = -kT log(p(second) / p(first)).

    Parameters
    ----------
    first, second
        Which frames are in each region, for example ``sample.z[:, 0] < 0`` or ``states == 2``; (n_frames,).
    draws, seed
        Bootstrap samples for the error.

    Raises
    ------
    DataError
        If the regions share frames, or one has none.
    """
    if first.shape != (len(sample.z),) or second.shape != (len(sample.z),):
        raise DataError(f"regions of shapes {first.shape} and {second.shape} for {len(sample.z)} frames")
    if not (first.any() and second.any()):
        raise DataError("there is no frame in one of the regions")
    if (first & second).any():
        raise DataError("the regions share frames")
    labels = np.where(first, 0, np.where(second, 1, 2))
    estimate, replicates = sample.totals(labels, 3, draws, seed)
    if not (estimate[:2] > 0).all():
        raise DataError("the frames of one of the regions have no weight")
    value = -sample.kT * float(np.log(estimate[1] / estimate[0]))
    change = replicates[:, 1] / estimate[1] - replicates[:, 0] / estimate[0]
    return FreeEnergyDifference(value, sample.kT * sample.widening() * float(change.std(ddof=1)))


def _pymbar() -> ModuleType:
    """The library, without its warning about a missing JAX."""
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    return importlib.import_module("pymbar")
