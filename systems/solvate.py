"""Put a molecule of the library into a box of TIP3P water with 0.1 M NaCl, and relax it at 300 K and 1 bar.

python systems/solvate.py chignolin --output chignolin_tip3p.pdb
"""

import argparse
import random
from pathlib import Path

import openmm
from openmm import app, unit

MOLECULES = {
    "chignolin": ("chignolin", "amber14/protein.ff14SB.xml"),
    "chignolin_1uao": ("chignolin", "amber14/protein.ff14SB.xml"),
    "rna_tetraloop": ("rna_tetraloop", "amber14/RNA.OL3.xml"),
}
"""Folder and force field of each."""
WATER = "amber14/tip3p.xml"
KELVIN, PICOSECONDS = unit.kelvin, unit.picoseconds


def solvated(name: str, padding: float, seed: int) -> tuple[app.Modeller, app.ForceField]:
    """The molecule in a truncated octahedron, neutral; padding in nm."""
    folder, force_field = MOLECULES[name]
    pdb = app.PDBFile(str(Path(__file__).resolve().parent / folder / f"{name}.pdb"))
    field = app.ForceField(force_field, WATER)
    modeller = app.Modeller(pdb.topology, pdb.positions)
    random.seed(seed)  # OpenMM draws the waters that become ions from here
    modeller.addSolvent(
        field, padding=padding * unit.nanometer, boxShape="octahedron", ionicStrength=0.1 * unit.molar
    )
    return modeller, field


def relax(modeller: app.Modeller, field: app.ForceField, picoseconds: float, seed: int) -> app.Simulation:
    """Minimise, then run at constant pressure with the molecule's heavy atoms held (1000 kJ/mol/nm^2)."""
    system = field.createSystem(
        modeller.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.9 * unit.nanometer,
        constraints=app.HBonds,
        hydrogenMass=3.0 * unit.amu,
    )
    hold = openmm.CustomExternalForce("500*periodicdistance(x, y, z, x0, y0, z0)^2")
    for axis in ("x0", "y0", "z0"):
        hold.addPerParticleParameter(axis)
    for atom in modeller.topology.atoms():
        wet = atom.residue.name in ("HOH", "NA", "CL")
        if not wet and atom.element is not app.element.hydrogen:
            hold.addParticle(atom.index, modeller.positions[atom.index].value_in_unit(unit.nanometer))
    system.addForce(hold)
    barostat = openmm.MonteCarloBarostat(1.0 * unit.bar, 300.0 * KELVIN)
    barostat.setRandomNumberSeed(seed)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(300.0 * KELVIN, 1.0 / PICOSECONDS, 0.004 * PICOSECONDS)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(modeller.topology, system, integrator)
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(300.0 * KELVIN, seed)
    simulation.step(round(picoseconds / 0.004))
    return simulation


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(MOLECULES))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--padding", type=float, default=1.0, help="water around the molecule [nm]")
    parser.add_argument("--relax", type=float, default=100.0, help="at constant pressure [ps]")
    parser.add_argument("--seed", type=int, default=1)
    choice = parser.parse_args()
    modeller, field = solvated(choice.name, choice.padding, choice.seed)
    simulation = relax(modeller, field, choice.relax, choice.seed)
    state = simulation.context.getState(positions=True, energy=True, enforcePeriodicBox=True)
    simulation.topology.setPeriodicBoxVectors(state.getPeriodicBoxVectors())
    with choice.output.open("w") as file:
        app.PDBFile.writeFile(simulation.topology, state.getPositions(), file)
    volume = state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3)
    print(
        f"{choice.output}: {simulation.topology.getNumAtoms()} atoms, {volume:.2f} nm^3 after {choice.relax:g} ps"
    )


if __name__ == "__main__":
    main()
