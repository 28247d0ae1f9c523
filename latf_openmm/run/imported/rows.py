"""Rows of a table that are those of the frames: by their number, their times, or energies that are known.

Tables often have more rows than there are frames, and their times may be off by a constant, as after an equilibration
that one of two programs counts. Then rows are a frame interval apart from a first one on, and the first one is that
whose energies are the recomputed ones.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.run.imported.tables import Table
from latf_openmm.run.imported.times import Timeline, row_times
from latf_openmm.sampling.stage import SimulationSettings

log = logging.getLogger(__name__)
Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_NEAR = 0.05
"""Difference of times that is tolerated, as a share of the frame interval."""
_LOST = 0.1
"""Share of frames, at the ends, that may be without a row."""
_ENOUGH = 6
"""Recomputed energies that say which rows are the frames'."""
_UNLIKE, _DISTINCT = 0.1, 0.4
"""What is left of the spread of the rows' energies beside recomputed ones: at most, and relative to the median of all
choices of rows."""


@dataclass(frozen=True)
class KnownEnergies:
    """Recomputed energies of a few frames.

    Attributes
    ----------
    frames
        Numbers of them among those kept, shape (n,).
    energies
        Shape (n,) [kJ/mol].
    noise
        Their standard deviation by rounded positions [kJ/mol].
    """

    frames: Indices
    energies: Array
    noise: float


@dataclass(frozen=True)
class FrameRows:
    """Rows of the frames in a table.

    Attributes
    ----------
    order
        Rows of the table in the order of time, without those that later ones replace.
    places
        Of the frames that are kept, in `order`; -1 where the table ends before, or begins after a frame; (n_kept,).
    every
        Rows from a frame to the next; 0 where they are irregular.
    """

    order: Indices
    places: Indices
    every: int

    @property
    def present(self) -> NDArray[np.bool_]:
        """Return which frames have a row, shape (n_kept,)."""
        return self.places >= 0

    def rows(self, present: NDArray[np.bool_]) -> Indices:
        """Rows of some of the frames, shape (present.sum(),)."""
        return self.order[self.places[present]]


class RowFinder:
    """Finds the rows of the frames of one trajectory in its tables.

    Parameters
    ----------
    frames
        Frames that are kept.
    n_frames
        Of all files.
    name
        Of the trajectory, for messages.
    simulation
        Steps between frames, and their length.
    known
        Computes energies of a few frames; None: there is no System to do it with.
    """

    def __init__(
        self,
        frames: Timeline,
        n_frames: int,
        name: str,
        simulation: SimulationSettings,
        known: Callable[[], KnownEnergies] | None,
    ) -> None:
        self.frames, self.n_frames, self.name, self.known = frames, n_frames, name, known
        self.timestep = simulation.timestep
        self.spacing = simulation.timestep * simulation.frame_interval
        self.places = (frames.step - frames.step[0]) // simulation.frame_interval

    def __call__(self, table: Table) -> FrameRows:
        """Return the rows of the frames in a table.

        Raises
        ------
        DataError
            If they are not there, or cannot be told.
        """
        times = self.times(table)
        if table.n_rows == self.n_frames:
            return self._one_each(table, times)
        by_time = None
        if times is not None and not self.frames.ignored:
            by_time = self._by_time(table, times)
        complete = by_time is not None and bool(by_time.present.all())
        if by_time is not None and (self._fits(table, by_time) if self._checked(table) else complete):
            return by_time
        try:
            return self._spaced(table, times)
        except DataError:
            if by_time is None or not complete:
                raise
            return by_time  # what is wrong with its energies is said later

    def times(self, table: Table) -> Array | None:
        """Times of the rows [ps]; None where a table has none."""
        return row_times(table, self.timestep)

    def _checked(self, table: Table) -> bool:
        return self.known is not None and "potential_energy" in table.columns

    def _in_order(self) -> FrameRows:
        return FrameRows(np.arange(self.n_frames), self.frames.kept, 1)

    def _one_each(self, table: Table, times: Array | None) -> FrameRows:
        """Rows of a table that has as many as there are frames: in order, or shifted where energies say so."""
        shifted = self.frames.ignored
        if times is not None and self.frames.times is not None:
            shifted = self._is_shifted(table, times[self.frames.kept], self.frames.times)
        elif times is not None and not self.frames.ignored:
            self._check_spacing(table, times)
        if not (shifted and self._checked(table)):
            return self._in_order()
        place, every = self._by_energies(table, np.arange(table.n_rows), [1])
        if not every or place == self.places[0]:
            return self._in_order()
        rows = FrameRows(np.arange(table.n_rows), self._from(place, 1, table.n_rows), 1)
        return self._told(table, times, rows)

    def _is_shifted(self, table: Table, rows: Array, frames: Array) -> bool:
        """Return whether rows are later or earlier than frames by a constant, which is for energies to check."""
        off = rows - frames
        tolerance = _NEAR * self.spacing + 4 * np.finfo(np.float32).eps * float(np.abs(frames).max())
        wrong = np.flatnonzero(np.abs(off - np.median(off)) > tolerance)
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"--table: {table.path}: row {row} is of {rows[row]:.6g} ps, the frame of {self.name} of "
                f"{frames[row]:.6g} ps; expected a row for each frame, in order"
            )
        shift = float(np.median(off))
        if abs(shift) <= tolerance:
            return False
        if not self._checked(table):
            raise DataError(
                f"--table: {table.path}: its times are {shift:.4g} ps later than those of {self.name}, and it "
                "has no energies that would say whether its rows are the frames' (--ignore-times: they are, in order)"
            )
        log.warning("--table: %s: its times are %.4g ps later than those of %s", table.path, shift, self.name)
        return True

    def _check_spacing(self, table: Table, times: Array) -> None:
        """Raise `DataError` where rows are not as far apart as frames of a file without times are."""
        apart = float(np.median(np.diff(times)))
        rounding = 4 * np.finfo(np.float32).eps * float(np.abs(times).max())
        if abs(apart - self.spacing) > _NEAR * self.spacing + rounding:
            raise DataError(
                f"--table: {table.path}: its rows are {apart:.4g} ps apart, the frames of {self.name} "
                f"{self.spacing:.4g} ps (simulation.timestep * frame_interval); expected a row for each frame, in "
                "order (--ignore-times: its times are wrong)"
            )

    def _by_time(self, table: Table, times: Array) -> FrameRows | None:
        """Rows at the times of the frames; None where more than a few at the ends have none."""
        wanted = self.frames.times
        if wanted is None:
            wanted = np.asarray((self.frames.kept + 1) * self.spacing, np.float64)
        order = _ascending(times)
        if len(order) < 2 or (self.frames.times is None and not self._checked(table)):
            return None
        rows = times[order]
        after = np.clip(np.searchsorted(rows, wanted), 1, len(rows) - 1)
        places = np.where(np.abs(rows[after - 1] - wanted) <= np.abs(rows[after] - wanted), after - 1, after)
        tolerance = _NEAR * self.spacing + 4 * np.finfo(np.float32).eps * np.abs(wanted)
        places = np.where(np.abs(rows[places] - wanted) <= tolerance, places, -1)
        if not _few_at_the_ends(places):
            return None
        return FrameRows(order, places.astype(np.int64), self._ratio(rows) or 0)

    def _ratio(self, times: Array) -> int | None:
        """Rows from a frame to the next, of ascending times; None where that is no whole number."""
        apart = float(np.median(np.diff(times))) if len(times) > 1 else np.inf
        every = round(self.spacing / apart)
        return every if every >= 1 and abs(every * apart - self.spacing) <= _NEAR * self.spacing else None

    def _spaced(self, table: Table, times: Array | None) -> FrameRows:
        """Rows a frame interval apart, from one on that energies tell, or the user by --ignore-times."""
        if table.n_rows < (1.0 - _LOST) * len(self.places):
            raise self._refused(table, times, "there are fewer rows than frames")
        order = np.arange(table.n_rows)
        ratios = self._ratios_by_number(table.n_rows)
        if times is not None and not self.frames.ignored:
            order = _ascending(times)
            ratios = [every] if (every := self._ratio(times[order])) else []
        if self._checked(table):
            place, every = self._by_energies(table, order, ratios)
            if every:
                return self._told(table, times, FrameRows(order, self._from(place, every, len(order)), every))
            reasons = [
                self._reason(times),
                "no choice of rows has the energies of the frames, computed again",
            ]
            raise self._refused(table, times, ", and ".join(filter(None, reasons)))
        if self.frames.ignored:
            return self._by_number(table, times)
        raise self._refused(table, times, self._reason(times))

    def _ratios_by_number(self, n_rows: int) -> list[int]:
        n = self.n_frames
        return sorted({n_rows // n, -(-n_rows // n), (n_rows - 1) // (n - 1)} - {0})

    def _by_number(self, table: Table, times: Array | None) -> FrameRows:
        """Every n-th row, where the numbers of rows and frames say which; for --ignore-times."""
        n, rows = self.n_frames, table.n_rows
        if rows % n == 0:  # programs write the first row and frame after an interval of each
            every, first = rows // n, rows // n - 1
        elif (rows - 1) % (n - 1) == 0:  # both begin with the start
            every, first = (rows - 1) // (n - 1), 0
        elif (rows - 1) % n == 0:  # the table has the start
            every = first = (rows - 1) // n
        else:
            raise self._refused(table, times, "the numbers do not say which rows are the frames'")
        log.warning(
            "--table: %s: %d rows, %s has %d frames: row %d (from 0) and every %d after it are taken, which nothing "
            "checks",
            *(table.path, rows, self.name, n, first, every),
        )
        return FrameRows(np.arange(rows), self._from(first, every, rows), every)

    def _from(self, place: int, every: int, n_rows: int) -> Indices:
        """Places of frames, the first of which is at a place; -1 beyond the ends."""
        places = place + every * self.places
        return np.where((places >= 0) & (places < n_rows), places, -1)

    def _by_energies(self, table: Table, order: Indices, ratios: Sequence[int]) -> tuple[int, int]:
        """Place of the first frame, and rows from a frame to the next, that fit known energies; (0, 0): none do."""
        assert self.known is not None
        known = self.known()
        lost = int(_LOST * len(self.places))
        choices, left = [np.zeros((0, 2), np.int64)], [np.zeros(0)]
        for every in ratios:
            first = np.arange(-lost * every, len(order) - every * (int(self.places[-1]) - lost))
            places = first[:, None] + every * self.places[known.frames]
            inside = (places >= 0) & (places < len(order))
            enough = inside.sum(axis=1) >= _ENOUGH
            rows = order[np.clip(places, 0, len(order) - 1)]
            choices.append(np.stack([first, np.full(len(first), every)], axis=1)[enough])
            left.append(_unlike(table, rows[enough], known.energies, inside[enough]))
        numbers, unlike = np.concatenate(choices), np.concatenate(left)
        if not len(numbers):
            return 0, 0
        best, limit = int(unlike.argmin()), self._limit(known)
        if len(numbers) > 1:
            limit = min(limit, _DISTINCT * float(np.median(unlike)))
        return (int(numbers[best, 0]), int(numbers[best, 1])) if unlike[best] <= limit else (0, 0)

    def _fits(self, table: Table, rows: FrameRows) -> bool:
        """Return whether rows have the energies that are known."""
        assert self.known is not None
        known = self.known()
        places = rows.places[known.frames][None]
        unlike = _unlike(table, rows.order[np.clip(places, 0, None)], known.energies, places >= 0)
        return float(unlike[0]) <= self._limit(known)

    def _limit(self, known: KnownEnergies) -> float:
        spread = max(float(known.energies.std()), 1e-300)
        return min(max(_UNLIKE, 4.0 * known.noise / spread), 0.5)

    def _told(self, table: Table, times: Array | None, rows: FrameRows) -> FrameRows:
        """Say which rows were chosen, and by how much their times are off."""
        first = int(np.flatnonzero(rows.present)[0])
        row, shift = int(rows.order[rows.places[first]]), ""
        if times is not None and self.frames.times is not None:
            shift = f"; its times are {times[row] - self.frames.times[first]:.4g} ps later"
        log.warning(
            "--table: %s: %d rows, %s has %d frames: recomputed energies say that the first frame is row %d (from 0), "
            "and each next one %d further%s",
            *(table.path, table.n_rows, self.name, self.n_frames, row, rows.every, shift),
        )
        return rows

    def _reason(self, times: Array | None) -> str:
        if self.frames.ignored:
            return ""
        if times is None:
            return "a column time or step would say which rows are the frames'"
        wanted = self.frames.times
        if wanted is None:
            return "the frames have no times to find rows by"
        lost = [i for i, time in enumerate(wanted) if np.abs(times - time).min() > _NEAR * self.spacing]
        return f"no row for frame {self.frames.kept[lost[0]]}, at {wanted[lost[0]]:.6g} ps" if lost else ""

    def _refused(self, table: Table, times: Array | None, reason: str) -> DataError:
        of_rows = "" if times is None else f" (of {times.min():.6g} to {times.max():.6g} ps)"
        of_frames = ""
        if self.frames.times is not None:
            of_frames = f" (of {self.frames.times[0]:.6g} to {self.frames.times[-1]:.6g} ps)"
        instead = ""
        if self._checked(table):
            instead = ", or leave out --table: energies are computed from the positions"
        elif not self.frames.ignored:
            instead = " (--ignore-times: times mean nothing, and every n-th row is a frame's)"
        return DataError(
            f"--table: {table.path}: {table.n_rows} rows{of_rows}, {self.name} has {self.n_frames} frames{of_frames}; "
            f"{reason}. Give a row for each frame, or rows at their times{instead}"
        )


def _ascending(times: Array) -> Indices:
    """Rows in the order of time; of several at one time the last, as after a restart."""
    order = np.argsort(times, kind="stable")
    order = order[np.isfinite(times[order])]
    ascending = times[order]
    last = np.append(np.diff(ascending) > 0, True)
    return np.asarray(order[last], dtype=np.int64)


def _few_at_the_ends(places: Indices) -> bool:
    """Return whether all frames have a row but for a few first and last ones."""
    present = np.flatnonzero(places >= 0)
    contiguous = len(present) > 0 and present[-1] - present[0] + 1 == len(present)
    return bool(contiguous and len(places) - len(present) <= _LOST * len(places))


def _unlike(table: Table, rows: Indices, energies: Array, inside: NDArray[np.bool_]) -> Array:
    """Part of the spread of energies that is not that of the rows, whatever their unit and zero; 1: all of it.

    Rows may hold the bias energy, which is then subtracted.

    Parameters
    ----------
    rows
        Choices of rows, shape (n_choices, n).
    energies
        Shape (n,).
    inside
        Which of them count, shape (n_choices, n).
    """
    columns, n = table.columns, np.maximum(inside.sum(axis=1, keepdims=True), 1)
    values = [columns["potential_energy"][rows]]
    if "bias_energy" in columns:
        values.append(values[0] - columns["bias_energy"][rows])

    def centred(x: Array) -> Array:
        return np.where(inside, x - np.where(inside, x, 0.0).sum(axis=1, keepdims=True) / n, 0.0)

    computed = centred(np.broadcast_to(energies, rows.shape))
    results = []
    for recorded in map(centred, values):
        scale = np.sqrt((recorded**2).sum(axis=1) * (computed**2).sum(axis=1))
        cosine = (recorded * computed).sum(axis=1) / np.where(scale > 0, scale, np.inf)
        results.append(np.where(cosine > 0, np.sqrt(np.clip(1.0 - cosine**2, 0.0, 1.0)), 1.0))
    return np.asarray(np.min(results, axis=0))
