"""Checks of simulated, imported and annealed frames: segment by segment, in pieces."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import mdtraj

from latf_openmm.errors import DataError
from latf_openmm.frames.moves import MOVES
from latf_openmm.run.config import RunConfig
from latf_openmm.run.records import ImportedRecord, parse_as, read_as
from latf_openmm.run.rounds import IMPORTED
from latf_openmm.run.stage_records import AnnealingRecord, StageRecord
from latf_openmm.run.verify.findings import Check, Findings
from latf_openmm.run.verify.segments import Segment, look_at_segment
from latf_openmm.sampling.annealing import frames_beside
from latf_openmm.sampling.dynamics import GroupTask
from latf_openmm.sampling.segments import BIAS_STATE, TEMPERING
from latf_openmm.sampling.stage import DROPPED, SimulationSettings, Stage, read_dropped
from latf_openmm.sampling.tempering import AnyTempering
from latf_openmm.storage import damage, read_arrays, read_record
from latf_openmm.units import temperature_name


def stage_checks(
    part: str,
    folder: Path,
    config: RunConfig,
    settings: SimulationSettings,
    topology: mdtraj.Topology,
    complete: bool,
) -> Iterator[Check]:
    """Checks of a stage that was simulated; where it is not `complete`, of what there is."""
    recorded = _recorded(folder, config)
    yield Check(part, "stage", partial(_look_at_record, folder, recorded is not None))
    tasks = (recorded or Stage(config.system, settings, None, {}, 0, folder)).tasks()
    expected = {group.folder for task in tasks for group in task.groups}
    for group in sorted(path for path in folder.glob("T*") if path.is_dir() and path not in expected):
        text = f"not expected; walkers of this stage are in {', '.join(p.name for p in sorted(expected))}"
        yield Check(part, group.name, partial(_note, group, text))
    try:
        dropped = read_dropped(folder)
    except DataError as error:
        dropped = {}
        yield Check(part, DROPPED, partial(_note, folder / DROPPED, error))
    for task in tasks:
        tempering = () if task.tempering is None else (TEMPERING, MOVES)
        for member in task.groups:
            of_set = tempering if member is task.groups[0] else ()
            ended = complete and member.folder.name not in dropped
            yield from _group_checks(part, member, topology, ended, of_set, task.tempering)


def _group_checks(
    part: str,
    task: GroupTask,
    topology: mdtraj.Topology,
    complete: bool,
    of_set: tuple[str, ...],
    tempering: AnyTempering | None,
) -> Iterator[Check]:
    """Checks of a group of walkers.

    Parameters
    ----------
    complete
        Whether all of its segments have to be there.
    of_set
        Files in its segments that concern other groups too.
    tempering
        Moves between its frames.
    """
    segments = sorted(path for path in task.folder.glob("segment_*") if path.suffix == "")
    n_expected = task.n_segments
    if not complete:
        n_expected = max((i + 1 for i in range(task.n_segments) if task.segment(i) in segments), default=0)
    adaptive = any((path / BIAS_STATE).is_file() for path in segments)
    others = ("checkpoint.bin", "state.xml", *((BIAS_STATE,) if adaptive else ()), *of_set)
    dynamics = task.dynamics
    for index in range(n_expected):
        segment = Segment(
            task.segment(index),
            range(task.first_walker, task.first_walker + task.n_walkers),
            task.temperatures,
            f".{dynamics.trajectory}",
            task.frames_in(index),
            dynamics.frame_interval,
            dynamics.timestep,
            first=index * dynamics.segment_frames,
            others=others,
            ladder=task.ladder,
            recordings=dynamics.frame_interval // dynamics.energy_interval if dynamics.energy_interval else 0,
            tempering=tempering,
        )
        label = f"{task.folder.name}/{segment.folder.name}"
        yield Check(part, label, partial(look_at_segment, segment, topology))
    for path in segments:
        if path not in {task.segment(index) for index in range(n_expected)}:
            text = f"not expected; {task.folder.name} has {n_expected} segments"
            yield Check(part, path.name, partial(_note, path, text))


def imported_checks(part: str, folder: Path, config: RunConfig, topology: mdtraj.Topology) -> Iterator[Check]:
    """Checks of trajectories that were imported."""
    simulation = config.simulation
    try:
        record = read_as(ImportedRecord, folder / IMPORTED)
    except DataError as error:
        yield Check(part, IMPORTED, partial(_note, folder / IMPORTED, error))
        return
    segments = [
        Segment(
            folder / walker.folder / f"segment_{number:04d}",
            range(walker.walker, walker.walker + 1),
            (walker.temperature,),
            source.paths[file].suffix.lower(),
            None,
            simulation.frame_interval,
            simulation.timestep,
            imported=True,
        )
        for source in record.root
        for walker in source.walkers
        for number, file in enumerate(walker.files)
    ]
    for segment in segments:
        label = f"{segment.folder.parent.name}/{segment.folder.name}"
        yield Check(part, label, partial(look_at_segment, segment, topology))
    yield Check(part, IMPORTED, partial(_look_at_hash, folder / IMPORTED))


def path_checks(part: str, folder: Path, topology: mdtraj.Topology) -> Iterator[Check]:
    """Checks of walkers that were annealed."""
    file = folder / "annealing.json"
    try:
        record = parse_as(AnnealingRecord, read_record(file), file)
    except DataError as error:
        yield Check(part, file.name, partial(_note, file, error))
        return
    keep = folder / "walkers.npz"
    for path in (folder / "starts.npz", keep, *frames_beside(keep)):
        if path.name in record.files or path.is_file():
            yield Check(part, path.name, partial(_look_at_arrays, path))
    for target in record.targets:
        segment = Segment(
            folder / temperature_name(target) / "segment_0000",
            range(1),
            (target,),
            f".{record.dynamics.trajectory}",
            record.settings.walkers * record.settings.frames,
            record.settings.steps,
            record.dynamics.timestep,
            members=record.settings.walkers,
        )
        if segment.folder.is_dir():  # else it is not finished yet
            yield Check(part, temperature_name(target), partial(look_at_segment, segment, topology))


def _look_at_arrays(path: Path, findings: Findings) -> None:
    try:
        read_arrays(path)
    except DataError as error:
        findings.damage(path, f"{str(error).removeprefix(f'{path}: ')}; expected arrays")
    _look_at_hash(path, findings)


def _look_at_hash(path: Path, findings: Findings) -> None:
    if text := damage(path):
        findings.damage(path, text)


def _look_at_record(folder: Path, readable: bool, findings: Findings) -> None:
    for name, what in (("stage.json", "the record of the stage"), ("topology.pdb", "the topology")):
        findings.missing(folder / name, what)
    if (folder / "stage.json").is_file() and not readable:
        findings.damage(folder / "stage.json", "cannot be read; expected the settings of the stage")


def _note(path: Path, text: object, findings: Findings) -> None:
    """Note what is said of a file, or an error that begins with its name."""
    findings.damage(path, str(text).removeprefix(f"{path}: "))


def _recorded(folder: Path, config: RunConfig) -> Stage | None:
    """Return the stage by its record of the stage; None where it cannot be read."""
    try:
        record = read_as(StageRecord, folder / "stage.json")
    except DataError:
        return None
    return Stage(config.system, record.settings, record.bias, {}, 0, folder, unbiased=record.unbiased)
