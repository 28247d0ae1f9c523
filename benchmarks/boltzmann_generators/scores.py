"""Scores of weighted frames at one temperature against the reference."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.boltzmann_generators.metrics import (
    energy_distance,
    fitting_width,
    forward_divergence,
    free_energy_difference,
    ramachandran,
    resampled,
    smoothed,
    torus_distance,
)
from benchmarks.boltzmann_generators.reference import EQUILIBRATION, RUNS, Samples, folder_of, samples_of
from benchmarks.boltzmann_generators.target import GAS_CONSTANT, TEMPERATURES
from latf_openmm.reweighting.free_energy import jensen_shannon
from latf_openmm.reweighting.weights import effective_sample_size

Array = NDArray[np.float64]
DRAWS = 5
"""Draws of `ASSIGNED` samples whose torus-W2 is averaged."""
ASSIGNED = 1000
"""Samples of each side of an assignment."""
FOLDS = 10
"""Blocks in time of which each is left out once, for the width of the kernel."""
_ENERGIES = 200_000
"""Energies of the reference that distributions are compared with, at most."""


@dataclass(frozen=True)
class Frames:
    """Weighted frames that stand for one temperature.

    Attributes
    ----------
    angles
        (phi, psi), shape (n, 2) [rad].
    energy
        Shape (n,) [kJ/mol].
    weights
        Shape (n,), summing to one.
    folds
        Block in time, shape (n,).
    """

    angles: NDArray[np.floating]
    energy: NDArray[np.floating]
    weights: Array
    folds: NDArray[np.integer]

    @staticmethod
    def equal(samples: Samples) -> "Frames":
        """Return frames of equal weights in the order of time."""
        n = len(samples.energy)
        folds = (np.arange(n) * FOLDS // n).astype(np.int8)
        return Frames(samples.angles, samples.energy, np.broadcast_to(1 / n, n), folds)


@dataclass(frozen=True)
class Reference:
    """Both runs of the reference at one temperature.

    Attributes
    ----------
    level
        Index of the temperature.
    runs
        Frames of each run.
    """

    level: int
    runs: tuple[Frames, Frames]

    @staticmethod
    def read(work: Path, level: int, left_out: int = EQUILIBRATION) -> "Reference":
        """Read both runs, chunks at the begin left out."""
        first, second = (Frames.equal(samples_of(folder_of(work, run), level, left_out)) for run in RUNS)
        return Reference(level, (first, second))

    @property
    def temperature(self) -> float:
        """In K."""
        return TEMPERATURES[self.level]

    @cached_property
    def frames(self) -> Frames:
        """Frames of both runs, with equal weights."""
        a, b = self.runs
        n = len(a.energy) + len(b.energy)
        return Frames(
            np.concatenate([a.angles, b.angles]),
            np.concatenate([a.energy, b.energy]),
            np.broadcast_to(1 / n, n),
            np.concatenate([a.folds, b.folds]),
        )

    @cached_property
    def density(self) -> Array:
        """Histogram of (phi, psi)."""
        return ramachandran(self.frames.angles)

    @property
    def own_divergence(self) -> float:
        """Divergence that is expected of the histogram of both runs from the truth, in nats.

        Of K cells and n independent frames a run it is K/4n, and so is the Jensen-Shannon divergence of the two runs.
        """
        a, b = (ramachandran(run.angles) for run in self.runs)
        return jensen_shannon(a / a.sum(), b / b.sum())

    def scores(self, frames: Frames, torus: bool = False) -> dict[str, float]:
        """Return all metrics of frames at this temperature; the torus distance takes seconds and is optional."""
        histogram = ramachandran(frames.angles, frames.weights)
        width = fitting_width(frames.angles, frames.weights, frames.folds)
        kT = GAS_CONSTANT * self.temperature
        thin = self.frames.energy[:: max(1, len(self.frames.energy) // _ENERGIES)]
        phi = self.frames.angles[:, 0]
        row = {
            "divergence": forward_divergence(self.density, histogram),
            "smoothed divergence": forward_divergence(self.density, smoothed(histogram, width)),
            "width": width,
            "energy": energy_distance(frames.energy / kT, frames.weights, thin / kT, np.ones(len(thin))),
            "free energy": free_energy_difference(frames.angles[:, 0], frames.weights)
            - free_energy_difference(phi, self.frames.weights),
            "samples": effective_sample_size(np.log(np.maximum(frames.weights, 1e-300))),
            "frames": float(len(frames.energy)),
        }
        return row | ({"torus": self._torus(frames)} if torus else {})

    def _torus(self, frames: Frames) -> float:
        distances = []
        for seed in range(DRAWS):
            n = min(ASSIGNED, len(frames.energy), len(self.frames.energy))
            a = frames.angles[resampled(frames.weights, n, seed)]
            b = self.frames.angles[resampled(self.frames.weights, n, seed + DRAWS)]
            distances.append(torus_distance(a, b))
        return float(np.mean(distances))
