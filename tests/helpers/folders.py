"""Run folders as somebody with bad intent would make them."""

from pathlib import Path

from latf_openmm.run.schema import RECORD, text_hash
from latf_openmm.storage import (
    CONFIG,
    MANIFEST,
    facts,
    facts_below,
    read_record,
    write_manifest,
    write_record,
)


def resealed(run: Path) -> Path:
    """Make all hashes of a run those of its files as they are now."""
    for manifest in run.rglob(MANIFEST):
        write_manifest(manifest.parent)
    records = [*run.glob("rounds/*/round.json"), *run.glob("validation/complete.json")]
    for path in records:
        listed = facts_below(path.parent, leave_out=(path.name, "annealed"))
        write_record(path, read_record(path) | {"files": listed})
    record = read_record(run / RECORD)
    record["files"] = {path.relative_to(run).as_posix(): facts(path) for path in records}
    record["configurations"] = [text_hash((run / CONFIG).read_text())]
    write_record(run / RECORD, record)
    return run
