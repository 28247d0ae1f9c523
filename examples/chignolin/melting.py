"""Chignolin (CLN025) against temperature from two starts, folded and an extended chain, and whether they agree.

    python examples/chignolin/melting.py --output melting           # 15 minutes on two cores
    python examples/chignolin/melting.py --output melting --fast    # one minute: does it run here?

Eight walkers of each start exchange temperatures from 285 to 458 K. A quarter of a nanosecond each, as here, is far too
short: the starts do not agree, and that is what this shows. A curve that converges takes microseconds
(systems/chignolin/melting.yaml, on a GPU). Interrupt it as you like: the same command continues.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

import latf_openmm as latf

STARTS = ("folded", "unfolded")
OBSERVABLES = ("folded", "n3_o8", "n7_o3", "ca_rmsd")
"""Functions of systems/chignolin/observables.py."""


def configuration(start: str, frames: int, fast: bool) -> latf.RunConfig:
    """One round of melting.yaml, without a bias, shorter."""
    config = latf.load_config("chignolin/melting")
    system = config.system.model_copy(update={"start": start})
    simulation = config.simulation.model_copy(
        update={
            "walkers": 1,
            "frames": frames,
            "frame_interval": 250,
            "segment_frames": 50,
            "equilibration": 1000,
        }
    )
    training = config.training.model_copy(update={"committee": 2, "restarts": 1})
    if fast:
        short = {"temperatures": [300.0, 350.0, 410.0], "frame_interval": 50, "equilibration": 50}
        simulation = simulation.model_copy(update=short)
        training = training.model_copy(update={"epochs_states": 3, "epochs_joint": 2, "epochs_flow": 2})
    loop = config.loop.model_copy(update={"rounds": 1})
    return config.model_copy(
        update={"system": system, "simulation": simulation, "training": training, "loop": loop, "bias": None}
    )


def simulate(start: str, frames: int, fast: bool, output: Path) -> Path:
    """Run one start, in a process of its own."""
    torch.set_num_threads(1)
    run = latf.run_loop(configuration(start, frames, fast), output / start)
    latf.write_report(run, run.last_round().index)
    return run.path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of both runs and the comparison")
    parser.add_argument("--frames", type=int, default=250, help="of each walker, 1 ps apart")
    parser.add_argument("--fast", action="store_true", help="three temperatures, 12 frames")
    args = parser.parse_args()
    frames = 12 if args.fast else args.frames

    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        tasks = [pool.submit(simulate, start, frames, args.fast, args.output) for start in STARTS]
        runs = [latf.RunFolder.open(task.result()) for task in tasks]

    temperatures = runs[0].config.simulation.temperatures
    file = latf.library_folder("chignolin") / "observables.py"
    names = [f"{file}:{name}" for name in OBSERVABLES]
    compared = latf.compare_runs(
        *runs, temperatures, [*names, "energy", "heat_capacity"], method="reweighted"
    )
    latf.write_compared(compared, STARTS, args.output / "compared")
    for curve in compared.curves:
        print(curve.text())
        for start, side in zip(STARTS, (curve.first, curve.second), strict=True):
            if (fit := latf.two_state(side, runs[0].scale)) is not None:
                print(f"  {start}: {fit.text(runs[0].scale)}")
    print(f"{args.output / 'compared'}: tables and observables.png; each start has its own report")
    if compared.agree and not compared.told:
        print("cannot be told: most values of an observable are not to be relied on")
    elif compared.agree:
        print("converged, as far as these observables tell")
    else:
        print("not converged: the starts are not forgotten")


if __name__ == "__main__":
    main()
