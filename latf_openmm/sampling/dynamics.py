"""Dynamics of walkers, their bias, and the task of one group of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from latf_openmm.bias.force.base import BackendName, ForcesName
from latf_openmm.bias.potentials import AnyBias
from latf_openmm.frames.formats import FormatName
from latf_openmm.sampling.contexts import PlatformChoice
from latf_openmm.sampling.tempering import AnyTempering, Moves
from latf_openmm.settings import Settings
from latf_openmm.systems import AnySystem


class DynamicsSettings(Settings):
    """Settings for the dynamics of walkers and their record."""

    timestep: float = Field(gt=0, le=10, description="integration step [ps]")
    friction: float = Field(gt=0, description="Langevin friction [1/ps]")
    frame_interval: int = Field(ge=1, description="steps between recorded frames")
    energy_interval: int | None = Field(
        None,
        ge=1,
        description="steps between recordings of the potential energy, a divisor of frame_interval: their mean around "
        "each frame has less noise of a solvent; default: at frames only",
    )
    equilibration: int = Field(0, ge=0, description="steps before the first frame, not recorded")
    segment_frames: int = Field(2500, ge=1, description="frames between checkpoints")
    minimise: bool = Field(True, description="minimise the start structures first")
    platform: str | None = Field(None, description="OpenMM platform; default: the system's own choice")
    platform_properties: dict[str, str] = Field(
        {}, description="properties of the platform, such as {Precision: mixed, DeviceIndex: '0'}"
    )
    trajectory: FormatName = Field("dcd", description="trajectory format")
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

    @model_validator(mode="after")
    def _recordings(self) -> "DynamicsSettings":
        if self.energy_interval is not None and self.frame_interval % self.energy_interval:
            raise ValueError(
                f"energy_interval: {self.energy_interval} does not divide frame_interval ({self.frame_interval}); "
                "recordings have to fall on frames"
            )
        return self

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
    ladder
        Temperatures that the walkers move among; empty: each keeps its own.
    peers
        Names of the groups that share an adaptive bias after each segment; empty: all there are do so at once.
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
    ladder: tuple[float, ...] = ()
    peers: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class SetTask:
    """Groups of walkers that are simulated side by side, since walkers move between them; else a single one.

    Parameters
    ----------
    groups
        With the same numbers of frames and segments.
    tempering
        How walkers move among temperatures, or None.
    first_replica
        Number of the first of the walkers among all of the stage.
    part
        Segments to be run, the first and the one after the last; None: all of them.
    """

    groups: tuple[GroupTask, ...]
    tempering: AnyTempering | None = None
    first_replica: int = 0
    part: tuple[int, int] | None = None

    @property
    def folder(self) -> Path:
        """Folder of the first group, which has what concerns all."""
        return self.groups[0].folder

    @property
    def names(self) -> list[str]:
        """Names of the groups."""
        return [group.folder.name for group in self.groups]

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Temperature of each walker, where it begins."""
        return tuple(t for group in self.groups for t in group.temperatures)

    @property
    def n_walkers(self) -> int:
        """Number of walkers."""
        return len(self.temperatures)

    @property
    def n_frames(self) -> int:
        """Frames of each walker."""
        return self.groups[0].n_frames

    @property
    def n_segments(self) -> int:
        """Number of segments."""
        return self.groups[0].n_segments

    @property
    def to_run(self) -> range:
        """Numbers of the segments to be run."""
        return range(*(self.part or (0, self.n_segments)))

    @property
    def segment_frames(self) -> int:
        """Frames of each segment but the last."""
        return self.groups[0].dynamics.segment_frames

    @property
    def seed(self) -> int:
        """Seeds the moves."""
        return self.groups[0].seed

    def segment(self, index: int) -> Path:
        """Folder of a segment of the last group, which is written last."""
        return self.groups[-1].segment(index)

    def n_complete(self) -> int:
        """Count the segments that are complete in all groups."""
        return min(group.n_complete() for group in self.groups)

    def frames_in(self, index: int) -> int:
        """Frames of one segment."""
        return self.groups[0].frames_in(index)

    def moves(self) -> Moves | None:
        """Return what moves the walkers."""
        if self.tempering is None:
            return None
        first = self.groups[0]
        ladder = first.ladder or self.temperatures
        return self.tempering.moves(
            ladder, first.system.scale, (self.n_frames - 1) // self.tempering.interval
        )
