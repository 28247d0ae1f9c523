"""One OpenMM Context with the walkers it holds: their forces, bias, dynamics and restart files."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openmm
import pandas as pd
from numpy.typing import NDArray
from openmm import unit

from latf_openmm.bias.biased_system import add_bias
from latf_openmm.bias.cv import CollectiveVariables
from latf_openmm.bias.force import stepping
from latf_openmm.bias.force.base import ForcesName
from latf_openmm.bias.latent_cv import latent_cv
from latf_openmm.bias.multistep import MultistepStepper
from latf_openmm.bias.potentials import Bias, BiasContext
from latf_openmm.bias.potentials.base import AdaptiveBias
from latf_openmm.bias.updater import BiasUpdater, load_bias, shared_bytes
from latf_openmm.errors import DataError, SimulationError, first_line, last_line
from latf_openmm.force_groups import free_force_group
from latf_openmm.frames.walkers import FRAMES
from latf_openmm.model.checkpoint import load_model
from latf_openmm.sampling.contexts import PlatformChoice
from latf_openmm.sampling.dynamics import BiasSource, GroupTask
from latf_openmm.sampling.kinetic import KineticTemperature
from latf_openmm.sampling.langevin import (
    draw_velocities,
    langevin_integrator,
    set_temperatures,
    set_timestep,
)
from latf_openmm.sampling.segments import (
    BIAS_STATE,
    SegmentFrames,
    copy_energies,
    read_checkpoint,
    segment_table,
    write_segment,
)
from latf_openmm.storage import check_file
from latf_openmm.systems import BuiltSystem, shared_system
from latf_openmm.systems.inspection import barostat_of, pressure_of
from latf_openmm.systems.trusted_xml import read_state

log = logging.getLogger(__name__)
MINIMISE = (10.0, 200)
"""Tolerance [kJ/mol/nm] and most iterations of a minimisation of start structures."""


class WalkerGroup:
    """The Context of one task, after `complete` segments.

    Parameters
    ----------
    task
        What is simulated.
    complete
        Segments that are there already.

    Attributes
    ----------
    temperatures, kelvin
        Of each walker now, in the scale of the system and in K, shape (n_copies,).
    slower
        Steps that are taken in place of one.
    coolest
        Such steps in all later segments, at least: fewer were too hot.
    """

    def __init__(self, task: GroupTask, complete: int) -> None:
        self.task = task
        built = shared_system(task.system, task.n_walkers)
        # The seed of a barostat is part of its System.
        self.built = built if barostat_of(built.system) is None else built.with_own_system()
        self.platform = task.dynamics.platform_choice(task.system)
        self.forces: ForcesName = task.dynamics.forces or "traced"
        self.temperatures = np.array(task.temperatures)
        self.kelvin = np.array([self.built.scale.kelvin(t) for t in task.temperatures])
        self.single = _single_copy_context(self.built, task, self.platform)
        self.pressure = pressure_of(self.built.system)
        self.moving = bool(task.ladder)
        self.slower = self.coolest = 1
        self.restarts = 0
        self.kinetic_temperature = KineticTemperature(self.built.system, self.built.n_copies)
        self.unbiased_groups = set(range(32))
        self.cv: CollectiveVariables | None = None
        self.bias: Bias | None = None
        self.updater: BiasUpdater | None = None
        if task.bias is not None:
            self.cv, self.bias = self._bias(task.bias)
        if isinstance(self.bias, AdaptiveBias):
            assert self.cv is not None
            shared = task.exchange if self.bias.width > 0 else None
            self.updater = BiasUpdater(
                self.cv,
                self.bias,
                n_copies=self.built.n_copies,
                shared=shared,
                walker=task.folder.name,
                walker_kT=[self.built.scale.kT(temperature) for temperature in task.temperatures],
            )
        self._use(self._make_context(complete))
        if complete:
            self._restore(complete)
        else:
            self._start()

    def _bias(self, source: BiasSource) -> tuple[CollectiveVariables, Bias]:
        trained = load_model(source.model)
        trained.check_atoms([str(atom) for atom in self.built.mdtraj_topology().atoms])

        def build(temperature: float) -> Bias:
            kT = self.built.scale.kT(temperature)
            return source.bias.build(BiasContext.of_model(trained.model, temperature, kT))

        bias = build(min(self.task.ladder or self.task.temperatures))
        if isinstance(bias, AdaptiveBias) and self.task.bias_temperature is not None:
            bias = build(self.task.bias_temperature)
        return latent_cv(trained), bias

    def _use(self, context: openmm.Context) -> None:
        """Simulate in this Context from now on."""
        self.context = context
        every = self.task.dynamics.bias_every
        multistep = self.bias is not None and every > 1
        self.stepper = MultistepStepper(context, every) if multistep else context.getIntegrator()

    def _make_context(self, complete: int) -> openmm.Context:
        """A Context whose adaptive bias, if it has one, is that of the end of the last complete segment."""
        system, dynamics = self.built.system, self.task.dynamics
        if self.updater is not None:
            path = self.task.segment(complete - 1) / BIAS_STATE
            if complete:
                check_file(path)
                load_bias(self.updater.bias, path)
                self.updater.rewind(path)
            else:
                self.updater.reset()
        if self.cv is not None and self.bias is not None:
            group = free_force_group(system)
            self.unbiased_groups = set(range(32)) - {group}
            system = add_bias(
                system,
                self.cv,
                self.bias,
                n_copies=self.built.n_copies,
                group=group,
                backend=dynamics.backend,
                forces=self.forces,
                multistep=dynamics.bias_every > 1,
            )
        integrator = self._integrator()
        integrator.setRandomNumberSeed(_seed(self.task.seed, 0))
        barostat = barostat_of(system)
        if barostat is not None:
            barostat.setRandomNumberSeed(_seed(self.task.seed, 20_000 + complete))
        context = self.platform.context(system, integrator)
        if barostat is not None:
            context.setParameter(barostat.Temperature(), float(self.kelvin[0]))
        return context

    def _integrator(self) -> openmm.Integrator:
        """Langevin dynamics, each walker at its temperature."""
        dynamics = self.task.dynamics
        if len(set(self.kelvin)) > 1 or (self.moving and len(self.kelvin) > 1):
            return langevin_integrator(self._of_particles(self.kelvin), dynamics.friction, dynamics.timestep)
        return openmm.LangevinMiddleIntegrator(float(self.kelvin[0]), dynamics.friction, dynamics.timestep)

    def _of_particles(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """For each particle what `values`, shape (n_copies,), says of its walker."""
        return np.repeat(values, self.built.n_atoms)

    def _draw_velocities(self, stream: int) -> None:
        draw_velocities(self.context, self._of_particles(self.kelvin), _seed(self.task.seed, stream))

    def _start(self) -> None:
        """Prepare the first segment."""
        try:
            self._begin()
        except openmm.OpenMMException as error:
            raise SimulationError(
                f"{self.task.folder}: unstable before the first frame ({last_line(error)}); "
                f"lower {self.lower()}"
            ) from error

    def _begin(self) -> None:
        starts = self.built.positions if self.task.starts is None else self.task.starts
        if self.task.boxes is not None and self.built.periodic:
            self.context.setPeriodicBoxVectors(*self.task.boxes[0])
        minimise = self.task.dynamics.minimise
        if minimise and self.built.copies is not None:  # together, each would wait for the slowest
            starts = np.stack([self._minimised(start) for start in starts])
        self.context.setPositions(self.built.placed(starts).reshape(-1, 3))
        if minimise and self.built.copies is None:
            openmm.LocalEnergyMinimizer.minimize(self.context, *MINIMISE)
        self._draw_velocities(1)
        self._step(self.task.dynamics.equilibration)
        self.context.setStepCount(0)
        self.context.setTime(0.0)

    def _minimised(self, start: NDArray[np.float64]) -> NDArray[np.float64]:
        """One walker's positions, minimised without the bias."""
        assert self.single is not None
        self.single.setPositions(start)
        openmm.LocalEnergyMinimizer.minimize(self.single, *MINIMISE)
        state = self.single.getState(positions=True)
        return np.asarray(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))

    def _restore(self, complete: int) -> None:
        folder = self.task.segment(complete - 1)
        for name in (FRAMES, "state.xml"):
            check_file(folder / name)
        table = pd.read_parquet(folder / FRAMES)
        self.coolest = round(self.task.dynamics.timestep / float(table["timestep_limit"].iloc[-1]))
        self.restarts = int(table["restarts"].iloc[-1])
        try:
            check_file(folder / "checkpoint.bin")
            self.context.loadCheckpoint(read_checkpoint(folder / "checkpoint.bin"))
        except (openmm.OpenMMException, OSError, DataError) as error:
            log.warning(
                "%s: continued from the portable state, because the checkpoint cannot be used (%s): the frames that "
                "follow are valid, but not the ones it would have given",
                folder,
                first_line(error),
            )
            self.restarts += 1
            # Without the checkpoint the noise would start again from its beginning.
            self.context.getIntegrator().setRandomNumberSeed(_seed(self.task.seed, 10_000 + complete))
            self.context.reinitialize()
            self.context.setState(read_state(folder / "state.xml"))

    def read_peers(self, index: int) -> None:
        """Take what other groups added to a shared bias up to a segment, where they do so after each."""
        if self.updater is None or not self.task.peers:
            return
        written = {}
        for name in self.task.peers:
            peer = replace(self.task, folder=self.task.folder.with_name(name))
            complete = min(index, peer.n_complete())  # fewer, where it was dropped
            path = peer.segment(complete - 1) / BIAS_STATE
            written[name] = shared_bytes(path, name) if complete else 0
        self.updater.read_others(written)

    def keep(self) -> None:
        """Remember the present moment, for `go_back`."""
        self._kept = self.context.createCheckpoint(), self.temperatures

    def go_back(self, index: int, attempt: int) -> None:
        """Return to what `keep` remembers, at the beginning of a segment, with velocities of their own."""
        checkpoint, temperatures = self._kept
        if self.updater is not None:
            self._use(self._make_context(index))
        self.context.loadCheckpoint(checkpoint)
        self.use_thermostat(temperatures)
        self._draw_velocities(100 + 10 * index + attempt)

    def use_slower(self, slower: int) -> None:
        """Take so many steps in place of one."""
        self.slower = slower
        set_timestep(self.context.getIntegrator(), self.task.dynamics.timestep / slower)

    def write(self, index: int, recorded: SegmentFrames, more: Callable[[Path], None]) -> None:
        """Write a segment; `more` writes what else is to be in its folder."""
        steps = self.slower, self.coolest
        table = segment_table(self.task, index, recorded, self.pressure, steps, self.restarts)
        topology = self.built.mdtraj_topology()
        write_segment(self.task, index, recorded, table, topology, self.context, self.updater, more)

    def lower(self) -> str:
        """Return the settings to lower where walkers are unstable."""
        return "simulation.timestep" if self.bias is None else "simulation.timestep or the bias"

    def against_heat(self) -> str:
        """Advice that fits the bias, where there is one."""
        if self.updater is not None:
            return "; a larger bias.pace may"
        if self.bias is not None:
            return "; a softer bias may"
        return ", and there is no bias: something in the System adds heat"

    def kinetic_temperatures(self, state: openmm.State) -> NDArray[np.float64]:
        """Kinetic temperature of each copy, shape (n_copies,) [K]."""
        return self.kinetic_temperature(state)

    def present(self) -> "Present":
        """Return positions, velocities and box of the walkers now."""
        state = self.context.getState(positions=True, velocities=True)
        xyz = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        velocities = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)
        shape = self.built.n_copies, self.built.n_atoms, 3
        boxes = None
        if self.built.periodic:
            box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
            boxes = np.broadcast_to(np.asarray(box), (self.built.n_copies, 3, 3))
        return Present(self.built.single(xyz.reshape(shape)), velocities.reshape(shape), boxes)

    def put(self, present: "Present") -> None:
        """Put walkers, with their velocities and box, into the places of this group."""
        if present.boxes is not None:
            self.context.setPeriodicBoxVectors(*present.boxes[0])
        self.context.setPositions(self.built.placed(present.positions).reshape(-1, 3))
        self.context.setVelocities(present.velocities.reshape(-1, 3))

    def energies(self) -> NDArray[np.float64]:
        """U + pV of the walkers now, without bias, shape (n_copies,) [kJ/mol]."""
        if self.single is not None:
            return copy_energies(self.single, self.present().positions[None])[0]
        state = self.context.getState(energy=True, groups=self.unbiased_groups)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        if self.pressure is not None:
            energy += self.pressure * state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3)
        return np.array([energy])

    def set_temperatures(self, temperatures: NDArray[np.float64]) -> None:
        """Give each walker a temperature, in the scale of the system, and scale its velocities."""
        kelvin = np.array([self.built.scale.kelvin(t) for t in temperatures])
        if (kelvin == self.kelvin).all():
            return
        state = self.context.getState(velocities=True)
        velocities = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)
        self.context.setVelocities(velocities * self._of_particles(np.sqrt(kelvin / self.kelvin))[:, None])
        self.use_thermostat(temperatures)

    def use_thermostat(self, temperatures: NDArray[np.float64]) -> None:
        """Give the integrator, the barostat and the bias the temperature of each walker; not the velocities."""
        if not self.moving:
            return
        kelvin = np.array([self.built.scale.kelvin(t) for t in temperatures])
        self.temperatures, self.kelvin = temperatures, kelvin
        integrator = self.context.getIntegrator()
        if isinstance(integrator, openmm.CustomIntegrator):
            set_temperatures(integrator, self._of_particles(kelvin))
        else:
            integrator.setTemperature(float(kelvin[0]))
        barostat = barostat_of(self.context.getSystem())
        if barostat is not None:
            self.context.setParameter(barostat.Temperature(), float(kelvin[0]))
        if self.updater is not None:
            self.updater.use_temperatures([self.built.scale.kT(t) for t in temperatures])

    def advance(self, steps: int) -> None:
        """Step; an adaptive bias is updated at every multiple of its pace, before the next step is taken."""
        if self.updater is None:
            self._step(steps)
            return
        pace = self.updater.bias.pace * self.slower
        while steps > 0:
            done = self.context.getStepCount()
            if done and done % pace == 0:
                self.updater.update(self.context)
            now = min(steps, pace - done % pace)
            self._step(now)
            steps -= now

    def _step(self, steps: int) -> None:
        with stepping(self.forces):
            self.stepper.step(steps)


@dataclass(frozen=True)
class Present:
    """Walkers at one moment.

    Attributes
    ----------
    positions
        Shape (n_walkers, n_atoms, 3) [nm].
    velocities
        Likewise [nm/ps].
    boxes
        Shape (n_walkers, 3, 3) [nm], or None.
    """

    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    boxes: NDArray[np.float64] | None


def _single_copy_context(
    built: BuiltSystem, task: GroupTask, platform: PlatformChoice
) -> openmm.Context | None:
    """Context of one unbiased copy, to give each copy of a batched System its own potential energy."""
    if built.n_copies == 1:
        return None
    return platform.context(shared_system(task.system).system)


def _seed(seed: int, stream: int) -> int:
    """Return a positive 31-bit seed for one random stream of a group."""
    return int(np.random.SeedSequence([seed, stream]).generate_state(1)[0] % (2**31 - 2)) + 1
