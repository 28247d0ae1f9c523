"""The reference surface of alanine dipeptide: long runs with the torsions themselves flattened, OpenMM's own forces.

Twice, with other seeds: well-tempered metadynamics on phi and psi (`openmm.app.Metadynamics`) makes a bias, which
is then held fixed as a table in a `CustomCompoundBondForce`. Frames of the second part weigh exp(V / kT). Nothing
of this package is used but the molecule, and no learned variable.
"""

from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from benchmarks.biasing.samplers import (
    KT,
    PHI,
    PSI,
    RECORD,
    SYSTEM,
    TEMPERATURE,
    TIMESTEP,
    Array,
    Frames,
    simulation,
    torsion_variables,
)

SEEDS = (101, 202)
BUILD_NS, STATIC_NS = 10.0, 120.0
_GAMMA, _HEIGHT, _PACE = 10.0, 1.0, 250
_CHUNK = 20_000  # frames


def reference_frames(seed: int, work: Path) -> tuple[Array, Array]:
    """Angles (n, 2) [rad] and log weights (n,) of one of the two runs; made unless it is in `work` already."""
    file = work / "biasing" / f"reference_seed{seed}.npz"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        _make(seed, file)
    with np.load(file) as data:
        return data["angles"].astype(np.float64), data["log_weights"]


def _make(seed: int, file: Path) -> None:
    system = SYSTEM.build().system
    sampler = app.Metadynamics(system, torsion_variables(), TEMPERATURE, _GAMMA, _HEIGHT, _PACE)
    sampler.step(simulation(system, seed), round(BUILD_NS * 1000 / TIMESTEP))
    bias = -(_GAMMA - 1) / _GAMMA * sampler.getFreeEnergy().value_in_unit(unit.kilojoule_per_mole)
    bias -= bias.min()
    flattened = SYSTEM.build().system
    force = _static(bias)
    force.setForceGroup(1)
    flattened.addForce(force)
    run = simulation(flattened, seed + 1)
    angles, weights = [], []
    left = round(STATIC_NS * 1000 / TIMESTEP / RECORD)
    while left > 0:
        frames = Frames()
        for _ in range(min(_CHUNK, left)):
            run.step(RECORD)
            state = run.context.getState(positions=True, energy=True, groups={1})
            frames.positions.append(np.array(state.getPositions(asNumpy=True)._value))
            weights.append(state.getPotentialEnergy()._value / KT)
        angles.append(frames.angles().astype(np.float32))
        left -= _CHUNK
        print(f"reference {seed}: {left} frames left", flush=True)
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, angles=np.concatenate(angles), log_weights=np.array(weights))
    partial.rename(file)


def _static(bias: Array) -> openmm.CustomCompoundBondForce:
    """A periodic table over phi (second axis of `bias`, as `openmm.app.Metadynamics` keeps it) and psi."""
    force = openmm.CustomCompoundBondForce(5, "bias(dihedral(p1,p2,p3,p4), dihedral(p2,p3,p4,p5))")
    n = len(bias)
    closed = bias.copy()
    closed[-1], closed[:, -1] = closed[0], closed[:, 0]
    table = openmm.Continuous2DFunction(n, n, closed.T.ravel(order="F"), -np.pi, np.pi, -np.pi, np.pi, True)
    force.addTabulatedFunction("bias", table)
    force.addBond([*PHI, PSI[3]], [])
    return force


if __name__ == "__main__":
    import sys

    reference_frames(int(sys.argv[2]), Path(sys.argv[1]))
