"""Whether a file's atoms are those of the system: their number, and lengths of bonds."""

import re
from pathlib import Path

import mdtraj
import numpy as np
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.features.solute import Kind, residue_kinds
from latf_openmm.frames.walkers import read_trajectory
from latf_openmm.labels import Labels
from latf_openmm.systems.bonds import Bonds, wrong_unit

Array = NDArray[np.float64]


def explain_atoms(path: Path, topology: mdtraj.Topology) -> str | None:
    """Return one line on another number of atoms in a file, and what to do; None where that is not what is wrong."""
    try:
        next(read_trajectory(path, topology, 1))
    except DataError as error:
        text = str(error.__cause__ or error)
        counts = re.search(r"must be shape \(\w+, (\d+), 3\).*?\(\d+, (\d+), 3\)", text, re.S)
        if counts is None:
            return None
        n = int(counts.group(2))
        return (
            f"{path}: the trajectory cannot be read (it has {n} atoms, the topology has {topology.n_atoms}"
            f"{_reason(n, topology)})"
        )
    except StopIteration:
        return None
    return None


def _reason(n: int, topology: mdtraj.Topology) -> str:
    """Likely reason for a number of atoms."""
    atoms = list(topology.atoms)
    hydrogens = sum(a.element is not None and a.element.symbol == "H" for a in atoms)
    sites = sum(a.element is None or a.element.symbol == "VS" for a in atoms)
    kinds = residue_kinds(topology)
    solute = sum(kinds[a.residue.index] is not Kind.WATER and a.residue.n_atoms > 1 for a in atoms)
    waters = kinds.count(Kind.WATER)
    if sites and n == len(atoms) - sites:
        return (
            f": the {sites} extra sites or Drude particles are missing; save all particles, or use system.kind: "
            "trajectories with a topology of the atoms there are"
        )
    if n == len(atoms) - hydrogens:
        return (
            f": the {hydrogens} hydrogens are missing; save all atoms, or use system.kind: "
            f"trajectories with a topology "
            "without hydrogens"
        )
    if n == solute or n == solute + sum(r.n_atoms == 1 for r in topology.residues):
        return (
            ": solvent is missing; use system.kind: trajectories with a topology of the solute, and --table"
        )
    if waters and n == len(atoms) + waters:
        return ": one more for each water, a site of a four-point model; choose that model in the system"
    return "; the system has to be the one that was simulated"


def check_bonds(path: Path, frames: list[int], samples: list[mdtraj.Trajectory], bonds: Bonds) -> None:
    """Raise `DataError` where atoms that are bound are not as far apart as a bond is long."""
    if not len(bonds.pairs):
        return
    for frame, sample in zip(frames, samples, strict=True):
        ends = sample.xyz[0][bonds.pairs].astype(np.float64)
        distance = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)
        wrong = np.flatnonzero((distance < bonds.shortest) | (distance > bonds.longest))
        if len(wrong):
            worst = wrong[np.abs(np.log((distance[wrong] + 1e-9) / bonds.lengths[wrong])).argmax()]
            i, j = bonds.pairs[worst]
            labels = Labels(sample.topology)
            atoms = [f"{labels.atom(k)} ({k})" for k in (i, j)]
            raise DataError(
                f"{path}: frame {frame}: atoms {atoms[0]} and {atoms[1]} are {distance[worst]:.3g} nm "
                f"apart, expected a "
                f"bond of {bonds.lengths[worst]:.3g} nm ({len(wrong)} of {len(distance)} bonds are wrong): "
                f"{_guess(distance / bonds.lengths)}"
            )


def _guess(ratios: Array) -> str:
    """Likely reason for wrong bonds."""
    if (unit := wrong_unit(ratios)) is not None:
        return f"{unit}; convert the file"
    return "its atoms are in another order than the system's, or of another molecule"


def rounding(samples: list[mdtraj.Trajectory]) -> float:
    """Spacing of the grid that positions were rounded to [nm]; 0 where they were not."""
    xyz = np.concatenate([sample.xyz[0].ravel() for sample in samples]).astype(np.float64)
    for spacing in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
        tolerance = 1e-2 + 4 * np.finfo(np.float32).eps * np.abs(xyz).max() / spacing
        off = np.abs(xyz / spacing - np.round(xyz / spacing)).max()
        if tolerance < 0.2 and off < tolerance and len(np.unique(xyz)) > 1:
            return spacing
    return 0.0
