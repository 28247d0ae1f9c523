"""Checks of a whole run, and how they are shown."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import mdtraj
import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from latf_openmm.errors import DataError, LatfError, first_line
from latf_openmm.features import build_features, resolve_features
from latf_openmm.frames.walkers import read_trajectory
from latf_openmm.model.checkpoint import MODEL_RECORD, MODEL_WEIGHTS, load_model
from latf_openmm.progress import bar
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.generated import LATENT
from latf_openmm.run.records import GeneratedRecord, RoundRecord
from latf_openmm.run.rounds import IMPORTED, RoundFolder
from latf_openmm.run.schema import read_run
from latf_openmm.run.verify.findings import Check, Findings, Report, hashed_folders
from latf_openmm.run.verify.stages import imported_checks, path_checks, stage_checks
from latf_openmm.sampling.stage import SimulationSettings
from latf_openmm.storage import PARTIAL, RECORDS
from latf_openmm.training.feature_selection import check_columns

_UNNAMED = "?"
"""Name of atoms whose names are not known."""
_LOST = "missing; expected a file that run.json lists"
"""Text for a file that is gone."""
_MADE_LATER = ("summary.json", "ensemble.json", "comparison.json", "events.out.tfevents.*")
"""Files of what was generated, of the report, and for TensorBoard: folders with them have a manifest."""

_GENERATED = ("latent_samples.parquet", "free_energy.parquet", "topology.pdb")
"""Files of latent samples."""


def verify_run(path: Path, progress: Progress | None = None) -> Report:
    """Look at everything in the folder of a run; trajectories are read in pieces.

    Raises
    ------
    ConfigError
        If `path` is not the folder of a run, or of a newer schema, or its configuration cannot be read.
    """
    run = RunFolder.open(path, builds=False)
    topology = _topology(run)
    parts: dict[str, Findings] = {}
    checks = [*_round_checks(run, topology, parts), *_validation_checks(run, topology)]
    with bar(progress, "verify", len(checks) + 1) as advance:
        for check in checks:
            advance(0, f"{check.part}, {check.label}")
            check.look(parts.setdefault(check.part, Findings()))
            advance(1, "")
        said = {file for findings in parts.values() for file in findings.damages}
        for file in (path / name for name in read_run(path).files):
            if not file.is_file() and file not in said:
                parts.setdefault("records", Findings()).damage(file, _LOST)
        others = Findings()
        _look_at_others(path, {folder for findings in parts.values() for folder in findings.hashed}, others)
    if others.counts or others.damages:
        parts["other folders"] = others
    return Report(path, parts, _unfinished(path))


def _topology(run: RunFolder) -> mdtraj.Topology:
    """Topology of the system; where making it would run code, one of as many atoms without names."""
    if not run.config.system.code():
        return run.topology()
    topology = mdtraj.Topology()
    residue = topology.add_residue(_UNNAMED, topology.add_chain())
    for _ in range(_number_of_atoms(run)):
        topology.add_atom(_UNNAMED, None, residue)
    return topology


def _number_of_atoms(run: RunFolder) -> int:
    """Count the atoms by what the first stage and model say."""
    first = run.round(0)
    with suppress(OSError, ValueError, KeyError, TypeError):
        return len(json.loads((first.model / MODEL_RECORD).read_text(encoding="utf-8"))["atoms"])
    try:
        return int(mdtraj.load_pdb(str(first.simulation / "topology.pdb")).n_atoms)
    except Exception as error:  # MDTraj has several
        raise DataError(
            f"{run.path}: the number of atoms is not known before a model is trained, without running the code of "
            f"system.kind {run.config.system.kind} ({first_line(error)})"
        ) from error


def _round_checks(run: RunFolder, topology: mdtraj.Topology, parts: dict[str, Findings]) -> Iterator[Check]:
    numbers = [int(p.name) for p in (run.path / "rounds").glob("*") if p.is_dir() and p.name.isdigit()]
    names = cache(lambda: build_features(resolve_features(run.config.features, topology)).names)
    for index in range(max(numbers, default=-1) + 1):
        folder = run.round(index)
        later = index < max(numbers)
        label = f"round {index:03d}"
        part = f"{label}: simulation"
        if later or folder.complete or folder.simulation.is_dir():
            if (folder.simulation / IMPORTED).is_file():
                yield from imported_checks(part, folder.simulation, run.config, topology)
            else:
                complete = later or folder.complete or folder.model.is_dir()
                yield from stage_checks(
                    part, folder.simulation, run.config, _settings(run, index), topology, complete
                )
        if later or folder.complete or folder.model.is_dir():
            yield Check(f"{label}: model", "model", partial(_look_at_model, folder.model, topology, names))
        present = set((folder.path / "generated").glob("T*"))
        needed = {folder.generated(t) for t in run.config.simulation.temperatures}
        for target in sorted((present | needed) if later or folder.complete else present):
            if not target.name.endswith(PARTIAL):
                yield Check(f"{label}: generated", target.name, partial(_look_at_generated, target, topology))
        if later or folder.complete or folder.starts.is_file():
            yield Check(f"{label}: record", "starts.npz", partial(_look_at_starts, folder, run, topology))
        if folder.decision.is_file():
            yield Check(f"{label}: record", "decision.json", partial(_look_at_decision, folder, run))
        if later or folder.complete:
            yield Check(f"{label}: record", "round.json", partial(_look_at_round, folder, parts))
        for path in sorted((folder.path / "annealed").glob("path_*")):
            yield from path_checks(f"{label}: annealed", path, topology)


def _validation_checks(run: RunFolder, topology: mdtraj.Topology) -> Iterator[Check]:
    settings = run.config.validation_simulation()
    if run.validation.is_dir():
        complete = run.validated.is_file()
        yield from stage_checks(
            "validation", run.validation, run.config, settings or run.config.simulation, topology, complete
        )
        if complete:
            yield Check("validation", run.validated.name, lambda findings: findings.record(run.validated))


def _look_at_model(
    folder: Path, topology: mdtraj.Topology, names: Callable[[], Sequence[str]], findings: Findings
) -> None:
    if findings.missing(folder, "the model of the round"):
        return
    findings.counts["models"] += 1
    record, weights, history = (folder / name for name in (MODEL_RECORD, MODEL_WEIGHTS, "history.parquet"))
    if not any([findings.missing(record, "the model"), findings.missing(weights, "the model's weights")]):
        try:
            trained = load_model(folder)
            if topology.atom(0).name != _UNNAMED:
                trained.check_atoms([str(atom) for atom in topology.atoms])
                check_columns(names(), trained.feature_module().names, trained.columns or ())
            if not all(torch.isfinite(value).all() for value in trained.model.state_dict().values()):
                findings.damage(weights, "weights are not finite; expected numbers")
        except LatfError as error:
            _note_model(first_line(error), folder, findings)
    if not findings.missing(history, "the history of the training"):
        _read_table(history, findings)
    findings.hashes(folder)


def _note_model(text: str, folder: Path, findings: Findings) -> None:
    """Note what is wrong with a model's file; that the record of its round is damaged is said of that."""
    record, weights = folder / MODEL_RECORD, folder / MODEL_WEIGHTS
    culprit = weights if "Safetensor" in text or str(weights) in text else record
    if text.startswith((str(folder), "the model was", "atom ")) and not any(name in text for name in RECORDS):
        for path in (weights, record, folder):
            text = text.replace(f"{path}: ", "")
        findings.damage(culprit, f"{text}; expected a model that loads")


def _look_at_generated(folder: Path, topology: mdtraj.Topology, findings: Findings) -> None:
    if findings.missing(folder, "what was generated at a simulated temperature"):
        return
    findings.counts["temperatures"] += 1
    tables = {}
    for name in _GENERATED:
        path = folder / name
        if not findings.missing(path, "a file of what was generated") and path.suffix == ".parquet":
            tables[name] = _read_table(path, findings, finite=True)
    summary, structures = folder / "summary.json", folder / "structures.dcd"
    missing = findings.missing(summary, GeneratedRecord.content)
    record = None if missing else findings.read(GeneratedRecord, summary)
    frames = None
    if not findings.missing(structures, "the structures of the samples"):
        try:
            frames = sum(piece.n_frames for piece in read_trajectory(structures, topology))
        except LatfError as error:
            findings.damage(structures, str(error).removeprefix(f"{structures}: "))
    if record is not None:
        samples = tables.get("latent_samples.parquet")
        if samples is not None and len(samples) != record.samples:
            findings.damage(
                folder / "latent_samples.parquet", f"{len(samples)} samples; expected {record.samples}"
            )
        if frames is not None and frames != record.structures:
            findings.damage(structures, f"{frames} structures; expected {record.structures}")
    findings.hashes(folder)


def _look_at_starts(
    folder: RoundFolder, run: RunFolder, topology: mdtraj.Topology, findings: Findings
) -> None:
    path = folder.starts
    if findings.missing(path, "the start structures of the next round"):
        return
    findings.counts["files"] += 1
    try:
        positions, boxes = folder.read_starts(check=False)
    except LatfError as error:
        findings.damage(path, f"{str(error).removeprefix(f'{path}: ')}; expected arrays of positions")
        return
    simulation = _settings(run, folder.index + 1)
    wanted = sorted(simulation.temperatures)
    if sorted(positions) != wanted:
        findings.damage(path, f"temperatures {_list(sorted(positions))}; expected {_list(wanted)}")
    for arrays, shape in (
        (positions, (simulation.walkers, topology.n_atoms, 3)),
        (boxes, (simulation.walkers, 3, 3)),
    ):
        for temperature, values in arrays.items():
            if values.shape != shape:
                findings.damage(path, f"shape {values.shape} at {temperature:g}; expected {shape}")
            elif not np.isfinite(values).all():
                findings.damage(path, f"positions at {temperature:g} are not finite; expected numbers")


def _settings(run: RunFolder, index: int) -> SimulationSettings:
    """Return the settings of a round; where its plan is damaged, as the configuration says."""
    try:
        return run.plan(index)[0]
    except DataError:
        return run.config.simulation


def _look_at_decision(folder: RoundFolder, run: RunFolder, findings: Findings) -> None:
    findings.counts["files"] += 1
    try:
        run.plan(folder.index + 1)
    except DataError as error:
        if str(error).startswith(str(folder.decision)):  # else it is said of the record
            findings.damage(folder.decision, str(error).removeprefix(f"{folder.decision}: "))


def _look_at_round(folder: RoundFolder, parts: dict[str, Findings], findings: Findings) -> None:
    path = folder.record
    if findings.missing(path, "the record of a complete round: a later round was started"):
        return
    findings.counts["files"] += 1
    record = findings.read(RoundRecord, path)
    if record is None:
        return
    stages = [parts[f"round {index:03d}: simulation"] for index in range(folder.index + 1)]
    expected = {"round": folder.index}
    if not any(stage.damages for stage in stages):  # else the tables are not to be relied on
        counts = sum((stage.frames for stage in stages), Counter[float]())
        expected["frames"] = counts.total()
        at = sorted(row.temperature for row in record.populations)
        if at != sorted(counts):
            findings.damage(path, f"temperatures {_list(at)}; expected {_list(sorted(counts))}")
    weighted = sum(row.frames for row in record.effective_sample_size)
    if record.frames != weighted:
        findings.damage(path, f"{weighted} frames have weights; expected {record.frames}")
    shares = [sum(row.populations) for row in record.populations]
    if not np.allclose(shares, 1.0, atol=1e-6):
        findings.damage(path, f"populations sum to {_list(shares)}; expected 1")
    with suppress(OSError, ValueError, KeyError, TypeError):  # said of the model itself
        expected["n_states"] = json.loads((folder.model / MODEL_RECORD).read_text())["n_states"]
    for name, value in expected.items():
        if getattr(record, name) != value:
            findings.damage(path, f"{name} is {getattr(record, name)}; expected {value}")
    findings.record(path)


def _look_at_others(path: Path, seen: set[Path], findings: Findings) -> None:
    """Hashes of whatever else lies below the folder: what was generated or scanned later."""
    later = {file.parent for name in _MADE_LATER for file in path.rglob(name)}
    later = {folder.parent if folder.name == LATENT else folder for folder in later}
    finished = {folder for folder in later if PARTIAL not in str(folder.relative_to(path))}
    for folder in sorted(finished.union(hashed_folders(path))):
        if folder not in seen:
            findings.hashes(folder)
            findings.counts["folders"] += 1
    findings.counts["ensembles"] += sum(1 for _ in path.rglob("ensemble.json"))


def _unfinished(path: Path) -> list[Path]:
    temporary = sorted(p for p in path.rglob("*") if p.name.endswith(PARTIAL) or f"{PARTIAL}." in p.name)
    return [p for p in temporary if not any(parent in temporary for parent in p.parents)]


def _read_table(path: Path, findings: Findings, finite: bool = False) -> pd.DataFrame | None:
    try:
        table = pd.read_parquet(path)
    except Exception as error:  # pyarrow has several
        findings.damage(path, f"cannot be read ({first_line(error)}); expected a table")
        return None
    numbers = table.select_dtypes("number") if finite else table.iloc[:, :0]
    bad = [str(name) for name in numbers if numbers[name].isna().any()]
    if bad:
        findings.damage(path, f"{', '.join(bad)} not a number in a row; expected numbers")
    return table


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "none"


def render(report: Report, console: Console) -> None:
    """Print a table of the parts, a line for each damage, and a verdict."""
    table = Table("part", "looked at", "hashes", "result", title=str(report.path))
    for name, findings in report.parts.items():
        looked = ", ".join(f"{n} {what}" for what, n in findings.counts.items() if what != "hashed")
        bad = len(findings.damages)
        result = Text(f"{bad} damaged", "bold red") if bad else Text("whole", "green")
        table.add_row(name, looked, _hashes(findings), result)
    console.print(table)
    for path, text in report.damages.items():
        console.print(Text(f"{path}: {text}", "red"), soft_wrap=True)
    for path in report.unfinished:
        console.print(Text(f"{path}: unfinished, left by an interruption; harmless"), soft_wrap=True)
    console.print(Text(_verdict(report), "green" if report.intact else "bold red"), soft_wrap=True)


def _hashes(findings: Findings) -> str:
    return f"{len(findings.hashed)} folders" if findings.hashed else "-"


def _verdict(report: Report) -> str:
    total = sum((findings.counts for findings in report.parts.values()), Counter[str]())
    seen = f"{total['segments']} segments, {total['frames']} frames, {total['models']} models"
    if not report.intact:
        n = len(report.damages)
        return (
            f"damaged: {n} file{'s' if n > 1 else ''} or folders, each named above ({seen} looked at). Results that "
            "rest on them are not to be relied on: restore them from a copy, or begin a new run."
        )
    return f"whole: {seen}"
