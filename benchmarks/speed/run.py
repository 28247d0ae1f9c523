"""How fast, and how much memory: every part in a process of its own, one after the other.

    python -m benchmarks.speed.run --work WORK                   # about half an hour; resumable
    python -m benchmarks.speed.run --work WORK --only scaling    # some parts
    python -m benchmarks.speed.run --work WORK --only-tables     # benchmarks/speed/speed.csv again

WORK may be that of `benchmarks/quality`, whose frames are used. Ten million frames of fifty descriptors take 2 GB of
the disk.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pandas as pd

_ROOT = Path(__file__).resolve().parents[2]
_PARTS: dict[str, list[list[str]]] = {
    "startup": [[]],
    "training": [["WORK", "1"]],
    "generation": [[]],
    "reweighting": [["100000"], ["1000000"]],
    "featurisation": [[]],
    "walkers": [[]],
    "molecules": [
        ["alanine_dipeptide", "Reference", "64"],
        ["alanine_dipeptide", "CPU", "256"],
        ["alanine_dipeptide", "OpenCL", "256"],  # left out where OpenMM does not have it
        ["chignolin", "CPU", "64"],
        ["chignolin", "OpenCL", "64"],
    ],
    "scaling": [
        *([str(frames), "50"] for frames in (10_000, 100_000, 1_000_000, 10_000_000)),
        *(["20000", str(descriptors)] for descriptors in (10, 100, 1000, 5000)),
    ],
}


def measure(part: str, arguments: list[str], work: Path) -> Path:
    """Run one part, unless its result is there."""
    file = work / "speed" / f"{'_'.join([part, *(a for a in arguments if a != 'WORK')])}.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        given = [str(work.resolve()) if text == "WORK" else text for text in arguments]
        threads = {"OMP_NUM_THREADS": "2" if part in ("generation", "reweighting") else "1"}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.speed.parts", part, *given],
            check=True,
            capture_output=True,
            text=True,
            cwd=file.parent,
            env=os.environ | threads | {"POCL_MAX_PTHREAD_COUNT": "1", "PYTHONPATH": str(_ROOT)},
        )
        rows = json.loads(done.stdout.splitlines()[-1])
        file.write_text(json.dumps({"date": str(date.today()), "rows": rows}))
    return file


def tables(work: Path) -> None:
    """Print the tables of all parts, and write them as one table of names and values."""
    lines = []
    for part, runs in _PARTS.items():
        found = [measure(part, arguments, work) for arguments in runs]
        records = [json.loads(file.read_text()) for file in found]
        table = pd.DataFrame([row for record in records for row in record["rows"]])
        print(f"\n### {part}\n\n{table.to_markdown(index=False, floatfmt='.3g')}", flush=True)
        for record in records:
            lines += [
                {"part": part, "row": number, "name": name, "value": value, "date": record["date"]}
                for number, row in enumerate(record["rows"])
                for name, value in row.items()
            ]
    pd.DataFrame(lines).to_csv(Path(__file__).with_name("speed.csv"), index=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(_PARTS), default=list(_PARTS))
    parser.add_argument("--only-tables", action="store_true")
    choice = parser.parse_args()
    if not choice.only_tables:
        for part in choice.only:
            for arguments in _PARTS[part]:
                print(measure(part, arguments, choice.work), flush=True)
    if choice.only == list(_PARTS) or choice.only_tables:
        tables(choice.work)


if __name__ == "__main__":
    main()
