"""Generate an ensemble at a temperature nobody simulated, from a run that is there.

python examples/generate_ensemble.py RUN --temperature 0.35 --output ensemble
python examples/generate_ensemble.py RUN --temperature 0.35 --output ensemble --fast   # makes RUN first
"""

import argparse
from pathlib import Path

import latf_openmm as latf


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--temperature", type=float, required=True, help="in the scale of the system")
    parser.add_argument("--samples", type=int, default=10_000, help="latent samples")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--fast", action="store_true", help="make RUN with the short LJ7 loop if it is missing"
    )
    args = parser.parse_args()

    if args.fast:
        latf.run_loop(latf.load_config("lj7/fast"), args.run)
    run = latf.RunFolder.open(args.run)
    index = run.last_round().index
    trained, pool = run.trained(index), run.pool(index)

    ensemble = latf.generate(trained, pool, args.temperature, args.samples, seed=1)
    for state, (share, error) in enumerate(zip(ensemble.populations, ensemble.errors, strict=True)):
        print(f"state {state}: {share:.3f} ± {error:.3f}")
    for warning in ensemble.warnings:
        print("warning:", warning)
    latf.write_ensemble(ensemble, trained, pool, run.topology(), args.output)
    print(f"{args.output}: {len(ensemble.z)} latent samples, nearest structures, free energy")


if __name__ == "__main__":
    main()
