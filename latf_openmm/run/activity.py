"""What a run does now, or what it would go on with, from its files alone: nothing is locked, written or built."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from latf_openmm.frames.walkers import read_stage
from latf_openmm.run.configured import ConfiguredRun
from latf_openmm.run.ending import settled
from latf_openmm.run.heartbeat import Heartbeat, read_heartbeat
from latf_openmm.run.records import TemperingRecord
from latf_openmm.run.rounds import RoundFolder
from latf_openmm.run.stages import round_stage, validation_stage
from latf_openmm.run.summaries import tempering_record
from latf_openmm.run.wall_time import WallTimes
from latf_openmm.sampling.stage import SimulationSettings, Stage, read_dropped
from latf_openmm.training.kept_lags import lags_done
from latf_openmm.units import TemperatureScale

Step = Literal[
    "starting",
    "simulating",
    "reading frames",
    "scanning lag times",
    "training",
    "generating",
    "planning the next round",
]
"""Steps of a round, in order; of the validation runs the first two."""
_STAGES = {"states": "of at most", "joint": "of at most", "flow": "of"}
"""Stages of a training whose bars count epochs, by the names of the bars; some end early."""
_COUNTED = {"training": "train", "generating": "generate"}
"""Names under which the wall time of steps is counted."""


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
    begun
        Whether the step has begun; a run that nobody works on may have ended between two steps.
    lags
        Lags of a scan that are done, and in all; None where none goes on.
    """

    round: int | None
    step: Step
    settings: SimulationSettings
    biased: bool
    frames: int
    n_frames: int
    tempering: TemperingRecord | None
    heartbeat: Heartbeat | None
    begun: bool = True
    lags: tuple[int, int] | None = None

    @property
    def place(self) -> str:
        """Round, or validation runs, and step: "round 2, training", or "round 2, next: training"."""
        place = "validation runs" if self.round is None else f"round {self.round}"
        return f"{place}, {self.step}" if self.begun else f"{place}, next: {self.step}"

    @property
    def stage(self) -> str:
        """Stage of a training that goes on: "stage joint, 2 of at most 6 epochs (3 states)"; empty elsewhere."""
        beat = self.heartbeat
        if beat is None or self.step != "training" or beat.step not in _STAGES:
            return ""
        note = f" ({beat.note})" if beat.note else ""
        return f"stage {beat.step}, {beat.done:,.0f} {_STAGES[beat.step]} {beat.total:,.0f} epochs{note}"

    @property
    def part(self) -> str:
        """Name of what the time left is of."""
        return "this stage" if self.stage else "this"

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
        """Say where it is: "round 2, simulating, 3,200 of 10,000 frames of all walkers"."""
        if self.lags is not None:
            return f"{self.place}, {self.lags[0]} of {self.lags[1]} done"
        if self.stage:
            return f"{self.place}, {self.stage}"
        if self.step != "simulating" or not self.begun:
            return self.place
        return f"{self.place}, {self.frames:,} of {self.n_frames:,} frames of all walkers"


def activity_of(run: ConfiguredRun) -> Activity | None:
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
        activity = Activity(folder.index, "training", settings, bool(biased), 0, 0, None, heartbeat)
        return _after_frames(run, folder, activity)
    activity = _simulated(folder.index, round_stage(run, folder, starts=False), heartbeat)
    if activity.frames < activity.n_frames and not folder.model.is_dir():
        return activity
    return _after_frames(run, folder, activity)


def _simulated(index: int | None, stage: Stage, heartbeat: Heartbeat | None) -> Activity:
    """Return a round as far as its simulation has come."""
    dropped = read_dropped(stage.folder)
    tasks = [task for task in stage.tasks() if not dropped.keys() & set(task.names)]
    complete = [task.n_complete() for task in tasks]
    frames = sum(
        task.n_walkers * task.frames_in(i) for task, n in zip(tasks, complete, strict=True) for i in range(n)
    )
    total = sum(task.n_walkers * task.n_frames for task in tasks)
    begun = stage.folder.is_dir()
    activity = Activity(
        index,
        "simulating" if begun or heartbeat is None else "starting",
        stage.settings,
        stage.bias is not None,
        frames,
        total,
        _moves(stage.folder, sum(complete), stage.settings, stage.system.scale) if sum(complete) else None,
        heartbeat,
        begun or heartbeat is not None,
    )
    if heartbeat is not None and heartbeat.steps_per_second:
        # Its bar is of the stage; frames of a segment that goes on are known to it alone.
        return replace(activity, frames=max(frames, round(heartbeat.fraction * activity.n_frames)))
    return activity


def _after_frames(run: ConfiguredRun, folder: RoundFolder, activity: Activity) -> Activity:
    """Return a round whose frames are there, at the step that it is at, or that follows."""
    step = _later_step(run, folder)
    counted = f"round {folder.index}: {_COUNTED.get(step, step)}"
    begun = WallTimes(run.path).begun(counted)
    lags = lags_done(folder.model) if step == "training" and begun else None
    if lags is not None and lags[0] < lags[1]:
        return replace(activity, step="scanning lag times", lags=lags)
    if activity.heartbeat is None or begun:
        return replace(activity, step=step, begun=begun)
    return replace(activity, step="reading frames" if step in _COUNTED else step)


def _later_step(run: ConfiguredRun, folder: RoundFolder) -> Step:
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
