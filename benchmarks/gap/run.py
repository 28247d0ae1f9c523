"""Temperatures whose energies do not overlap with those simulated, and walkers that do not cross.

    python -m benchmarks.gap.run --work WORK                 # everything; hours on two cores, resumable
    python -m benchmarks.gap.run --work WORK --part lj7 --seed 1
    python -m benchmarks.gap.run --work WORK --only-tables   # docs/benchmarks/gap.md again

Frames, truths and one JSON file for each case stay in WORK; what is there is not made again.
"""

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.gap import dimers, dipeptide, lj7, lj7_exchange, lj7_prior, rare
from benchmarks.gap.tables import write_tables

ROOT = Path(__file__).resolve().parents[2]
Case = dict[str, Any]
PARTS: dict[str, tuple[Callable[[int], list[Case]], Callable[..., list[Case]]]] = {
    "lj7": (lj7.cases, lj7.rows),
    "lj7-prior": (lj7_prior.cases, lj7_prior.rows),
    "lj7-exchange": (lj7_exchange.cases, lj7_exchange.rows),
    "dimer": (dimers.cases, dimers.rows),
    "rare": (rare.cases, rare.rows),
    "dipeptide": (dipeptide.cases, dipeptide.rows),
}


def run_case(part: str, case: Case, work: Path) -> None:
    """Make the rows of one case; write them into its JSON file."""
    name = "_".join(str(value) for value in case.values())
    file = work / "results" / f"{part}_{name}.json"
    if file.is_file():
        return
    torch.set_num_threads(1)
    rows = [{"part": part, **case, **row} for row in PARTS[part][1](work, **case)]
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(rows))
    partial.rename(file)
    print(f"{part} {name}: {len(rows)} rows", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of frames, truths and results")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="may be repeated; default: all")
    parser.add_argument("--seed", action="append", type=int, help="may be repeated; default: 1")
    parser.add_argument("--processes", type=int, default=2, help="cases that run at the same time")
    parser.add_argument("--only-tables", action="store_true", help="collect what is there")
    arguments = parser.parse_args()
    if not arguments.only_tables:
        with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
            jobs = [
                pool.submit(run_case, part, case, arguments.work)
                for seed in arguments.seed or [1]
                for part in arguments.part or PARTS
                for case in PARTS[part][0](seed)
            ]
            for job in jobs:
                job.result()
    write_tables(arguments.work / "results", ROOT / "docs" / "benchmarks")


if __name__ == "__main__":
    main()
