#!/bin/bash
# At what time does the first frame of a trajectory lie whose reporter was added after an equilibration?
#
# Guess: at that of the State it was written from, as in the table of a StateDataReporter.
# Seen (openmm 8.6.1, mdtraj 1.11.1.post2): DCDReporter and XTCReporter count from their first frame, which is one interval after
#   zero whatever was simulated before, so their times and those of the table differ by a constant.
#     first frame: table 1.1 ps, DCD 0.1 ps, XTC 0.1 ps
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet openmm==8.6.1 mdtraj==1.11.1.post2 numpy==2.4.6
venv/bin/python - <<'PY'
import struct
from importlib.metadata import version
from pathlib import Path

import mdtraj
import openmm
from openmm import app

system, topology = openmm.System(), app.Topology()
system.addParticle(40.0)
topology.addAtom("AR", app.element.argon, topology.addResidue("AR", topology.addChain()))
simulation = app.Simulation(topology, system, openmm.LangevinMiddleIntegrator(300, 1, 0.002))
simulation.context.setPositions([openmm.Vec3(0, 0, 0)])
simulation.step(500)
simulation.reporters.append(app.DCDReporter("md.dcd", 50))
simulation.reporters.append(app.XTCReporter("md.xtc", 50))
simulation.reporters.append(app.StateDataReporter("md.csv", 50, time=True))
simulation.step(100)
simulation.reporters.clear()
header = Path("md.dcd").read_bytes()[:48]
(first,), (step,) = struct.unpack("<i", header[12:16]), struct.unpack("<f", header[44:48])
seen = {
    "table": round(float(Path("md.csv").read_text().splitlines()[1]), 4),
    "DCD": round(first * step * 0.04888821, 4),
    "XTC": round(float(mdtraj.load("md.xtc", top=mdtraj.Topology.from_openmm(topology)).time[0]), 4),
}
print("openmm", version("openmm"), "mdtraj", version("mdtraj"), "first frame [ps]:", seen)
assert seen == {"table": 1.1, "DCD": 0.1, "XTC": 0.1}, "changed"
PY
