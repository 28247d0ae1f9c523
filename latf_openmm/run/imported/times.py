"""The times of a trajectory's frames: against the configuration, and frames that are there twice."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.run.imported.tables import Table
from latf_openmm.run.imported.trajectories import ReadFile, dcd_header
from latf_openmm.sampling.stage import SimulationSettings

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

_RELATIVE = 0.01
"""Difference of frame intervals that is tolerated, as a share."""
_COARSE = 0.25
"""Rounding of times, as a share of the frame interval, from which on frames are counted."""


@dataclass(frozen=True)
class Timeline:
    """Frames of all files, one after the other, that are kept.

    Attributes
    ----------
    kept
        Numbers of the frames, ascending, shape (n_kept,).
    times
        Of the frames kept [ps], shape (n_kept,); None where the files have none.
    step
        Integration steps from the first frame on, as a walker's table has them, shape (n_kept,).
    stretch
        A number that changes where a frame does not follow on the one before it, shape (n_kept,).
    ignored
        Whether times in the files are wrong, as the user says.
    """

    kept: NDArray[np.int64]
    times: Array | None
    step: NDArray[np.int64]
    stretch: NDArray[np.int64]
    ignored: bool = False

    def only(self, present: NDArray[np.bool_]) -> "Timeline":
        """Return the timeline of some of the frames, which follow on each other as before."""
        times = None if self.times is None else self.times[present]
        return Timeline(self.kept[present], times, self.step[present], self.stretch[present], self.ignored)


def in_order(files: Sequence[ReadFile]) -> list[ReadFile]:
    """Return files in the order of their times; as given where they have none."""
    starts = [None if file.times is None else float(file.times[0]) for file in files]
    if None in starts:
        return list(files)
    for file, start in zip(files, starts, strict=True):
        if starts.count(start) > 1:
            raise DataError(
                f"{file.path}: begins at {start:g} ps, as another file of the same trajectory does; "
                f"expected files that "
                "continue each other, or a --trajectory for each (--ignore-times: in the order given)"
            )
    return sorted(files, key=lambda file: float(file.times[0]) if file.times is not None else 0.0)


def row_times(table: Table, timestep: float) -> Array | None:
    """Times of the rows of a table [ps]; None where it has none. The time step [ps] turns steps into times."""
    if "time" in table.columns:
        return table.columns["time"]
    step = table.columns.get("step")
    if step is None or not np.isfinite(step).all() or (np.diff(np.unique(step)) <= 1).any():
        return None  # numbers of rows, not of integration steps
    return step * timestep


def times_of_frames(tables: Sequence[Table], n_frames: int, simulation: SimulationSettings) -> Array | None:
    """Times that frames of files without times have by a table with a row for each, where these fall or have gaps.

    Times fall to one that was there before, as after a restart. None where no table has such times, or its rows are
    not a frame interval apart.
    """
    spacing = simulation.timestep * simulation.frame_interval
    for table in tables:
        times = row_times(table, simulation.timestep)
        if table.n_rows != n_frames or times is None or not np.isfinite(times).all():
            continue
        between = np.diff(times)
        falls = np.flatnonzero(between <= 0) + 1
        again = all(np.abs(times[:row] - times[row]).min() <= _RELATIVE * spacing for row in falls)
        usual = abs(float(np.median(between)) - spacing) <= _RELATIVE * spacing
        if usual and again and (len(falls) or (between > 1.5 * spacing).any()):
            return times
    return None


def timeline(
    name: str,
    files: Sequence[ReadFile],
    simulation: SimulationSettings,
    ignore: bool = False,
    rows: Array | None = None,
) -> Timeline:
    """Return which frames are kept, and their steps.

    Where times fall, because a simulation was continued from before its last frames, the later frames count. A gap is
    a break that no pair of frames crosses.

    Parameters
    ----------
    rows
        Times of all frames by a table [ps], shape (n_frames,), which count where the files have none, or have but the
        header of a DCD file; or None.

    Raises
    ------
    DataError
        If times contradict the configuration, begin again, or are irregular.
    """
    n = sum(file.n_frames for file in files)
    spacing = simulation.timestep * simulation.frame_interval
    times = None
    if all(file.times is not None for file in files) and not ignore:
        times = np.concatenate([file.times for file in files if file.times is not None])
    if rows is not None and not ignore and (times is None or all(_has_header(file) for file in files)):
        times = rows
    if times is None:
        _warn_of_headers(files, spacing, ignore)
        every = np.arange(n)
        return Timeline(every, None, (every + 1) * simulation.frame_interval, np.zeros(n, np.int64), ignore)
    rounding = float(np.spacing(np.float32(np.abs(times).max())))
    tolerance = _RELATIVE * spacing + rounding
    if rounding > _COARSE * spacing:
        kept, intervals = np.arange(n), _coarse_intervals(name, times, spacing, tolerance, simulation)
        times = times[0] + spacing * np.concatenate([[0], np.cumsum(intervals)])
    else:
        kept = _latest(name, times, tolerance)
        intervals = _intervals(name, times[kept], spacing, tolerance, simulation)
    step = (1 + np.concatenate([[0], np.cumsum(intervals)])) * simulation.frame_interval
    stretch = np.concatenate([[0], np.cumsum(intervals != 1)])
    if stretch[-1]:
        log.warning(
            "%s: %d gaps between frames, the first after %s ps; pairs of frames do not cross them",
            name,
            stretch[-1],
            np.float32(times[kept][int(np.flatnonzero(intervals != 1)[0])]),
        )
    return Timeline(kept, times[kept], step.astype(np.int64), stretch.astype(np.int64))


def _has_header(file: ReadFile) -> bool:
    """Return whether the times of a file are those of a DCD file's header: of its first frames, then counted."""
    return file.path.suffix.lower() == ".dcd"


def _warn_of_headers(files: Sequence[ReadFile], spacing: float, ignore: bool) -> None:
    for file in files:
        header = dcd_header(file.path) if _has_header(file) and not ignore else None
        if header is not None and abs(header.spacing - spacing) > _RELATIVE * spacing:
            log.warning(
                "%s: its header says %.4g ps between frames, simulation.timestep * frame_interval is %.4g ps; "
                "headers of DCD files are often wrong, so the configuration counts",
                file.path,
                header.spacing,
                spacing,
            )


def _latest(name: str, times: Array, tolerance: float) -> NDArray[np.int64]:
    """Frames that no later frame replaces."""
    later = np.append(np.minimum.accumulate(times[::-1])[::-1][1:], np.inf)
    kept = np.flatnonzero(times < later - tolerance)
    if len(kept) == len(times):
        return kept
    fall = int(np.flatnonzero(np.diff(times) <= tolerance)[0]) + 1
    if later[0] <= times[0] + tolerance:
        raise DataError(
            f"{name}: times begin again at frame {fall} ({np.float32(times[fall])} ps after "
            f"{np.float32(times[fall - 1])} ps); expected one "
            "trajectory with rising times: give each its own --trajectory (--ignore-times: its times are wrong)"
        )
    log.warning(
        "%s: times fall at frame %d, from %s to %s ps, as after a restart: %d frames that "
        "later ones replace are left "
        "out",
        name,
        fall,
        np.float32(times[fall - 1]),
        np.float32(times[fall]),
        len(times) - len(kept),
    )
    return kept


def _intervals(
    name: str, times: Array, spacing: float, tolerance: float, simulation: SimulationSettings
) -> NDArray[np.int64]:
    """Frame intervals between frames; 1 but at gaps."""
    between = np.diff(times)
    if not len(between):
        return np.zeros(0, np.int64)
    _check_usual(name, float(np.median(between)), spacing, tolerance, simulation)
    intervals = np.round(between / spacing).astype(np.int64)
    wrong = np.flatnonzero((np.abs(between - intervals * spacing) > tolerance) | (intervals < 1))
    if len(wrong):
        frame = int(wrong[0])
        raise DataError(
            f"{name}: {between[frame]:.4g} ps between frames {frame} and {frame + 1}; expected "
            f"{spacing:.4g} ps, or a "
            "gap of several such"
        )
    return intervals


def _coarse_intervals(
    name: str, times: Array, spacing: float, tolerance: float, simulation: SimulationSettings
) -> NDArray[np.int64]:
    """Frame intervals between frames whose times are hardly told apart in single precision; 1 but at gaps."""
    between = np.diff(times)
    fall = np.flatnonzero(between < -tolerance)
    if len(fall):
        raise DataError(
            f"{name}: times fall at frame {fall[0] + 1}, from {np.float32(times[fall[0]])} to "
            f"{np.float32(times[fall[0] + 1])} ps, and are too coarse in single precision to say which "
            "frames were replaced; expected rising times "
            "(--ignore-times: the file's times are wrong)"
        )
    usual = np.abs(between - np.median(between)) <= 2 * tolerance
    n = max(1, int(usual.sum()))
    mean = float(between[usual].mean())
    _check_usual(name, mean, spacing, _RELATIVE * spacing + tolerance / n, simulation)
    return np.where(np.abs(between - spacing) <= 2 * tolerance, 1, np.round(between / spacing)).astype(
        np.int64
    )


def _check_usual(
    name: str, usual: float, spacing: float, tolerance: float, simulation: SimulationSettings
) -> None:
    """Raise `DataError` where frames are not one frame interval of the configuration apart."""
    if abs(usual - spacing) > tolerance:
        steps = usual / simulation.timestep
        raise DataError(
            f"{name}: its frames are {usual:.4g} ps apart, simulation.timestep * frame_interval is "
            f"{spacing:.4g} ps; set "
            f"simulation.frame_interval: {max(1, round(steps))} with timestep "
            f"{simulation.timestep:g}, or the time step "
            "that was used (--ignore-times: the file's times are wrong)"
        )
