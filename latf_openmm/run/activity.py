"""What a run does now, or what it would go on with, from its files alone: nothing is locked, written or built."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from latf_openmm.frames.walkers import read_stage
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.heartbeat import Heartbeat, read_heartbeat
from latf_openmm.run.overview import settled
from latf_openmm.run.records import TemperingRecord
from latf_openmm.run.rounds import RoundFolder
from latf_openmm.run.stages import round_stage, validation_stage
from latf_openmm.run.summaries import tempering_record
from latf_openmm.sampling.stage import SimulationSettings, Stage, read_dropped
from latf_openmm.units import TemperatureScale

Step = Literal["starting", "simulating", "training", "generating", "planning the next round"]
"""Steps of a round, in order; of the validation runs the first two."""


@dataclass(frozen=True)
class Activity:
    """Present step of a run.

    Attributes
    ----------
    round
        None: the validation runs, after the last round.
    step
        Of the round.
    settings
        Of the simulation of the round.
    biased
        Whether walkers feel a bias.
    frames, n_frames
        Of all walkers in this round, recorded and in all; where a run goes on, those not on disk yet count too.
    tempering
        Moves among temperatures in the round so far; None where walkers stay.
    heartbeat
        Of the command that works on the run; None: nobody does.
    """

    round: int | None
    step: Step
    settings: SimulationSettings
    biased: bool
    frames: int
    n_frames: int
    tempering: TemperingRecord | None
    heartbeat: Heartbeat | None

    @property
    def steps(self) -> tuple[int, int]:
        """Time steps of all walkers after equilibration, done and in all."""
        return self.frames * self.settings.frame_interval, self.n_frames * self.settings.frame_interval

    @property
    def steps_per_second(self) -> float | None:
        """Speed of all walkers together; None where nothing is simulated, or nobody knows."""
        return self.heartbeat.steps_per_second if self.heartbeat and self.step == "simulating" else None

    @property
    def seconds_left(self) -> float | None:
        """Wall time left of what goes on; None where nobody knows."""
        if self.steps_per_second:
            done, total = self.steps
            return (total - done) / self.steps_per_second
        return self.heartbeat.seconds_left if self.heartbeat else None

    def unfinished(self) -> str:
        """Say that the run is not finished, and where it is."""
        return f"this run is not finished: {self.sentence()}"

    def sentence(self) -> str:
        """Say where it is: "round 2, simulating, 3,200 of 10,000 frames"."""
        place = "validation runs" if self.round is None else f"round {self.round}"
        said = f"{place}, {self.step}"
        return f"{said}, {self.frames:,} of {self.n_frames:,} frames" if self.step == "simulating" else said


def activity_of(run: RunFolder) -> Activity | None:
    """Return what a run does now, or what it would go on with; None where it has ended.

    Raises
    ------
    DataError
        If a file that is needed for that is damaged.
    """
    if run.ended:
        return None
    heartbeat = read_heartbeat(run.path)
    heartbeat = heartbeat if heartbeat is not None and heartbeat.alive else None
    complete = run.complete_rounds()[: run.config.loop.rounds]
    if complete and settled(run, run.config.loop, complete[-1]) is not None:
        stage = validation_stage(run)
        assert stage is not None  # else it had ended
        return _simulated(None, stage, heartbeat)
    folder = run.round(len(complete))
    if folder.imported():
        settings, biased = run.plan(folder.index)
        return Activity(folder.index, _later_step(run, folder), settings, bool(biased), 0, 0, None, heartbeat)
    activity = _simulated(folder.index, round_stage(run, folder, starts=False), heartbeat)
    if activity.frames < activity.n_frames and not folder.model.is_dir():
        return activity
    return replace(activity, step=_later_step(run, folder))


def _simulated(index: int | None, stage: Stage, heartbeat: Heartbeat | None) -> Activity:
    """Return a round as far as its simulation has come."""
    dropped = read_dropped(stage.folder)
    tasks = [task for task in stage.tasks() if not dropped.keys() & set(task.names)]
    complete = [task.n_complete() for task in tasks]
    frames = sum(
        task.n_walkers * task.frames_in(i) for task, n in zip(tasks, complete, strict=True) for i in range(n)
    )
    total = sum(task.n_walkers * task.n_frames for task in tasks)
    activity = Activity(
        index,
        "simulating" if stage.folder.is_dir() else "starting",
        stage.settings,
        stage.bias is not None,
        frames,
        total,
        _moves(stage.folder, sum(complete), stage.settings, stage.system.scale) if sum(complete) else None,
        heartbeat,
    )
    if heartbeat is not None and heartbeat.steps_per_second:
        # Its bar is of the stage; frames of a segment that goes on are known to it alone.
        return replace(activity, frames=max(frames, round(heartbeat.fraction * activity.n_frames)))
    return activity


def _later_step(run: RunFolder, folder: RoundFolder) -> Step:
    """Return the step of a round whose frames are there."""
    if not folder.model.is_dir():
        return "training"
    left = [t for t in run.temperatures() if not folder.generated(t).is_dir()]
    return "generating" if left else "planning the next round"


@lru_cache(maxsize=1)
def _moves(
    folder: Path, n_segments: int, settings: SimulationSettings, scale: TemperatureScale
) -> TemperingRecord | None:
    """Moves of the walkers in the segments of a stage that are there; read anew when there are more."""
    if settings.tempering is None:
        return None
    return tempering_record(read_stage(folder), folder, settings, scale)
