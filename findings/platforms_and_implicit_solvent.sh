#!/usr/bin/env bash
# Which of OpenMM's platforms is the faster one for a small molecule depends on how the same implicit solvent is written.
#
# Guess: the CPU platform is faster than the Reference platform, or at most a little slower for so few atoms, whatever the force.
# Seen, alanine dipeptide in OBC2 on one thread: with GBSAOBCForce the Reference platform takes about half the processor time
# of the CPU platform; with the CustomGBForce that `implicit/obc2.xml` makes of the same model, eight times as much.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openmm==8.6.1 numpy==2.4.6
cat > "$folder/molecule.pdb" <<'PDB'
HETATM    1  CH3 ACE A   1       2.499   1.688   0.721  1.00  0.00           C  
HETATM    2  H1  ACE A   1       1.884   2.162   1.485  1.00  0.00           H  
HETATM    3  H2  ACE A   1       2.931   2.450   0.073  1.00  0.00           H  
HETATM    4  H3  ACE A   1       3.296   1.116   1.194  1.00  0.00           H  
HETATM    5  C   ACE A   1       1.646   0.760  -0.100  1.00  0.00           C  
HETATM    6  O   ACE A   1       1.476   0.913  -1.306  1.00  0.00           O  
ATOM      7  N   ALA A   2       1.038  -0.239   0.620  1.00  0.00           N  
ATOM      8  H   ALA A   2       1.216  -0.309   1.612  1.00  0.00           H  
ATOM      9  CA  ALA A   2       0.128  -1.200  -0.009  1.00  0.00           C  
ATOM     10  HA  ALA A   2       0.481  -1.423  -1.017  1.00  0.00           H  
ATOM     11  CB  ALA A   2       0.123  -2.501   0.784  1.00  0.00           C  
ATOM     12  HB1 ALA A   2      -0.242  -2.332   1.797  1.00  0.00           H  
ATOM     13  HB2 ALA A   2       1.133  -2.910   0.827  1.00  0.00           H  
ATOM     14  HB3 ALA A   2      -0.521  -3.227   0.285  1.00  0.00           H  
ATOM     15  C   ALA A   2      -1.299  -0.614  -0.136  1.00  0.00           C  
ATOM     16  O   ALA A   2      -2.301  -1.187   0.285  1.00  0.00           O  
HETATM   17  N   NME A   3      -1.356   0.579  -0.830  1.00  0.00           N  
HETATM   18  H   NME A   3      -0.489   0.979  -1.172  1.00  0.00           H  
HETATM   19  C   NME A   3      -2.611   1.188  -1.182  1.00  0.00           C  
HETATM   20  H1  NME A   3      -2.532   1.659  -2.163  1.00  0.00           H  
HETATM   21  H2  NME A   3      -3.414   0.449  -1.217  1.00  0.00           H  
HETATM   22  H3  NME A   3      -2.869   1.951  -0.446  1.00  0.00           H  
TER      23      NME A   3
CONECT    1    2    3    4    5
CONECT    2    1
CONECT    3    1
CONECT    4    1
CONECT    5    1    6    7
CONECT    6    5
CONECT    7    5
CONECT   15   17
CONECT   17   18   15   19
CONECT   18   17
CONECT   19   20   21   22   17
CONECT   20   19
CONECT   21   19
CONECT   22   19
END
PDB
"$folder/venv/bin/python" - "$folder/molecule.pdb" <<'PYTHON'
import sys
import time

import openmm
from openmm import app

FIELD, STEPS = "amber14/protein.ff14SB.xml", 400
RADII = {"H": (0.12, 0.85), "C": (0.17, 0.72), "N": (0.155, 0.79), "O": (0.15, 0.85)}
pdb = app.PDBFile(sys.argv[1])


def native():
    system = app.ForceField(FIELD).createSystem(pdb.topology, constraints=app.HBonds)
    charges = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    solvent = openmm.GBSAOBCForce()
    for index, atom in enumerate(pdb.topology.atoms()):
        solvent.addParticle(charges.getParticleParameters(index)[0], *RADII[atom.element.symbol])
    system.addForce(solvent)
    return system


def custom():
    return app.ForceField(FIELD, "implicit/obc2.xml").createSystem(pdb.topology, constraints=app.HBonds)


def microseconds(system, platform, properties):
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)
    context.setPositions(pdb.positions)
    openmm.LocalEnergyMinimizer.minimize(context)
    times = []
    for _ in range(7):
        begin = time.process_time()
        integrator.step(STEPS)
        times.append(time.process_time() - begin)
    return 1e6 * min(times) / STEPS


ratios = {}
for name, make in (("GBSAOBCForce", native), ("CustomGBForce", custom)):
    reference = microseconds(make(), "Reference", {})
    cpu = microseconds(make(), "CPU", {"Threads": "1"})
    ratios[name] = reference / cpu
    print(f"openmm {openmm.version.short_version}, {name}: Reference {reference:.0f}, CPU {cpu:.0f} us of a processor a step")
assert ratios["GBSAOBCForce"] < 0.8
assert ratios["CustomGBForce"] > 3
PYTHON
