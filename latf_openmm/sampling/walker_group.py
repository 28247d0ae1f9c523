"""One OpenMM Context with the walkers it holds: runs segment by segment, resumes after a kill.

A segment is written to a temporary folder and renamed when it is complete, so a folder named
``segment_NNNN`` always holds complete files, and whatever an interruption cut off is run again from the last
checkpoint.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import openmm
import pandas as pd
import torch
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
from latf_openmm.bias.updater import BiasUpdater, load_bias
from latf_openmm.errors import DataError, SimulationError, first_line
from latf_openmm.force_groups import free_force_group
from latf_openmm.model.checkpoint import load_model
from latf_openmm.sampling.contexts import PlatformChoice
from latf_openmm.sampling.dynamics import BiasSource, GroupTask
from latf_openmm.sampling.energy_windows import EnergyRecorder
from latf_openmm.sampling.heat import TooHotError, check_heat
from latf_openmm.sampling.kinetic import KineticTemperature
from latf_openmm.sampling.langevin import draw_velocities, langevin_integrator, set_timestep
from latf_openmm.sampling.segments import (
    BIAS_STATE,
    SegmentFrames,
    copy_energies,
    evaluate,
    read_checkpoint,
    segment_table,
    write_segment,
)
from latf_openmm.storage import check_file
from latf_openmm.systems import BuiltSystem, shared_system
from latf_openmm.systems.inspection import barostat_of, pressure_of
from latf_openmm.systems.trusted_xml import read_state

log = logging.getLogger(__name__)
_SLOWER = (1, 1, 2, 4)
"""Steps in place of one at each attempt of a segment, the time between frames being the same."""
_MAX_COORDINATE = 1e5  # nm
MINIMISE = (10.0, 200)
"""Tolerance [kJ/mol/nm] and most iterations of a minimisation of start structures."""
_NO_HELP = 0.7
"""Share of the excess that is left with shorter time steps from which these are not what helps."""


def run_group(task: GroupTask, advance: Callable[[int], None]) -> None:
    """Run all segments that are not complete yet; `advance` is told of every frame done.

    Raises
    ------
    SimulationError
        If a segment becomes unstable again and again.
    """
    torch.set_num_threads(1)
    complete = task.n_complete()
    for index in range(complete):
        advance(task.frames_in(index))
    if complete == task.n_segments:
        return
    group = WalkerGroup(task, complete)
    for index in range(complete, task.n_segments):
        group.run_segment(index, advance)


class WalkerGroup:
    """The Context of one task, after `complete` segments, and the recording of its frames."""

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

        bias = build(min(self.task.temperatures))
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
            barostat.setRandomNumberSeed(_seed(self.task.seed, 2))
        context = self.platform.context(system, integrator)
        if barostat is not None:
            context.setParameter(barostat.Temperature(), float(self.kelvin[0]))
        return context

    def _integrator(self) -> openmm.Integrator:
        """Langevin dynamics, each walker at its temperature."""
        dynamics = self.task.dynamics
        if len(set(self.kelvin)) > 1:
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
                f"{self.task.folder}: unstable before the first frame ({_reason(error)}); "
                f"lower {self._lower()}"
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
        for name in ("frames.parquet", "state.xml"):
            check_file(folder / name)
        table = pd.read_parquet(folder / "frames.parquet")
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

    def run_segment(self, index: int, advance: Callable[[int], None]) -> None:
        """Run, record and write one segment.

        An unstable one is tried again from where it began with other velocities, then with shorter time steps too. So
        is one whose atoms are hotter than the thermostat, with shorter time steps at once: a bias that is stiff for the
        time step heats what it acts on, and energies are wrong without any other sign. Later segments do not try again
        what was too hot. Where shorter steps do not help, the segment is kept: a bias that is built up faster than heat
        leaves warms walkers, too, and the report names them. One that is cooler than the thermostat is kept as well:
        shorter steps do not help there.
        """
        before, attempts, excess, coolest = self.context.createCheckpoint(), 0, np.inf, self.coolest
        left = [slower for slower in _SLOWER if slower >= self.coolest]
        while True:
            self.slower, attempts = left.pop(0), attempts + 1
            set_timestep(self.context.getIntegrator(), self.task.dynamics.timestep / self.slower)
            try:
                recorded = self._frames(index, advance)
                self._check_heat(recorded.kinetic)
                break
            except (SimulationError, openmm.OpenMMException) as error:
                log.warning("%s: segment %d, attempt %d: %s", self.task.folder, index, attempts, error)
                if isinstance(error, TooHotError):
                    if error.excess > _NO_HELP * excess:
                        log.warning(
                            "%s: shorter time steps do not help%s", self.task.folder, self._against_heat()
                        )
                        self.coolest = coolest
                        break
                    excess = error.excess
                    left = [slower for slower in left if slower > self.slower]
                    self.coolest = left[0] if left else self.slower
                if not left:
                    raise SimulationError(
                        f"{self.task.folder}: unstable in segment {index} after {attempts} attempts "
                        f"({_reason(error)}); lower {self._lower()}"
                    ) from error
                if self.updater is not None:
                    self._use(self._make_context(index))
                self.context.loadCheckpoint(before)
                self._draw_velocities(100 + 10 * index + attempts - 1)
        self._write(index, recorded)

    def _write(self, index: int, recorded: SegmentFrames) -> None:
        steps = self.slower, self.coolest
        table = segment_table(self.task, index, recorded, self.kelvin, self.pressure, steps, self.restarts)
        topology = self.built.mdtraj_topology()
        write_segment(self.task, index, recorded, table, topology, self.context, self.updater)

    def _lower(self) -> str:
        return "simulation.timestep" if self.bias is None else "simulation.timestep or the bias"

    def _against_heat(self) -> str:
        """Advice that fits the bias, where there is one."""
        if self.updater is not None:
            return "; a larger bias.pace may"
        if self.bias is not None:
            return "; a softer bias may"
        return ", and there is no bias: something in the System adds heat"

    def _check_heat(self, kinetic: NDArray[np.float64]) -> None:
        freedom, scale = self.kinetic_temperature.freedom, self.built.scale
        check_heat(self.task, scale, freedom, kinetic, self.kelvin, self.slower)

    def _frames(self, index: int, advance: Callable[[int], None]) -> SegmentFrames:
        shape = (self.built.n_copies, self.built.n_atoms, 3)
        positions, boxes, energies, biases, kinetic = [], [], [], [], []
        recorder, told = self._recorder(), 0
        for frame in range(self.task.frames_in(index)):
            recorder.advance(self._advance, self.slower)
            state = self.context.getState(
                positions=True, velocities=True, energy=self.single is None, groups=self.unbiased_groups
            )
            xyz = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer).reshape(shape)
            if not (np.abs(xyz) < _MAX_COORDINATE).all():  # also where they are not numbers
                raise SimulationError(
                    f"positions are not finite or beyond {_MAX_COORDINATE:g} nm at frame {frame}"
                )
            positions.append(self.built.single(xyz))
            kinetic.append(self._kinetic_temperatures(state))
            if self.single is None:
                energies.append([state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)])
            if self.built.periodic:
                boxes.append(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer))
            if self.updater is not None:
                biases.append(self._adaptive_bias(state))
            if frame % 50 == 49:
                advance(frame + 1 - told)
                told = frame + 1
        advance(self.task.frames_in(index) - told)
        xyz_all = np.array(positions)
        table = np.array(energies) if self.single is None else copy_energies(self.single, xyz_all)
        cells = np.array(boxes) if boxes else None
        recorded = SegmentFrames(xyz_all, cells, table, np.array(kinetic), recorder.windows())
        if self.updater is not None:
            z, energy, offsets = (np.array(part) for part in zip(*biases, strict=True))
            return replace(recorded, z=z, bias=energy, offsets=offsets)
        if self.cv is None or self.bias is None:
            return recorded
        z, energy = evaluate(self.cv, self.bias, xyz_all, cells)
        return replace(recorded, z=z, bias=energy, offsets=np.zeros_like(energy))

    def _recorder(self) -> EnergyRecorder:
        dynamics, groups = self.task.dynamics, self.unbiased_groups
        return EnergyRecorder(dynamics, self.context, self.built, groups, self.single, self.pressure)

    def _kinetic_temperatures(self, state: openmm.State) -> NDArray[np.float64]:
        """Kinetic temperature of each copy, shape (n_copies,) [K]."""
        return self.kinetic_temperature(state)

    def _advance(self, steps: int) -> None:
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

    def _adaptive_bias(self, state: openmm.State) -> tuple[Any, Any, Any]:
        """Variables (n_copies, dim), energies (n_copies,) and offset of the bias the frame was made with."""
        assert self.updater is not None
        with torch.no_grad():
            z = self.updater.variables(self.context, state)
            energy = self.updater.bias(z)
        return z.numpy(), energy.numpy(), np.full(len(z), self.updater.bias.offset())


def _single_copy_context(
    built: BuiltSystem, task: GroupTask, platform: PlatformChoice
) -> openmm.Context | None:
    """Context of one unbiased copy, to give each copy of a batched System its own potential energy."""
    if built.n_copies == 1:
        return None
    return platform.context(shared_system(task.system).system)


def _reason(error: Exception) -> str:
    """Last line of an error: TorchScript puts a traceback before it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _seed(seed: int, stream: int) -> int:
    """Return a positive 31-bit seed for one random stream of a group."""
    return int(np.random.SeedSequence([seed, stream]).generate_state(1)[0] % (2**31 - 2)) + 1
