"""Logs of OpenMM's ReplicaExchangeReporter, as tables that trajectories are imported with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.storage import atomic_file, check_output, make_folder
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]
_SAME = 1e-5
"""Relative difference of energies of one structure that states of different temperature may have."""


def replica_exchange_tables(
    folder: Path, temperatures: Sequence[float], scale: TemperatureScale, output: Path
) -> list[Path]:
    """Write a table for each replica of `openmm.app.ReplicaExchangeReporter`: temperature and energy of each frame.

    Its log says in which state each replica was when a frame was made, its energies are divided by kT.

    Parameters
    ----------
    folder
        Of the reporter, with ``log.csv`` and ``energy.csv`` and perhaps ``volume.csv``.
    temperatures
        Of its states, in their order.
    scale
        Of temperatures.
    output
        Folder for ``replica_0.csv`` and so on; must not exist.

    Returns
    -------
    list of Path
        The tables, to be used with the trajectories ``replica_0.*`` and so on.

    Raises
    ------
    ConfigError
        If the folder for the tables is there.
    DataError
        If a file is missing or damaged, or the states are not these temperatures of one potential.
    """
    check_output(output, folder=True, new="tables are never overwritten")
    states = _states(folder / "log.csv", len(temperatures))
    energies = _energies(folder / "energy.csv", states, temperatures, scale)
    volumes = _numbers(folder / "volume.csv") if (folder / "volume.csv").is_file() else None
    if volumes is not None and volumes.shape != states.shape:
        raise DataError(
            f"{folder / 'volume.csv'}: {volumes.shape[0]} rows of {volumes.shape[1]} numbers; expected "
            f"{states.shape[0]} of {states.shape[1]}, as in log.csv"
        )
    make_folder(output)
    paths = []
    for replica in range(states.shape[1]):
        columns = {
            "temperature": np.array(temperatures)[states[:, replica]],
            "potential_energy": energies[:, replica],
        }
        if volumes is not None:
            columns["volume"] = volumes[:, replica]
        paths.append(output / f"replica_{replica}.csv")
        with atomic_file(paths[-1]) as temporary:
            pd.DataFrame(columns).to_csv(temporary, index=False)
    return paths


def _states(path: Path, n: int) -> NDArray[np.int64]:
    """State of each replica at each frame, shape (n_frames, n_replicas)."""
    if not path.is_file():
        raise DataError(f"{path}: missing; expected the log of a ReplicaExchangeReporter")
    try:
        table = pd.read_csv(path)
        columns = [f"Replica_{i}_State" for i in range(table.shape[1] - 2)]
        states = table[columns].to_numpy(np.int64)
        if not columns:
            raise KeyError("no columns of replicas")
    except (ValueError, KeyError, OSError) as error:
        raise DataError(
            f"{path}: not the log of a ReplicaExchangeReporter ({error}); expected columns Iteration, Step, "
            "Replica_0_State and so on"
        ) from None
    if states.shape[1] != n:
        raise DataError(f"--temperature: {n} of them; {path} has {states.shape[1]} states")
    if len(states) == 0 or not (np.sort(states, axis=1) == np.arange(n)).all():
        raise DataError(f"{path}: expected rows in which every state has one replica")
    return states


def _numbers(path: Path) -> Array:
    """Numbers of a file without names of columns."""
    if not path.is_file():
        raise DataError(f"{path}: missing; expected what ReplicaExchangeReporter writes with energy=True")
    try:
        return np.atleast_2d(np.loadtxt(path, delimiter=","))
    except ValueError as error:
        raise DataError(f"{path}: not a table of numbers ({error})") from None


def _energies(
    path: Path, states: NDArray[np.int64], temperatures: Sequence[float], scale: TemperatureScale
) -> Array:
    """Potential energy of each replica at each frame, shape (n_frames, n_replicas) [kJ/mol]."""
    n_frames, n = states.shape
    reduced = _numbers(path)
    if reduced.shape != (n_frames, n * n):
        raise DataError(
            f"{path}: {reduced.shape[0]} rows of {reduced.shape[1]} numbers; expected {n_frames} of {n * n}, "
            "as many as log.csv has frames and pairs of a replica and a state"
        )
    return energies_of_replicas(path, reduced.reshape(n_frames, n, n), states, temperatures, scale)


def energies_of_replicas(
    path: Path,
    reduced: Array,
    states: NDArray[np.int64],
    temperatures: Sequence[float],
    scale: TemperatureScale,
) -> Array:
    """Return the energy of each replica at each frame, shape (n_frames, n_replicas) [kJ/mol].

    Parameters
    ----------
    path
        File of the energies.
    reduced
        Energy of each replica in each state over kT, shape (n_frames, n_replicas, n_states).
    states
        State of each replica, shape (n_frames, n_replicas).
    temperatures, scale
        Of the states.

    Raises
    ------
    DataError
        If the energy of a replica is not the same in all states.
    """
    energies = reduced * np.array([scale.kT(t) for t in temperatures])
    energy = np.take_along_axis(energies, states[:, :, None], axis=2)[:, :, 0]
    off = np.abs(energies - energy[:, :, None]).max(axis=(0, 1))
    if not (off <= _SAME * np.abs(energy).max()).all():
        state = int(off.argmax())
        raise DataError(
            f"{path}: energies in state {state} times kT at {scale.label(temperatures[state])} differ from those in "
            f"the state of the replica by up to {off[state]:.3g} kJ/mol; expected the temperatures of the states in "
            "their order, and one potential for all"
        )
    return np.asarray(energy)
