#!/bin/bash
# What time between frames does a DCD file carry when MDTraj has converted it from a file with times?
#
# Guess: 1 ps, since MDTraj counts the frames of DCD files as times.
# Seen (mdtraj 1.11.1.post2, MDAnalysis 2.11.0): 0.0489 ps, one unit of CHARMM's AKMA system, whatever the times were; the
#   same frames written by OpenMM or MDAnalysis carry theirs. Headers of DCD files that MDTraj wrote say nothing of time.
#     XTC 2.0, DCD by MDTraj 0.0489, DCD by MDAnalysis 2.0 ps between frames
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet mdtraj==1.11.1.post2 MDAnalysis==2.11.0 numpy==2.4.6
venv/bin/python -W ignore - <<'PY' | grep -v dcdplugin
from importlib.metadata import version

import MDAnalysis
import mdtraj
import numpy as np

topology = mdtraj.Topology()
residue = topology.add_residue("AR", topology.add_chain())
for i in range(4):
    topology.add_atom(f"A{i}", mdtraj.element.argon, residue)
positions = np.random.default_rng(0).random((5, 4, 3)).astype(np.float32)
frames = mdtraj.Trajectory(positions, topology, time=2.0 * np.arange(5))
frames.save("made.xtc")
mdtraj.load("made.xtc", top=topology).save("by_mdtraj.dcd")
universe = MDAnalysis.Universe.empty(4)
universe.load_new("made.xtc")
with MDAnalysis.Writer("by_mdanalysis.dcd", 4, dt=universe.trajectory.dt) as writer:
    for _ in universe.trajectory:
        writer.write(universe.atoms)
seen = {}
for name in ("made.xtc", "by_mdtraj.dcd", "by_mdanalysis.dcd"):
    universe.load_new(name)
    seen[name] = round(float(universe.trajectory.dt), 4)
print("mdtraj", version("mdtraj"), "MDAnalysis", version("MDAnalysis"), "ps between frames:", seen)
assert seen == {"made.xtc": 2.0, "by_mdtraj.dcd": 0.0489, "by_mdanalysis.dcd": 2.0}, "changed"
PY
