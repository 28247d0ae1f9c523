"""A set of walker groups that is simulated side by side: runs segment by segment, resumes after a kill.

A segment is written to a temporary folder and renamed when it is complete, so a folder named
``segment_NNNN`` always holds complete files, and whatever an interruption cut off is run again from the last
checkpoint. Without tempering a set is one group.
"""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pandas as pd
import torch

from latf_openmm.errors import SimulationError, last_line
from latf_openmm.frames.moves import COLUMNS, MOVES
from latf_openmm.sampling.dynamics import SetTask
from latf_openmm.sampling.heat import TooHotError, check_heat
from latf_openmm.sampling.places import Places
from latf_openmm.sampling.recording import Recording
from latf_openmm.sampling.segments import TEMPERING, SegmentFrames
from latf_openmm.sampling.tempering.base import ENOUGH, expected_acceptance, temperatures_needed
from latf_openmm.sampling.walker_group import WalkerGroup
from latf_openmm.storage import check_file, write_json

log = logging.getLogger(__name__)
_SLOWER = (1, 1, 2, 4)
"""Steps in place of one at each attempt of a segment, the time between frames being the same."""
_NO_HELP = 0.7
"""Share of the excess that is left with shorter time steps from which these are not what helps."""
_TELL = 50
"""Frames between reports of progress."""
_STREAM = 3
"""Random stream of the moves."""
_TOO_FEW = 0.02
"""Expected acceptance between neighbouring temperatures below which there is a warning."""


def run_set(task: SetTask, advance: Callable[[int], None]) -> None:
    """Run the segments of a task that are not complete yet; `advance` is told of frames done, of all its walkers.

    Raises
    ------
    SimulationError
        If a segment becomes unstable again and again.
    """
    torch.set_num_threads(1)
    complete, last = task.n_complete(), task.to_run.stop
    for index in range(task.to_run.start, min(complete, last)):
        advance(task.n_walkers * task.frames_in(index))
    if complete >= last:
        return
    for group in task.groups:  # those of which an interruption left one segment more
        for index in range(complete, group.n_complete()):
            shutil.rmtree(group.segment(index))
    walkers = WalkerSet(task, complete)
    for index in range(complete, last):
        walkers.run_segment(index, advance)


class WalkerSet:
    """Groups of walkers, after `complete` segments, and what moves walkers between temperatures."""

    def __init__(self, task: SetTask, complete: int) -> None:
        self.task = task
        self.groups = [WalkerGroup(group, complete) for group in task.groups]
        self.places = Places(self.groups, task.first_replica)
        self.moves = task.moves()
        self.attempts: list[dict[str, Any]] = []
        self.coolest = max(group.coolest for group in self.groups)
        self.told = 0
        if self.moves is not None and complete:
            self._restore(task.folder / task.segment(complete - 1).name / TEMPERING)

    def run_segment(self, index: int, advance: Callable[[int], None]) -> None:
        """Run, record and write one segment.

        An unstable one is tried again from where it began with other velocities, then with shorter time steps too. So
        is one whose atoms are hotter than the thermostat, with shorter time steps at once: a bias that is stiff for the
        time step heats what it acts on, and energies are wrong without any other sign. Later segments do not try again
        what was too hot. Where shorter steps do not help, the segment is kept: a bias that is built up faster than heat
        leaves warms walkers, too, and the report names them. One that is cooler than the thermostat is kept as well:
        shorter steps do not help there.
        """
        for group in self.groups:
            group.read_peers(index)
        attempts, excess, coolest, self.told = 0, np.inf, self.coolest, 0
        left = [slower for slower in _SLOWER if slower >= self.coolest]
        before = self._keep()
        while True:
            slower, attempts = left.pop(0), attempts + 1
            for group in self.groups:
                group.use_slower(slower)
            try:
                recorded = self._frames(index, advance)
                self._check_heat(recorded, slower)
                break
            except (SimulationError, openmm.OpenMMException) as error:
                log.warning("%s: segment %d, attempt %d: %s", self.task.folder, index, attempts, error)
                if isinstance(error, TooHotError):
                    if error.excess > _NO_HELP * excess:
                        self._say_no_help()
                        self.coolest = coolest
                        break
                    excess = error.excess
                    left = [more for more in left if more > slower]
                    self.coolest = left[0] if left else slower
                if not left:
                    raise self._unstable(index, attempts, error) from error
                self._go_back(before, index, attempts - 1)
        self._write(index, recorded)
        if index == 0 and self.moves is not None:
            self._warn_of_distance(recorded)

    def _warn_of_distance(self, recorded: Sequence[SegmentFrames]) -> None:
        """Say where neighbouring temperatures are so far apart that no walker will change between them."""
        scale, energies = self.groups[0].built.scale, self._energies_by_temperature(recorded)
        for low, high in pairwise(sorted(energies)):
            ends = np.array([scale.kT(low), scale.kT(high)]), np.array([energies[low], energies[high]])
            acceptance = expected_acceptance(*ends)
            if acceptance < _TOO_FEW:
                log.warning(
                    "simulation.tempering: between %s and %s an acceptance of %.1g is expected from the energies, so "
                    "that walkers hardly move; %d temperatures in place of these two would give %g",
                    *(scale.label(low), scale.label(high), acceptance, temperatures_needed(*ends), ENOUGH),
                )

    def _energies_by_temperature(self, recorded: Sequence[SegmentFrames]) -> dict[float, float]:
        """Mean of U + pV at each temperature [kJ/mol]."""
        sums: dict[float, list[float]] = {}
        for group, frames in zip(self.groups, recorded, strict=True):
            works = frames.energies
            if group.pressure is not None and frames.boxes is not None:
                works = works + group.pressure * np.linalg.det(frames.boxes)[:, None]
            for temperature in np.unique(frames.temperatures):
                at = frames.temperatures == temperature
                sums.setdefault(float(temperature), []).extend(works[at].tolist())
        return {temperature: float(np.mean(values)) for temperature, values in sums.items()}

    def _say_no_help(self) -> None:
        advice = self.groups[0].against_heat()
        log.warning("%s: shorter time steps do not help%s", self.task.folder, advice)

    def _unstable(self, index: int, attempts: int, error: Exception) -> SimulationError:
        return SimulationError(
            f"{self.task.folder}: unstable in segment {index} after {attempts} attempts "
            f"({last_line(error)}); lower {self.groups[0].lower()}"
        )

    def _frames(self, index: int, advance: Callable[[int], None]) -> list[SegmentFrames]:
        """Frames of every group."""
        self.attempts = []
        recordings = [Recording(group) for group in self.groups]
        n = self.task.frames_in(index)
        for frame in range(n):
            moved = self._move(index * self.task.segment_frames + frame)
            for recording, rows in zip(recordings, self.places.rows, strict=True):
                recording.step(None if self.moves is None else self.places.replicas[rows], moved)
            if frame % _TELL == _TELL - 1:
                self._tell(frame + 1, advance)
        self._tell(n, advance)
        return [recording.frames() for recording in recordings]

    def _tell(self, frames: int, advance: Callable[[int], None]) -> None:
        """Tell of the frames of all walkers in this segment; those that are tried again were told of before."""
        if frames > self.told:
            advance(self.task.n_walkers * (frames - self.told))
            self.told = frames

    def _move(self, frame: int) -> bool:
        """Move walkers before a frame, where it is time; return whether it was."""
        tempering = self.task.tempering
        if tempering is None or self.moves is None or not tempering.moves_before(frame):
            return False
        number = frame // tempering.interval - 1
        rng = np.random.default_rng([self.task.seed, _STREAM, number])
        for attempt in self.moves.move(self.places, number, rng):
            self.attempts.append({"frame": frame, **asdict(attempt)})
        return True

    def _check_heat(self, recorded: list[SegmentFrames], slower: int) -> None:
        for group, frames in zip(self.groups, recorded, strict=True):
            freedom = group.kinetic_temperature.freedom
            try:
                check_heat(group.task, group.built.scale, freedom, frames, slower)
            except TooHotError as error:
                if len(self.groups) == 1:
                    raise
                raise TooHotError(f"{group.task.folder.name}: {error}", error.excess) from None

    def _keep(self) -> dict[str, Any]:
        """Remember the present moment; return what is not in the groups."""
        for group in self.groups:
            group.keep()
        return self._state()

    def _go_back(self, state: dict[str, Any], index: int, attempt: int) -> None:
        for group in self.groups:
            group.go_back(index, attempt)
        self._use(state)

    def _state(self) -> dict[str, Any]:
        """Who is where, and what moves have learned."""
        learned = {} if self.moves is None else self.moves.state()
        temperatures = self.places.temperatures.tolist()
        return {"replicas": self.places.replicas.tolist(), "temperatures": temperatures, "learned": learned}

    def _use(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.places.replicas = np.array(state["replicas"])
        if self.moves is not None:
            self.moves.restore(state["learned"])

    def _restore(self, path: Path) -> None:
        """Go on from the file of the last complete segment."""
        check_file(path)
        state = json.loads(path.read_text(encoding="utf-8"))
        temperatures = np.array(state["temperatures"])
        for group, rows in zip(self.groups, self.places.rows, strict=True):
            group.use_thermostat(temperatures[rows])
        self._use(state)

    def _write(self, index: int, recorded: list[SegmentFrames]) -> None:
        for number, (group, frames) in enumerate(zip(self.groups, recorded, strict=True)):
            group.coolest = self.coolest
            group.write(index, frames, self._write_moves if number == 0 else _nothing)

    def _write_moves(self, folder: Path) -> None:
        """Write what moves did in this segment, and where they go on."""
        if self.moves is None:
            return
        pd.DataFrame(self.attempts, columns=COLUMNS).to_parquet(folder / MOVES, index=False)
        write_json(folder / TEMPERING, self._state())


def _nothing(folder: Path) -> None:
    """Write nothing more."""
