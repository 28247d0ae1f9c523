"""What a run folder says of itself (``run.json``): its schema, its configurations, its rounds, the versions at work.

The hashes in it are those of the records of the rounds, which have those of everything else: a chain from here to
every file. A folder of another schema is refused.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from latf_openmm.errors import ConfigError, DamagedRunError, DataError
from latf_openmm.run.records import Header, RunRecord, parse_as, read_as
from latf_openmm.storage import facts, read_record, sha256, write_record

log = logging.getLogger(__name__)

RECORD = "run.json"
"""File of a run folder with its schema, versions and hashes."""

SCHEMA = 3
"""Schema of the folders that this version reads and writes."""

_COMPARED = ("latf_openmm", "openmm", "torch")
"""Packages whose versions are compared at a resume."""


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run: ``run.json`` may also be a file of some other program."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, RecursionError):  # damaged
        return True
    return isinstance(record, dict) and "schema" in record


def read_run(folder: Path) -> RunRecord:
    """Return the record of a run folder.

    Raises
    ------
    DamagedRunError
        If it is missing or damaged.
    ConfigError
        If it is of another schema.
    """
    path = folder / RECORD
    if not path.is_file():
        raise DamagedRunError(
            f"{path}: missing; the folder is damaged, or of an early version: restore the file, or begin a new run"
        )
    try:
        _check_schema(read_as(Header, path), path)
        return parse_as(RunRecord, read_record(path), path)
    except DataError as error:
        raise DamagedRunError(str(error)) from None


def _check_schema(header: Header, path: Path) -> None:
    if header.number == SCHEMA:
        return
    by = header.versions
    writer = f"; written by latf-openmm {by[-1].get('latf_openmm', 'unknown')}" if by else ""
    age = "newer" if header.number > SCHEMA else "older"
    raise ConfigError(
        f"{path}: schema: {header.number} is {age} than {SCHEMA}, the only one that this version of latf-openmm "
        f"({_versions()['latf_openmm']}) reads{writer}"
    )


def check_config(path: Path, record: RunRecord) -> None:
    """Raise `DamagedRunError` where the configuration in a run folder is not one that a command has put there."""
    if text_hash(path.read_text(encoding="utf-8", errors="replace")) not in record.configurations:
        raise DamagedRunError(
            f"{path}: changed since it was written; restore it from a copy (settings are changed by giving "
            "latf-openmm run another file)"
        )


def start_record(folder: Path, config: str, made_from: Sequence[Path] = ()) -> None:
    """Write the record of a run that starts now.

    Parameters
    ----------
    config
        Text of its configuration.
    made_from
        Files that its system is made from.
    """
    record = RunRecord(
        number=SCHEMA,
        versions=[_versions()],
        configurations=[text_hash(config)],
        system_files=_hashes(made_from),
        files={},
    )
    write_record(folder / RECORD, record.plain())


def resume_record(folder: Path, config: str, made_from: Sequence[Path] = ()) -> None:
    """Note what a folder goes on with, and warn once where versions or files of the system are others.

    Parameters
    ----------
    config
        Text of its configuration.
    made_from
        Files that its system is made from now.

    Raises
    ------
    ConfigError
        As `read_run`.
    """
    record = read_run(folder)
    now, before = _versions(), record.versions[-1]
    other = [name for name in _COMPARED if name in before and before[name] != now[name]]
    if other:
        log.warning(
            "%s: continued with %s; until now it was made with %s",
            folder,
            ", ".join(f"{name} {now[name]}" for name in other),
            ", ".join(f"{name} {before[name]}" for name in other),
        )
        record.versions.append(now)
    if text_hash(config) not in record.configurations:
        record.configurations.append(text_hash(config))
        other.append("config")
    hashes, known = _hashes(made_from), record.system_files
    if hashes != known:
        if known is not None:
            changed = [name for name in sorted({*hashes, *known}) if hashes.get(name) != known.get(name)]
            log.warning(
                "%s: its system is made from %s, which changed since the run was last worked on: frames from before "
                "count as of the same system; begin a new run if it is another",
                folder,
                ", ".join(changed),
            )
        record = record.model_copy(update={"system_files": hashes})
        other.append("system_files")
    if other:
        write_record(folder / RECORD, record.plain())


def add_record(folder: Path, path: Path) -> None:
    """List the record of what is complete now, a round or the validation."""
    record = read_run(folder)
    name = path.relative_to(folder).as_posix()
    if record.files.get(name) != (listed := facts(path)):
        record.files[name] = listed
        write_record(folder / RECORD, record.plain())


def _hashes(paths: Sequence[Path]) -> dict[str, str]:
    return {str(path): sha256(path) for path in paths}


def text_hash(text: str) -> str:
    """Hash by which the record of a run knows the text of a configuration."""
    return hashlib.sha256(text.encode()).hexdigest()


def _versions() -> dict[str, str]:
    """Versions of what a result depends on; imports it, which those who only look at a run do without."""
    from latf_openmm.model.checkpoint import versions

    return versions()
