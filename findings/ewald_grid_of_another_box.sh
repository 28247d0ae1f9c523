#!/bin/bash
# Does the energy of a frame depend on the default box of the System, if the frame's own box is set first?
#
# Guess: no; PME parameters follow Context.setPeriodicBoxVectors, and energies agree within 0.01 kJ/mol.
# Seen (openmm 8.5.2, Reference platform, 2.4 nm box of TIP3P): the grid is chosen once, for the System's default box, and
#   stays also after reinitialize(preserveState=True). One frame, one box, four default boxes (2.4, 2.28, 2.64, 3.6 nm):
#     grid 22, 21, 24, 33; energy against the first: 0, +0.009, -0.061, -0.076 kJ/mol
#   So energies that are computed again for frames of another volume (constant pressure, another program) differ from
#   those of the run by more than the platform's rounding.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet openmm==8.5.2 numpy==2.4.6
venv/bin/python - <<'PY'
import numpy as np
import openmm as mm
from openmm import app, unit

WIDTH = 2.4  # nm
field = app.ForceField("tip3p.xml")
modeller = app.Modeller(app.Topology(), [])
modeller.addSolvent(field, boxSize=mm.Vec3(WIDTH, WIDTH, WIDTH) * unit.nanometer)
grids, energies = [], []
print("openmm", mm.__version__)
for default in (WIDTH, 0.95 * WIDTH, 1.1 * WIDTH, 1.5 * WIDTH):
    system = field.createSystem(
        modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer
    )
    system.setDefaultPeriodicBoxVectors(*(default * np.eye(3)))
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context.setPeriodicBoxVectors(*(WIDTH * np.eye(3)))
    context.setPositions(modeller.positions)
    context.reinitialize(preserveState=True)
    force = next(force for force in system.getForces() if isinstance(force, mm.NonbondedForce))
    grids.append(force.getPMEParametersInContext(context)[1])
    energies.append(context.getState(energy=True).getPotentialEnergy()._value)
    print(f"default box {default:.2f} nm: grid {grids[-1]}, energy {energies[-1] - energies[0]:+.4f} kJ/mol")
assert grids == [22, 21, 24, 33], "the grid follows the box now"
difference = max(energies) - min(energies)
assert difference > 0.02, f"energies agree now: {difference}"
PY
