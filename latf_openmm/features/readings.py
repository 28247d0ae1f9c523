"""Descriptors as a person reads them: angles in place of sines and cosines, units."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latf_openmm.periodic import nearest_difference, periodic_mean

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """One quantity at many frames.

    Attributes
    ----------
    name
        Of the quantity.
    values
        Shape (n_frames,).
    unit
        Of the values; empty for a number.
    period
        After which values repeat, or 0.
    """

    name: str
    values: Array
    unit: str = ""
    period: float = 0.0

    def around(self, centre: float) -> Array:
        """Values less `centre`; periodic ones between minus and plus half a period.

        Examples
        --------
        >>> Reading("phi", np.array([170.0, -170.0]), "degrees", 360.0).around(180.0)
        array([-10.,  10.])
        """
        return nearest_difference(self.values - centre, self.period)

    def centre(self, rows: Array | NDArray[np.int64] | NDArray[np.bool_]) -> float:
        """Mean of some values; the direction of the mean vector, where they are periodic."""
        return periodic_mean(self.values[rows], self.period)

    def text(self, low: float, high: float) -> str:
        """Say a range; of a periodic quantity both ends are within half a period of zero.

        Examples
        --------
        >>> Reading("psi ALA2", np.array([0.0]), "degrees", 360.0).text(150.0, 190.0)
        'psi ALA2 from 150 through 180 to -170 degrees'
        >>> Reading("d(1,2)", np.array([0.0]), "nm").text(0.31234, 0.3678)
        'd(1,2) from 0.312 to 0.368 nm'
        """
        if self.period:
            half = self.period / 2
            ends = [(end + half) % self.period - half for end in (low, high)]
            between = f" through {half:g} to " if ends[0] > ends[1] else " to "
            numbers = f"from {ends[0]:.0f}{between}{ends[1]:.0f}"
        elif f"{low:.3g}" == f"{high:.3g}":
            numbers = f"= {low:.3g}"
        else:
            numbers = f"from {low:.3g} to {high:.3g}"
        return f"{self.name} {numbers} {self.unit}".rstrip()
