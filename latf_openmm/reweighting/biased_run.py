"""The frames of a run with what is known of its bias, to be reweighted."""

import numbers
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latf_openmm.errors import DataError
from latf_openmm.reweighting.estimators import statistical_inefficiency
from latf_openmm.reweighting.reliability import MIN_FRAMES

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Potential = Callable[[Tensor], Tensor]
"""z (n, dim) -> energies (n,) [kJ/mol]; every `Bias` is one."""


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
        if not isinstance(self.kT, numbers.Real):  # as a temperature in kelvin, or in OpenMM's units
            raise DataError(f"{self.name}: kT must be a number in kJ/mol, as 2.494 at 300 K, got {self.kT!r}")
        if self.z.ndim != 2 or self.z.shape[1] == 0:
            raise DataError(f"{self.name}: z must have shape (n_frames, dim), got {self.z.shape}")
        if len(self.z) < MIN_FRAMES:
            raise DataError(f"{self.name}: {len(self.z)} frames are too few; {MIN_FRAMES} are needed")
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
            return evaluate(self.bias, self.z)
        if self.bias_energy is not None and np.ptp(self.bias_energy) > 0:
            raise DataError(f"{self.name}: was biased, but its bias is not given")
        return np.zeros(self.n_frames)

    @cached_property
    def inefficiency(self) -> float:
        """Statistical inefficiency g of the collective variables: one independent frame in every g."""
        return statistical_inefficiency([self.z[frames] for frames in self.walkers], self.periods)


@torch.no_grad()
def evaluate(potential: Potential, z: Array) -> Array:
    """Return the energies of frames [kJ/mol], shape (n_frames,)."""
    values = potential(torch.from_numpy(np.ascontiguousarray(z, dtype=np.float64)))
    return np.asarray(values.numpy(), dtype=np.float64)
