"""Biasing, measured: free-energy surfaces, exactly known systems, cost of a step; writes docs/benchmarks/biasing.md.

python -m benchmarks.biasing.run --work WORK                    # everything; hours on two cores, resumable
python -m benchmarks.biasing.run --work WORK --part cost        # or surfaces, resolution (after them), exact, multistep
python -m benchmarks.biasing.run --work WORK --part surfaces --seeds 4 --ns 2
python -m benchmarks.biasing.run --work WORK --only-tables
"""

import argparse
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import matplotlib
import torch

from benchmarks.biasing import cost, exact, multistep, resolution, surfaces

PARTS = ("surfaces", "resolution", "exact", "cost", "multistep")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of data, reference and runs")
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--ns", type=float, default=10.0, help="length of each run of the dipeptide")
    parser.add_argument(
        "--method", action="append", default=[], help="of the surfaces: part of a name; may be repeated"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only-tables", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    matplotlib.use("Agg")
    pages = arguments.work / "biasing"
    for part in arguments.part or PARTS:
        if part == "surfaces":
            if not arguments.only_tables:
                seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
                surfaces.run_all(arguments.work, seeds, arguments.ns, arguments.method, arguments.processes)
            _write(pages / "surfaces.md", surfaces.page(arguments.work, arguments.ns))
        elif part == "resolution":
            _write(pages / "resolution.md", resolution.page(arguments.work))
        elif not arguments.only_tables:
            _write(pages / f"{part}.md", {"exact": exact, "cost": cost, "multistep": multistep}[part].page())
    text = "\n".join(file.read_text() for part in PARTS if (file := pages / f"{part}.md").is_file())
    (surfaces.DOCS / "biasing.md").write_text(_HEAD + text)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    where = f"openmm {version('openmm')}, torch {version('torch')}, {platform.machine()}, one thread"
    file.write_text(f"{text.rstrip()}\n\n*{datetime.now(UTC).date()}; {where}.*\n")


_HEAD = """# Biasing

Written by `python -m benchmarks.biasing.run --work WORK`.

"""


if __name__ == "__main__":
    main()
