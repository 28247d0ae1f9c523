#!/bin/bash
# Which forces make two particles one molecule for OpenMM (wrapping into the box, scaling by a barostat)?
#
# Guess: harmonic and custom bonds, constraints and virtual sites do; restraints written as CustomCentroidBondForce,
#   CustomCompoundBondForce or inside a CustomCVForce do not.
# Seen (openmm 8.5.2): CustomCentroidBondForce and what is inside a CustomCVForce do, CustomCompoundBondForce does not (and
#   a harmonic bond of strength 0 does). So an umbrella restraint between two molecules changes which image
#   getState(enforcePeriodicBox=True) puts them in, by how it was written:
#     bond 1, bond of strength 0 1, centroid bond 1, bond in a CV 1, compound bond 2 molecules
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet openmm==8.5.2 numpy==2.4.6
venv/bin/python - <<'PY'
import numpy as np
import openmm as mm

REFERENCE = mm.Platform.getPlatformByName("Reference")


def bond(strength):
    force = mm.HarmonicBondForce()
    force.addBond(0, 1, 0.3, strength)
    return force


def centroids():
    force = mm.CustomCentroidBondForce(2, "distance(g1, g2)")
    groups = [force.addGroup([0]), force.addGroup([1])]
    force.addBond(groups, [])
    return force


def variable():
    force = mm.CustomCVForce("d")
    inner = mm.CustomBondForce("r")
    inner.addBond(0, 1, [])
    force.addCollectiveVariable("d", inner)
    return force


def compound():
    force = mm.CustomCompoundBondForce(2, "distance(p1, p2)")
    force.addBond([0, 1], [])
    return force


def look(force):
    """Molecules, and the x of the second atom (8.2 nm, box of 5 nm) as a reporter would get it."""
    system = mm.System()
    system.setDefaultPeriodicBoxVectors(*(5.0 * np.eye(3)))
    for _ in range(2):
        system.addParticle(40.0)
    system.addForce(force)
    pairs = mm.NonbondedForce()
    pairs.setNonbondedMethod(pairs.CutoffPeriodic)
    for _ in range(2):
        pairs.addParticle(0.0, 0.3, 1.0)
    system.addForce(pairs)
    context = mm.Context(system, mm.VerletIntegrator(0.001), REFERENCE)
    context.setPositions([[4.2, 1, 1], [8.2, 1, 1]])
    state = context.getState(positions=True, enforcePeriodicBox=True)
    x = state.getPositions(asNumpy=True)._value[:, 0]
    return len(context.getMolecules()), round(float(x[1] - x[0]), 3)


seen = {
    "bond": look(bond(1.0)),
    "bond of strength 0": look(bond(0.0)),
    "centroid bond": look(centroids()),
    "bond in a CV": look(variable()),
    "compound bond": look(compound()),
}
print("openmm", mm.__version__)
for name, (molecules, apart) in seen.items():
    print(f"{name:20s} {molecules} molecule(s); atoms written {apart} nm apart in x")
expected = {
    "bond": (1, 4.0),
    "bond of strength 0": (1, 4.0),
    "centroid bond": (1, 4.0),
    "bond in a CV": (1, 4.0),
    "compound bond": (2, -1.0),
}
assert seen == expected, "changed"
PY
