"""Values with large errors, drawn to zero as far as they are noise (empirical Bayes)."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_GRID = np.concatenate([[0.0], np.geomspace(0.01, 10.0, 60)])
"""Spreads that are tried."""


def certain_part(values: Array, squared_errors: Array) -> Array:
    """Part of each value that is more than noise, from 0 to 1: 1 - error^2 / value^2, as James and Stein have it."""
    return np.asarray(np.clip(1.0 - squared_errors / np.maximum(values**2, 1e-300), 0.0, 1.0))


def true_spread(values: Array, errors: Array) -> float:
    """Spread of the true values about zero that makes values (n,) with errors (n,) likeliest; zero of none."""
    variances = _GRID[:, None] ** 2 + errors**2
    likelihood = -0.5 * (np.log(variances) + values**2 / variances).sum(axis=1)
    return float(_GRID[likelihood.argmax()]) if len(values) else 0.0


def posterior_part(spread: float, error: float) -> float:
    """Part t^2 / (t^2 + e^2) of a value with error e to take, where true values have the spread t about zero."""
    return float((spread**2 + 1e-200) / (spread**2 + error**2 + 1e-200))


class KnownNoise:
    """Linear regression on columns with a penalty, where the variances of the values are known.

    Parameters
    ----------
    columns
        Shape (n, n_columns).
    values, weights
        Values and one over their variances, shape (n,).
    """

    def __init__(self, columns: Array, values: Array, weights: Array) -> None:
        root = np.sqrt(weights)
        u, self._singular, self._right = np.linalg.svd(columns * root[:, None], full_matrices=False)
        self._along = u.T @ (values * root)

    def best_penalty(self, penalties: Array) -> float:
        """Penalty that makes the values likeliest, coefficients being normal with variance 1 / penalty."""
        squares = self._singular**2
        evidence = [
            float((squares / (squares + p)) @ self._along**2 - np.log1p(squares / p).sum()) for p in penalties
        ]
        return float(penalties[int(np.argmax(evidence))])

    def coefficients(self, penalty: float) -> Array:
        """Coefficients, shape (n_columns,)."""
        factors = self._singular / (self._singular**2 + penalty)
        return np.asarray(self._right.T @ (factors * self._along))
