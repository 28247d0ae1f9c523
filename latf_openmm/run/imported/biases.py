"""Biases that the user declares: a Python function of structures, or harmonic restraints of columns of the table."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field

from latf_openmm.ensembles.observables import function_of_file
from latf_openmm.errors import ConfigError, DataError, first_line
from latf_openmm.frames.walkers import read_trajectory
from latf_openmm.periodic import nearest_difference
from latf_openmm.run.imported.frames import ImportedFrames
from latf_openmm.run.imported.static_bias import hidden_period
from latf_openmm.settings import Settings, validate

Array = NDArray[np.float64]
Declared = Callable[[ImportedFrames], Array]


class Restraint(Settings):
    """A harmonic restraint of a column of the table, force_constant / 2 (x - center)^2."""

    center: float = Field(description="in the units of the column")
    force_constant: float = Field(ge=0, description="[kJ/mol], over the square of the column's units")
    period: float | None = Field(
        None, gt=0, description="of the column; none: that of the table, or it has none"
    )


def declared_bias(source: str, trajectory: int) -> Declared:
    """Return the function that gives a run's bias at the frames of any trajectory.

    Parameters
    ----------
    source
        ``FILE.py:FUNCTION`` or a YAML file: a list with the restraints of each --trajectory, in order.
    trajectory
        Number of the trajectory it was given for.

    Raises
    ------
    ConfigError
        If there is no such file or function, or what it declares is not understood.
    """
    path = source.rpartition(":")[0]
    if path.endswith(".py"):
        return _ByFunction(source, trajectory)
    if not Path(source).is_file():
        raise ConfigError(
            f"--bias: {source}: no such file; expected FILE.py:FUNCTION or a YAML file of restraints"
        )
    restraints = _restraints(Path(source), trajectory)

    def bias(frames: ImportedFrames) -> Array:
        total = np.zeros(frames.n_frames)
        for column, restraint in restraints.items():
            total += _harmonic(frames, column, restraint, source)
        return total

    return bias


def _harmonic(frames: ImportedFrames, column: str, restraint: Restraint, source: str) -> Array:
    values = frames.columns.others.get(column)
    if values is None:
        raise DataError(
            f"--bias: {source}: the tables of {frames.source.name} have no column {column!r} that changes; they have "
            f"{', '.join(sorted(frames.columns.others)) or 'no others'}"
        )
    off = values - restraint.center
    period = restraint.period or frames.columns.periods.get(column)
    if not period and hidden_period(column, values, {}):
        raise DataError(
            f"--bias: {source}: {column} of {frames.source.name} looks like an angle all around ({values.min():.4g} to "
            f"{values.max():.4g}); expected its period, such as period: {2 * np.pi:.6f}"
        )
    return np.asarray(0.5 * restraint.force_constant * nearest_difference(off, period or 0.0) ** 2)


def _restraints(path: Path, trajectory: int) -> dict[str, Restraint]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--bias: {path} cannot be read ({first_line(error)})") from error
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise ConfigError(
            f"--bias: {path}: expected a list with an entry for each --trajectory, such as "
            "- {phi: {center: -1.0, force_constant: 200.0, period: 6.283185}}"
        )
    if trajectory >= len(data):
        raise ConfigError(f"--bias: {path}: {len(data)} entries; expected one for each --trajectory")
    where = f"--bias: {path}: entry {trajectory}"
    return {
        str(name): validate(Restraint, entry, f"{where}: {name}") for name, entry in data[trajectory].items()
    }


class _ByFunction:
    """A function of MDTraj trajectories: energies (n_frames,), or (n_frames, n_trajectories) of all runs at once."""

    def __init__(self, source: str, trajectory: int) -> None:
        self.source, self.trajectory = source, trajectory
        path, _, name = source.rpartition(":")
        self.function = _load(path, name)

    def __call__(self, frames: ImportedFrames) -> Array:
        parts = []
        for file in frames.files:
            for piece in read_trajectory(file.path, file.samples[0].topology):
                parts.append(self._evaluate(piece))
        return np.concatenate(parts)[frames.timeline.kept]

    def _evaluate(self, piece: mdtraj.Trajectory) -> Array:
        try:
            values = np.asarray(self.function(piece), dtype=np.float64)
        except Exception as error:
            raise ConfigError(f"--bias: {self.source} failed ({type(error).__name__}: {error})") from error
        if values.ndim == 2 and values.shape[0] == piece.n_frames and values.shape[1] > self.trajectory:
            values = values[:, self.trajectory]
        if values.shape != (piece.n_frames,) or not np.isfinite(values).all():
            raise ConfigError(
                f"--bias: {self.source} returns shape {values.shape} for {piece.n_frames} frames; "
                f"expected one finite "
                "energy a frame [kJ/mol], or a column for each --trajectory"
            )
        return values


@lru_cache
def _load(path: str, name: str) -> Callable[[mdtraj.Trajectory], Any]:
    """Run a file once for all trajectories."""
    return function_of_file(Path(path), name, "--bias")
