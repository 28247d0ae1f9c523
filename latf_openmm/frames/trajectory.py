"""FeatureTrajectory: the descriptors of one walker's frames with what is needed to weight them."""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.features import Features
from latf_openmm.units import KELVIN, TemperatureScale

_MAX_IN_MEMORY = 250_000_000
"""Descriptors of all frames together that are kept in memory: 1 GB."""
_IN_CACHE = 250_000
"""Descriptors computed at a time: what they are made of fits into a processor's cache."""
_FRAMES_AT_A_TIME = 64, 2048
"""Smallest and largest number of frames featurised at a time."""
_FRAMES_FOR_SPEEDS = 200
"""Largest number of frames from which mean squared speeds are computed; more are thinned."""
_MOMENT = 1e-5
"""Time between positions from which speeds are computed [ps]."""


@dataclass(frozen=True)
class WindowBias:
    """The bias that each of several runs at one temperature would have at the frames of a trajectory.

    Parameters
    ----------
    group
        Name of the runs that are joined by MBAR.
    index
        The run of this trajectory: its column in `reduced`.
    reduced
        V_k / k_B T of each run, shape (n_frames, n_runs); zero for a run without bias.
    """

    group: str
    index: int
    reduced: NDArray[np.float64]


@dataclass(frozen=True)
class RecordedEnergies:
    """Potential energies recorded around each frame, more often than frames.

    Parameters
    ----------
    counts
        Recordings around each frame, shape (n_frames,).
    means, variances
        Of them, without bias, at constant pressure of U + pV, shape (n_frames,) [kJ/mol], [kJ^2/mol^2].
    """

    counts: NDArray[np.float64]
    means: NDArray[np.float64]
    variances: NDArray[np.float64]


@dataclass(frozen=True)
class WalkerPaths:
    """Walkers that were at the temperature of a trajectory for a while, and moved on.

    Parameters
    ----------
    stage
        Name of the simulation, whose walkers move among its temperatures.
    walkers
        Number of the walker at each frame, shape (n_frames,).
    frames
        Number of the frame in the simulation, shape (n_frames,).
    """

    stage: str
    walkers: NDArray[np.int64]
    frames: NDArray[np.int64]


@dataclass(frozen=True)
class FeatureTrajectory:
    """One trajectory at one temperature; it is continuous but for `breaks`.

    Parameters
    ----------
    features
        Descriptors, shape (n_frames, n_features).
    temperature
        In the temperature scale of the system.
    frame_interval
        Time between frames [ps].
    potential_energy
        Potential energy without bias, at constant pressure U + pV [kJ/mol], shape (n_frames,); a constant means
        that it is not known.
    log_weights
        Logarithm of each frame's statistical weight, V_bias / k_B T for a static bias, shape (n_frames,).
    run
        Which run it belongs to: walkers of one run share bias and normalisation of their weights.
    name
        What to call it in an error message.
    scale
        The scale of `temperature`.
    square_speeds
        Mean square of the speed of each descriptor under thermal velocities of the atoms [1/ps^2], shape
        (n_features,), from `thermal_square_speeds`; None: not known.
    windows
        Bias of the runs that this one is joined with by MBAR; None: its weights are known without other runs.
    breaks
        Frames that do not follow on the frame before them, ascending.
    recorded
        Energies recorded around the frames; None: at frames alone.
    paths
        Which walkers its frames are of, where walkers move among temperatures; None: of one.

    Raises
    ------
    DataError
        If shapes disagree or a number is not finite.
    """

    features: NDArray[np.float32]
    temperature: float
    frame_interval: float
    potential_energy: NDArray[np.float64]
    log_weights: NDArray[np.float64]
    run: str = "run"
    name: str = "trajectory"
    scale: TemperatureScale = KELVIN
    square_speeds: NDArray[np.float64] | None = None
    windows: WindowBias | None = None
    breaks: tuple[int, ...] = ()
    recorded: RecordedEnergies | None = None
    paths: WalkerPaths | None = None

    def __post_init__(self) -> None:
        n = self.features.shape[0]
        for label in ("features", "potential_energy", "log_weights"):
            values = getattr(self, label)
            if values.shape[0] != n:
                raise DataError(f"{self.name}: {label} has {values.shape[0]} frames, expected {n}")
            if not np.isfinite(values).all():
                frame = int(np.argwhere(~np.isfinite(values))[0][0])
                raise DataError(f"{self.name}: {label} is not finite at frame {frame}")
            if label != "features" and values.ndim != 1:
                raise DataError(f"{self.name}: {label} must have shape (n_frames,), got {values.shape}")
        if self.features.ndim != 2 or n == 0:
            raise DataError(f"{self.name}: features must have shape (n_frames > 0, n_features)")
        speeds, width = self.square_speeds, self.features.shape[1:]
        if speeds is not None and (speeds.shape != width or not (speeds >= 0).all()):
            raise DataError(f"{self.name}: square_speeds must have shape {width} and no number below 0")
        if self.windows is not None and len(self.windows.reduced) != n:
            raise DataError(f"{self.name}: biases of {len(self.windows.reduced)} frames, expected {n}")
        if self.recorded is not None:
            for values in (self.recorded.counts, self.recorded.means, self.recorded.variances):
                if values.shape != (n,) or not np.isfinite(values).all():
                    raise DataError(f"{self.name}: recorded energies must be {n} finite numbers")
        if self.paths is not None and not len(self.paths.walkers) == len(self.paths.frames) == n:
            raise DataError(f"{self.name}: walkers of {len(self.paths.walkers)} frames, expected {n}")
        if not self.temperature > 0:
            raise DataError(f"{self.name}: temperature must be positive, got {self.temperature}")

    @property
    def kT(self) -> float:  # noqa: N802 - the field's own name
        """Thermal energy [kJ/mol]."""
        return self.scale.kT(self.temperature)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return int(self.features.shape[0])

    @property
    def stretches(self) -> list[slice]:
        """Frames that follow on each other without a break."""
        return [slice(a, b) for a, b in pairwise((0, *self.breaks, self.n_frames))]

    def columns(self, chosen: Sequence[int]) -> "FeatureTrajectory":
        """Return the same trajectory with some of its descriptors."""
        speeds = None if self.square_speeds is None else self.square_speeds[list(chosen)]
        return replace(
            self, features=np.ascontiguousarray(self.features[:, list(chosen)]), square_speeds=speeds
        )


def energies_known(trajectories: Sequence[FeatureTrajectory]) -> bool:
    """Return whether every trajectory has potential energies; a constant stands for unknown."""
    return all(np.ptp(t.potential_energy) > 0 for t in trajectories)


def joined_features(trajectories: Sequence[FeatureTrajectory]) -> NDArray[np.float32]:
    """Descriptors of all trajectories one after the other, shape (n_frames, n_features).

    Where they are consecutive rows of one array already, as those of a run are, that array, without a copy.
    """
    parts = [trajectory.features for trajectory in trajectories]
    base = parts[0].base
    if isinstance(base, np.ndarray) and base.shape == (sum(map(len, parts)), parts[0].shape[1]):
        place = base.ctypes.data
        for part in parts:
            if part.base is not base or part.ctypes.data != place or part.dtype != base.dtype:
                break
            place += part.nbytes
        else:
            return np.asarray(base, dtype=np.float32)
    return np.concatenate(parts).astype(np.float32, copy=False)


def new_features(n_frames: int, n_features: int, folder: Path) -> NDArray[np.float32]:
    """Return an array to fill with descriptors; a large one lies on the disk, in a file that nobody else sees.

    Parameters
    ----------
    folder
        Where the file is, or above it while it is not there yet; the file is gone when the array is, or the process.
    """
    if n_frames * n_features < _MAX_IN_MEMORY:
        return np.empty((n_frames, n_features), np.float32)
    place = folder.absolute()
    with tempfile.TemporaryFile(dir=next(p for p in (place, *place.parents) if p.is_dir())) as file:
        return np.asarray(np.memmap(file, np.float32, "w+", shape=(n_frames, n_features)))


@torch.no_grad()
def featurise(
    features: Features,
    positions: NDArray[np.floating],
    box: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """Descriptors of many frames, in single precision, which is what trajectory files have.

    Parameters
    ----------
    features
        The same module that sits inside the bias, in any precision; not changed.
    positions
        Shape (n_frames, n_atoms, 3) [nm].
    box
        Shape (n_frames, 3, 3) [nm], or None.

    Returns
    -------
    ndarray
        Shape (n_frames, n_features), single precision.
    """
    module, width = copy.deepcopy(features).float(), len(features.names)
    frames = int(np.clip(_IN_CACHE // width, *_FRAMES_AT_A_TIME))
    if box is not None:
        module.in_rectangular_boxes(not box[:, ~np.eye(3, dtype=bool)].any())
    descriptors = np.empty((len(positions), width), np.float32)
    for start in range(0, len(positions), frames):
        part = slice(start, start + frames)
        cell = torch.empty(0) if box is None else torch.as_tensor(box[part])
        xyz = torch.as_tensor(np.ascontiguousarray(positions[part]))
        descriptors[part] = module(xyz.float(), cell.float()).numpy()
    return descriptors


@torch.no_grad()
def thermal_square_speeds(
    features: Features,
    positions: NDArray[np.floating],
    box: NDArray[np.floating] | None,
    masses: NDArray[np.float64],
    kT: float,
) -> NDArray[np.float64]:
    """Mean square speed of each descriptor where atoms have thermal velocities, kT sum_a |dx/dr_a|^2 / m_a.

    Estimated with one random velocity of all atoms for each of at most 200 frames, which costs no gradients.
    Constraints are not looked at.

    Parameters
    ----------
    features
        In double precision.
    positions
        Shape (n_frames, n_atoms, 3) [nm].
    box
        Shape (n_frames, 3, 3) [nm], or None.
    masses
        Shape (n_atoms,) [amu]; atoms without mass do not move.
    kT
        [kJ/mol].

    Returns
    -------
    ndarray
        Shape (n_features,) [1/ps^2], in the units of the descriptors.
    """
    every = -(-len(positions) // _FRAMES_FOR_SPEEDS)
    xyz = torch.from_numpy(positions[::every].astype(np.float64))
    cell = torch.empty(0) if box is None else torch.from_numpy(box[::every].astype(np.float64))
    spread = torch.from_numpy(np.sqrt(np.divide(kT, masses, out=np.zeros_like(masses), where=masses > 0)))
    noise = torch.randn(xyz.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = _MOMENT * spread[:, None] * noise
    squares = torch.zeros(len(features.names), dtype=torch.float64)
    for start in range(0, len(xyz), _FRAMES_AT_A_TIME[0]):
        part = slice(start, start + _FRAMES_AT_A_TIME[0])
        cells = cell if box is None else cell[part]
        change = features(xyz[part] + step[part], cells) - features(xyz[part] - step[part], cells)
        squares += change.square().sum(dim=0)
    return np.asarray((squares / (len(xyz) * (2 * _MOMENT) ** 2)).numpy())


def check_same_features(trajectories: Sequence[FeatureTrajectory]) -> int:
    """Return the common number of features; a `DataError` names the trajectory that differs."""
    if not trajectories:
        raise DataError("there are no trajectories")
    width = trajectories[0].features.shape[1]
    for trajectory in trajectories:
        if trajectory.features.shape[1] != width:
            raise DataError(
                f"{trajectory.name}: {trajectory.features.shape[1]} features, expected {width} "
                f"as in {trajectories[0].name}"
            )
    return int(width)
