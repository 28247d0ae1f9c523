"""What the builders of systems share: restraints, annealing, checks of a structure, stability once released."""

import argparse
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import mdtraj
import numpy as np
import openmm
import pandas as pd
from numpy.typing import NDArray
from openmm import app, unit

from latf_openmm.systems.implicit import native_obc2_system

Positions = NDArray[np.float64]
Atom = tuple[int, str]
"""Number of the residue, from 1, and name of the atom."""
Measure = Callable[[mdtraj.Trajectory], NDArray[np.float64]]
"""One number for each frame."""

RESTRAINTS = "restraints"
"""Global parameter that scales every restraint."""

_FORCE_FIELDS = ("amber14/protein.ff14SB.xml", "amber14/RNA.OL3.xml")
HYDROGEN_MASS = 3.0  # amu
_TEMPERATURE = 300.0  # K, of the released run
_TIMESTEP = 0.004  # ps, of the released run
_FRAME = 1.0  # ps between frames of the released run
_QUICK = 20  # stages are this much shorter

_LINEAR = 0.1  # nm beyond a wall
_BOND_TOLERANCE = 0.015  # nm
_CLASH = 0.24  # nm; the O-O of a carboxylate's hydrogen bond is 0.25
_TRANS = 120.0  # degrees


class BuildError(RuntimeError):
    """A seed gives no structure."""


class Model(NamedTuple):
    """A molecule and where its atoms are [nm]."""

    topology: app.Topology
    positions: Positions


class Wall(NamedTuple):
    """Distance that is not to be longer [nm], and how strongly [kJ/mol/nm^2]."""

    first: Atom
    second: Atom
    distance: float
    strength: float


class Torsion(NamedTuple):
    """Torsion that is to have a value [degrees], and how strongly [kJ/mol]."""

    atoms: tuple[Atom, Atom, Atom, Atom]
    value: float
    strength: float


class Stage(NamedTuple):
    """Part of an annealing: temperature [K], steps, time step [fs], the Context's parameters."""

    temperature: float
    steps: int
    timestep: float
    parameters: Mapping[str, float]


@dataclass(frozen=True)
class Recipe:
    """How a molecule is built from its sequence.

    Parameters
    ----------
    name
        Of the system.
    force_field
        File of OpenMM.
    start
        The first model, from a seed and the factor by which stages are shorter.
    walls, torsions
        The restraints of the annealing.
    stages
        The annealing, in the force field itself.
    measures
        Columns of the table: functions of a trajectory, one number a frame.
    folded
        Which frames of a trajectory are folded: 1 or 0.
    unfolded
        A structure that is not, from the folded one and a seed.
    """

    name: str
    force_field: str
    start: Callable[[int, int], Model]
    walls: Sequence[Wall]
    torsions: Sequence[Torsion]
    stages: Sequence[Stage]
    measures: Mapping[str, Measure]
    folded: Measure
    unfolded: Callable[[Model, int], Model]


def atom_indices(topology: app.Topology) -> dict[Atom, int]:
    """Index of every atom by its residue's number and its name."""
    return {(atom.residue.index + 1, atom.name): atom.index for atom in topology.atoms()}


def as_trajectory(topology: app.Topology, positions: Positions) -> mdtraj.Trajectory:
    """One frame or several, for the observables."""
    return mdtraj.Trajectory(np.asarray(positions), mdtraj.Topology.from_openmm(topology))


def distance(first: Atom, second: Atom) -> Measure:
    """Measure: distance of two atoms [nm]."""

    def observable(trajectory: mdtraj.Trajectory) -> NDArray[np.float64]:
        at = {(atom.residue.index + 1, atom.name): atom.index for atom in trajectory.topology.atoms}
        return mdtraj.compute_distances(trajectory, [[at[first], at[second]]])[:, 0].astype(np.float64)

    return observable


def total_charge(system: openmm.System) -> float:
    """Sum of the charges [e]."""
    nonbonded = _force(system, openmm.NonbondedForce)
    charges = [nonbonded.getParticleParameters(i)[0] for i in range(nonbonded.getNumParticles())]
    return float(sum(charge.value_in_unit(unit.elementary_charge) for charge in charges))


# Restraints and annealing


def add_restraints(
    system: openmm.System, topology: app.Topology, walls: Sequence[Wall], torsions: Sequence[Torsion]
) -> None:
    """Add upper walls on distances and cosines of torsions, scaled by the parameter `RESTRAINTS`, which is 0.

    A wall is harmonic, and linear from 0.1 nm beyond it on: atoms far apart are not torn together.
    The System is one this package has just built; it is changed in place.
    """
    at = atom_indices(topology)
    wall_force = openmm.CustomBondForce(
        f"{RESTRAINTS}*k*(0.5*near^2+{_LINEAR}*(beyond-near)); near=min(beyond, {_LINEAR}); beyond=max(r-r0, 0)"
    )
    torsion_force = openmm.CustomTorsionForce(f"{RESTRAINTS}*k*(1-cos(theta-theta0))")
    wall_force.addPerBondParameter("k")
    wall_force.addPerBondParameter("r0")
    torsion_force.addPerTorsionParameter("k")
    torsion_force.addPerTorsionParameter("theta0")
    for wall in walls:
        wall_force.addBond(at[wall.first], at[wall.second], [wall.strength, wall.distance])
    for torsion in torsions:
        torsion_force.addTorsion(
            *(at[atom] for atom in torsion.atoms), [torsion.strength, np.radians(torsion.value)]
        )
    for force in (wall_force, torsion_force):
        force.addGlobalParameter(RESTRAINTS, 0.0)
        system.addForce(force)


def start_simulation(model: Model, system: openmm.System, seed: int, platform: str = "CPU") -> app.Simulation:
    """Minimised, with velocities of 300 K."""
    integrator = openmm.LangevinMiddleIntegrator(_TEMPERATURE, 5.0, 0.001)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(
        model.topology, system, integrator, openmm.Platform.getPlatformByName(platform)
    )
    simulation.context.setPositions(model.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(_TEMPERATURE, seed)
    return simulation


def run_stages(simulation: app.Simulation, stages: Sequence[Stage], shorter: int = 1) -> None:
    """Run an annealing, with `shorter` times fewer steps."""
    for stage in stages:
        for name, value in stage.parameters.items():
            simulation.context.setParameter(name, value)
        simulation.integrator.setTemperature(stage.temperature)
        simulation.integrator.setStepSize(1e-3 * stage.timestep)
        simulation.step(stage.steps // shorter)


def positions_of(simulation: app.Simulation) -> Positions:
    """Where the atoms are [nm]."""
    return simulation.context.getState(positions=True).getPositions(asNumpy=True)._value


def potential_energy(simulation: app.Simulation) -> float:
    """Potential energy [kJ/mol]."""
    return simulation.context.getState(energy=True).getPotentialEnergy()._value


def released_run(simulation: app.Simulation, length: float, seed: int) -> mdtraj.Trajectory:
    """Frames, one a picosecond, of a run of `length` [ps] at 300 K without restraints."""
    simulation.context.setParameter(RESTRAINTS, 0.0)
    simulation.context.setVelocitiesToTemperature(_TEMPERATURE, seed)
    simulation.integrator.setTemperature(_TEMPERATURE)
    simulation.integrator.setFriction(1.0)
    simulation.integrator.setStepSize(_TIMESTEP)
    frames = []
    for _ in range(max(1, round(length / _FRAME))):
        simulation.step(round(_FRAME / _TIMESTEP))
        frames.append(positions_of(simulation))
    return as_trajectory(simulation.topology, np.array(frames))


def minimised(model: Model, force_field: str, seed: int) -> Model:
    """Of lowest energy near a model, in OBC2."""
    system = native_obc2_system(model.topology, force_field, HYDROGEN_MASS)
    return Model(model.topology, positions_of(start_simulation(model, system, seed)))


def heated(model: Model, force_field: str, seed: int, temperature: float, length: float) -> Model:
    """The end of a run of `length` [ps] in OBC2 at a temperature [K], minimised."""
    system = native_obc2_system(model.topology, force_field, HYDROGEN_MASS)
    simulation = start_simulation(model, system, seed)
    run_stages(simulation, [Stage(temperature, round(1000 * length / 2), 2.0, {})])
    simulation.minimizeEnergy()
    return Model(model.topology, positions_of(simulation))


# Checks of a structure


def problems(topology: app.Topology, positions: Positions) -> list[str]:
    """What is wrong with a minimised structure of a protein or an RNA; empty if nothing is.

    Looked at are coordinates that are not finite, the hands of alpha carbons (L) and of sugars (D-ribose), peptide
    bonds that are not trans, bonds that are not as long as the force field has them, and heavy atoms that clash.
    """
    if not np.isfinite(positions).all():
        return ["coordinates that are not finite"]
    system = app.ForceField(*_FORCE_FIELDS).createSystem(topology, constraints=app.HBonds)
    names = [f"{atom.residue.name}{atom.residue.index + 1}:{atom.name}" for atom in topology.atoms()]
    return [
        *(f"wrong hand at {names[atom]}" for atom in _wrong_hands(topology, positions)),
        *(f"peptide bond not trans at {names[atom]}" for atom in _not_trans(topology, positions)),
        *(f"bond {names[a]} {names[b]} of {r:.3f} nm" for a, b, r in _bad_bonds(system, positions)),
        *(f"clash {names[a]} {names[b]} at {r:.3f} nm" for a, b, r in _clashes(topology, system, positions)),
    ]


# A centre, three of its neighbours, and the sign of their triple product in L-amino acids and D-ribose.
_CENTRES = (
    ("CA", ("N", "C", "CB"), 1),
    ("C1'", ("O4'", "N9", "C2'"), -1),
    ("C1'", ("O4'", "N1", "C2'"), -1),
    ("C2'", ("O2'", "C1'", "C3'"), -1),
    ("C3'", ("O3'", "C4'", "C2'"), 1),
    ("C4'", ("O4'", "C3'", "C5'"), -1),
)


def _wrong_hands(topology: app.Topology, positions: Positions) -> Iterator[int]:
    for residue in topology.residues():
        at = {atom.name: atom.index for atom in residue.atoms()}
        for centre, neighbours, sign in _CENTRES:
            purine = "N9" in at and "N1" in neighbours
            if purine or not {centre, *neighbours} <= set(at):
                continue
            bonds = positions[[at[name] for name in neighbours]] - positions[at[centre]]
            if sign * np.linalg.det(bonds) <= 0:
                yield at[centre]


def _not_trans(topology: app.Topology, positions: Positions) -> Iterator[int]:
    at = atom_indices(topology)
    trajectory = as_trajectory(topology, positions)
    for number, name in at:
        atoms = [(number, "CA"), (number, "C"), (number + 1, "N"), (number + 1, "CA")]
        if name == "C" and set(atoms) <= set(at):
            omega = mdtraj.compute_dihedrals(trajectory, [[at[atom] for atom in atoms]])[0, 0]
            if abs(np.degrees(omega)) < _TRANS:
                yield at[number + 1, "N"]


def _bad_bonds(system: openmm.System, positions: Positions) -> Iterator[tuple[int, int, float]]:
    force = _force(system, openmm.HarmonicBondForce)
    bonds = [force.getBondParameters(i)[:3] for i in range(force.getNumBonds())]
    bonds += [system.getConstraintParameters(i) for i in range(system.getNumConstraints())]
    for first, second, length in bonds:
        distance = float(np.linalg.norm(positions[first] - positions[second]))
        if abs(distance - length.value_in_unit(unit.nanometer)) > _BOND_TOLERANCE:
            yield first, second, distance


def _clashes(
    topology: app.Topology, system: openmm.System, positions: Positions
) -> Iterator[tuple[int, int, float]]:
    nonbonded = _force(system, openmm.NonbondedForce)
    near_in_bonds = {
        tuple(sorted(nonbonded.getExceptionParameters(i)[:2])) for i in range(nonbonded.getNumExceptions())
    }
    heavy = np.array([atom.index for atom in topology.atoms() if atom.element is not app.element.hydrogen])
    distances = np.linalg.norm(positions[heavy][:, None] - positions[heavy][None], axis=2)
    for i, j in np.argwhere(np.triu(distances < _CLASH, k=1)):
        first, second = int(heavy[i]), int(heavy[j])
        if (first, second) not in near_in_bonds:
            yield first, second, float(distances[i, j])


def _force(system: openmm.System, kind: type) -> openmm.Force:
    return next(force for force in system.getForces() if isinstance(force, kind))


# Several seeds


def build_seed(
    recipe: Recipe, seed: int, stability: float, shorter: int, platform: str
) -> tuple[Model, dict[str, float | str]]:
    """Build one structure; return it, minimised and without restraints, and its row of the table."""
    random.seed(seed)  # Modeller.addHydrogens draws from it
    model = recipe.start(seed, shorter)
    system = native_obc2_system(model.topology, recipe.force_field, HYDROGEN_MASS)
    add_restraints(system, model.topology, recipe.walls, recipe.torsions)
    simulation = start_simulation(model, system, seed, platform)
    run_stages(simulation, recipe.stages, shorter)
    simulation.context.setParameter(RESTRAINTS, 0.0)
    simulation.minimizeEnergy()
    built = Model(model.topology, positions_of(simulation))
    one = as_trajectory(*built)
    row: dict[str, float | str] = {"seed": seed, "energy": potential_energy(simulation)}
    row |= {name: float(measure(one)[0]) for name, measure in recipe.measures.items()}
    row["folded"] = float(recipe.folded(one)[0])
    row["problems"] = "; ".join(problems(*built))
    run = released_run(simulation, stability, seed)
    row["released_ps"] = run.n_frames * _FRAME
    row |= {f"{name}_released": float(measure(run).mean()) for name, measure in recipe.measures.items()}
    row["folded_released"] = float(recipe.folded(run).mean())
    return built, row


def best_seed(table: pd.DataFrame) -> int | None:
    """Seed of the lowest energy among the folded structures without a problem, if there is one."""
    good = table[(table["folded"] == 1) & (table["problems"] == "")]
    return None if good.empty else int(good.loc[good["energy"].idxmin(), "seed"])


def write_pdb(model: Model, path: Path) -> None:
    """Write a structure."""
    with path.open("w") as file:
        app.PDBFile.writeFile(model.topology, model.positions * unit.nanometer, file)


def main(recipes: Sequence[Recipe], arguments: Sequence[str] | None = None) -> int:
    """Build a structure for each seed, print and write their table, and write the best one."""
    args = _parser([recipe.name for recipe in recipes]).parse_args(arguments)
    recipe = next(recipe for recipe in recipes if recipe.name == args.molecule)
    args.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in args.seeds:
        try:
            model, row = build_seed(recipe, seed, args.stability, _QUICK if args.quick else 1, args.platform)
            write_pdb(model, args.output / f"seed_{seed}.pdb")
        except (openmm.OpenMMException, BuildError) as error:
            row = {"seed": seed, "energy": np.nan, "folded": 0.0, "problems": str(error)}
        rows.append(row)
        table = pd.DataFrame(rows)
        table.to_csv(args.output / "table.csv", index=False)
        print(table.tail(1).T.to_string(header=False), "\n", flush=True)
    print(table.round(3).to_string(index=False))
    best = best_seed(table)
    if best is None:
        print("no seed gave a folded structure without a problem")
        return 1
    chosen = args.output / f"{recipe.name}.pdb"
    chosen.write_text((args.output / f"seed_{best}.pdb").read_text())
    print(f"{chosen}: seed {best}")
    pdb = app.PDBFile(str(chosen))
    folded = Model(pdb.topology, np.array(pdb.positions.value_in_unit(unit.nanometer)))
    unfolded = recipe.unfolded(folded, best)
    path = args.output / f"{recipe.name}_unfolded.pdb"
    write_pdb(unfolded, path)
    print(f"{path}: {'; '.join(problems(*unfolded)) or 'no problem'}")
    return 0


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Build a molecule of the library from its sequence.")
    parser.add_argument("--molecule", choices=names, default=names[0], help=f"default: {names[0]}")
    parser.add_argument("--output", type=Path, required=True, help="folder of the structures and table.csv")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4], help="one structure for each")
    parser.add_argument("--stability", type=float, default=500.0, help="length of the released run [ps]")
    parser.add_argument("--platform", default="CPU", help="of OpenMM")
    parser.add_argument(
        "--quick", action="store_true", help=f"stages {_QUICK} times shorter: tests the script"
    )
    return parser
