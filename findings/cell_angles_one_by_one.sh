#!/bin/bash
# How long does it take MDTraj to say the box vectors of frames that it has read?
#
# Guess: next to nothing: lengths and angles are arrays, vectors follow from them in a few operations for all frames together.
# Seen (mdtraj 1.11.1.post2, numpy 2.4.6): the angles of every frame are compared by themselves, each time that the property
#   `unitcell_vectors` is read: numpy.allclose once a frame for right angles, numpy.isclose four times more for others.
#     20,000 frames of 100 atoms, XTC, right angles: read in 0.13 s, `unitcell_vectors` takes 0.80 s, 6 times as long
#   So a loop that asks for the vectors of each piece spends its time there, whatever it does with them; vectors computed from
#   `unitcell_lengths` and `unitcell_angles` are equal to the last bit.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet mdtraj==1.11.1.post2 numpy==2.4.6
venv/bin/python -W ignore - <<'PY'
import time

import mdtraj
import numpy as np

N, ATOMS = 20_000, 100
topology = mdtraj.Topology()
residue = topology.add_residue("AR", topology.add_chain())
for i in range(ATOMS):
    topology.add_atom(f"A{i}", mdtraj.element.argon, residue)
rng = np.random.default_rng(0)
made = mdtraj.Trajectory(rng.random((N, ATOMS, 3), dtype=np.float32), topology)
made.unitcell_lengths, made.unitcell_angles = np.full((N, 3), 3.0), np.full((N, 3), 90.0)
made.save_xtc("a.xtc")

begin = time.perf_counter()
read = mdtraj.load("a.xtc", top=topology)
reading = time.perf_counter() - begin
counts = {"allclose": 0, "isclose": 0}
begin = time.perf_counter()
vectors = read.unitcell_vectors
asking = time.perf_counter() - begin

for name in counts:
    def counted(*arguments, _plain=getattr(np, name), _name=name, **keywords):
        counts[_name] += 1
        return _plain(*arguments, **keywords)
    setattr(np, name, counted)
read[:1000].unitcell_vectors
right = dict(counts)
counts.update(allclose=0, isclose=0)
read.unitcell_angles = np.full((N, 3), 80.0, np.float32)
counts.update(allclose=0, isclose=0)
read[:1000].unitcell_vectors
print(f"read {reading:.2f} s, unitcell_vectors {asking:.2f} s, {asking / reading:.1f} times as long")
print("calls for 1000 frames: right angles", right, "- others", counts)
assert right["allclose"] == 1000 and counts["allclose"] == 1000 and counts["isclose"] >= 4000
assert asking > reading
PY
