"""Frames of several runs, weighted by MBAR (Shirts and Chodera, 2008) to one unbiased sample.

For runs with static biases, or with biases that hardly changed any more, at one or several temperatures:

    w(n) ~ exp(-U_n / kT) / sum_k N_k exp(f_k - (U_n + V_k(z_n)) / kT_k).

Errors are those of `latf_openmm.reweighting.weighted`; the f_k are solved again in every bootstrap sample.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from latf_openmm.errors import DataError
from latf_openmm.reweighting.biased_run import BiasedRun, evaluate
from latf_openmm.reweighting.estimators import (
    connected_states,
    mixture_shares,
    redrawn_free_energies,
    reduced_free_energies,
)
from latf_openmm.reweighting.reliability import MIN_OVERLAP
from latf_openmm.reweighting.weighted import WeightedSample

log = logging.getLogger(__name__)
Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_MAX_MBAR_FRAMES = 4000
"""Frames of a run that f_k is solved from, at most."""
_MAX_NUMBERS = 10_000_000  # of the matrix that MBAR is solved from
_CHUNK = 2_000_000  # numbers of other matrices at a time


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
        self.reduced_free_energies = reduced_free_energies(reduced.T.copy(), self.chosen_counts)
        self.shares = mixture_shares(reduced, self.reduced_free_energies, self.chosen_counts)[0]
        self.overlap = self.shares.T @ self.shares / self.chosen_counts[:, None]
        mixture = [
            mixture_shares(self._reduced(rows), self.reduced_free_energies, self.counts)[1]
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
        return connected_states(self.overlap, MIN_OVERLAP)

    def totals(self, labels: Indices, n: int, draws: int, seed: int) -> tuple[Array, Array]:
        """Weight of the frames of each label, over all frames and in bootstrap samples."""
        redrawn = self._redraw(draws, seed)
        shift = self._solve_again(redrawn)
        weights = self.weights
        grown = self._growth(np.arange(len(self.owner)), redrawn)
        factors = grown * np.exp(shift)
        replicates = np.zeros((n, draws))
        for rows in self._pieces(draws):
            shares = mixture_shares(self._reduced(rows), self.reduced_free_energies, self.counts)[0]
            redone = weights[rows, None] * redrawn[self.block[rows]] / (shares @ factors)
            members = sparse.csr_array(
                (np.ones(len(rows)), (labels[rows], np.arange(len(rows)))), (n, len(rows))
            )
            replicates += members @ redone
        return np.asarray(np.bincount(labels, weights, minlength=n)), (replicates / replicates.sum(axis=0)).T

    def _solve_again(self, redrawn: Array) -> Array:
        """Change of f_k in each bootstrap sample, shape (n_runs, draws)."""
        times = redrawn[self.block[self.chosen]]
        return redrawn_free_energies(
            self.shares, self.chosen_counts, times, self._growth(self.chosen, redrawn)
        )

    def _growth(self, frames: Indices, redrawn: Array) -> Array:
        """Frames of each run in each bootstrap sample, over those there are, shape (n_runs, draws)."""
        blocks = np.zeros((len(self.runs), len(self.groups)))
        np.add.at(blocks, (self.owner[frames], self.block[frames]), 1.0)
        return np.asarray(blocks @ redrawn / blocks.sum(axis=1, keepdims=True))

    def _choose(self) -> Indices:
        """Frames that the reduced free energies are solved from."""
        most = min(_MAX_MBAR_FRAMES, max(50, _MAX_NUMBERS // len(self.runs) ** 2))
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
            (energy + (0.0 if run.bias is None else evaluate(run.bias, z))) / run.kT for run in self.runs
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
        Blocks of each run for the errors, as for `weighted`.

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
        members, others = np.flatnonzero(parts == part), np.flatnonzero(parts != part)
        pair = combined.overlap[np.ix_(members, others)]
        i, j = np.unravel_index(pair.argmax(), pair.shape)
        log.warning(
            "%s and %s do not overlap (%.2g), nor do other runs connect them: free energies between them mean "
            "nothing; simulate between them, or with a weaker restraint",
            combined.runs[members[i]].name,
            combined.runs[others[j]].name,
            pair.max(),
        )
