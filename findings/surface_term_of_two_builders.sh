#!/bin/bash
# Do ParmEd and OpenMM build the same System from one Amber topology and one `implicitSolvent`?
#
# Guess: yes, energies equal but for rounding: ParmEd takes OpenMM's own constants OBC2, GBn2 and so on, and its forces.
# Seen (ParmEd 4.3.1, OpenMM 8.6.1): the same vacuum and the same polar part, but OpenMM adds the surface-area (ACE) term and
#   ParmEd leaves it out: 13 to 17 kJ/mol for a blocked alanine. Frames of one, with energies recomputed by the other,
#   are those of another Hamiltonian. With `useSASA=True` on one side, or `gbsaModel=None` on the other, they agree.
#     OBC2: OpenMM less ParmEd 13.8 kJ/mol; with useSASA 0.0; GBn2: 16.1 and 0.0 (dependent on the structure)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet parmed==4.3.1 openmm==8.6.1 numpy==2.4.6
venv/bin/python -W ignore - <<'PY'
from importlib.metadata import version
from io import StringIO

import openmm
import parmed
from openmm import app, unit
from parmed.tools import changeRadii

HEAVY = """\
ATOM      1  CH3 ACE A   1       2.000   2.090   0.000
ATOM      2  C   ACE A   1       3.427   2.641   0.000
ATOM      3  O   ACE A   1       4.391   1.877   0.000
ATOM      4  N   ALA A   2       3.555   3.970   0.000
ATOM      5  CA  ALA A   2       4.853   4.614   0.000
ATOM      6  CB  ALA A   2       5.661   4.221   1.232
ATOM      7  C   ALA A   2       5.713   4.186  -1.190
ATOM      8  O   ALA A   2       6.880   3.837  -1.040
ATOM      9  N   NME A   3       5.124   4.246  -2.390
ATOM     10  C   NME A   3       5.856   3.846  -3.600
END
"""
field = app.ForceField("amber14-all.xml")
pdb = app.PDBFile(StringIO(HEAVY))
model = app.Modeller(pdb.topology, pdb.positions)
model.addHydrogens(field, platform=openmm.Platform.getPlatform("Reference"))
built = parmed.openmm.load_topology(model.topology, field.createSystem(model.topology), model.positions)
amber = parmed.amber.AmberParm.from_structure(built)
changeRadii(amber, "mbondi3").execute()
amber.save("alanine.prmtop")
by_openmm, by_parmed = app.AmberPrmtopFile("alanine.prmtop"), parmed.load_file("alanine.prmtop")


def energy(system):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(model.positions)
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


assert abs(energy(by_openmm.createSystem()) - energy(by_parmed.createSystem())) < 1e-3, "changed in vacuum"
print("ParmEd", version("parmed"), "OpenMM", version("openmm"), "OpenMM less ParmEd [kJ/mol]: plain, useSASA, gbsaModel None")
for name in ("HCT", "OBC1", "OBC2", "GBn", "GBn2"):
    solvent = getattr(app, name)
    whole = energy(by_openmm.createSystem(implicitSolvent=solvent))
    bare = energy(by_openmm.createSystem(implicitSolvent=solvent, gbsaModel=None))
    plain = energy(by_parmed.createSystem(implicitSolvent=solvent))
    with_area = energy(by_parmed.createSystem(implicitSolvent=solvent, useSASA=True))
    print(f"  {name}: {whole - plain:.1f}, {whole - with_area:.4f}, {bare - plain:.4f}")
    assert 8 < whole - plain < 30 and abs(whole - with_area) < 0.01 and abs(bare - plain) < 0.01, "changed"
PY
