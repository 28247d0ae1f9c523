#!/bin/bash
# Do readers of PDB files leave Amber's names of protonation states as they are (HIE, CYX, ASH, GLH, LYN)?
#
# Guess: MDTraj and OpenMM give the same names, so that a selection by residue name means the same atoms for both.
# Seen (MDTraj 1.11.1.post2, OpenMM 8.6.1, ParmEd 4.3.1): three answers. ParmEd keeps the file's names. OpenMM's PDBFile has HIS for
#   HIE, HID and HIP, CYS for CYX, ASP for ASH and GLU for GLH. MDTraj has HIS and CYS, but keeps ASH and GLH. Neither changes CYM or
#   LYN. "resname ASP" selects the residue in a topology that came by way of OpenMM and not in the one that MDTraj read from the
#   same file; "resname HIE" selects only by way of ParmEd.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet mdtraj==1.11.1.post2 parmed==4.3.1 openmm==8.6.1 numpy==2.4.6
venv/bin/python -W ignore - <<'PY'
from importlib.metadata import version

import mdtraj
import parmed
from openmm import app

NAMES = ("HIE", "HID", "HIP", "CYX", "CYM", "ASH", "GLH", "LYN")
with open("states.pdb", "w") as file:
    for number, name in enumerate(NAMES):
        for place, atom in enumerate(("N", "CA", "C", "O")):
            x, y = 3.8 * number + 1.0 * place, 1.2 * (place % 2)
            file.write(
                f"ATOM  {4 * number + place + 1:5d}  {atom:<3} {name} A{number + 1:4d}    "
                f"{x:8.3f}{y:8.3f}{0:8.3f}  1.00  0.00           {atom[0]}\n"
            )
    file.write("END\n")

by_openmm = app.PDBFile("states.pdb").topology
seen = {
    f"ParmEd {version('parmed')}": [residue.name for residue in parmed.load_file("states.pdb").residues],
    f"OpenMM {version('openmm')}": [residue.name for residue in by_openmm.residues()],
    f"MDTraj {version('mdtraj')}": [residue.name for residue in mdtraj.load("states.pdb").topology.residues],
}
for name, residues in seen.items():
    print(f"{name}: {' '.join(residues)}")
parm, openmm_, traj = seen.values()
assert parm == list(NAMES), "changed"
assert openmm_ == ["HIS", "HIS", "HIS", "CYS", "CYM", "ASP", "GLU", "LYN"], "changed"
assert traj == ["HIS", "HIS", "HIS", "CYS", "CYM", "ASH", "GLH", "LYN"], "changed"
asp = "resname ASP"
print(f"'{asp}': {len(mdtraj.Topology.from_openmm(by_openmm).select(asp))} atoms by way of OpenMM,",
      f"{len(mdtraj.load('states.pdb').topology.select(asp))} as MDTraj reads the file")
PY
