"""Bias an OpenMM simulation of your own along learned collective variables, here by OPES.

    python examples/bias_simulation.py --model RUN/rounds/000/model --output biased.csv
    python examples/bias_simulation.py --output biased.csv --fast    # trains a small model first

The lines between the two rules are all that is added to an ordinary OpenMM script.
"""

import argparse
from pathlib import Path

import openmm
from openmm import app, unit

import latf_openmm as latf  # before openmm, so that the TorchForce plugin finds libtorch


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder of a model trained for alanine dipeptide")
    parser.add_argument("--output", type=Path, required=True, help="CSV of z and bias energy")
    parser.add_argument("--fast", action="store_true", help="a short run")
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"argument --output: {args.output} exists already; expected a new file")

    pdb = app.PDBFile(str(latf.library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"))
    force_field = app.ForceField("amber14/protein.ff14SB.xml", "implicit/obc2.xml")
    system = force_field.createSystem(pdb.topology, constraints=app.HBonds)

    # ----------------------------------------------------------------------------------------------
    trained = latf.load_model(args.model or train_a_small_one(args.output.with_suffix(".run")))
    cv = latf.latent_cv(trained)
    bias = latf.OpesSettings(barrier=40).build(latf.bias_context(trained, 300 * unit.kelvin))
    system = latf.add_bias(system, cv, bias)
    reporters = [latf.LatentReporter(args.output, 100, cv, bias), latf.BiasUpdater(cv, bias)]
    # ----------------------------------------------------------------------------------------------

    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
    # CUDA with a GPU; CPU, one thread, for few atoms; Reference for a GBSAOBCForce, or to the last bit.
    platform = openmm.Platform.getPlatformByName("CPU")
    simulation = app.Simulation(pdb.topology, system, integrator, platform, {"Threads": "1"})
    simulation.context.setPositions(pdb.positions)
    simulation.minimizeEnergy()
    simulation.reporters += reporters
    simulation.step(2_000 if args.fast else 500_000)
    print(f"{args.output}: {simulation.currentStep} biased steps")


def train_a_small_one(folder: Path) -> Path:
    """One unbiased round of the library's short configuration, enough to have a model."""
    config = latf.load_config("alanine_dipeptide/fast")
    config = config.model_copy(update={"loop": config.loop.model_copy(update={"rounds": 1})})
    return latf.run_loop(config, folder).round(0).model


if __name__ == "__main__":
    main()
