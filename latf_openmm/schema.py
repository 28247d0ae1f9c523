"""What a run folder says of itself: the schema of its files, and the versions that worked on it (``run.json``).

A folder without the file is of schema 0. `latf-openmm run` brings older folders to the present schema; everything else
reads them as they are.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latf_openmm.errors import ConfigError
from latf_openmm.model.checkpoint import versions
from latf_openmm.storage import write_json

log = logging.getLogger(__name__)

RECORD = "run.json"
_COMPARED = ("latf_openmm", "openmm", "torch")

Record = dict[str, Any]
Migration = Callable[[Path, Record], Record]


def _add_record(folder: Path, _: Record) -> Record:
    """From 0 to 1: the versions that started it are those of its first round."""
    first = folder / "rounds" / "000" / "round.json"
    try:
        found = [json.loads(first.read_text())["versions"]]
    except (OSError, ValueError, KeyError, TypeError):
        found = []
    return {"versions": found}


MIGRATIONS: list[Migration] = [_add_record]
"""The n-th brings a folder of schema n to n + 1 and returns its new record."""


def present() -> int:
    """Schema of the folders that this version writes."""
    return len(MIGRATIONS)


def read_record(folder: Path) -> Record:
    """Return the record of a run folder; that of schema 0 where there is none.

    Raises
    ------
    ConfigError
        If it is damaged, or of a schema that this version does not know.
    """
    path = folder / RECORD
    if not path.is_file():
        return {"schema": 0, "versions": []}
    try:
        record = dict(json.loads(path.read_text()))
        schema, made = record["schema"], record["versions"]
        if type(schema) is not int or schema < 0 or not all(isinstance(one, dict) for one in made):
            raise ValueError("expected 'schema', a whole number, and 'versions', a list of mappings")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: damaged ({type(error).__name__}: {error})") from None
    if schema > present():
        by = f"; written by latf-openmm {made[-1].get('latf_openmm', 'unknown')}" if made else ""
        raise ConfigError(
            f"{path}: schema: {schema} is newer than {present()}, the newest that this version of latf-openmm "
            f"({versions()['latf_openmm']}) reads{by}"
        )
    return record


def start_record(folder: Path) -> None:
    """Write the record of a run that starts now."""
    write_json(folder / RECORD, {"schema": present(), "versions": [versions()]})


def resume_record(folder: Path) -> None:
    """Bring a folder to the present schema, and warn once where it goes on with other versions.

    Raises
    ------
    ConfigError
        As `read_record`.
    """
    record = read_record(folder)
    for schema in range(record["schema"], present()):
        record = MIGRATIONS[schema](folder, record) | {"schema": schema + 1}
        write_json(folder / RECORD, record)
        log.info("%s: now of schema %d", folder, schema + 1)
    now, before = versions(), record["versions"][-1] if record["versions"] else {}
    other = [name for name in _COMPARED if name in before and before[name] != now[name]]
    if other:
        log.warning(
            "%s: continued with %s; until now it was made with %s",
            folder,
            ", ".join(f"{name} {now[name]}" for name in other),
            ", ".join(f"{name} {before[name]}" for name in other),
        )
    if other or not before:
        write_json(folder / RECORD, record | {"versions": [*record["versions"], now]})
