"""One Context whose restraint goes from window to window, and the recording of their frames."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mdtraj
import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit
from torch import Tensor

from latf_openmm.bias.biased_system import add_bias
from latf_openmm.bias.force import stepping
from latf_openmm.bias.force.base import ForcesName
from latf_openmm.bias.potentials.base import wrap
from latf_openmm.bias.potentials.harmonic import MovingHarmonic
from latf_openmm.bias.updater import BiasUpdater
from latf_openmm.errors import ConfigError, SimulationError, last_line
from latf_openmm.force_groups import free_force_group
from latf_openmm.periodic import edges_and_angles
from latf_openmm.progress import Advance
from latf_openmm.sampling.contexts import PlatformChoice, chosen_by_openmm
from latf_openmm.sampling.umbrella.plan import Leg, WindowPlan
from latf_openmm.sampling.umbrella.samples import WindowFile
from latf_openmm.sampling.walker_group import MINIMISE
from latf_openmm.storage import atomic_file
from latf_openmm.systems.inspection import barostat_of

log = logging.getLogger(__name__)
Array = NDArray[np.float64]


class WindowRestraint(MovingHarmonic):
    """A harmonic restraint that is sent from window to window; its state is (centre, force_constant).

    Parameters
    ----------
    centre, force_constant
        Where it is at first, both of shape (dim,).
    periods
        Period of each variable, 0 where it has none.
    pace
        Integration steps between updates.
    """

    def __init__(self, centre: Tensor, force_constant: Tensor, periods: Sequence[float], pace: int) -> None:
        self.dim = len(periods)
        both = torch.cat([centre.double(), force_constant.double()])
        super().__init__(both, both, torch.ones_like(both), [*periods, *[0.0] * self.dim], pace, pace)

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        delta = wrap(z - state[: self.dim], self.periods[: self.dim])
        return 0.5 * (state[self.dim :] * delta**2).sum(dim=1)

    def aim(self, centre: Array, force_constant: Array, updates: int) -> None:
        """Move from here to another centre and force constant in this number of updates."""
        self.start = self.state.clone()
        self.path = wrap(
            torch.from_numpy(np.concatenate([centre, force_constant])) - self.start, self.periods
        )
        self.n_updates = updates
        self.updates = torch.zeros_like(self.updates)


class WindowRunner:
    """The Context, and which window's end it is at.

    Parameters
    ----------
    plan
        What is simulated.
    complete
        Windows already there; it continues from the last of them.
    """

    def __init__(self, plan: WindowPlan, complete: int) -> None:
        self.plan = plan
        settings = plan.settings
        first = plan.legs[0].window
        centre, force_constant = (
            torch.from_numpy(plan.centres[first]),
            torch.from_numpy(plan.force_constants[first]),
        )
        self.bias = WindowRestraint(centre, force_constant, plan.periods, settings.pace)
        before = None if complete == 0 else WindowFile.read(plan.folder, plan.legs[complete - 1].window)
        if before is not None:
            self.bias.state = torch.from_numpy(before.restraint)
            self.bias.sent = torch.tensor(before.sent)
        platform = PlatformChoice.chosen(
            settings.platform or chosen_by_openmm(plan.system), settings.platform_properties
        )
        self.forces: ForcesName = settings.forces or "traced"
        group = free_force_group(plan.system)
        biased = add_bias(
            plan.system,
            plan.cv,
            self.bias,
            group=group,
            backend=settings.backend,
            forces=self.forces,
        )
        self.unbiased = set(range(32)) - {group}
        self.updater = BiasUpdater(plan.cv, self.bias)
        integrator = openmm.LangevinMiddleIntegrator(plan.temperature, settings.friction, settings.timestep)
        integrator.setRandomNumberSeed(self._seed(complete))
        self.context = platform.context(biased, integrator)
        barostat = barostat_of(biased)
        if barostat is not None:
            self.context.setParameter(barostat.Temperature(), plan.temperature)
        self.periodic = bool(biased.usesPeriodicBoundaryConditions())
        self.at: int | None = None
        if before is not None:
            self._load(before, plan.legs[complete - 1].window)

    def _load(self, window: WindowFile, index: int) -> None:
        try:
            self.context.loadCheckpoint(window.checkpoint.tobytes())
            self.at = index
        except openmm.OpenMMException as error:
            log.info("window %d: %s; continuing from its last structure", index, error)

    def run(self, leg: Leg, note: str, advance: Advance) -> None:
        """Simulate one window and write it."""
        plan, index = self.plan, leg.window
        centre, force_constant = plan.centres[index], plan.force_constants[index]
        try:
            self._go_to(leg.origin)
            updates = -(-plan.settings.pulling // plan.settings.pace)
            self._pull(centre, force_constant, int(np.ceil(leg.length * updates)))
            self._step(plan.settings.equilibration)
            z, energy = self._frames(index, lambda: advance(1, note))
        except (openmm.OpenMMException, SimulationError, ConfigError) as error:
            raise SimulationError(
                f"window {index} at {centre.tolist()}: {last_line(error)}; lower the "
                "timestep or the force constant, or pull more slowly"
            ) from error
        state = self.context.getState(positions=True, velocities=True)
        window = WindowFile(
            z,
            energy,
            state.getPositions(asNumpy=True)._value.copy(),
            state.getVelocities(asNumpy=True)._value.copy(),
            np.array(state.getPeriodicBoxVectors(asNumpy=True)._value),
            self.bias.state.numpy(),
            int(self.bias.sent),
            np.frombuffer(self.context.createCheckpoint(), dtype=np.uint8),
        )
        window.write(plan.folder, index)
        self.at = index

    def _go_to(self, origin: int | None) -> None:
        """Continue from the end of a window, or from the given positions."""
        if origin is None:
            self.context.setPositions(self.plan.positions)
            self._jump(self.plan.start, self.plan.force_constants[self.plan.legs[0].window])
            if self.plan.settings.minimise:
                openmm.LocalEnergyMinimizer.minimize(self.context, *MINIMISE)
            self.context.setVelocitiesToTemperature(self.plan.temperature, self._seed(len(self.plan.legs)))
        elif origin != self.at:
            window = WindowFile.read(self.plan.folder, origin)
            self.context.setPeriodicBoxVectors(*window.box)
            self.context.setPositions(window.positions)
            self.context.setVelocities(window.velocities)
            self._jump(self.plan.centres[origin], self.plan.force_constants[origin])
        self.at = None

    def _jump(self, centre: Array, force_constant: Array) -> None:
        self.bias.aim(centre, force_constant, 1)
        self.updater.update(self.context)

    def _pull(self, centre: Array, force_constant: Array, updates: int) -> None:
        self.bias.aim(centre, force_constant, updates)
        for _ in range(updates):
            self.updater.update(self.context)
            self._step(self.plan.settings.pace)

    def _step(self, steps: int) -> None:
        with stepping(self.forces):
            self.context.getIntegrator().step(steps)

    def _frames(self, index: int, advance: Callable[[], None]) -> tuple[Array, Array]:
        """Run and record; return collective variables and energies without the restraint."""
        n = self.plan.settings.frames
        z, energy = np.empty((n, self.plan.cv.dim)), np.empty(n)
        with self._trajectory(index) as file:
            for frame in range(n):
                self._step(self.plan.settings.frame_interval)
                state = self.context.getState(positions=True, energy=True, groups=self.unbiased)
                z[frame] = self.updater.variables(self.context, state).numpy()[0]
                energy[frame] = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
                if not (np.isfinite(z[frame]).all() and np.isfinite(energy[frame])):
                    raise SimulationError(f"not finite at frame {frame}")
                if file is not None:
                    self._write_frame(file, state)
                advance()
        return z, energy

    @contextmanager
    def _trajectory(self, index: int) -> Iterator[Any]:
        """The open file of a window's positions, or None where they are not kept."""
        if not self.plan.settings.positions:
            yield None
            return
        with (
            atomic_file(self.plan.folder / f"window_{index:04d}.dcd") as temporary,
            mdtraj.formats.DCDTrajectoryFile(str(temporary), "w") as file,
        ):
            yield file

    def _write_frame(self, file: Any, state: openmm.State) -> None:
        xyz = 10.0 * state.getPositions(asNumpy=True)._value[None].astype(np.float32)  # DCD is in angstrom
        if not self.periodic:
            file.write(xyz)
            return
        edges, angles = edges_and_angles(state.getPeriodicBoxVectors(asNumpy=True)._value[None])
        file.write(xyz, edges * 10.0, angles)

    def _seed(self, stream: int) -> int:
        """A positive 31-bit seed for one random stream."""
        sequence = np.random.SeedSequence([self.plan.settings.seed, stream])
        return int(sequence.generate_state(1)[0] % (2**31 - 2)) + 1
