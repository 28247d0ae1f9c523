"""One OpenMM Context with the walkers it holds: runs segment by segment, resumes after a kill.

A segment is written to a temporary folder and renamed when it is complete, so a folder named
``segment_NNNN`` always holds whole files, and whatever an interruption cut off is run again from the last
checkpoint.
"""

import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import mdtraj
import numpy as np
import openmm
import pandas as pd
import torch
from numpy.typing import NDArray
from openmm import unit
from pydantic import Field

from latf_openmm.bias.biased_system import add_bias
from latf_openmm.bias.cv import CollectiveVariables
from latf_openmm.bias.force import stepping
from latf_openmm.bias.force.base import BackendName, ForcesName
from latf_openmm.bias.latent_cv import latent_cv
from latf_openmm.bias.multistep import MultistepStepper
from latf_openmm.bias.potentials import AnyBias, Bias, BiasContext
from latf_openmm.bias.potentials.base import AdaptiveBias
from latf_openmm.bias.updater import BiasUpdater, load_bias
from latf_openmm.errors import DataError, SimulationError, first_line
from latf_openmm.frames.walkers import write_trajectory
from latf_openmm.model.checkpoint import load_model
from latf_openmm.sampling.contexts import PlatformChoice
from latf_openmm.sampling.kinetic import KineticTemperature
from latf_openmm.sampling.langevin import draw_velocities, langevin_integrator, set_timestep
from latf_openmm.settings import Settings
from latf_openmm.storage import check_file, whole_folder
from latf_openmm.systems import AnySystem, BuiltSystem, shared_system
from latf_openmm.systems.inspection import barostat_of, free_force_group, pressure_of
from latf_openmm.systems.trusted_xml import read_state

log = logging.getLogger(__name__)
_SLOWER = (1, 1, 2, 4)
"""Steps in place of one at each attempt of a segment, the time between frames being the same."""
_FARTHEST = 1e5  # nm
MINIMISE = (10.0, 200)
"""Tolerance [kJ/mol/nm] and most iterations of a minimisation of start structures."""
_DEVIATION, _ERRORS = 0.03, 4.0
"""Deviation of a segment's mean kinetic temperature that is too large: relative, and beyond that standard errors."""
_NO_HELP = 0.7
"""Share of the excess that is left with shorter time steps from which these are not what helps."""


class DynamicsSettings(Settings):
    """Settings for the dynamics of walkers and their record."""

    timestep: float = Field(gt=0, le=10, description="integration step [ps]")
    friction: float = Field(gt=0, description="Langevin friction [1/ps]")
    frame_interval: int = Field(ge=1, description="steps between recorded frames")
    equilibration: int = Field(0, ge=0, description="steps before the first frame, not recorded")
    segment_frames: int = Field(2500, ge=1, description="frames between checkpoints")
    minimise: bool = Field(True, description="minimise the start structures first")
    platform: str | None = Field(None, description="OpenMM platform; default: the system's own choice")
    platform_properties: dict[str, str] = Field(
        {}, description="properties of the platform, such as {Precision: mixed, DeviceIndex: '0'}"
    )
    trajectory: Literal["dcd", "xtc"] = Field("dcd", description="trajectory format")
    backend: BackendName = Field("auto", description="what runs the bias")
    bias_every: int = Field(
        1,
        ge=1,
        le=20,
        description="steps between evaluations of the bias; more than 1 only for one that is not stiff",
    )
    forces: ForcesName | None = Field(
        None,
        description="traced: from a graph recorded beforehand, the default; autograd: by differentiation at every step",
    )
    context_walkers: int | None = Field(
        None,
        ge=1,
        description="walkers in one OpenMM Context, whose bias is evaluated at once; default: all of a temperature for "
        "model systems, 1 for molecules, which need implicit solvent for more. Where it is several times `walkers`, so "
        "many temperatures share a Context, if they are unbiased, or share_bias is all and the bias that of the lowest",
    )

    def platform_choice(self, system: AnySystem) -> PlatformChoice:
        """Return the platform for a system, with its properties."""
        return PlatformChoice.chosen(self.platform or system.platform, self.platform_properties)

    def context_size(self, system: AnySystem, n_walkers: int) -> int:
        """Return how many walkers of a system may share a Context, where there are `n_walkers`."""
        return self.context_walkers or (n_walkers if system.batched else 1)


class BiasSource(Settings):
    """A bias and the model whose collective variables it acts on."""

    model: Path = Field(description="folder of a trained model")
    bias: AnyBias = Field(description="the potential")


@dataclass(frozen=True)
class GroupTask:
    """Everything one group of walkers needs; picklable, so that it can run in another process.

    Parameters
    ----------
    system, dynamics, bias
        What to simulate and how; `bias` None is an unbiased run.
    temperatures
        Of each walker in this Context, in the scale of the system.
    starts
        Start positions, shape (n_walkers, n_atoms, 3) [nm], or None for the system's own.
    first_walker
        Number of the first of the walkers.
    n_frames
        Frames of each walker.
    seed
        Seeds velocities and noise.
    folder
        Where to write.
    exchange
        Folder through which walkers of other tasks share an adaptive bias.
    bias_temperature
        What an adaptive bias is for, where walkers at other temperatures share it; None: the lowest of
        `temperatures`, as it is for other biases.
    boxes
        Periodic boxes of the start positions, shape (n_walkers, 3, 3) [nm], or None for the system's own.
    """

    system: AnySystem
    dynamics: DynamicsSettings
    bias: BiasSource | None
    temperatures: tuple[float, ...]
    starts: NDArray[np.float64] | None
    first_walker: int
    n_frames: int
    seed: int
    folder: Path
    exchange: Path | None = None
    bias_temperature: float | None = None
    boxes: NDArray[np.float64] | None = None

    @property
    def n_walkers(self) -> int:
        """Number of walkers."""
        return len(self.temperatures)

    @property
    def n_segments(self) -> int:
        """Number of segments."""
        return -(-self.n_frames // self.dynamics.segment_frames)

    def segment(self, index: int) -> Path:
        """Folder of a complete segment."""
        return self.folder / f"segment_{index:04d}"

    def n_complete(self) -> int:
        """Count the segments that are complete, from the first on."""
        count = 0
        while count < self.n_segments and self.segment(count).is_dir():
            count += 1
        return count

    def frames_in(self, index: int) -> int:
        """Frames of one segment."""
        done = index * self.dynamics.segment_frames
        return min(self.dynamics.segment_frames, self.n_frames - done)


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


class _TooHotError(SimulationError):
    """The kinetic temperature is not that of the thermostat, but higher by the fraction `excess`."""

    def __init__(self, message: str, excess: float) -> None:
        super().__init__(message)
        self.excess = excess


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
            path = self.task.segment(complete - 1) / "bias.pt"
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
                self._check_heat(recorded)
                break
            except (SimulationError, openmm.OpenMMException) as error:
                log.warning("%s: segment %d, attempt %d: %s", self.task.folder, index, attempts, error)
                if isinstance(error, _TooHotError):
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

    def _lower(self) -> str:
        return "simulation.timestep" if self.bias is None else "simulation.timestep or the bias"

    def _against_heat(self) -> str:
        """Advice that fits the bias, where there is one."""
        if self.updater is not None:
            return "; a larger bias.pace may"
        if self.bias is not None:
            return "; a softer bias may"
        return ", and there is no bias: something in the System adds heat"

    def _check_heat(self, recorded: "_Recorded") -> None:
        """Raise `_TooHotError` where the atoms are hotter than the thermostat by more than chance; say if cooler."""
        dynamics = self.task.dynamics
        # Kinetic energy forgets faster than by the friction alone.
        forgotten = min(1.0, dynamics.friction * dynamics.timestep * dynamics.frame_interval)
        error = np.sqrt(2.0 / (self.kinetic_temperature.freedom * recorded.kinetic.size * forgotten))
        excess = float((recorded.kinetic / self.kelvin).mean()) - 1.0
        if abs(excess) <= _DEVIATION + _ERRORS * error:
            return
        label, asked = self.built.scale.label, float(self.temperatures.mean())
        several = " (means over walkers)" if len(set(self.kelvin)) > 1 else ""
        text = (
            f"the kinetic temperature is {label(float(f'{(1.0 + excess) * asked:.4g}'))} where the thermostat has "
            f"{label(asked)}{several}, with time steps of {dynamics.timestep / self.slower:g} ps"
        )
        if excess > 0:
            raise _TooHotError(text, excess)
        log.warning("%s: %s; something in the System takes heat away", self.task.folder, text)

    def _frames(self, index: int, advance: Callable[[int], None]) -> "_Recorded":
        shape = (self.built.n_copies, self.built.n_atoms, 3)
        positions, boxes, energies, biases, kinetic = [], [], [], [], []
        told = 0
        for frame in range(self.task.frames_in(index)):
            self._advance(self.task.dynamics.frame_interval * self.slower)
            state = self.context.getState(
                positions=True, velocities=True, energy=self.single is None, groups=self.unbiased_groups
            )
            xyz = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer).reshape(shape)
            if not (np.abs(xyz) < _FARTHEST).all():  # also where they are not numbers
                raise SimulationError(f"positions are not finite or beyond {_FARTHEST:g} nm at frame {frame}")
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
        table = np.array(energies) if self.single is None else _copy_energies(self.single, xyz_all)
        cells = np.array(boxes) if boxes else None
        recorded = _Recorded(xyz_all, cells, table, np.array(kinetic))
        if self.updater is not None:
            z, energy, offsets = (np.array(part) for part in zip(*biases, strict=True))
            return replace(recorded, z=z, bias=energy, offsets=offsets)
        if self.cv is None or self.bias is None:
            return recorded
        z, energy = _evaluate(self.cv, self.bias, xyz_all, cells)
        return replace(recorded, z=z, bias=energy, offsets=np.zeros_like(energy))

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

    def _write(self, index: int, recorded: "_Recorded") -> None:
        topology = self.built.mdtraj_topology()
        with whole_folder(self.task.segment(index)) as temporary:
            self._table(index, recorded).to_parquet(temporary / "frames.parquet", index=False)
            for copy in range(self.built.n_copies):
                trajectory = mdtraj.Trajectory(recorded.positions[:, copy], topology)
                if recorded.boxes is not None:
                    trajectory.unitcell_vectors = recorded.boxes
                walker = self.task.first_walker + copy
                write_trajectory(
                    trajectory, temporary / f"walker_{walker:03d}.{self.task.dynamics.trajectory}"
                )
            _write_checkpoint(temporary / "checkpoint.bin", self.context.createCheckpoint())
            state = self.context.getState(positions=True, velocities=True, parameters=True)
            (temporary / "state.xml").write_text(openmm.XmlSerializer.serialize(state), encoding="utf-8")
            if self.updater is not None:
                self.updater.save(temporary / "bias.pt")

    def _table(self, index: int, recorded: "_Recorded") -> pd.DataFrame:
        """One row for each walker and frame, walkers one after the other."""
        n_frames, n_copies = recorded.energies.shape
        dynamics = self.task.dynamics
        frame = np.arange(n_frames) + index * dynamics.segment_frames
        step = (frame + 1) * dynamics.frame_interval
        columns: dict[str, Any] = {
            "walker": np.repeat(self.task.first_walker + np.arange(n_copies), n_frames),
            "frame": np.tile(frame, n_copies),
            "step": np.tile(step, n_copies),
            "time_ps": np.tile(step * dynamics.timestep, n_copies),
            "temperature": np.repeat(self.temperatures, n_frames),
            "kinetic_temperature": (recorded.kinetic * self.temperatures / self.kelvin).T.ravel(),
            "timestep": np.full(n_frames * n_copies, dynamics.timestep / self.slower),
            "timestep_limit": np.full(n_frames * n_copies, dynamics.timestep / self.coolest),
            "restarts": np.full(n_frames * n_copies, self.restarts),
            "potential_energy": recorded.energies.T.ravel(),
            "bias_energy": np.zeros(n_frames * n_copies),
            "bias_offset": np.zeros(n_frames * n_copies),
        }
        if self.pressure is not None and recorded.boxes is not None:
            volume = np.linalg.det(recorded.boxes)
            columns["pressure_volume"] = np.tile(self.pressure * volume, n_copies)
        if recorded.z is not None and recorded.bias is not None and recorded.offsets is not None:
            columns["bias_energy"] = recorded.bias.T.ravel()
            columns["bias_offset"] = recorded.offsets.T.ravel()
            columns |= {f"z{i}": recorded.z[:, :, i].T.ravel() for i in range(recorded.z.shape[2])}
        return pd.DataFrame(columns)


@dataclass(frozen=True)
class _Recorded:
    """Frames of a segment.

    Attributes
    ----------
    positions
        Shape (n_frames, n_copies, n_atoms, 3) [nm].
    boxes
        Shape (n_frames, 3, 3) [nm], or None.
    energies
        Potential energy without bias, shape (n_frames, n_copies) [kJ/mol].
    kinetic
        Kinetic temperature, shape (n_frames, n_copies) [K].
    z
        Collective variables, shape (n_frames, n_copies, dim), or None without a bias.
    bias, offsets
        Bias energy and its offset at the time of the frame, shape (n_frames, n_copies) [kJ/mol].
    """

    positions: NDArray[np.float64]
    boxes: NDArray[np.float64] | None
    energies: NDArray[np.float64]
    kinetic: NDArray[np.float64]
    z: NDArray[np.float64] | None = None
    bias: NDArray[np.float64] | None = None
    offsets: NDArray[np.float64] | None = None


@torch.no_grad()
def _evaluate(
    cv: torch.nn.Module,
    bias: torch.nn.Module,
    positions: NDArray[np.float64],
    boxes: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Collective variables (n_frames, n_copies, dim) and static bias energies (n_frames, n_copies) [kJ/mol]."""
    n_frames, n_copies = positions.shape[:2]
    z, energy = [], []
    for copy in range(n_copies):
        for rows in np.array_split(np.arange(n_frames), max(1, n_frames // 4096)):
            box = torch.empty(0) if boxes is None else torch.from_numpy(boxes[rows])
            z.append(cv(torch.from_numpy(positions[rows, copy]), box))
            energy.append(bias(z[-1]))
    variables = torch.cat(z).reshape(n_copies, n_frames, -1).transpose(0, 1)
    return variables.numpy(), torch.cat(energy).reshape(n_copies, n_frames).T.numpy()


def _single_copy_context(
    built: BuiltSystem, task: GroupTask, platform: PlatformChoice
) -> openmm.Context | None:
    """Context of one unbiased copy, to give each copy of a batched System its own potential energy."""
    if built.n_copies == 1:
        return None
    return platform.context(shared_system(task.system).system)


def _copy_energies(context: openmm.Context, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Potential energy of each frame and copy, shape (n_frames, n_copies) [kJ/mol]."""
    energies = np.empty(positions.shape[:2])
    for index in np.ndindex(*energies.shape):
        context.setPositions(positions[index])
        energy = context.getState(energy=True).getPotentialEnergy()
        energies[index] = energy.value_in_unit(unit.kilojoule_per_mole)
    return energies


def _write_checkpoint(path: Path, data: bytes) -> None:
    """Write a checkpoint after its checksum: OpenMM loads a damaged one without an error."""
    path.write_bytes(zlib.crc32(data).to_bytes(4, "big") + data)


def read_checkpoint(path: Path) -> bytes:
    """Read what `_write_checkpoint` wrote; `OSError` if the file is missing or damaged."""
    content = path.read_bytes()
    if zlib.crc32(content[4:]) != int.from_bytes(content[:4], "big"):
        raise OSError(f"{path.name} is damaged")
    return content[4:]


def _reason(error: Exception) -> str:
    """Last line of an error: TorchScript puts a whole traceback before it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _seed(seed: int, stream: int) -> int:
    """Return a positive 31-bit seed for one random stream of a group."""
    return int(np.random.SeedSequence([seed, stream]).generate_state(1)[0] % (2**31 - 2)) + 1
