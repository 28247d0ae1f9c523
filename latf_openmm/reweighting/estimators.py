"""What pymbar estimates: reduced free energies and statistical inefficiencies."""

import importlib
import logging
from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csgraph
from scipy.special import logsumexp

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

_STEPS, _TOLERANCE = 300, 1e-7
"""Steps of the solution of MBAR's equations for all draws, at most, and the change of f_k where it has converged."""
_MORE_STEPS = 100
"""Steps for one draw alone, at most."""
_LONGEST = 10.0
"""Largest difference of the changes of two f_k in such a step."""

_NEAR = 0.5
"""Distance (in ln of the counts) to the solution from which Newton's steps are tried."""


def reduced_free_energies(reduced: Array, counts: ArrayLike) -> Array:
    """Return f_k by MBAR (Shirts and Chodera, 2008), shape (n_states,); the first is zero.

    Parameters
    ----------
    reduced
        Reduced energy of each frame in each state, shape (n_states, n_frames); frames of the first state first.
    counts
        Frames of each state, shape (n_states,).
    """
    if len(reduced) == 1:
        return np.zeros(1)
    return np.asarray(_pymbar().MBAR(reduced, counts).f_k)


def mixture_shares(reduced: Array, free_energies: Array, counts: NDArray[np.number]) -> tuple[Array, Array]:
    """Share of each state in the mixture sum_k N_k exp(f_k - u_k) at each frame, and its logarithm.

    Parameters
    ----------
    reduced
        Reduced energy of each frame in each state, shape (n_frames, n_states).
    free_energies, counts
        f_k and N_k, shape (n_states,).

    Returns
    -------
    shares, log_mixture
        Shapes (n_frames, n_states) and (n_frames,).
    """
    terms = np.log(counts) + free_energies - reduced
    total = np.asarray(logsumexp(terms, axis=1))
    return np.exp(terms - total[:, None]), total


def redrawn_free_energies(
    shares: Array,
    counts: NDArray[np.number],
    times: Array,
    growth: Array,
) -> Array:
    """Change of f_k where frames count differently, as in bootstrap samples, shape (n_states, draws).

    pymbar takes no weights of frames and would begin anew for every draw. Here, with p_nk the share of state k in
    the mixture at frame n, m_n how often the frame is drawn and r_k how much state k has grown by it, the change d
    solves

        r_k exp(d_k) sum_n m_n p_nk / sum_j p_nj r_j exp(d_j) = r_k N_k,

    by Newton's method with the Jacobian of the first solution, for all draws at once, by the self-consistent iteration
    of MBAR where that does not bring nearer, and draws that are left each by its own Jacobian. All MBAR equations of
    weighted frames in this package are solved here.

    Parameters
    ----------
    shares, counts
        p_nk (n_frames, n_states) and N_k (n_states,) of the frames that f_k was solved from.
    times
        m_n, shape (n_frames, draws): the weight of a frame times how often it is drawn.
    growth
        r_k, shape (n_states, draws).
    """
    jacobian = np.diag(shares.sum(axis=0)) - shares.T @ shares
    inverse = np.linalg.pinv(jacobian, rcond=1e-12, hermitian=True)
    shift, wanted = np.zeros_like(growth), np.asarray(growth * counts[:, None], dtype=np.float64)
    nearest = np.full(growth.shape[1], _NEAR)
    for _ in range(_STEPS):
        factors = growth * np.exp(shift)
        present = factors * (shares.T @ (times / (shares @ factors)))
        off = np.log(present / wanted)
        distance = np.ptp(off, axis=0)
        # Newton's step where it brings nearer, the step of the self-consistent iteration, which always does, elsewhere.
        step = np.where(distance < nearest, np.clip(inverse @ (present - wanted), -1.0, 1.0), off)
        nearest = np.where(distance < nearest, distance, nearest)
        shift -= step
        left = np.flatnonzero(np.ptp(step, axis=0) >= _TOLERANCE)
        if len(left) == 0:
            return shift
    solved = [_newton(shares, times[:, i], growth[:, i], wanted[:, i], shift[:, i]) for i in left]
    shift[:, left] = np.stack([change for change, _ in solved], axis=1)
    if not all(converged for _, converged in solved):
        log.warning("MBAR did not converge for every weighting of the frames; errors are uncertain")
    return shift


def _newton(shares: Array, times: Array, growth: Array, wanted: Array, start: Array) -> tuple[Array, bool]:
    """Solve the equations of `redrawn_free_energies` for one draw; where states hardly overlap, others are too slow.

    They say where the gradient of the convex function sum_n m_n ln(sum_j p_nj r_j exp(d_j)) - sum_k r_k N_k d_k is
    zero. Newton's steps, halved until it falls.

    Returns
    -------
    shift, converged
        d_k, shape (n_states,), and whether they solve the equations.
    """

    def height(d: Array) -> float:
        return float(times @ np.log(shares @ (growth * np.exp(d))) - wanted @ d)

    shift = start - start[0]
    for _ in range(_MORE_STEPS):
        factors = growth * np.exp(shift)
        taken = shares * factors
        taken /= taken.sum(axis=1, keepdims=True)
        weighted = times[:, None] * taken
        present = weighted.sum(axis=0)
        slope = present - wanted
        step = np.linalg.pinv(np.diag(present) - taken.T @ weighted, rcond=1e-12, hermitian=True) @ slope
        step -= step[0]
        if np.ptp(step) < _TOLERANCE:
            return shift - step, True
        step *= min(1.0, _LONGEST / np.ptp(step))
        before, part = height(shift), 1.0
        while part > 1e-6 and height(shift - part * step) > before - 1e-4 * part * (
            slope @ step
        ) + 1e-12 * abs(before):
            part *= 0.5
        shift = shift - part * step
    return shift, False


def connected_states(overlap: Array, least: float) -> NDArray[np.int64]:
    """Return a number for each state, the same where states overlap, directly or by others between them; (n_states,).

    Two overlap where sqrt(O_ij O_ji / (O_ii O_jj)) is `least` or more, which does not depend on how many states
    there are.

    Parameters
    ----------
    overlap
        O_ij, the probability that a frame of state i could be taken for one of state j, shape (n_states, n_states).
    """
    diagonal = np.diag(overlap)
    relative = np.sqrt(overlap * overlap.T / np.outer(diagonal, diagonal))
    return np.asarray(csgraph.connected_components(relative >= least, directed=False)[1])


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


def _pymbar() -> ModuleType:
    """The library, without its warning about a missing JAX."""
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    return importlib.import_module("pymbar")
