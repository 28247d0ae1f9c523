"""Walkers in several processes that share one bias: each writes what it added, and reads what others did."""

import os
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latf_openmm.errors import DataError


def file_name(walker: str) -> str:
    """Return the name of a walker's file."""
    return f"{walker}.rows"


class Exchange:
    """A folder in which every walker has one file of its own.

    A row is what a walker added at one moment, (dim + 1) numbers of 8 bytes, and a check sum of them. Files only grow,
    and a row that is not complete yet is left for the next time. When a row reaches the other walkers depends on speed,
    so runs of several processes are not reproducible to the last bit; they are where it is said how far to read.

    Parameters
    ----------
    folder
        Common to all walkers that share the bias.
    name
        Of this walker.
    width
        Numbers in a row, without the check sum.

    Attributes
    ----------
    limits
        Bytes of each other walker's file that may be read, by its name; None: all there is of all there are.
    """

    def __init__(self, folder: Path, name: str, width: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / file_name(name)
        self.folder = folder
        self.width = width
        self.read: dict[str, int] = {}
        self.limits: dict[str, int] | None = None
        self.written = 0

    def publish(self, rows: Tensor) -> None:
        """Add rows (n, width) to this walker's file."""
        numbers = rows.double().numpy()
        data = np.column_stack([numbers, _check_sums(numbers)]).tobytes()
        with self.path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.written += len(data)

    def collect(self) -> Tensor:
        """Rows of the other walkers that were not collected before, shape (n, width).

        Raises
        ------
        DataError
            If a row was damaged, or a file is gone or shorter than what may be read of it.
        """
        rows = []
        size = 8 * (self.width + 1)
        for name in self.read:
            if not (self.folder / name).is_file():
                raise DataError(f"{self.folder / name}: missing; expected what this walker added to the bias")
        for path in self._others():
            data = self._unread(path)
            n_bytes = len(data) // size * size
            table = np.frombuffer(data[:n_bytes]).reshape(-1, self.width + 1)
            bad = np.flatnonzero(_check_sums(table[:, :-1]) != table[:, -1])
            if len(bad):
                row = self.read.get(path.name, 0) // size + bad[0]
                raise DataError(f"{path}: row {row} is damaged; its check sum is not that of its numbers")
            self.read[path.name] = self.read.get(path.name, 0) + n_bytes
            rows.append(table[:, :-1])
        return torch.from_numpy(np.concatenate(rows).copy()) if rows else torch.empty(0, self.width)

    def _others(self) -> list[Path]:
        """Return the files of the other walkers that have rows to be read."""
        if self.limits is None:
            return [path for path in sorted(self.folder.glob("*.rows")) if path != self.path]
        return [
            self.folder / name for name in sorted(self.limits) if self.limits[name] > self.read.get(name, 0)
        ]

    def _unread(self, path: Path) -> bytes:
        """Return what may be read of a file and was not."""
        begin = self.read.get(path.name, 0)
        wanted = -1 if self.limits is None else self.limits[path.name] - begin
        try:
            with path.open("rb") as file:
                file.seek(begin)
                data = file.read(wanted)
        except FileNotFoundError:
            data = b""
        if len(data) < wanted:
            raise DataError(f"{path}: {begin + len(data)} bytes; expected {begin + wanted}, which were there")
        return data

    def position(self) -> dict[str, int]:
        """Return the number of bytes read from each file or, for this walker's, written."""
        return {**self.read, self.path.name: self.written}

    def rewind(self, position: dict[str, int]) -> None:
        """Continue from an earlier `position`; what this walker wrote since then is cut off.

        Raises
        ------
        DataError
            If this walker's file is shorter than it was.
        """
        self.read = {name: place for name, place in position.items() if name != self.path.name}
        self.written = position.get(self.path.name, 0)
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < self.written:
            raise DataError(f"{self.path}: {size} bytes; there were {self.written} at the last checkpoint")
        if self.path.is_file():
            os.truncate(self.path, self.written)


def _check_sums(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """CRC-32 of each row (n, width), as numbers; shape (n,)."""
    return np.array([zlib.crc32(row.tobytes()) for row in rows], dtype=np.float64)
