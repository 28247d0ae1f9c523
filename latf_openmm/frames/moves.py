"""How walkers of a stage moved among its temperatures."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.frames.walkers import WalkerFrames, read_table

Array = NDArray[np.float64]
MOVES = "moves.parquet"
"""File of a segment with the attempted moves."""
COLUMNS = ["frame", "walker", "before", "after", "probability", "accepted"]
"""Its columns."""
_PAIRS = 4000
"""Pairs of frames that an acceptance is estimated from, at most."""


def read_moves(stage: Path) -> pd.DataFrame:
    """Return the attempted moves of all segments of a stage; a table without rows where there are none.

    Raises
    ------
    DataError
        If a file is damaged.
    """
    tables = [read_table(path) for path in sorted(stage.glob(f"T*/segment_*/{MOVES}"))]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)


def temperature_paths(walkers: Sequence[WalkerFrames]) -> dict[int, Array]:
    """Return the temperature of each walker, by its number, at each of its frames, shape (n_frames,).

    Parameters
    ----------
    walkers
        Of one stage; empty where none of them moved.
    """
    tables = [w.table[["replica", "frame", "temperature"]] for w in walkers if "replica" in w.table]
    if not tables:
        return {}
    rows = pd.concat(tables).sort_values(["replica", "frame"])
    numbers, temperatures = rows["replica"].to_numpy(), rows["temperature"].to_numpy()
    return {int(number): temperatures[numbers == number] for number in np.unique(numbers)}


def paths_of_stages(trajectories: Sequence[FeatureTrajectory]) -> dict[str, dict[int, Array]]:
    """Return the temperatures of each walker in the order of its frames, by simulation and number of the walker.

    Of simulations whose walkers move; shape (n_frames,).
    """
    parts: dict[str, list[Array]] = {}
    for trajectory in trajectories:
        if (paths := trajectory.paths) is not None:
            rows = np.column_stack(
                [paths.walkers, paths.frames, np.full(len(paths.walkers), trajectory.temperature)]
            )
            parts.setdefault(paths.stage, []).append(rows)
    stages = {}
    for stage, every in parts.items():
        rows = np.concatenate(every)
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        stages[stage] = {int(number): rows[rows[:, 0] == number, 2] for number in np.unique(rows[:, 0])}
    return stages


def round_trips(paths: Mapping[int, Array], temperatures: Sequence[float]) -> int:
    """Count the ways from the lowest to the highest temperature and back, of all walkers."""
    ends = [min(temperatures), max(temperatures)]
    trips = 0
    for path in paths.values():
        visited = path[np.isin(path, ends)]
        trips += int((visited[1:] != visited[:-1]).sum()) // 2
    return trips


def exchange_acceptances(moves: pd.DataFrame, temperatures: Sequence[float]) -> list[float | None]:
    """Mean probability of the attempted exchanges between neighbouring temperatures; None where there were none.

    Parameters
    ----------
    temperatures
        Ascending.
    """
    means: list[float | None] = []
    for low, high in pairwise(temperatures):
        pair = moves["before"].isin([low, high]) & moves["after"].isin([low, high])
        means.append(float(moves.loc[pair, "probability"].mean()) if pair.any() else None)
    return means


def energy_acceptances(walkers: Sequence[WalkerFrames], betas: Mapping[float, float]) -> list[float | None]:
    """Acceptance that exchanges between neighbouring temperatures would have, from energies of frames without bias.

    The mean of min(1, exp((beta_a - beta_b) (U_a - U_b))) over pairs of frames; None where a temperature has none.

    Parameters
    ----------
    walkers
        Of one stage.
    betas
        1 / kT of each temperature [mol/kJ], ascending in temperature.
    """
    rng, energies = np.random.default_rng(0), {}
    for temperature in betas:
        parts = [w.energies() for w in walkers if w.temperature == temperature]
        if parts:
            energies[temperature] = rng.choice(np.concatenate(parts), _PAIRS)
    means: list[float | None] = []
    for low, high in pairwise(betas):
        if low not in energies or high not in energies:
            means.append(None)
            continue
        gain = (betas[low] - betas[high]) * (energies[low] - energies[high])
        means.append(float(np.exp(np.minimum(gain, 0.0)).mean()))
    return means
