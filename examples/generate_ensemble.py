"""Generate an ensemble at a temperature nobody simulated, from a run that is there.

python examples/generate_ensemble.py RUN --temperature 0.35 --output ensemble
python examples/generate_ensemble.py RUN --temperature 0.35 --output ensemble --fast   # makes RUN first
"""

import argparse
from pathlib import Path

import mdtraj

import latf_openmm as latf


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--temperature", type=float, required=True, help="in the scale of the system")
    parser.add_argument("--structures", type=int, default=1000, help="structures to write")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--fast", action="store_true", help="make RUN with the short LJ7 loop if it is missing"
    )
    args = parser.parse_args()

    if args.fast:
        latf.run_loop(latf.load_config("lj7/fast"), args.run)
    run = latf.RunFolder.open(args.run)
    index = run.last_round().index

    # Frames reweighted where enough of them reach the temperature; else new walkers, annealed to it.
    (ensemble,) = latf.ensembles_at(run, index, [args.temperature])
    print(
        f"{ensemble.description}; reliability {ensemble.reliability}: {ensemble.n_effective:.0f} effective samples"
    )
    for state, population in enumerate(ensemble.populations()):
        print(f"state {state}: {population}")
    radius = ensemble.expectation(mdtraj.compute_rg, run.topology())  # any function of a trajectory
    print(
        f"energy {ensemble.energy()}, heat capacity {ensemble.heat_capacity()}, radius of gyration {radius}"
    )
    for warning in ensemble.warnings:
        print("warning:", warning)
    latf.write_structures(ensemble, run.topology(), args.output, args.structures, seed=1)
    print(f"{args.output}: {args.structures} structures, a table of weights, one structure of each state")


if __name__ == "__main__":
    main()
