"""Umbrella sampling: one Context whose restraint goes from window to window, each window a file.

Windows are visited in the order of a minimum spanning tree (Prim, 1957) that grows from the window nearest to
the start: each starts from the last structure of the finished window nearest to it and is pulled from there
to its own centre, so that no pull is longer than it has to be, for windows along a line as for any set of
them. A window is written aside and renamed, so one that is there is whole; what an interruption cut off is
run again, bit for bit the same on the Reference platform.

`latf_openmm.analysis.reweight` unbiases the frames.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import torch
from numpy.typing import ArrayLike, NDArray
from openmm import unit
from pydantic import Field
from rich.progress import Progress
from torch import Tensor

from latf_openmm.errors import ConfigError, DataError, SimulationError
from latf_openmm.md.backends.base import BackendName, ForcesName
from latf_openmm.md.bias.base import wrap
from latf_openmm.md.bias.harmonic import Harmonic, MovingHarmonic
from latf_openmm.md.biased_system import add_bias
from latf_openmm.md.cv import CollectiveVariables
from latf_openmm.md.updater import BiasUpdater
from latf_openmm.md.walker_group import find_platform
from latf_openmm.progress import Advance, bar
from latf_openmm.settings import Settings
from latf_openmm.units import KELVIN, plain

log = logging.getLogger(__name__)
Array = NDArray[np.float64]


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


class UmbrellaSettings(Settings):
    """How each window is simulated and what is recorded."""

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
    backend: BackendName = Field("auto", description="what runs the restraint")
    forces: ForcesName | None = Field(None, description="default: traced, except on GPU platforms")
    seed: int = Field(0, ge=0, description="of velocities and noise")


@dataclass(frozen=True)
class WindowSamples:
    """The frames of all windows.

    Attributes
    ----------
    centres, strengths
        Of the restraints sum_i k_i (z_i - c_i)^2 / 2, both of shape (n_windows, dim)
        [kJ/mol per unit of z squared].
    periods
        Period of each variable, 0 where it has none.
    temperature
        [K].
    frame_interval
        Time between frames [ps].
    z
        Collective variables of each window, shape (n_frames, dim).
    potential_energy
        Without the restraint [kJ/mol], shape (n_frames,) each.
    """

    centres: Array
    strengths: Array
    periods: tuple[float, ...]
    temperature: float
    frame_interval: float
    z: tuple[Array, ...]
    potential_energy: tuple[Array, ...]

    @property
    def kT(self) -> float:  # noqa: N802 - the field's own name
        """Thermal energy [kJ/mol]."""
        return KELVIN.kT(self.temperature)

    @property
    def biases(self) -> tuple[Harmonic, ...]:
        """The restraint of each window."""
        return tuple(
            Harmonic(torch.from_numpy(centre), torch.from_numpy(strength), self.periods)
            for centre, strength in zip(self.centres, self.strengths, strict=True)
        )


class WindowRestraint(MovingHarmonic):
    """A harmonic restraint that is sent from window to window; its state is (centre, strength).

    Parameters
    ----------
    centre, strength
        Where it is at first, both of shape (dim,).
    periods
        Period of each variable, 0 where it has none.
    pace
        Integration steps between updates.
    """

    def __init__(self, centre: Tensor, strength: Tensor, periods: Sequence[float], pace: int) -> None:
        self.dim = len(periods)
        both = torch.cat([centre.double(), strength.double()])
        super().__init__(both, both, torch.ones_like(both), [*periods, *[0.0] * self.dim], pace, pace)

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        delta = wrap(z - state[: self.dim], self.periods[: self.dim])
        return 0.5 * (state[self.dim :] * delta**2).sum(dim=1)

    def aim(self, centre: Array, strength: Array, updates: int) -> None:
        """Move from here to another centre and strength in this number of updates."""
        self.start = self.state.clone()
        self.path = wrap(torch.from_numpy(np.concatenate([centre, strength])) - self.start, self.periods)
        self.n_updates = updates
        self.updates = torch.zeros_like(self.updates)


class UmbrellaWindows:
    """Harmonic windows along any number of collective variables.

    Parameters
    ----------
    system
        Without restraint; not changed.
    cv
        Collective variables.
    positions
        Where to start, shape (n_atoms, 3) [nm], or an OpenMM quantity.
    centres
        Shape (n_windows, dim), or (n_windows,) for one variable; see `window_centres`.
    strength
        k of all windows: a number, or shape (dim,) or (n_windows, dim) [kJ/mol per unit of z squared].
        Neighbours at a distance d overlap well where k is kT / d^2 to 4 kT / d^2. It should be above what
        the free energy curves downwards at its barriers, so that no window has two minima.
    temperature
        A number [K] or an OpenMM quantity.
    settings
        How each window is simulated.
    folder
        Where the windows are written; those there are not simulated again.

    Raises
    ------
    ConfigError
        If shapes disagree, or a value is not finite or not positive.
    """

    def __init__(
        self,
        system: openmm.System,
        cv: CollectiveVariables,
        positions: Any,
        centres: ArrayLike,
        strength: ArrayLike,
        temperature: Any,
        settings: UmbrellaSettings,
        folder: Path | str,
    ) -> None:
        self.system = system
        self.cv = cv
        if unit.is_quantity(positions):
            positions = positions.value_in_unit(unit.nanometer)
        self.positions = np.array(positions, dtype=np.float64)
        self.centres = _centres(centres, cv.dim)
        self.strengths = _strengths(strength, self.centres.shape)
        self.periods = tuple(cv.periods.tolist())
        self.temperature = plain(temperature, unit.kelvin)
        self.settings = settings
        self.folder = Path(folder)
        if self.positions.shape != (cv.n_atoms, 3):
            raise ConfigError(
                f"windows.positions: expected shape ({cv.n_atoms}, 3), got {self.positions.shape}"
            )
        if not self.temperature > 0:
            raise ConfigError(f"windows.temperature: must be positive, got {self.temperature}")
        self.legs = _spanning_tree(self.centres, self.strengths, self.periods, self._first_z())

    def run(self, progress: Progress | None = None) -> WindowSamples:
        """Simulate all windows, or what is left of them.

        Raises
        ------
        SimulationError
            If a window becomes unstable.
        ConfigError
            If the folder holds windows of other centres or settings.
        DataError
            If a file there is damaged.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_record()
        complete = 0
        while complete < len(self.legs) and _path(self.folder, self.legs[complete].window).is_file():
            complete += 1
        frames = self.settings.frames
        with bar(progress, "windows", len(self.legs) * frames) as advance:
            advance(complete * frames, "")
            if complete < len(self.legs):
                runner = _Runner(self, complete)
                for number in range(complete, len(self.legs)):
                    runner.run(self.legs[number], f"{number + 1} of {len(self.legs)}", advance)
        return self.samples()

    def samples(self) -> WindowSamples:
        """Read the frames of all windows.

        Raises
        ------
        DataError
            If a window is missing or its file is damaged.
        """
        windows = [_Window.read(self.folder, i) for i in range(len(self.centres))]
        return WindowSamples(
            self.centres,
            self.strengths,
            self.periods,
            self.temperature,
            self.settings.timestep * self.settings.frame_interval,
            tuple(window.z for window in windows),
            tuple(window.potential_energy for window in windows),
        )

    @torch.no_grad()
    def _first_z(self) -> Array:
        """Collective variables of the start."""
        box = torch.empty(0)
        if self.system.usesPeriodicBoundaryConditions():
            vectors = self.system.getDefaultPeriodicBoxVectors()
            box = torch.tensor([[list(v.value_in_unit(unit.nanometer)) for v in vectors]])
        z = self.cv(torch.from_numpy(self.positions)[None], box)[0].numpy()
        if not np.isfinite(z).all():
            raise ConfigError(f"windows.positions: their collective variables are not finite: {z.tolist()}")
        return np.asarray(z)

    def _check_record(self) -> None:
        """Write what is simulated here, or compare it with what is there."""
        record = {
            "centres": self.centres.tolist(),
            "strengths": self.strengths.tolist(),
            "temperature": self.temperature,
            "order": [leg.window for leg in self.legs],
            "settings": self.settings.model_dump(mode="json"),
        }
        path = self.folder / "windows.json"
        if not path.is_file():
            partial = path.with_name(path.name + ".partial")
            partial.write_text(json.dumps(record, indent=1) + "\n")
            partial.rename(path)
            return
        there = json.loads(path.read_text())
        if differing := [key for key, value in record.items() if there.get(key) != value]:
            raise ConfigError(
                f"{self.folder}: holds windows with other {', '.join(differing)}; take another folder, or delete it"
            )


@dataclass(frozen=True)
class _Leg:
    """A window, the one it starts from (None: the given positions), and how long the pull is.

    `length` is the distance between the two over the usual one of neighbours, at least 1.
    """

    window: int
    origin: int | None
    length: float


def _spanning_tree(
    centres: Array, strengths: Array, periods: tuple[float, ...], start: Array
) -> tuple[_Leg, ...]:
    """Windows in the order of Prim's algorithm; distances are in units of the restraints' widths."""
    scale = np.sqrt(strengths.mean(axis=0))
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
        _Leg(window, origin_, max(1.0, length / usual) if usual > 0 else 1.0)
        for window, origin_, length in edges
    )


class _Runner:
    """The Context, and which window's end it is at.

    Parameters
    ----------
    task
        What is simulated.
    complete
        Windows already there; it continues from the last of them.
    """

    def __init__(self, task: UmbrellaWindows, complete: int) -> None:
        self.task = task
        settings = task.settings
        first = task.legs[0].window
        centre, strength = torch.from_numpy(task.centres[first]), torch.from_numpy(task.strengths[first])
        self.bias = WindowRestraint(centre, strength, task.periods, settings.pace)
        before = None if complete == 0 else _Window.read(task.folder, task.legs[complete - 1].window)
        if before is not None:
            self.bias.state = torch.from_numpy(before.restraint)
            self.bias.sent = torch.tensor(before.sent)
        platform = _platform(settings.platform, task.system)
        group = _free_group(task.system)
        biased = add_bias(
            task.system,
            task.cv,
            self.bias,
            group=group,
            backend=settings.backend,
            forces=settings.forces
            or ("traced" if platform.getName() in ("Reference", "CPU") else "autograd"),
        )
        self.unbiased = set(range(32)) - {group}
        self.updater = BiasUpdater(task.cv, self.bias, group=group)
        integrator = openmm.LangevinMiddleIntegrator(task.temperature, settings.friction, settings.timestep)
        integrator.setRandomNumberSeed(self._seed(complete))
        self.context = openmm.Context(biased, integrator, platform)
        self.periodic = bool(biased.usesPeriodicBoundaryConditions())
        self.at: int | None = None
        if before is not None:
            self._load(before, task.legs[complete - 1].window)

    def _load(self, window: "_Window", index: int) -> None:
        try:
            self.context.loadCheckpoint(window.checkpoint.tobytes())
            self.at = index
        except openmm.OpenMMException as error:
            log.info("window %d: %s; continuing from its last structure", index, error)

    def run(self, leg: _Leg, note: str, advance: Advance) -> None:
        """Simulate one window and write it."""
        task, index = self.task, leg.window
        centre, strength = task.centres[index], task.strengths[index]
        try:
            self._go_to(leg.origin)
            updates = -(-task.settings.pulling // task.settings.pace)
            self._pull(centre, strength, int(np.ceil(leg.length * updates)))
            self.context.getIntegrator().step(task.settings.equilibration)
            z, energy = self._frames(index, lambda: advance(1, note))
        except (openmm.OpenMMException, SimulationError, ConfigError) as error:
            raise SimulationError(
                f"window {index} at {centre.tolist()}: {str(error).strip().splitlines()[-1]}; lower the "
                "timestep or the strength, or pull more slowly"
            ) from error
        state = self.context.getState(positions=True, velocities=True)
        window = _Window(
            z,
            energy,
            state.getPositions(asNumpy=True)._value.copy(),
            state.getVelocities(asNumpy=True)._value.copy(),
            np.array(state.getPeriodicBoxVectors(asNumpy=True)._value),
            self.bias.state.numpy(),
            int(self.bias.sent),
            np.frombuffer(self.context.createCheckpoint(), dtype=np.uint8),
        )
        window.write(task.folder, index)
        self.at = index

    def _go_to(self, origin: int | None) -> None:
        """Continue from the end of a window, or from the given positions."""
        if origin is None:
            z = self.task._first_z()
            self.context.setPositions(self.task.positions)
            self._jump(z, self.task.strengths[self.task.legs[0].window])
            if self.task.settings.minimise:
                openmm.LocalEnergyMinimizer.minimize(self.context, 10.0, 200)
            self.context.setVelocitiesToTemperature(self.task.temperature, self._seed(len(self.task.legs)))
        elif origin != self.at:
            window = _Window.read(self.task.folder, origin)
            self.context.setPeriodicBoxVectors(*window.box)
            self.context.setPositions(window.positions)
            self.context.setVelocities(window.velocities)
            self._jump(self.task.centres[origin], self.task.strengths[origin])
        self.at = None

    def _jump(self, centre: Array, strength: Array) -> None:
        self.bias.aim(centre, strength, 1)
        self.updater.update(self.context)

    def _pull(self, centre: Array, strength: Array, updates: int) -> None:
        self.bias.aim(centre, strength, updates)
        for _ in range(updates):
            self.updater.update(self.context)
            self.context.getIntegrator().step(self.task.settings.pace)

    def _frames(self, index: int, advance: Callable[[], None]) -> tuple[Array, Array]:
        """Run and record; return collective variables and energies without the restraint."""
        n = self.task.settings.frames
        z, energy = np.empty((n, self.task.cv.dim)), np.empty(n)
        path = self.task.folder / f"window_{index:04d}.dcd"
        partial = path.with_name(path.name + ".partial")
        file = None
        if self.task.settings.positions:
            file = mdtraj.formats.DCDTrajectoryFile(str(partial), "w")
        try:
            for frame in range(n):
                self.context.getIntegrator().step(self.task.settings.frame_interval)
                state = self.context.getState(positions=True, energy=True, groups=self.unbiased)
                z[frame] = self.updater.variables(state).numpy()[0]
                energy[frame] = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
                if not (np.isfinite(z[frame]).all() and np.isfinite(energy[frame])):
                    raise SimulationError(f"not finite at frame {frame}")
                if file is not None:
                    self._write_frame(file, state)
                advance()
        finally:
            if file is not None:
                file.close()
        if file is not None:
            partial.rename(path)
        return z, energy

    def _write_frame(self, file: Any, state: openmm.State) -> None:
        xyz = 10.0 * state.getPositions(asNumpy=True)._value[None].astype(np.float32)  # DCD is in angstrom
        if not self.periodic:
            file.write(xyz)
            return
        cell = mdtraj.utils.box_vectors_to_lengths_and_angles(
            *state.getPeriodicBoxVectors(asNumpy=True)._value
        )
        file.write(xyz, np.array([cell[:3]]) * 10.0, np.array([cell[3:]]))

    def _seed(self, stream: int) -> int:
        """A positive 31-bit seed for one random stream."""
        sequence = np.random.SeedSequence([self.task.settings.seed, stream])
        return int(sequence.generate_state(1)[0] % (2**31 - 2)) + 1


@dataclass(frozen=True)
class _Window:
    """The file of a finished window: its frames, and what the next ones continue from."""

    z: Array
    potential_energy: Array
    positions: Array
    velocities: Array
    box: Array
    restraint: Array
    sent: int
    checkpoint: NDArray[np.uint8]

    def write(self, folder: Path, index: int) -> None:
        path = _path(folder, index)
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            np.savez(file, **vars(self))
        partial.rename(path)

    @staticmethod
    def read(folder: Path, index: int) -> "_Window":
        path = _path(folder, index)
        try:
            with np.load(path) as file:
                parts = {name: file[name] for name in file.files}
            return _Window(**parts | {"sent": int(parts["sent"])})
        except Exception as error:  # zipfile, zlib, numpy and the operating system each have their own
            raise DataError(f"{path}: not a finished window ({error})") from error


def _path(folder: Path, index: int) -> Path:
    return folder / f"window_{index:04d}.npz"


def _centres(values: ArrayLike, dim: int) -> Array:
    centres = np.array(values, dtype=np.float64)
    if centres.ndim == 1 and dim == 1:
        centres = centres[:, None]
    if centres.ndim != 2 or centres.shape[1] != dim or len(centres) == 0:
        raise ConfigError(f"windows.centres: expected shape (n_windows, {dim}), got {centres.shape}")
    if not np.isfinite(centres).all():
        raise ConfigError(
            f"windows.centres: window {int(np.argwhere(~np.isfinite(centres))[0][0])} is not finite"
        )
    return centres


def _strengths(values: ArrayLike, shape: tuple[int, ...]) -> Array:
    given = np.array(values, dtype=np.float64)
    try:
        strengths = np.broadcast_to(given, shape).copy()
    except ValueError:
        raise ConfigError(
            f"windows.strength: expected a number or shape ({shape[1]},) or {shape}, got {given.shape}"
        ) from None
    if not (np.isfinite(strengths).all() and (strengths >= 0).all() and (strengths.max(axis=1) > 0).all()):
        raise ConfigError(
            "windows.strength: each window needs finite strengths, none negative, one above zero"
        )
    return strengths


def _platform(name: str | None, system: openmm.System) -> openmm.Platform:
    """The named platform, or the one OpenMM chooses."""
    if name is not None:
        return find_platform(name)
    return openmm.Context(system, openmm.VerletIntegrator(0.001)).getPlatform()


def _free_group(system: openmm.System) -> int:
    """The highest force group that no force of the System is in."""
    used = {force.getForceGroup() for force in system.getForces()}
    free = [group for group in range(31, -1, -1) if group not in used]
    if not free:
        raise ConfigError(
            "windows.system: its forces are in all 32 groups; the restraint needs one for itself"
        )
    return free[0]
