"""Solutes in explicit solvents, simulated at one temperature; every run can be killed and goes on where it was.

    python -m benchmarks.gap.solvents dimer --particles 250 --temperature 0.8 --seed 1 --work WORK
    python -m benchmarks.gap.solvents dimer --barrier 1.5 --temperature 1.1 --frames 15000 --work WORK
    python -m benchmarks.gap.solvents dipeptide --temperature 350 --seed 1 --frames 50000 --work WORK

The dimer is two particles with a double well in their distance (two states, 6 kT high at T = 1) among particles that
repel each other (WCA, density 0.7, reduced units as in `LJ7`). With a lower barrier it crosses often, which weights
undo: a truth. The dipeptide is alanine dipeptide (ff14SB) in a cube of 350 TIP3P waters at constant volume, 4 fs with
heavy hydrogens.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from latf_openmm.units import REDUCED

Array = NDArray[np.float64]

DENSITY = 0.7
"""Particles of the WCA fluid in a volume of sigma^3."""
BARRIER, WIDTH, SHORT = 6.0, 0.35, 2.0 ** (1 / 6)
"""Height of the dimer's barrier [epsilon], half the distance of its minima and the shorter of them [sigma]."""
WCA = "step(2^(1/6) - r) * (4 * (r^-12 - r^-6) + 1)"
WATERS, EDGE = 350, 2.2
"""Waters around the dipeptide and the edge of their cube [nm]."""
_SAVE = 500
"""Frames between checkpoints."""
_MARGIN = 5000
"""Steps of equilibration."""


def dimer(particles: int, barrier: float = BARRIER) -> tuple[openmm.System, Array]:
    """Return a dimer, the first two particles, in a WCA fluid, and positions on a lattice (n, 3)."""
    n = particles + 2
    edge = (n / DENSITY) ** (1 / 3)
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(edge * np.eye(3)))
    pairs = openmm.CustomNonbondedForce(WCA)
    pairs.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    pairs.setCutoffDistance(SHORT)
    bond = openmm.CustomBondForce(f"{barrier} * (1 - ((r - {SHORT + WIDTH}) / {WIDTH})^2)^2")
    bond.setUsesPeriodicBoundaryConditions(True)
    for _ in range(n):
        system.addParticle(1.0)
        pairs.addParticle([])
    pairs.addExclusion(0, 1)
    bond.addBond(0, 1, [])
    system.addForce(pairs)
    system.addForce(bond)
    cells = int(np.ceil(n ** (1 / 3)))
    grid = np.stack(np.meshgrid(*3 * [np.arange(cells)], indexing="ij"), axis=-1).reshape(-1, 3)
    return system, grid[:n] * edge / cells


def dipeptide(seed: int) -> tuple[openmm.System, Array]:
    """Return alanine dipeptide, the first 22 atoms, in a cube of TIP3P water, and relaxed positions (n, 3)."""
    file = Path(__file__).resolve().parents[2] / "systems" / "alanine_dipeptide" / "alanine_dipeptide.pdb"
    pdb = app.PDBFile(str(file))
    field = app.ForceField("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addSolvent(field, numAdded=WATERS)
    modeller.topology.setPeriodicBoxVectors(EDGE * np.eye(3) * unit.nanometer)
    system = field.createSystem(
        modeller.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.9 * unit.nanometer,
        constraints=app.HBonds,
        hydrogenMass=3.0 * unit.amu,
    )
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("CPU"))
    context.setPositions(modeller.positions)
    openmm.LocalEnergyMinimizer.minimize(context)
    return system, context.getState(positions=True).getPositions(asNumpy=True)._value


class Recorder:
    """One simulation whose frames and state lie in a file; made again, it goes on where it was.

    Parameters
    ----------
    file
        Solute positions ``xyz``, potential energies ``energy`` (and ``volume``) so far, beside a checkpoint.
    """

    def __init__(
        self,
        file: Path,
        system: openmm.System,
        positions: Array,
        kelvin: float,
        timestep: float,
        friction: float,
        solute: int,
        seed: int,
    ) -> None:
        self.file, self.solute = file, solute
        self.integrator = openmm.LangevinMiddleIntegrator(kelvin, friction, timestep)
        self.integrator.setRandomNumberSeed(seed)
        platform = openmm.Platform.getPlatform("CPU")
        self.context = openmm.Context(system, self.integrator, platform, {"Threads": "1"})
        self.context.setPositions(positions)
        self.frames: list[Array] = []
        self.energies: list[float] = []
        if file.is_file():
            with np.load(file) as data:
                self.frames, self.energies = list(data["xyz"]), data["energy"].tolist()
            self.context.setState(openmm.XmlSerializer.deserialize(file.with_suffix(".xml").read_text()))
            self.integrator.setRandomNumberSeed(seed + 1000 * len(self.frames))
            return
        openmm.LocalEnergyMinimizer.minimize(self.context)
        self.context.setVelocitiesToTemperature(kelvin, seed)
        self.integrator.step(_MARGIN)

    def run(self, frames: int, interval: int) -> None:
        """Go on until there are so many frames, `interval` steps apart."""
        while len(self.energies) < frames:
            self.integrator.step(interval)
            state = self.context.getState(positions=True, energy=True)
            self.frames.append(state.getPositions(asNumpy=True)._value[: self.solute].astype(np.float32))
            self.energies.append(state.getPotentialEnergy()._value)
            if len(self.energies) % _SAVE == 0 or len(self.energies) == frames:
                self._save()

    def _save(self) -> None:
        partial = self.file.with_suffix(".partial.npz")
        np.savez(partial, xyz=np.array(self.frames), energy=np.array(self.energies))
        state = self.context.getState(positions=True, velocities=True)
        self.file.with_suffix(".xml").write_text(openmm.XmlSerializer.serialize(state))
        partial.rename(self.file)


def record(arguments: argparse.Namespace) -> None:
    """Run one simulation of the command line."""
    system: Any
    name = f"T{arguments.temperature:g}_seed{arguments.seed}.npz"
    if arguments.solute == "dimer":
        system, positions = dimer(arguments.particles, arguments.barrier)
        if arguments.barrier != BARRIER:
            name = f"barrier{arguments.barrier:g}_{name}"
        kelvin, timestep, friction, solute = REDUCED.kelvin(arguments.temperature), 0.005, 0.5, 2
        folder = arguments.work / f"dimer{arguments.particles}"
    else:
        system, positions = dipeptide(arguments.seed)
        kelvin, timestep, friction, solute = arguments.temperature, 0.004, 1.0, 22
        folder = arguments.work / "dipeptide_water"
    folder.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(folder / name, system, positions, kelvin, timestep, friction, solute, arguments.seed)
    recorder.run(arguments.frames, arguments.interval)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("solute", choices=["dimer", "dipeptide"])
    parser.add_argument("--temperature", type=float, required=True, help="reduced, or in K")
    parser.add_argument("--particles", type=int, default=250, help="of the dimer's solvent")
    parser.add_argument("--barrier", type=float, default=BARRIER, help="of the dimer [epsilon]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=30_000, help="until there are so many")
    parser.add_argument("--interval", type=int, default=50, help="steps between frames")
    parser.add_argument("--work", type=Path, required=True)
    record(parser.parse_args())


if __name__ == "__main__":
    main()
