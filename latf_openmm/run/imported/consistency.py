"""Whether trajectories that are imported fit each other."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latf_openmm.errors import ConfigError, DataError
from latf_openmm.run.imported.frames import ImportedFrames
from latf_openmm.run.imported.trajectories import ImportedTrajectory

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

_BLOCKS = 10
"""Blocks for the error of a mean energy."""
_CERTAIN = 3.0
"""Standard errors from which a fall of the mean energy is certain."""
_FAR = 0.05
"""Relative difference from which an imported temperature is not one of the configuration's."""
_SAME_VOLUME = 1e-3
"""Relative difference of constant volumes up to which they are one."""
_PARTS = 16
"""Pieces of a file that are hashed."""
_PART = 65_536
"""Length of a piece [bytes]."""


def check_distinct(trajectories: Sequence[ImportedTrajectory]) -> None:
    """Raise `ConfigError` where one file is given twice, also by a link or as a copy."""
    known: dict[tuple[int, bytes], Path] = {}
    sizes: dict[int, list[Path]] = {}
    for path in (path for trajectory in trajectories for path in trajectory.files):
        sizes.setdefault(path.stat().st_size, []).append(path)
    for size, paths in sizes.items():
        for path in paths if len(paths) > 1 else []:
            before = known.setdefault((size, _sampled(path, size)), path)
            if before is not path:
                same = "is" if path.samefile(before) else "has the content of"
                raise ConfigError(
                    f"--trajectory: {path} {same} {before}, which is given before it; its frames "
                    "would count twice: give it once"
                )


def _sampled(path: Path, size: int) -> bytes:
    """Hash of parts from all over a file."""
    with path.open("rb") as file:
        parts = []
        for start in np.linspace(0, max(0, size - _PART), _PARTS).astype(int):
            file.seek(int(start))
            parts.append(file.read(_PART))
    return hashlib.blake2b(b"".join(parts)).digest()


def check_same_volume(frames: Sequence[ImportedFrames]) -> None:
    """Raise `DataError` where trajectories have constant boxes of different volumes, as if each were its own system.

    The energy of a liquid changes with its density about as much as with temperature, which weights would take it for.
    """
    volumes = [(trajectory.volume, trajectory.source.name) for trajectory in frames if trajectory.volume]
    if not volumes:
        return
    (low, first), (high, second) = min(volumes), max(volumes)
    if high > (1.0 + _SAME_VOLUME) * low:
        raise DataError(
            f"{first} has boxes of {low:.5g} nm^3 and {second} of {high:.5g} nm^3: frames at different constant "
            "volumes are not of one ensemble, so that energies do not weight them for another temperature; expected "
            "one volume, or frames that were simulated at constant pressure"
        )


def check_mean_energies(frames: Sequence[ImportedFrames], kT: Callable[[float], float]) -> None:
    """Raise `DataError` where energies fall with temperature, as if temperatures were exchanged; warn if they may.

    At equilibrium the mean rises by about the variance of the energy times the difference of 1/kT. Biased
    trajectories are not looked at.
    """
    energies: dict[float, list[Array]] = {}
    names: dict[float, str] = {}
    for trajectory in frames:
        if trajectory.biased or np.ptp(trajectory.energy) == 0:
            continue
        enthalpy = trajectory.energy + (
            0.0 if trajectory.pressure_volume is None else trajectory.pressure_volume
        )
        for temperature in trajectory.temperatures():
            energies.setdefault(temperature, []).append(enthalpy[trajectory.temperature == temperature])
            names.setdefault(temperature, trajectory.source.name)
    temperatures = sorted(energies)
    for low, high in pairwise(temperatures):
        cold, hot = np.concatenate(energies[low]), np.concatenate(energies[high])
        rise, error = float(hot.mean() - cold.mean()), float(np.hypot(_error(cold), _error(hot)))
        variance = min(float(cold.var()), float(hot.var()))
        expected = variance * (1.0 / kT(low) - 1.0 / kT(high))
        if rise >= 0 or expected < 2 * error:
            continue
        text = (
            f"{names[low]} at {low:g} and {names[high]} at {high:g}: the mean energy falls by {-rise:.3g} ± "
            f"{error:.2g} kJ/mol where it should rise by about {expected:.2g} kJ/mol"
        )
        if rise < -max(_CERTAIN * error, 0.5 * expected):
            raise DataError(f"{text}; are their temperatures exchanged?")
        log.warning("%s; temperatures may be exchanged, or a simulation is not at equilibrium", text)


def warn_of_other_temperatures(imported: Sequence[float], simulated: Sequence[float]) -> None:
    """Warn of imported temperatures that are far from all that the configuration simulates, in the same scale."""
    far = [t for t in imported if min(abs(t - known) / known for known in simulated) > _FAR]
    if far:
        log.warning(
            "frames at %s are imported, and no simulation.temperatures (%s) is within %.0f %% of that: later rounds "
            "simulate at those alone; is it meant?",
            ", ".join(f"{t:g}" for t in far),
            ", ".join(f"{t:g}" for t in simulated),
            100 * _FAR,
        )


def _error(values: Array) -> float:
    """Standard error of the mean, by blocks."""
    means = [part.mean() for part in np.array_split(values, _BLOCKS) if len(part)]
    return float(np.std(means, ddof=1)) / float(np.sqrt(len(means))) if len(means) > 1 else np.inf
