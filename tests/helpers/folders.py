"""Run folders as somebody with bad intent would make them."""

import shutil
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


def killed_before_its_decision(run: Path, copy: Path, index: int) -> Path:
    """A copy of a run as a kill before the decision of a round leaves it; return the folder of that round."""
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "rounds" / f"{index + 1:03d}")
    last = copy / "rounds" / f"{index:03d}"
    for name in ("decision.json", "starts.npz", "round.json"):
        (last / name).unlink()
    resealed(copy)
    return last


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
