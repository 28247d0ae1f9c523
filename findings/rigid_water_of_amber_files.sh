#!/bin/bash
# A box of water goes from OpenMM through ParmEd into a prmtop file; is it rigid with `rigidWater=True`, whoever reads the file, and
# does `hydrogenMass` treat it alike?
#
# Guess: three constraints a molecule from each reader, and rigid water keeps its masses.
# Seen (ParmEd 4.3.1, OpenMM 8.6.1): OpenMM's AmberPrmtopFile makes two constraints a molecule where the file describes water by an
#   angle (as ParmEd writes it of flexible water) and not by a bond between the hydrogens, without a word: the angle bends, with
#   hydrogens of 1 amu. ParmEd's own createSystem makes three of the same file, and OpenMM's GromacsTopFile of the .top file.
#   With hydrogenMass=3 ParmEd makes hydrogens of rigid water heavy, OpenMM leaves them as they are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet parmed==4.3.1 openmm==8.6.1 numpy==2.4.6
venv/bin/python -W ignore - <<'PY'
from importlib.metadata import version

import openmm
import parmed
from openmm import app, unit

field = app.ForceField("amber14/tip3p.xml")
model = app.Modeller(app.Topology(), [])
model.addSolvent(field, boxSize=openmm.Vec3(2, 2, 2) * unit.nanometer)
n = model.topology.getNumResidues()
flexible = field.createSystem(model.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer, rigidWater=False)
built = parmed.openmm.load_topology(model.topology, flexible, model.positions)
for name in ("water.prmtop", "water.top", "water.gro"):
    built.save(name)

readers = {
    "OpenMM, prmtop": app.AmberPrmtopFile("water.prmtop"),
    "ParmEd, prmtop": parmed.load_file("water.prmtop"),
    "OpenMM, top": app.GromacsTopFile("water.top", periodicBoxVectors=model.topology.getPeriodicBoxVectors()),
}
print("ParmEd", version("parmed"), "OpenMM", version("openmm"))
seen = {}
for name, reader in readers.items():
    system = reader.createSystem(
        nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer, constraints=app.HBonds, rigidWater=True, hydrogenMass=3 * unit.amu
    )
    angles = sum(force.getNumAngles() for force in system.getForces() if isinstance(force, openmm.HarmonicAngleForce))
    seen[name] = (system.getNumConstraints() / n, round(system.getParticleMass(1)._value, 2))
    print(f"  {name}: {seen[name][0]:g} constraints and {angles / n:g} angles a molecule, hydrogens of {seen[name][1]} amu")
assert seen == {"OpenMM, prmtop": (2, 1.01), "ParmEd, prmtop": (3, 3.0), "OpenMM, top": (3, 1.01)}, "changed"
PY
