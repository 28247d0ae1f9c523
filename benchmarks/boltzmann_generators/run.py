"""Alanine dipeptide as papers on Boltzmann generators define it, at ten temperatures with 13 million force evaluations.

    python -m benchmarks.boltzmann_generators.run --work WORK                # all; resumable
    python -m benchmarks.boltzmann_generators.run --work WORK --seed 1 --method exchange
    python -m benchmarks.boltzmann_generators.run --work WORK --only-tables  # docs/benchmarks/boltzmann_generators.md

One process: a first part of the reference, then loops of the package, then the rest of the reference. Scores are
computed again whenever tables are written, with the reference as it then is.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.boltzmann_generators.methods import METHODS, Budget, Case
from benchmarks.boltzmann_generators.parallel_tempering import Length, chunk_files
from benchmarks.boltzmann_generators.reference import EQUILIBRATION, RUNS, folder_of, simulate
from benchmarks.boltzmann_generators.scores import Reference
from benchmarks.boltzmann_generators.tables import write_page
from benchmarks.boltzmann_generators.target import TEMPERATURES
from latf_openmm.storage import write_json

_ROOT = Path(__file__).resolve().parents[2]
_FIRST = 25
"""Chunks of each run of the reference before anything else."""


def rows_of(case: Case, references: list[Reference], work: Path) -> list[dict[str, Any]]:
    """Scores at all temperatures."""
    named = {"method": case.method, "seed": case.seed, "evaluations": case.evaluations}
    return [
        named | {"temperature": reference.temperature, **reference.scores(frames, torus=reference.level == 0)}
        for reference, frames in zip(references, case.frames(work), strict=True)
    ]


def read_references(work: Path, left_out: int = EQUILIBRATION) -> list[Reference]:
    """The reference at all temperatures."""
    return [Reference.read(work, level, left_out) for level in range(len(TEMPERATURES))]


def measure(cases: list[Case], work: Path, left_out: int = EQUILIBRATION) -> None:
    """Write the scores of cases, unless they are there for the reference as it is."""
    chunks = min(len(chunk_files(folder_of(work, run))) for run in RUNS)
    references: list[Reference] = []
    for case in cases:
        file = work / "scores" / f"{case.name}.json"
        if file.is_file() and json.loads(file.read_text())["chunks"] == chunks:
            continue
        references = references or read_references(work, left_out)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"chunks": chunks, "rows": rows_of(case, references, work)})
        print(case.name, flush=True)


def finished(work: Path, methods: list[str], seeds: list[int], budget: Budget) -> list[Case]:
    """Cases whose simulation has been finished."""
    cases = [Case(method, seed, budget) for seed in seeds for method in methods]
    return [case for case in cases if (work / "runs" / f"{case.simulated.name}.done").is_file()]


def simulate_cases(cases: list[Case], work: Path) -> None:
    """Simulate and train what is not there, and note what is finished."""
    for case in cases:
        done = work / "runs" / f"{case.simulated.name}.done"
        if not done.is_file():
            next(case.frames(work))
            done.touch()
            print(case.simulated.name, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--method", action="append", choices=METHODS, help="may be repeated; default: all")
    parser.add_argument("--seed", action="append", type=int, help="may be repeated; default: 1 to 3")
    parser.add_argument(
        "--chunks", type=int, default=250, help="of each run of the reference, 2 million steps each"
    )
    parser.add_argument("--only-tables", action="store_true", help="score what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work, methods, seeds = arguments.work, arguments.method or list(METHODS), arguments.seed or [1, 2, 3]
    if not arguments.only_tables:
        simulate(work, min(_FIRST, arguments.chunks), Length())
        simulate_cases([Case(method, seed) for seed in seeds for method in methods], work)
        simulate(work, arguments.chunks, Length())
    measure(finished(work, methods, seeds, Budget()), work)
    write_page(work, read_references(work), _ROOT / "docs" / "benchmarks")


if __name__ == "__main__":
    main()
