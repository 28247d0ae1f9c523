"""What umbrella sampling simulates: settings, the centres of the windows, the order they are visited in.

The order is that of a minimum spanning tree (Prim, 1957) that grows from the window nearest to the start: each
window starts from the last structure of the finished one nearest to it and is pulled from there to its own
centre, so that no pull is longer than it has to be, for windows along a line as for any set of them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from latf_openmm.bias.cv import CollectiveVariables
from latf_openmm.bias.force.base import BackendName, ForcesName
from latf_openmm.bias.potentials.base import wrap
from latf_openmm.errors import ConfigError
from latf_openmm.settings import Settings

Array = NDArray[np.float64]


class UmbrellaSettings(Settings):
    """Settings for the simulation of each window and its record."""

    timestep: float = Field(gt=0, le=10, description="integration step [ps]")
    friction: float = Field(1.0, gt=0, description="Langevin friction [1/ps]")
    pulling: int = Field(ge=1, description="steps from a window to a neighbour; further in proportion")
    pace: int = Field(20, ge=1, description="steps between moves of the restraint while it pulls")
    equilibration: int = Field(ge=0, description="steps at the centre before the first frame, not recorded")
    frames: int = Field(ge=10, description="frames of each window")
    frame_interval: int = Field(ge=1, description="steps between recorded frames")
    minimise: bool = Field(True, description="minimise the start structure first")
    positions: bool = Field(False, description="write the positions of all frames (a DCD file each window)")
    platform: str | None = Field(None, description="OpenMM platform; default: the fastest here")
    platform_properties: dict[str, str] = Field(
        {}, description="properties of the platform, such as {Precision: mixed}"
    )
    backend: BackendName = Field("auto", description="what runs the restraint")
    forces: ForcesName | None = Field(None, description="default: traced, except on GPU platforms")
    seed: int = Field(0, ge=0, description="of velocities and noise")


def window_centres(
    low: ArrayLike, high: ArrayLike, counts: ArrayLike, periods: ArrayLike | None = None
) -> Array:
    """Return the centres of windows on a grid.

    Parameters
    ----------
    low, high
        First and last centre along each variable.
    counts
        Windows along each variable.
    periods
        Period of each variable, 0 where it has none; where `high` is one period after `low` it is the same
        point, and left out.

    Returns
    -------
    ndarray
        Shape (n_windows, dim).

    Raises
    ------
    ConfigError
        If there is no window, or the numbers of variables differ.

    Examples
    --------
    >>> window_centres(0.0, 1.0, 3).tolist()
    [[0.0], [0.5], [1.0]]
    >>> window_centres([-1.0, 0.0], [1.0, 2.0], [2, 1]).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    first, last = np.atleast_1d(np.asarray(low, float)), np.atleast_1d(np.asarray(high, float))
    numbers = np.atleast_1d(np.asarray(counts, int))
    around = np.zeros(len(first)) if periods is None else np.atleast_1d(np.asarray(periods, float))
    if not len(first) == len(last) == len(numbers) == len(around):
        raise ConfigError(
            f"windows: low, high, counts and periods are for {len(first)}, {len(last)}, {len(numbers)} and "
            f"{len(around)} variables"
        )
    if (numbers < 1).any():
        raise ConfigError(f"windows.counts: expected 1 or more, got {numbers.tolist()}")
    closed = (around > 0) & np.isclose(last - first, around)
    axes = [
        np.linspace(a, b, n, endpoint=not same)
        for a, b, n, same in zip(first, last, numbers, closed, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


@dataclass(frozen=True)
class Leg:
    """A window, the one it starts from (None: the given positions), and how long the pull is.

    `length` is the distance between the two over the usual one of neighbours, at least 1.
    """

    window: int
    origin: int | None
    length: float


def spanning_tree(
    centres: Array, force_constants: Array, periods: tuple[float, ...], start: Array
) -> tuple[Leg, ...]:
    """Windows in the order of Prim's algorithm; distances are in units of the restraints' widths."""
    scale = np.sqrt(force_constants.mean(axis=0))
    points = np.concatenate([start[None], centres])
    delta = wrap(torch.from_numpy(points[:, None] - points), torch.tensor(periods, dtype=torch.float64))
    distances = np.sqrt(((delta.numpy() * scale) ** 2).sum(axis=-1))
    first = int(distances[0, 1:].argmin())
    edges: list[tuple[int, int | None, float]] = [(first, None, float(distances[0, first + 1]))]
    between = distances[1:, 1:]
    origin = np.full(len(centres), first)
    nearest = between[first].copy()
    nearest[first] = np.inf
    while len(edges) < len(centres):
        window = int(nearest.argmin())
        edges.append((window, int(origin[window]), float(nearest[window])))
        closer = between[window] < nearest
        closer[[edge[0] for edge in edges]] = False
        origin[closer] = window
        nearest = np.where(closer, between[window], nearest)
        nearest[window] = np.inf
    usual = float(np.median([length for _, origin_, length in edges if origin_ is not None] or [0.0]))
    return tuple(
        Leg(window, origin_, max(1.0, length / usual) if usual > 0 else 1.0)
        for window, origin_, length in edges
    )


@dataclass(frozen=True)
class WindowPlan:
    """Everything that the windows are simulated from.

    Parameters
    ----------
    system, cv
        Without restraint, and its collective variables.
    positions, start
        Where to start, shape (n_atoms, 3) [nm], and the collective variables there, shape (dim,).
    centres, force_constants
        Of the restraints, both of shape (n_windows, dim).
    temperature
        [K].
    settings
        How each window is simulated.
    folder
        Where the windows are written.
    legs
        In the order they are visited in.
    """

    system: openmm.System
    cv: CollectiveVariables
    positions: Array
    start: Array
    centres: Array
    force_constants: Array
    temperature: float
    settings: UmbrellaSettings
    folder: Path
    legs: tuple[Leg, ...]

    @property
    def periods(self) -> tuple[float, ...]:
        """Period of each variable, 0 where it has none."""
        return tuple(self.cv.periods.tolist())
