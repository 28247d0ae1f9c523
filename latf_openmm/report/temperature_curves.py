"""Curves against temperature: energy, heat capacity, and what structures look like."""

from collections.abc import Sequence
from dataclasses import dataclass

import mdtraj
import numpy as np

from latf_openmm.ensembles.curves import Curve, curve
from latf_openmm.ensembles.ensemble import Estimate, StructureEnsemble
from latf_openmm.ensembles.observables import structure_observable
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.errors import ConfigError
from latf_openmm.frames.trajectory import energies_known
from latf_openmm.reweighting.reliability import Reliability
from latf_openmm.run.folder import RunFolder
from latf_openmm.systems import library_folder

_TEMPERATURES = 9
"""Temperatures of a curve, about."""
_MAX_WEIGHTS = 2_000_000
"""Frames times temperatures up to which curves have more temperatures than the run."""
_MAX_COORDINATES = 200_000_000
"""Frames times atoms up to which structures are read again, once for each observable."""


@dataclass(frozen=True)
class Melting:
    """Curves against temperature.

    Attributes
    ----------
    curves
        Those there are.
    left_out
        Sentences that say what is missing, and why.
    """

    curves: tuple[Curve, ...]
    left_out: tuple[str, ...]

    def transitions(self) -> list[tuple[str, Estimate, Reliability]]:
        """Transitions in the range of temperatures with their errors, and how far to rely on them.

        None where errors are not known.
        """
        rows = []
        for drawn in self.curves:
            if drawn.is_share:
                at = drawn.transition(0.5)
            else:
                at = drawn.transition() if drawn.name == "heat_capacity" else None
            if at is not None and np.isfinite(at.error):
                words = "crosses one half" if drawn.is_share else "is largest"
                rows.append((f"{drawn.title} {words}", at, drawn.reliability_near(at.value)))
        return rows


def melting(run: RunFolder, reweighter: Reweighter, ensembles: Sequence[StructureEnsemble]) -> Melting:
    """Return curves over the temperatures of a run.

    Parameters
    ----------
    reweighter
        Made the ensembles, and makes those between.
    ensembles
        One for each temperature of the run, ascending.
    """
    if len(ensembles) < 2:
        return Melting((), ("The run has one temperature only, so there are no curves.",))
    topology, structure = run.topology(), run.reference_structure()
    names, left_out = [], []
    if energies_known(reweighter.pool.trajectories):
        names += ["energy", "heat_capacity"]
    else:
        left_out.append(
            "Energy and heat capacity are left out: the potential energies of the frames are not known."
        )
    if len(reweighter.pool.z) * topology.n_atoms <= _MAX_COORDINATES:
        names += _of_structures(run, structure)
    else:
        left_out.append(
            "Observables of structures are left out, since reading so many frames again takes long: "
            "latf-openmm observe draws them."
        )
    everywhere = [*ensembles, *(reweighter.at(t) for t in _between(ensembles))] if names else []
    everywhere.sort(key=lambda ensemble: ensemble.temperature)
    curves = [curve(name, everywhere, topology, structure) for name in names]
    return Melting(tuple(curves), tuple(left_out))


def _between(ensembles: Sequence[StructureEnsemble]) -> list[float]:
    """Temperatures that make the curves of few temperatures smooth."""
    temperatures = np.array([ensemble.temperature for ensemble in ensembles])
    if _TEMPERATURES * len(ensembles[0].weights) > _MAX_WEIGHTS:
        return []
    grid = np.linspace(temperatures[0], temperatures[-1], _TEMPERATURES)
    far = 0.4 * (grid[1] - grid[0])
    return [float(f"{t:.6g}") for t in grid if np.abs(temperatures - t).min() > far]


def _of_structures(run: RunFolder, structure: mdtraj.Trajectory) -> list[str]:
    """Names of observables of structures that say something of a system."""
    topology = structure.topology
    names = [f"{library_folder(run.config.system.kind) / file}" for file in run.config.system.curves]
    if topology.n_bonds == 0:
        return names
    for name in ("contacts", "rmsd", "rg"):
        try:
            structure_observable(name, structure)
        except ConfigError:
            continue  # a structure too small to have contacts
        names.append(name)
    return names
