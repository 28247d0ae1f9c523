"""Observables of structures, and their curves against temperature."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import mdtraj
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latf_openmm.analysis.ensemble import Estimate, StructureEnsemble, weighted_variance
from latf_openmm.errors import ConfigError

Array = NDArray[np.float64]
Observable = Callable[[mdtraj.Trajectory], Array]
Statistic = Callable[[StructureEnsemble, Array], float]

UNITS = {
    "energy": "kJ/mol",
    "heat_capacity": "k_B",
    "rg": "nm",
    "rmsd": "nm",
    "contacts": "fraction",
    "hbonds": "bonds",
}
"""Observables that have a name, and their units; beside them ``population:STATE`` and ``FILE.py:FUNCTION``."""

_CONTACT = 0.45  # nm
_APART = 3  # residues
_STEEPNESS, _SLACK = 50.0, 1.8  # 1/nm, -


def radius_of_gyration(trajectory: mdtraj.Trajectory) -> Array:
    """Radius of gyration [nm] of each frame."""
    return np.asarray(mdtraj.compute_rg(trajectory), dtype=np.float64)


def rmsd_to(reference: mdtraj.Trajectory) -> Observable:
    """RMSD [nm] to a structure after superposition: of CA atoms, or of all heavy atoms where there are none."""
    atoms = reference.topology.select("name CA")
    if len(atoms) < 3:
        atoms = reference.topology.select("element != H")

    def observable(trajectory: mdtraj.Trajectory) -> Array:
        return np.asarray(mdtraj.rmsd(trajectory, reference, atom_indices=atoms), dtype=np.float64)

    return observable


def native_contacts(reference: mdtraj.Trajectory) -> Observable:
    """Fraction of the contacts of a structure (Best, Hummer and Eaton, 2013).

    Raises
    ------
    ConfigError
        If the structure has none.
    """
    heavy = [atom for atom in reference.topology.atoms if atom.element.symbol != "H"]
    apart = [
        (a.index, b.index)
        for a, b in combinations(heavy, 2)
        if abs(a.residue.index - b.residue.index) > _APART
    ]
    pairs = np.array(apart).reshape(-1, 2)
    native = mdtraj.compute_distances(reference, pairs)[0] if len(pairs) else np.empty(0)
    pairs, native = pairs[native < _CONTACT], native[native < _CONTACT]
    if len(pairs) == 0:
        raise ConfigError("contacts: the reference has no contact of residues more than three apart")

    def observable(trajectory: mdtraj.Trajectory) -> Array:
        distance = mdtraj.compute_distances(trajectory, pairs).astype(np.float64)
        return np.asarray((1.0 / (1.0 + np.exp(_STEEPNESS * (distance - _SLACK * native)))).mean(axis=1))

    return observable


def hydrogen_bonds(trajectory: mdtraj.Trajectory) -> Array:
    """Hydrogen bonds of each frame (Wernet and Nilsson, 2005)."""
    return np.array([len(bonds) for bonds in mdtraj.wernet_nilsson(trajectory)], dtype=np.float64)


def structure_observable(name: str, reference: mdtraj.Trajectory) -> Observable | None:
    """Return the function of a trajectory that a name stands for, None where it is no function of structures.

    Raises
    ------
    ConfigError
        If there is no such observable, or the file has no such function.
    """
    made: dict[str, Callable[[], Observable]] = {
        "rg": lambda: radius_of_gyration,
        "rmsd": lambda: rmsd_to(reference),
        "contacts": lambda: native_contacts(reference),
        "hbonds": lambda: hydrogen_bonds,
    }
    if name in made:
        return made[name]()
    if name in UNITS or name.startswith("population:"):
        return None
    path, _, function = name.rpartition(":")
    if path.endswith(".py"):
        return _from_file(Path(path), function)
    known = ", ".join([*UNITS, "population:STATE", "FILE.py:FUNCTION"])
    raise ConfigError(f"--observable: there is no {name!r}; expected one of {known}")


def _from_file(path: Path, function: str) -> Observable:
    if not path.is_file():
        raise ConfigError(f"--observable: {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"--observable: {path} cannot be run ({type(error).__name__}: {error})") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ConfigError(f"--observable: {path} has no function {function!r}")
    return found


@dataclass(frozen=True)
class Curve:
    """One observable against temperature.

    Attributes
    ----------
    name, unit
        What it is.
    table
        One row for each temperature: temperature, value, error, level, verdict, independent frames.
    replicates
        Values in the same bootstrap samples at every temperature, shape (n_temperatures, n_samples); None where
        one of them is the flow's.
    """

    name: str
    unit: str
    table: pd.DataFrame
    replicates: Array | None

    def transition(self, midpoint: float | None = None) -> Estimate | None:
        """Temperature where the curve crosses `midpoint`, or, without one, of its maximum; None if there is none.

        Between temperatures the curve is taken for straight, around its maximum for a parabola. The error is the
        spread over bootstrap samples, where there are any.
        """
        at = self.table["temperature"].to_numpy(dtype=np.float64)

        def find(values: Array) -> float | None:
            return _maximum(at, values) if midpoint is None else _crossing(at, values, midpoint)

        value = find(self.table["value"].to_numpy(dtype=np.float64))
        if value is None:
            return None
        again = [] if self.replicates is None else [find(column) for column in self.replicates.T]
        found = np.array([one for one in again if one is not None], dtype=np.float64)
        return Estimate(value, float(found.std(ddof=1)) if len(found) > 1 else float("nan"))


def _crossing(at: Array, values: Array, midpoint: float) -> float | None:
    side = np.sign(values - midpoint)
    places = np.flatnonzero(side[1:] * side[:-1] <= 0)
    if len(places) == 0:
        return None
    i = places[0]
    rise = values[i + 1] - values[i]
    return float(at[i] + ((midpoint - values[i]) / rise if rise else 0.0) * (at[i + 1] - at[i]))


def _maximum(at: Array, values: Array) -> float | None:
    i = int(values.argmax())
    if i in (0, len(values) - 1):
        return None  # at an end of the range: the maximum may lie beyond
    a, b, _ = np.polyfit(at[i - 1 : i + 2] - at[i], values[i - 1 : i + 2], 2)
    return float(at[i] - b / (2 * a)) if a < 0 else float(at[i])


def curve(
    name: str,
    ensembles: Sequence[StructureEnsemble],
    topology: mdtraj.Topology,
    reference: mdtraj.Trajectory,
) -> Curve:
    """Return one observable over ensembles of ascending temperature.

    Parameters
    ----------
    name
        A key of `UNITS`, ``population:STATE``, or ``FILE.py:FUNCTION``: a function of an MDTraj trajectory that
        returns one number for each frame.
    topology
        Of one copy of the system.
    reference
        Structure for the RMSD and the native contacts.
    """
    statistic = _statistic(name, ensembles[0], topology, reference)
    spreads = [ensemble.over_replicates(partial(statistic, ensemble)) for ensemble in ensembles]
    estimates = [
        ensemble.with_error(statistic(ensemble, ensemble.weights), spread)
        for ensemble, spread in zip(ensembles, spreads, strict=True)
    ]
    table = pd.DataFrame(
        {
            "temperature": [ensemble.temperature for ensemble in ensembles],
            "value": [one.value for one in estimates],
            "error": [one.error for one in estimates],
            "level": [ensemble.level for ensemble in ensembles],
            "verdict": [ensemble.verdict for ensemble in ensembles],
            "independent_frames": [ensemble.independent for ensemble in ensembles],
        }
    )
    same = all(ensemble.level == "reweighted" for ensemble in ensembles)
    replicates = np.array(spreads) if same else None
    return Curve(
        name, UNITS.get(name, "fraction" if name.startswith("population:") else ""), table, replicates
    )


def _statistic(
    name: str, ensemble: StructureEnsemble, topology: mdtraj.Topology, reference: mdtraj.Trajectory
) -> Statistic:
    function = structure_observable(name, reference)
    if name == "heat_capacity":
        energy = ensemble.energies()
        return lambda at, weights: weighted_variance(weights, energy / at.kT)
    if function is not None:
        values = ensemble.observe(function, topology)
    elif name == "energy":
        values = ensemble.energies()
    else:
        values = _of_state(name, ensemble)
    return lambda _, weights: float(weights @ values)


def _of_state(name: str, ensemble: StructureEnsemble) -> Array:
    state, states = name.partition(":")[2], ensemble.pool.states
    if not state.isdigit() or int(state) > states.max():
        raise ConfigError(f"--observable: {name}: expected a state from 0 to {states.max()}")
    return np.asarray(states == int(state), dtype=np.float64)
