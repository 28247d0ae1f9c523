"""Langevin dynamics of a population at its temperature, in this process or in several."""

import os
from concurrent.futures import Executor
from dataclasses import replace
from functools import lru_cache
from types import TracebackType

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from latf_openmm.errors import SimulationError
from latf_openmm.sampling.clock import Clock, threads_of
from latf_openmm.sampling.dynamics import DynamicsSettings
from latf_openmm.sampling.population import Population
from latf_openmm.sampling.processes import end_pool, lost_workers_named, process_pool
from latf_openmm.sampling.recording import MAX_COORDINATE
from latf_openmm.systems import AnySystem, shared_system
from latf_openmm.systems.inspection import barostat_of, pressure_of

Array = NDArray[np.float64]
_OVERDAMPED = 1e6  # 1/ps
SETTLE = 50
"""Steps at the beginning of every propagation, until velocities and positions fit each other."""
_TRIALS = 3
"""Propagations of which the shortest says how long one takes."""
_Job = tuple[AnySystem, DynamicsSettings, int, float, Array, Array | None, int, int]


class Propagator:
    """Propagates walkers of one system by Langevin dynamics, each in a Context or many copies in one.

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

    def __enter__(self) -> "Propagator":
        if self.processes > 1:
            self.pool = process_pool(self.processes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pool is not None:
            end_pool(self.pool, kill=error is not None)
            self.pool = None
        _walker_contexts.cache_clear()  # the files of a system may change before the next one

    def propagated(self, population: Population, steps: int, seed: int) -> Population:
        """Return the walkers after `steps` steps at their temperature, with new velocities.

        One that becomes unstable has no weight from then on.

        Raises
        ------
        SimulationError
            If all do.
        """
        run = map if self.pool is None else self.pool.map
        with lost_workers_named():
            done = list(run(_propagate, *zip(*self._jobs(population, steps, seed), strict=True)))
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

    def _jobs(self, population: Population, steps: int, seed: int) -> list[_Job]:
        """Divide walkers among the processes."""
        n = 1 if self.pool is None else min(self.processes, len(population))
        parts = np.array_split(np.arange(len(population)), n)
        return [
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

    def seconds(self, population: Population, steps: int) -> float:
        """Wall time of a propagation on a machine with nothing else at work, about, from a few that are lost [s]."""
        run = map if self.pool is None else self.pool.map
        jobs = self._jobs(population, steps, 0)
        with lost_workers_named():
            times = list(run(_timed, *zip(*jobs, strict=True)))
        crowded = len(jobs) * max(threads for _, threads in times) / (os.cpu_count() or 1)
        return max(seconds for seconds, _ in times) * max(1.0, crowded)

    def energies(self, positions: Array, boxes: Array | None) -> Array:
        """Potential energy of each walker, at constant pressure U + pV, shape (n,) [kJ/mol]."""
        return _walker_contexts(self.system, self.dynamics, 1).energies(positions, boxes)


def _propagate(
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
        return _walker_contexts(system, dynamics, 1).one_by_one(temperature, positions, boxes, steps, seed)
    done = []
    for first in range(0, n, size):
        rows = slice(first, first + size)
        contexts = _walker_contexts(system, dynamics, min(size, n - first))
        cells = None if boxes is None else boxes[rows]
        done.append(contexts.in_one_context(temperature, positions[rows], cells, steps, seed + first))
    propagated, _, energies = zip(*done, strict=True)
    return np.concatenate(propagated), boxes, np.concatenate(energies)


def _timed(
    system: AnySystem,
    dynamics: DynamicsSettings,
    n: int,
    temperature: float,
    positions: Array,
    boxes: Array | None,
    steps: int,
    seed: int,
) -> tuple[float, int]:
    """In whatever process: the shortest time of `_propagate` with nothing else at work [s], and threads it takes."""
    _propagate(system, dynamics, n, temperature, positions, boxes, 1, seed)  # Contexts are made
    context, times = _walker_contexts(system, dynamics, min(n, dynamics.context_size(system, n))).context, []
    for _ in range(_TRIALS):
        clock = Clock()
        _propagate(system, dynamics, n, temperature, positions, boxes, steps, seed)
        times.append(clock.undisturbed(context))
    return min(times), threads_of(context)


@lru_cache(maxsize=3)  # groups, what is left over, single ones
def _walker_contexts(system: AnySystem, dynamics: DynamicsSettings, copies: int) -> "_WalkerContexts":
    return _WalkerContexts(system, dynamics, copies)


class _WalkerContexts:
    """Contexts to propagate walkers in.

    Velocities are new at the beginning of every propagation. Those of the middle scheme lie half a step behind the
    positions and are correlated with them (for a harmonic mode <xv> = dt kT / 2m whatever the friction), so that
    Maxwell's distribution, drawn as it is, heats stiff modes: dipeptide, 4 fs, by 20 K. Some overdamped steps first
    make the joint distribution what it should be; they forget velocities at once and relax stiff modes within a few
    steps.
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
        copy = self.built if copies == 1 else shared_system(system)
        self.single = platform.context(copy.system)

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
        """Positions (n_atoms, 3) of all particles of the Context after the steps."""
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

    def in_one_context(
        self, temperature: float, positions: Array, boxes: Array | None, steps: int, seed: int
    ) -> tuple[Array, Array | None, Array]:
        # Noise and velocities from one seed would be the same numbers, and heat the walkers.
        noise, velocities = (int(word) for word in np.random.SeedSequence([seed, 1]).generate_state(2))
        self._prepare(temperature, noise)
        try:
            placed = self.built.placed(positions).reshape(-1, 3)
            xyz = self._run(placed, temperature, steps, velocities)
            propagated = self.built.single(xyz.reshape(positions.shape))
            finite = np.isfinite(propagated).all(axis=(1, 2))
        except openmm.OpenMMException:
            finite = np.zeros(len(positions), dtype=bool)
        # One copy can end them all, or make others of a molecule no numbers; one by one, these go on.
        if not finite.any() or not (finite.all() or self.built.copies is None):
            self.context.reinitialize()
            single = _WalkerContexts(self.system, self.dynamics, 1)
            return single.one_by_one(temperature, positions, boxes, steps, seed)
        energies = self.energies(propagated, boxes)
        return propagated, boxes, np.where(finite, energies, np.nan)

    def one_by_one(
        self, temperature: float, positions: Array, boxes: Array | None, steps: int, seed: int
    ) -> tuple[Array, Array | None, Array]:
        noise, *seeds = (
            int(word) for word in np.random.SeedSequence([seed, 1]).generate_state(1 + len(positions))
        )
        self._prepare(temperature, noise)
        propagated, energies = np.empty_like(positions), np.full(len(positions), np.nan)
        cells = None if boxes is None else boxes.copy()
        for i, start in enumerate(positions):
            if boxes is not None:
                self.context.setPeriodicBoxVectors(*boxes[i])
            try:
                propagated[i] = self._run(start, temperature, steps, seeds[i])
                state = self.context.getState(energy=True)
                energies[i] = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
                if cells is not None:
                    cells[i] = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
            except openmm.OpenMMException:  # its energy stays NaN
                self.context.reinitialize()
            if not (np.abs(propagated[i]) < MAX_COORDINATE).all():
                energies[i] = np.nan
        return propagated, cells, energies + self._work(cells)

    def energies(self, positions: Array, boxes: Array | None) -> Array:
        energies = np.empty(len(positions))
        for i, xyz in enumerate(positions):
            if boxes is not None:
                self.single.setPeriodicBoxVectors(*boxes[i])
            self.single.setPositions(xyz)
            energy = self.single.getState(energy=True).getPotentialEnergy()
            energies[i] = energy.value_in_unit(unit.kilojoule_per_mole)
        return energies + self._work(boxes)

    def _work(self, boxes: Array | None) -> Array | float:
        """Work pV [kJ/mol] of each walker against the barostat; 0 without one."""
        return 0.0 if self.pressure is None or boxes is None else self.pressure * np.linalg.det(boxes)
