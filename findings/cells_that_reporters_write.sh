#!/bin/bash
# Which cell do OpenMM's reporters write, if the cell of the Context is not that of the Topology?
#
# Guess: all four write the cell of the reported State where the System is periodic, and none where it is not.
# Seen (openmm 8.5.2; cell of the Context 2.5 nm, of the Topology 5 nm or none): the System is not asked at all.
#     Topology without a cell, System periodic:      no file has a cell
#     Topology with a cell, System periodic or not:  DCD and XTC 2.5 nm; PDB and mmCIF 5 nm, that of the Topology
#   So frames of a periodic run can come without a cell, frames of a run in vacuum with one, and CRYST1 of a PDB trajectory
#   is the cell of the start however far a barostat has moved it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet openmm==8.5.2 mdtraj==1.11.1.post2 numpy==2.4.6
venv/bin/python -W ignore - <<'PY' | grep -v dcdplugin
from pathlib import Path

import mdtraj
import numpy as np
import openmm as mm
from openmm import app, unit


def run(cell: bool, periodic: bool) -> tuple[float | None, ...]:
    topology = app.Topology()
    residue = topology.addResidue("AR", topology.addChain())
    system, force = mm.System(), mm.NonbondedForce()
    for i in range(4):
        topology.addAtom(f"A{i}", app.element.argon, residue)
        system.addParticle(40.0)
        force.addParticle(0.0, 0.3, 1.0)
    if cell:
        topology.setUnitCellDimensions(mm.Vec3(5, 5, 5) * unit.nanometer)
    force.setNonbondedMethod(force.CutoffPeriodic if periodic else force.NoCutoff)
    force.setCutoffDistance(0.9)
    system.addForce(force)
    platform = mm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(topology, system, mm.VerletIntegrator(0.001), platform)
    simulation.context.setPositions(0.6 * np.arange(12).reshape(4, 3) % 2.0)
    simulation.context.setPeriodicBoxVectors(*(2.5 * np.eye(3)))
    kinds = {"dcd": app.DCDReporter, "xtc": app.XTCReporter, "pdb": app.PDBReporter, "cif": app.PDBxReporter}
    simulation.reporters += [kind(f"r.{suffix}", 1) for suffix, kind in kinds.items()]
    simulation.step(2)
    simulation.reporters.clear()
    atoms = mdtraj.Topology.from_openmm(topology)
    lengths = [mdtraj.load(f"r.{suffix}", top=atoms).unitcell_lengths for suffix in ("dcd", "xtc")]
    found = [None if length is None else round(float(length[0, 0]), 3) for length in lengths]
    for name, start in (("r.pdb", "CRYST1"), ("r.cif", "_cell.length_a")):
        lines = [line for line in Path(name).read_text().splitlines() if line.startswith(start)]
        found.append(float(lines[0].split()[1]) / 10 if lines else None)
    return tuple(found)


seen = {(cell, periodic): run(cell, periodic) for cell in (False, True) for periodic in (True, False)}
print("openmm", mm.__version__, "cells in nm: DCD, XTC, PDB, mmCIF")
for (cell, periodic), found in seen.items():
    print(f"Topology has a cell: {cell}; System periodic: {periodic}; written {found}")
assert seen[False, True] == seen[False, False] == (None,) * 4, "changed"
assert seen[True, True] == seen[True, False] == (2.5, 2.5, 5.0, 5.0), "changed"
PY
