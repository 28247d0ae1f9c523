"""Replica exchange by openmmtools: its NetCDF file, as trajectories and tables that can be imported.

Each iteration of `openmmtools.multistate` mixes the replicas, simulates and writes: positions and energies of an
iteration are of the states that the replicas have in it. Iteration 0 is where the replicas start, before any dynamics.
Positions of all atoms are in the file itself (`analysis_particle_indices`), or in its checkpoint file.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from mdtraj.formats import DCDTrajectoryFile
from mdtraj.utils import box_vectors_to_lengths_and_angles
from numpy.typing import NDArray
from openmm import unit

from latf_openmm.errors import ConfigError, DataError, first_line
from latf_openmm.run.imported.samplers import energies_of_replicas
from latf_openmm.storage import atomic_folder, check_output
from latf_openmm.units import KELVIN

Array = NDArray[np.float64]
_NM_IN_ANGSTROM = 10.0
"""A nanometre, in the unit of DCD files."""


@dataclass(frozen=True)
class _States:
    """States: temperatures, shape (n_states,) [K], and pressure, zero at constant volume [kJ/mol/nm^3]."""

    temperatures: Array
    pressure: float


def openmmtools_replicas(file: Path, output: Path) -> list[tuple[Path, Path]]:
    """Write a trajectory and a table for each replica of openmmtools' `ReplicaExchangeSampler`.

    Parameters
    ----------
    file
        The NetCDF file of its MultiStateReporter; states differ in temperature alone.
    output
        Folder for ``replica_0.dcd``, ``replica_0.csv`` and so on; must not exist.

    Returns
    -------
    list of tuple
        Trajectory and table of each replica. The table has temperature [K], potential_energy [kJ/mol] and, at constant
        pressure, volume [nm^3].

    Raises
    ------
    ConfigError
        If netCDF4 is not installed, or the folder is there.
    DataError
        If the file is not one of openmmtools, or has no positions, or states of several potentials or pressures.
    """
    check_output(output, folder=True, new="files are never overwritten")
    checkpoint = file.with_name(f"{file.stem}_checkpoint{file.suffix}")
    with ExitStack() as files:
        data = files.enter_context(_opened(file))
        other = files.enter_context(_opened(checkpoint)) if checkpoint.is_file() else None
        states = _states(file, data)
        iterations, source = _positions(file, data, checkpoint, other)
        visited = np.asarray(data["states"][:], dtype=np.int64)[iterations]
        reduced = np.asarray(data["energies"][:], dtype=np.float64)[iterations]
        energies = energies_of_replicas(file, reduced, visited, states.temperatures.tolist(), KELVIN)
        folder = files.enter_context(atomic_folder(output))
        for replica in range(visited.shape[1]):
            volumes = _write(folder / f"replica_{replica}.dcd", source, replica)
            columns = {
                "temperature": states.temperatures[visited[:, replica]],
                "potential_energy": energies[:, replica] - states.pressure * volumes,
            }
            if states.pressure:
                columns["volume"] = volumes
            pd.DataFrame(columns).to_csv(folder / f"replica_{replica}.csv", index=False)
    names = [f"replica_{replica}" for replica in range(visited.shape[1])]
    return [(output / f"{name}.dcd", output / f"{name}.csv") for name in names]


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The opened file."""
    try:
        import netCDF4
    except ImportError as error:
        raise ConfigError(
            'netCDF4 is not installed: expected pip install "latf-openmm[openmmtools]"'
        ) from error
    if not file.is_file():
        raise DataError(f"{file}: missing; expected the NetCDF file of openmmtools' MultiStateReporter")
    try:
        data = netCDF4.Dataset(file)
    except OSError as error:
        raise DataError(f"{file}: not a NetCDF file ({error.strerror or error})") from None
    try:
        yield data
    finally:
        data.close()


class _Loader(yaml.SafeLoader):
    """Reads openmmtools' states: a quantity is a mapping of its value and unit."""


def _quantity(loader: Any, node: Any) -> dict[str, Any]:
    """A quantity as a mapping."""
    return dict(loader.construct_mapping(node))


_Loader.add_constructor("!Quantity", _quantity)


def _states(file: Path, data: Any) -> _States:
    """Temperatures and pressure of the states; nothing else of them is read."""
    missing = {"states", "energies", "last_iteration"} - set(data.variables)
    missing |= {"thermodynamic_states"} - set(data.groups)
    if missing:
        raise DataError(
            f"{file}: no {', '.join(sorted(missing))}; expected the file of openmmtools' MultiStateReporter"
        )
    temperatures, pressures = [], []
    for number in range(len(data.dimensions["state"])):
        try:
            stored = data["thermodynamic_states"][f"state{number}"][:]
            text = stored.tobytes().decode().rstrip("\0") if stored.dtype.kind == "S" else str(stored[0])
            state = yaml.load(text, _Loader)
            temperatures.append(_value(state["temperature"], unit.kelvin))
            pressures.append(0.0 if state["pressure"] is None else _value(state["pressure"], unit.bar))
        except (KeyError, IndexError, AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
            raise DataError(
                f"{file}: state {number} cannot be read ({type(error).__name__}: {first_line(error)}); expected a "
                "ThermodynamicState with its temperature and pressure"
            ) from None
    if len(set(pressures)) > 1:
        listed = ", ".join(f"{p:g}" for p in sorted(set(pressures)))
        raise DataError(f"{file}: states at pressures of {listed} bar; expected the same")
    to_energy = (1.0 * unit.bar * unit.nanometer**3 * unit.AVOGADRO_CONSTANT_NA).value_in_unit(
        unit.kilojoule_per_mole
    )
    return _States(np.array(temperatures), to_energy * pressures[0])


def _value(quantity: dict[str, Any], wanted: Any) -> float:
    """A quantity in the unit wanted."""
    return float((float(quantity["value"]) * getattr(unit, quantity["unit"])).value_in_unit(wanted))


@dataclass(frozen=True)
class _Positions:
    """Positions [nm] and boxes [nm] of a file, and the rows of them that count."""

    positions: Any
    boxes: Any
    rows: NDArray[np.int64]


def _positions(
    file: Path, data: Any, checkpoint: Path, other: Any | None
) -> tuple[NDArray[np.int64], _Positions]:
    """Iterations after the start whose positions are known, and these; `other` is the checkpoint file."""
    last, stored = int(data["last_iteration"][0]), len(data.dimensions["analysis_particles"])
    every = int(getattr(data, "PositionInterval", 1))
    if stored and every and (other is None or len(other.dimensions["atom"]) == stored):
        iterations = np.arange(every, last + 1, every)
        positions = _Positions(data["positions"], data["box_vectors"], iterations)
    elif other is None:
        raise DataError(
            f"{file}: no positions, and {checkpoint.name} is not beside it; expected analysis_particle_indices of all "
            "atoms, or the checkpoint file"
        )
    else:
        rows = np.arange(1, last // int(data.CheckpointInterval) + 1)
        iterations = int(data.CheckpointInterval) * rows
        positions = _Positions(other["positions"], other["box_vectors"], rows)
    if len(iterations) == 0:
        raise DataError(f"{file}: no positions in {last} iterations; expected some after iteration 0")
    return iterations, positions


def _write(path: Path, source: _Positions, replica: int) -> Array:
    """Write the trajectory of one replica; return the volumes of its boxes, shape (n_frames,) [nm^3]."""
    xyz = np.asarray(source.positions[source.rows, replica], dtype=np.float32)
    boxes = np.asarray(source.boxes[source.rows, replica], dtype=np.float64)
    sizes = box_vectors_to_lengths_and_angles(*np.moveaxis(boxes, 1, 0))
    lengths, angles = np.column_stack(sizes[:3]), np.column_stack(sizes[3:])
    with DCDTrajectoryFile(str(path), "w") as file:
        file.write(_NM_IN_ANGSTROM * xyz, _NM_IN_ANGSTROM * lengths, angles)
    return np.asarray(np.abs(np.linalg.det(boxes)))
