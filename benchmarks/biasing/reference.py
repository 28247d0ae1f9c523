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


def reference_file(seed: int, work: Path) -> Path:
    return work / "biasing" / f"reference_seed{seed}.npz"


def reference_frames(seed: int, work: Path) -> tuple[Array, Array]:
    """Angles (n, 2) [rad] and log weights (n,) of one of the two runs; made unless it is in `work` already."""
    file = reference_file(seed, work)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        _make(seed, file)
    with np.load(file) as data:
        return data["angles"].astype(np.float64), data["log_weights"]


def _make(seed: int, file: Path) -> None:
    """Write the frames; what is there of the bias and of earlier chunks is not made again."""
    bias = _bias(seed, file.with_suffix(".bias.npy"))
    flattened = SYSTEM.build().system
    force = static_bias(bias)
    force.setForceGroup(1)
    flattened.addForce(force)
    run = simulation(flattened, seed + 1)
    frames_left, place = round(STATIC_NS * 1000 / TIMESTEP / RECORD), file.with_suffix(".state")
    chunks = []
    for index, start in enumerate(range(0, frames_left, _CHUNK)):
        chunk = file.with_suffix(f".{index:03d}.npz")
        if not chunk.is_file():
            if index > 0:
                run.loadState(str(place))
                run.context.getIntegrator().setRandomNumberSeed(seed + 1 + index)
            _run_chunk(run, min(_CHUNK, frames_left - start), chunk, place)
            print(f"{chunk.name} is ready", flush=True)
        chunks.append(chunk)
    loaded = [np.load(chunk) for chunk in chunks]
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, **{key: np.concatenate([part[key] for part in loaded]) for key in loaded[0].files})
    partial.rename(file)


def _bias(seed: int, file: Path) -> Array:
    """Table of the bias [kJ/mol], at least 0, as `openmm.app.Metadynamics` keeps it; psi down, phi across."""
    if not file.is_file():
        system = SYSTEM.build().system
        sampler = app.Metadynamics(system, torsion_variables(), TEMPERATURE, _GAMMA, _HEIGHT, _PACE)
        sampler.step(simulation(system, seed), round(BUILD_NS * 1000 / TIMESTEP))
        bias = -(_GAMMA - 1) / _GAMMA * sampler.getFreeEnergy().value_in_unit(unit.kilojoule_per_mole)
        np.save(file, bias - bias.min())
    return np.asarray(np.load(file))


def _run_chunk(run: app.Simulation, n_frames: int, file: Path, place: Path) -> None:
    """Write angles [rad] and log weights of the next frames, and before them the state the next chunk starts from."""
    frames, weights = Frames(), []
    for _ in range(n_frames):
        run.step(RECORD)
        state = run.context.getState(positions=True, energy=True, groups={1})
        frames.positions.append(np.array(state.getPositions(asNumpy=True)._value))
        weights.append(state.getPotentialEnergy()._value / KT)
    run.saveState(str(place))
    np.savez(file, angles=frames.angles().astype(np.float32), log_weights=np.array(weights))


def static_bias(bias: Array) -> openmm.CustomCompoundBondForce:
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
