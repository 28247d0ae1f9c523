"""Peak memory and time of the commands on a pool of many frames of a 166-atom protein.

    python -m benchmarks.ensembles.memory --work WORK --frames 1000000

A short chignolin run is simulated and trained once; its segments are then repeated by hard links until the pool has as
many frames as asked for. That tests the size, not the physics.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from latf_openmm.run.config import LoopSettings, load_config
from latf_openmm.run.loop import run_loop

_SEGMENT = 2500


def repeated(work: Path, frames: int) -> Path:
    """Folder of a run with so many frames."""
    folder = work / "ensembles" / f"chignolin_{frames}"
    if folder.is_dir():
        return folder
    config = load_config("chignolin/fast")
    settings = {
        "frames": _SEGMENT,
        "segment_frames": _SEGMENT,
        "frame_interval": 10,
        "temperatures": [300.0, 450.0],
    }
    config = config.model_copy(
        update={
            "loop": LoopSettings(rounds=1),
            "simulation": config.simulation.model_copy(update=settings),
            "generate": config.generate.model_copy(update={"temperatures": []}),
        }
    )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    run_loop(config, partial)
    groups = sorted((partial / "rounds" / "000" / "simulation").glob("T*"))
    for group in groups:
        for number in range(1, frames // (_SEGMENT * len(groups))):
            target = group / f"segment_{number:04d}"
            target.mkdir()
            for file in (group / "segment_0000").iterdir():
                if file.suffix in (".parquet", ".dcd"):
                    os.link(file, target / file.name)
    partial.rename(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=1_000_000)
    arguments = parser.parse_args()
    folder = repeated(arguments.work, arguments.frames)
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "latf_openmm.cli"]
    rows = []
    for words in (
        ["generate", str(folder), "-T", "375", "-o", str(out / "reweighted"), "--method", "reweighted"],
        ["generate", str(folder), "-T", "375", "-o", str(out / "flow"), "--method", "flow"],
        ["generate", str(folder), "-T", "320", "-o", str(out / "annealed"), "--method", "annealed"],
        [
            "observe",
            str(folder),
            "-T",
            "320:440:60",
            "--observable",
            "rg",
            "-o",
            str(out / "curve"),
            "--method",
            "flow",
        ],
    ):
        before = time.perf_counter()
        process = subprocess.Popen([*command, *words])
        _, status, usage = os.wait4(process.pid, 0)
        rows.append(
            {
                "command": f"{words[0]} --method {words[-1]}",
                "frames": arguments.frames,
                "seconds": time.perf_counter() - before,
                "gigabytes": usage.ru_maxrss / 1e6,
                "exit_code": os.waitstatus_to_exitcode(status),
            }
        )
        print(rows[-1], flush=True)
    (arguments.work / "ensembles" / "memory.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
