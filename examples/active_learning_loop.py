"""Run the active-learning loop: simulate, train, generate, choose the next bias, and again.

    python examples/active_learning_loop.py --output loop            # LJ7, about five minutes
    python examples/active_learning_loop.py --output loop --fast     # a shorter look

Interrupt it as you like: the same command continues.
"""

import argparse
from pathlib import Path

import latf_openmm as latf


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="lj7", help="a YAML file, or a system of the library")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--fast", action="store_true", help="the short form")
    args = parser.parse_args()

    config = latf.load_config(f"{args.config}/fast" if args.fast else args.config)
    with latf.make_progress() as progress:
        run = latf.run_loop(config, args.output, progress)

    for row in run.last_round().summary().populations:
        shares = ", ".join(f"{p:.3f} ± {e:.3f}" for p, e in zip(row.populations, row.errors, strict=True))
        print(f"T = {row.temperature:g}: state populations {shares}")
    print("report:", latf.write_report(run, run.last_round().index))


if __name__ == "__main__":
    main()
