"""Weights of frames in bootstrap samples or by members of a committee, and statistics that are functions of means."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_NOTHING = 1e-30
"""Weight that is none."""
_PART = 65_536
"""Frames whose numbers are in memory in double precision at a time."""


@dataclass(frozen=True)
class Statistic:
    """A number that is a function of weighted means of columns.

    Attributes
    ----------
    columns
        Numbers of every frame, shape (n_frames, n_columns).
    function
        From their means, shape (..., n_columns), to the number, shape (...).
    """

    columns: Array
    function: Callable[[Array], Array]

    @classmethod
    def mean(cls, values: ArrayLike) -> "Statistic":
        """Mean of values (n_frames,); of a mask the share of the frames chosen."""
        return cls(np.asarray(values, dtype=np.float64)[:, None], lambda means: means[..., 0])

    @classmethod
    def variance(cls, values: Array) -> "Statistic":
        """Variance of values (n_frames,)."""
        off = values - values.mean()
        return cls(np.stack([off, off**2], axis=1), lambda means: means[..., 1] - means[..., 0] ** 2)

    def of(self, weights: Array) -> float:
        """Value under weights (n_frames,) that sum to one."""
        return float(self.function(weights @ self.columns))


@dataclass(frozen=True)
class Replicates:
    """Weights in every replicate: `weights` times factors, over their sum.

    The factors of a bootstrap sample do not depend on the temperature that frames are reweighted to, so ensembles at
    many temperatures share them; and means need no row of weights in memory.

    Attributes
    ----------
    factors
        Shape (n_replicates, n_frames).
    weights
        Shape (n_frames,).
    """

    factors: NDArray[np.float32]
    weights: Array

    def __len__(self) -> int:
        return len(self.factors)

    def rows(self) -> Iterator[Array]:
        """Weights (n_frames,) in one replicate after the other; each sums to one."""
        for factors in self.factors:
            row = self.weights * factors
            yield row / row.sum()

    def means(self, columns: Array) -> Array:
        """Weighted means of columns (n_frames, n_columns) in every replicate, (n_replicates, n_columns)."""
        n, width = columns.shape
        sums = np.zeros((len(self), width + 1))
        for start in range(0, n, _PART):
            part = slice(start, start + _PART)
            weights = self.weights[part, None]
            sums += self.factors[:, part] @ np.concatenate([weights * columns[part], weights], axis=1)
        return np.asarray(sums[:, :width] / sums[:, width:])

    def of(self, statistic: Statistic) -> Array:
        """Values of a statistic, shape (n_replicates,)."""
        return statistic.function(self.means(statistic.columns))

    def mixture(self, other: "Replicates", share: float) -> "Replicates":
        """Return the replicates of two sets of frames as one, the first with the given share in every replicate."""
        factors = [r.factors / (r.factors @ r.weights)[:, None] for r in (self, other)]
        return Replicates(
            np.concatenate(factors, axis=1).astype(np.float32),
            np.concatenate([share * self.weights, (1 - share) * other.weights]),
        )

    def blend(self, other: "Replicates", share: float) -> "Replicates":
        """Return both weightings of the same frames as one, the first with the given share in every replicate."""
        weights = share * self.weights + (1 - share) * other.weights
        factors = np.zeros(self.factors.shape, np.float32)
        used = weights > _NOTHING
        for row, first, second in zip(factors, self.rows(), other.rows(), strict=True):
            row[used] = (share * first + (1 - share) * second)[used] / weights[used]
        return Replicates(factors, weights)
