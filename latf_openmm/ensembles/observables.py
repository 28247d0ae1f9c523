"""Observables of structures, and their curves against temperature."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latf_openmm.ensembles.ensemble import Estimate, Mask, StructureEnsemble
from latf_openmm.errors import ConfigError
from latf_openmm.features.contacts import native_contacts_of
from latf_openmm.features.solute import Indices, heavy_atoms, solute_atoms, trace_atoms
from latf_openmm.frames.trajectory import featurise
from latf_openmm.periodic import gather_molecules
from latf_openmm.reweighting.reliability import MIN_SEEN_SAMPLES
from latf_openmm.reweighting.replicates import Statistic

Array = NDArray[np.float64]
Observable = Callable[[mdtraj.Trajectory], Array]

UNITS = {
    "energy": "kJ/mol",
    "heat_capacity": "k_B",
    "rg": "nm",
    "rmsd": "nm",
    "contacts": "fraction",
    "hbonds": "bonds",
}
"""Observables that have a name, and their units; those of structures look at the solute alone.

Beside them: ``population:STATE``, ``free_energy:STATE:STATE`` (of the second over the first) and
``FILE.py:FUNCTION``.
"""

_TITLES = {
    "rg": "radius of gyration, mass-weighted",
    "hbonds": "hydrogen bonds",
    "contacts": "native contacts",
}
"""Names of observables for people."""

_NOTHING = 1e6
"""Free energy that stands for infinity where a bootstrap sample has nothing of a state [kJ/mol]."""
_OF_STATES = {"population": 1, "free_energy": 2}
"""Observables of states, and how many states they take."""
_UNITS_OF_STATES = {"population": "fraction", "free_energy": "kJ/mol"}
"""Their units."""


def radius_of_gyration(trajectory: mdtraj.Trajectory) -> Array:
    """Radius of gyration of the solute [nm], weighted by the masses of the elements, of each frame.

    Sites without element weigh nothing, unless there is nothing else: then all weigh the same.
    """
    solute = _solute(trajectory, solute_atoms(trajectory.topology))
    masses = np.array([atom.element.mass for atom in solute.topology.atoms])
    weights = masses / masses.sum() if masses.sum() > 0 else np.full(len(masses), 1.0 / len(masses))
    xyz = solute.xyz.astype(np.float64)
    centre = np.einsum("a,fai->fi", weights, xyz)
    return np.asarray(np.sqrt(np.einsum("a,fai->f", weights, (xyz - centre[:, None]) ** 2)))


def rmsd_to(reference: mdtraj.Trajectory) -> Observable:
    """RMSD [nm] to a structure after superposition.

    Of alpha carbons and C4' atoms of nucleic acids; of all heavy atoms of the solute where these are fewer than three.
    """
    topology = reference.topology
    solute, atoms = solute_atoms(topology), trace_atoms(topology)
    if len(atoms) < 3:
        atoms = heavy_atoms(topology)
    target, chosen = _solute(reference, solute), np.searchsorted(solute, atoms)

    def observable(trajectory: mdtraj.Trajectory) -> Array:
        structures = _solute(trajectory, solute)
        return np.asarray(mdtraj.rmsd(structures, target, atom_indices=chosen), dtype=np.float64)

    return observable


def native_contacts(reference: mdtraj.Trajectory) -> Observable:
    """Fraction of the contacts within the solute of a structure (Best, Hummer and Eaton, 2013).

    Raises
    ------
    ConfigError
        If the structure has none.
    """
    solute = solute_atoms(reference.topology)
    features = native_contacts_of(_solute(reference, solute), range(len(solute))).build().double()

    def observable(trajectory: mdtraj.Trajectory) -> Array:
        return featurise(features, _solute(trajectory, solute).xyz)[:, 0].astype(np.float64)

    return observable


def hydrogen_bonds(trajectory: mdtraj.Trajectory) -> Array:
    """Hydrogen bonds within the solute in each frame (Wernet and Nilsson, 2005)."""
    solute = _solute(trajectory, solute_atoms(trajectory.topology))
    bonds = mdtraj.wernet_nilsson(solute, exclude_water=False, periodic=False)
    return np.array([len(frame) for frame in bonds], dtype=np.float64)


def _solute(trajectory: mdtraj.Trajectory, atoms: Indices) -> mdtraj.Trajectory:
    """Return the solute alone, its molecules whole and beside each other."""
    return gather_molecules(trajectory.atom_slice(atoms))


def structure_observable(name: str, reference: mdtraj.Trajectory) -> Observable | None:
    """Return the function of a trajectory that a name stands for, None where it is no function of structures.

    Raises
    ------
    ConfigError
        If there is no such observable, the file has no such function, or it gives no number for `reference`.
    """
    builders: dict[str, Callable[[], Observable]] = {
        "rg": lambda: radius_of_gyration,
        "rmsd": lambda: rmsd_to(reference),
        "contacts": lambda: native_contacts(reference),
        "hbonds": lambda: _tried("hbonds", hydrogen_bonds, reference),
    }
    if name in builders:
        return builders[name]()
    if name in UNITS or name.partition(":")[0] in _OF_STATES:
        return None
    path, _, function = name.rpartition(":")
    if path.endswith(".py"):
        return _tried(name, function_of_file(Path(path), function, "--observable"), reference)
    known = ", ".join([*UNITS, "population:STATE", "free_energy:STATE:STATE", "FILE.py:FUNCTION"])
    raise ConfigError(f"--observable: there is no {name!r}; expected one of {known}")


def _tried(name: str, function: Observable, reference: mdtraj.Trajectory) -> Observable:
    """Return a function whose failures are clear, after a trial with one structure: simulations may follow."""

    def observable(trajectory: mdtraj.Trajectory) -> Array:
        try:
            values = np.asarray(function(trajectory), dtype=np.float64)
        except Exception as error:
            raise ConfigError(f"--observable: {name} failed ({type(error).__name__}: {error})") from error
        if values.shape != (trajectory.n_frames,) or not np.isfinite(values).all():
            given = f"shape {values.shape}" if values.shape != (trajectory.n_frames,) else "values not finite"
            raise ConfigError(
                f"--observable: {name} returns {given} for {trajectory.n_frames} frames; expected one number a frame"
            )
        return values

    observable(reference)
    return observable


def function_of_file(path: Path, name: str, option: str) -> Callable[[mdtraj.Trajectory], Any]:
    """Run a Python file and return a function of it.

    Parameters
    ----------
    option
        That the file was given for, for messages.

    Raises
    ------
    ConfigError
        If there is no such file or function, or the file fails.
    """
    if not path.is_file():
        raise ConfigError(f"{option}: {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{option}: {path} cannot be run ({type(error).__name__}: {error})") from error
    function: Callable[[mdtraj.Trajectory], Any] | None = getattr(module, name, None)
    if function is None or not callable(function):
        raise ConfigError(f"{option}: {path} has no function {name!r}")
    return function


def check_observable(name: str, reference: mdtraj.Trajectory, n_states: int) -> None:
    """Raise `ConfigError` if a name stands for nothing, or for a state that the model does not have."""
    structure_observable(name, reference)
    kind, _, rest = name.partition(":")
    if kind not in _OF_STATES:
        return
    states = rest.split(":")
    if len(states) != _OF_STATES[kind] or not all(s.isdigit() and int(s) < n_states for s in states):
        words = "a state" if _OF_STATES[kind] == 1 else "two states"
        raise ConfigError(f"--observable: {name}: expected {words} from 0 to {n_states - 1}")


@dataclass(frozen=True)
class Curve:
    """One observable against temperature.

    Attributes
    ----------
    name, unit
        What it is.
    table
        One row for each temperature: temperature, value, error, method, reliability, effective samples.
    replicates
        Values in the same bootstrap samples at every temperature, shape (n_temperatures, n_samples); None where
        one of them is the flow's.
    warnings
        Where the frames say nothing of it.
    """

    name: str
    unit: str
    table: pd.DataFrame
    replicates: Array | None
    warnings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name for people: of a function in a file, the function's.

        Examples
        --------
        >>> Curve("rg", "nm", pd.DataFrame(), None).title
        'radius of gyration, mass-weighted'
        >>> Curve("/some/where/observables.py:folded", "", pd.DataFrame(), None).title
        'folded'
        >>> Curve("heat_capacity", "k_B", pd.DataFrame(), None).title
        'heat capacity'
        """
        if self.name in _TITLES:
            return _TITLES[self.name]
        return (self.name.partition(".py:")[2] or self.name).replace("_", " ")

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
        replicates = [] if self.replicates is None else [find(column) for column in self.replicates.T]
        crossings = np.array([crossing for crossing in replicates if crossing is not None], dtype=np.float64)
        return Estimate(value, float(crossings.std(ddof=1)) if len(crossings) > 1 else float("nan"))


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
        A key of `UNITS`, ``population:STATE``, ``free_energy:STATE:STATE``, or ``FILE.py:FUNCTION``: a function of
        an MDTraj trajectory that returns one number for each frame.
    topology
        Of one copy of the system.
    reference
        Structure for the RMSD and the native contacts.
    """
    check_observable(name, reference, ensembles[0].n_states)
    function = structure_observable(name, reference)
    known: dict[int, Array] = {}
    rows, spreads, warnings = [], [], []
    for ensemble in ensembles:
        if function is not None and id(ensemble.pool) not in known:
            known[id(ensemble.pool)] = ensemble.observe(function, topology)
        measured = _measure(name, ensemble, known.get(id(ensemble.pool)))
        spread = ensemble.replicates.of(measured.statistic)
        spreads.append(np.nan_to_num(spread, posinf=_NOTHING, neginf=-_NOTHING))  # a state without weight
        reliability = ensemble.reliability
        if not measured.seen:
            reliability = "poor"
            warnings.append(
                f"{name} at {ensemble.temperature:g}: fewer than {MIN_SEEN_SAMPLES:g} effective samples are on one "
                "side of it: its value is a limit, not an estimate"
            )
        rows.append(
            (
                ensemble.temperature,
                *_numbers(measured.estimate),
                ensemble.method,
                reliability,
                ensemble.n_effective,
            )
        )
    columns = ["temperature", "value", "error", "method", "reliability", "effective_samples"]
    same = all(ensemble.method != "flow" for ensemble in ensembles)
    kind = name.partition(":")[0]
    unit = UNITS.get(name, _UNITS_OF_STATES.get(kind, ""))
    return Curve(
        name, unit, pd.DataFrame(rows, columns=columns), np.array(spreads) if same else None, tuple(warnings)
    )


@dataclass(frozen=True)
class _Measured:
    """An observable in one ensemble: as a statistic, estimated, and whether there is enough to say it."""

    statistic: Statistic
    estimate: Estimate
    seen: bool = True


def _measure(name: str, ensemble: StructureEnsemble, values: Array | None) -> _Measured:
    kind, *states = name.split(":")
    if values is None and kind in _OF_STATES:
        masks = [ensemble.pool.states == int(state) for state in states]
        if kind == "population":
            return _share(ensemble, masks[0])
        difference = ensemble.free_energy_difference(*masks)
        seen = all(ensemble.n_effective_in(mask) >= MIN_SEEN_SAMPLES for mask in masks)

        return _Measured(ensemble.free_energy_statistic(*masks), difference, seen)
    if name == "heat_capacity":
        u = ensemble.energies() / ensemble.kT
        return _Measured(Statistic.variance(u), ensemble.heat_capacity())
    x = ensemble.energies() if values is None else values
    if ((x == 0) | (x == 1)).all():
        return _share(ensemble, x == 1)
    return _Measured(Statistic.mean(x), ensemble.expectation(x))


def _share(ensemble: StructureEnsemble, chosen: Mask) -> _Measured:
    return _Measured(Statistic.mean(chosen), ensemble.fraction(chosen), ensemble.seen(chosen))


def _numbers(estimate: Estimate) -> tuple[float, float]:
    return estimate.value, estimate.error
