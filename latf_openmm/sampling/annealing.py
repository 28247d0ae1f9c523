"""Population annealing: walkers carried from one temperature to another, with weights that stay exact.

Walkers that stand for the Boltzmann distribution at one temperature are moved to the next in small steps. At each
step from beta to beta', a walker of potential energy U gains the weight exp(-(beta' - beta) U); walkers are redrawn
where few have most of the weight; then each moves by Langevin dynamics at its new temperature. However short the
dynamics, weighted averages tend to those of the Boltzmann distribution as walkers become many (annealed importance
sampling: Neal, Stat. Comput. 2001; population annealing: Hukushima and Iba, AIP Conf. Proc. 2003; Machta, Phys. Rev.
E 2010). At constant pressure U + pV stands for U. What the time step does to the distribution stays in, as in any
simulation.

A redraw may favour walkers by any positive function psi of their positions, if they keep the weight 1 / psi (auxiliary
particle filters: Pitt and Shephard, J. Am. Stat. Assoc. 1999). With psi near p_goal(z) / p_T(z) the walkers that the
goal needs are not lost on the way.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit
from pydantic import Field
from scipy.optimize import brentq

from latf_openmm.errors import SimulationError
from latf_openmm.reweighting.weights import normalised_weights, systematic
from latf_openmm.sampling.processes import end_pool, lost_workers_named, process_pool
from latf_openmm.sampling.walker_group import DynamicsSettings
from latf_openmm.settings import Settings
from latf_openmm.storage import read_arrays, write_arrays
from latf_openmm.systems import AnySystem, shared_system
from latf_openmm.systems.inspection import barostat_of, pressure_of
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]
Lookahead = Callable[[Array, Array | None, float, float], Array]
"""log psi of positions (n, n_atoms, 3), boxes (n, 3, 3) or None, at a temperature on the way to a goal; (n,)."""

_REDRAW = 0.5
_SAME = 1e-9
_OVERDAMPED = 1e6  # 1/ps
SETTLE = 50
"""Steps at the beginning of every move, until velocities and positions fit each other."""
_FARTHEST = 1e5  # nm


class AnnealingSettings(Settings):
    """Settings for walkers that are carried to another temperature."""

    walkers: int = Field(400, ge=10, le=100_000, description="walkers of the population")
    steps: int = Field(
        250, ge=1, description="steps after each change of temperature, and between frames kept at its end"
    )
    frames: int = Field(
        10, ge=1, le=10_000, description="frames kept of each walker at the temperature wanted"
    )
    overlap: float = Field(
        0.7,
        gt=0.05,
        lt=0.99,
        description="share of the walkers effectively left by one change of temperature",
    )


@dataclass(frozen=True)
class Population:
    """Walkers that, with their weights, stand for one temperature.

    Attributes
    ----------
    temperature
        In the scale of the system.
    positions
        Shape (n, n_atoms, 3) [nm].
    boxes
        Shape (n, 3, 3) [nm], or None.
    energies
        Potential energies, at constant pressure U + pV, shape (n,) [kJ/mol].
    log_weights
        Up to a constant; shape (n,).
    ancestors
        Which start each came from, shape (n,).
    changes
        Changes of temperature so far.
    recorded
        Whether frames of them were kept at this temperature.
    """

    temperature: float
    positions: Array
    boxes: Array | None
    energies: Array
    log_weights: Array
    ancestors: NDArray[np.int64]
    changes: int = 0
    recorded: bool = False

    def __len__(self) -> int:
        return len(self.energies)

    @property
    def weights(self) -> Array:
        """Weights that sum to one, shape (n,)."""
        return normalised_weights(self.log_weights)

    def taken(self, rows: NDArray[np.int64], log_weights: Array) -> "Population":
        """Return these walkers with these weights."""
        return replace(
            self,
            positions=self.positions[rows],
            boxes=None if self.boxes is None else self.boxes[rows],
            energies=self.energies[rows],
            log_weights=log_weights,
            ancestors=self.ancestors[rows],
        )

    def save(self, path: Path) -> None:
        """Write to a file that is there only when it is whole."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        write_arrays(path, {name: value for name, value in arrays.items() if value is not None})

    @staticmethod
    def load(path: Path) -> "Population":
        """Read what `save` wrote.

        Raises
        ------
        DataError
            If it is damaged.
        """
        data = read_arrays(path)
        return Population(
            float(data["temperature"]),
            data["positions"],
            data.get("boxes"),
            data["energies"],
            data["log_weights"],
            data["ancestors"],
            int(data["changes"]),
            bool(data["recorded"]),
        )


class Mover:
    """Moves walkers of one system by Langevin dynamics, each alone or many copies in one Context.

    A context manager: it ends its processes on leaving.

    Parameters
    ----------
    system, dynamics
        What is simulated, and how; the bias is not in it.
    processes
        Walkers of a System of one copy are divided among so many.
    """

    def __init__(self, system: AnySystem, dynamics: DynamicsSettings, processes: int = 1) -> None:
        self.system, self.dynamics = system, dynamics
        self.processes = 1 if system.batched else processes
        self.pool: Executor | None = None

    def __enter__(self) -> "Mover":
        if self.processes > 1:
            self.pool = process_pool(self.processes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pool is not None:
            end_pool(self.pool, kill=error is not None)
            self.pool = None
        _bench.cache_clear()  # the files of a system may change before the next one

    def moved(self, population: Population, steps: int, seed: int) -> Population:
        """Return the walkers after `steps` steps at their temperature, with new velocities.

        One that becomes unstable has no weight from then on.

        Raises
        ------
        SimulationError
            If all do.
        """
        n = 1 if self.pool is None else min(self.processes, len(population))
        parts = np.array_split(np.arange(len(population)), n)
        jobs = [
            (
                self.system,
                self.dynamics,
                len(rows),
                population.temperature,
                population.positions[rows],
                None if population.boxes is None else population.boxes[rows],
                steps,
                int(np.random.SeedSequence([seed, index]).generate_state(1)[0]),
            )
            for index, rows in enumerate(parts)
        ]
        run = map if self.pool is None else self.pool.map
        with lost_workers_named():
            done = list(run(_move, *zip(*jobs, strict=True)))
        positions, boxes, energies = (
            None if part[0] is None else np.concatenate(part) for part in zip(*done, strict=True)
        )
        assert positions is not None
        assert energies is not None
        lost = ~np.isfinite(energies)
        if lost.all():
            raise SimulationError(
                f"all walkers became unstable at {population.temperature:g}; lower simulation.timestep"
            )
        return replace(
            population,
            positions=np.where(lost[:, None, None], population.positions, positions),
            boxes=boxes,
            energies=np.where(lost, population.energies, energies),
            log_weights=np.where(lost, -np.inf, population.log_weights),
        )

    def energies(self, positions: Array, boxes: Array | None) -> Array:
        """Potential energy of each walker, at constant pressure U + pV, shape (n,) [kJ/mol]."""
        return _bench(self.system, self.dynamics, 1).energies(positions, boxes)


def _move(
    system: AnySystem,
    dynamics: DynamicsSettings,
    n: int,
    temperature: float,
    positions: Array,
    boxes: Array | None,
    steps: int,
    seed: int,
) -> tuple[Array, Array | None, Array]:
    """In whatever process: positions, boxes and energies after the steps; an energy is NaN where they failed."""
    size = min(n, dynamics.context_size(system, n))
    if size == 1 and not system.batched:
        return _bench(system, dynamics, 1).one_by_one(temperature, positions, boxes, steps, seed)
    done = []
    for first in range(0, n, size):
        rows = slice(first, first + size)
        bench = _bench(system, dynamics, min(size, n - first))
        cells = None if boxes is None else boxes[rows]
        done.append(bench.together(temperature, positions[rows], cells, steps, seed + first))
    found, _, energies = zip(*done, strict=True)
    return np.concatenate(found), boxes, np.concatenate(energies)


@lru_cache(maxsize=3)  # groups, what is left over, single ones
def _bench(system: AnySystem, dynamics: DynamicsSettings, copies: int) -> "_Bench":
    return _Bench(system, dynamics, copies)


class _Bench:
    """Contexts to move walkers in.

    Velocities are new at the beginning of every move. Those of the middle scheme lie half a step behind the positions
    and are correlated with them (for a harmonic mode <xv> = dt kT / 2m whatever the friction), so that Maxwell's
    distribution, drawn as it is, heats stiff modes: dipeptide, 4 fs, by 20 K. Some overdamped steps first make the
    joint distribution what it should be; they forget velocities at once and relax stiff modes within a few steps.
    """

    def __init__(self, system: AnySystem, dynamics: DynamicsSettings, copies: int) -> None:
        self.system, self.dynamics = system, dynamics
        built = shared_system(system, copies)
        self.built = built if barostat_of(built.system) is None else built.with_own_system()
        platform = dynamics.platform_choice(system)
        self.friction = dynamics.friction
        self.barostat, self.pressure = barostat_of(self.built.system), pressure_of(self.built.system)
        integrator = openmm.LangevinMiddleIntegrator(300.0, dynamics.friction, dynamics.timestep)
        self.context = platform.context(self.built.system, integrator)
        one = self.built if copies == 1 else shared_system(system)
        self.single = platform.context(one.system)

    def _prepare(self, temperature: float, seed: int) -> None:
        integrator = self.context.getIntegrator()
        integrator.setTemperature(self.built.scale.kelvin(temperature))
        integrator.setRandomNumberSeed(seed % (2**31 - 1) + 1)
        if self.barostat is not None:
            self.barostat.setRandomNumberSeed((seed // 2) % (2**31 - 1) + 1)
        self.context.reinitialize()
        if self.barostat is not None:
            self.context.setParameter(self.barostat.Temperature(), self.built.scale.kelvin(temperature))

    def _run(self, positions: Array, temperature: float, steps: int, seed: int) -> Array:
        """Positions (n_atoms, 3) of the whole Context after the steps."""
        self.context.setPositions(positions)
        self.context.applyConstraints(1e-6)
        self.context.setVelocitiesToTemperature(self.built.scale.kelvin(temperature), seed % (2**31 - 1) + 1)
        integrator = self.context.getIntegrator()
        integrator.setFriction(_OVERDAMPED)
        integrator.step(SETTLE)
        integrator.setFriction(self.friction)
        integrator.step(steps)
        state = self.context.getState(positions=True)
        return np.asarray(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))

    def together(
        self, temperature: float, positions: Array, boxes: Array | None, steps: int, seed: int
    ) -> tuple[Array, Array | None, Array]:
        # Noise and velocities from one seed would be the same numbers, and heat the walkers.
        noise, velocities = (int(one) for one in np.random.SeedSequence([seed, 1]).generate_state(2))
        self._prepare(temperature, noise)
        try:
            placed = self.built.placed(positions).reshape(-1, 3)
            moved = self._run(placed, temperature, steps, velocities)
            found = self.built.single(moved.reshape(positions.shape))
            whole = np.isfinite(found).all(axis=(1, 2))
        except openmm.OpenMMException:
            whole = np.zeros(len(positions), dtype=bool)
        # One copy can end them all, or make others of a molecule no numbers; alone, these go on.
        if not whole.any() or not (whole.all() or self.built.copies is None):
            self.context.reinitialize()
            one = _Bench(self.system, self.dynamics, 1)
            return one.one_by_one(temperature, positions, boxes, steps, seed)
        energies = self.energies(found, boxes)
        return found, boxes, np.where(whole, energies, np.nan)

    def one_by_one(
        self, temperature: float, positions: Array, boxes: Array | None, steps: int, seed: int
    ) -> tuple[Array, Array | None, Array]:
        noise, *seeds = (
            int(one) for one in np.random.SeedSequence([seed, 1]).generate_state(1 + len(positions))
        )
        self._prepare(temperature, noise)
        found, energies = np.empty_like(positions), np.full(len(positions), np.nan)
        cells = None if boxes is None else boxes.copy()
        for i, start in enumerate(positions):
            if boxes is not None:
                self.context.setPeriodicBoxVectors(*boxes[i])
            try:
                found[i] = self._run(start, temperature, steps, seeds[i])
                state = self.context.getState(energy=True)
                energies[i] = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
                if cells is not None:
                    cells[i] = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
            except openmm.OpenMMException:  # its energy stays NaN
                self.context.reinitialize()
            if not (np.abs(found[i]) < _FARTHEST).all():
                energies[i] = np.nan
        return found, cells, energies + self._work(cells)

    def energies(self, positions: Array, boxes: Array | None) -> Array:
        found = np.empty(len(positions))
        for i, xyz in enumerate(positions):
            if boxes is not None:
                self.single.setPeriodicBoxVectors(*boxes[i])
            self.single.setPositions(xyz)
            energy = self.single.getState(energy=True).getPotentialEnergy()
            found[i] = energy.value_in_unit(unit.kilojoule_per_mole)
        return found + self._work(boxes)

    def _work(self, boxes: Array | None) -> Array | float:
        """Work pV [kJ/mol] of each walker against the barostat; 0 without one."""
        return 0.0 if self.pressure is None or boxes is None else self.pressure * np.linalg.det(boxes)


def next_temperature(population: Population, goal: float, scale: TemperatureScale, overlap: float) -> float:
    """Return the temperature nearest to `goal` that the walkers can go to in one change.

    Parameters
    ----------
    overlap
        Effective share (sum w v)^2 / (sum w v^2) of the walkers that the gained weights v leave, at least (Zhou,
        Johansen and Aston, J. Comput. Graph. Stat. 2016).
    """
    now, end = 1.0 / scale.kT(population.temperature), 1.0 / scale.kT(goal)
    weights = population.weights
    u = population.energies - weights @ population.energies

    def missing(share: float) -> float:
        gained = -share * (end - now) * u
        v = np.exp(gained - gained.max())
        return float((weights @ v) ** 2 / (weights @ v**2)) - overlap

    if missing(1.0) >= 0:
        return goal
    share = brentq(missing, 0.0, 1.0, xtol=1e-6)
    beta = now + max(share, 1e-4) * (end - now)
    return float(1.0 / (beta * scale.boltzmann))


def changed(population: Population, temperature: float, scale: TemperatureScale) -> Population:
    """Return the walkers with the weights they have at another temperature."""
    gained = (1.0 / scale.kT(population.temperature) - 1.0 / scale.kT(temperature)) * population.energies
    logs = population.log_weights + gained
    return replace(
        population,
        temperature=temperature,
        log_weights=logs - logs.max(),
        changes=population.changes + 1,
        recorded=False,
    )


def redrawn(population: Population, log_psi: Array, rng: np.random.Generator) -> Population:
    """Return walkers drawn by weight times psi where few have most of that, else the same ones.

    By systematic resampling; a walker that was drawn keeps the weight 1 / psi.
    """
    chances = normalised_weights(population.log_weights + log_psi)
    n = len(population)
    if 1.0 / (chances**2).sum() >= _REDRAW * n:
        return population
    rows = systematic(chances, n, rng)
    return population.taken(rows, -log_psi[rows])


@dataclass(frozen=True)
class Annealed:
    """Walkers at a temperature that was asked for.

    Attributes
    ----------
    population
        The walkers at the end.
    positions
        Frames kept, shape (n_frames, n_walkers, n_atoms, 3) [nm].
    boxes
        Shape (n_frames, n_walkers, 3, 3) [nm], or None.
    energies
        At constant pressure U + pV, shape (n_frames, n_walkers) [kJ/mol].
    """

    population: Population
    positions: Array
    boxes: Array | None
    energies: Array


def anneal(
    mover: Mover,
    start: Population,
    goals: Sequence[float],
    settings: AnnealingSettings,
    seed: int,
    lookahead: Lookahead | None = None,
    keep: Path | None = None,
    advance: Callable[[float, str], None] = lambda amount, note: None,
) -> Iterator[Annealed]:
    """Carry walkers from one goal to the next; give them at each, after some dynamics there.

    Parameters
    ----------
    goals
        Temperatures in the order in which they are to be reached.
    lookahead
        log psi; None: walkers are redrawn by their weights alone.
    keep
        File that holds the walkers after every change of temperature; where it exists, they continue from there.
    advance
        Told of every step of all walkers done.

    Yields
    ------
    Annealed
        For each goal, in order. The consumer has to keep it before the next one is asked for.
    """
    population = start
    if keep is not None and keep.is_file():
        population = Population.load(keep)
        goals = _remaining(start.temperature, population, goals)
    scale = mover.system.scale
    for goal in goals:
        while abs(population.temperature / goal - 1) > _SAME:
            temperature = next_temperature(population, goal, scale, settings.overlap)
            population = changed(population, temperature, scale)
            if lookahead is None:
                log_psi = np.zeros(len(population))
            else:
                log_psi = lookahead(population.positions, population.boxes, temperature, goal)
            rng = np.random.default_rng([seed, population.changes])
            population = redrawn(population, log_psi, rng)
            population = mover.moved(population, settings.steps, _seed(seed, population.changes, 0))
            if keep is not None:
                population.save(keep)
            advance((settings.steps + SETTLE) * len(population), f"at {scale.label(temperature)}")
        positions, boxes, energies = [], [], []
        for frame in range(settings.frames):
            population = mover.moved(population, settings.steps, _seed(seed, population.changes, 1 + frame))
            positions.append(population.positions)
            boxes.append(population.boxes)
            energies.append(population.energies)
            advance((settings.steps + SETTLE) * len(population), f"at {scale.label(goal)}")
        cells = None if population.boxes is None else np.array(boxes)
        yield Annealed(population, np.array(positions), cells, np.array(energies))
        if keep is not None:
            replace(population, recorded=True).save(keep)


def _remaining(start: float, population: Population, goals: Sequence[float]) -> list[float]:
    """Goals whose frames are not kept yet."""
    now, up = population.temperature, goals[0] > start
    here = [g for g in goals if abs(g / now - 1) <= _SAME and not population.recorded]
    return here + [g for g in goals if abs(g / now - 1) > _SAME and (g > now) == up]


def _seed(seed: int, change: int, part: int) -> int:
    return int(np.random.SeedSequence([seed, change, part]).generate_state(1)[0])


def expected_changes(start: float, goal: float, heat_capacity: float, overlap: float) -> int:
    """Changes of temperature from start to goal where energies are Gaussian.

    A change d beta leaves exp(-(d beta)^2 var U) of the walkers, and var U = C (kT)^2.

    Parameters
    ----------
    heat_capacity
        In units of k_B.
    """
    length = abs(math.log(start / goal)) * math.sqrt(max(heat_capacity, 1e-9))
    return max(1, math.ceil(length / math.sqrt(-math.log(overlap))))
