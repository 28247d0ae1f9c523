"""Walkers in several processes that share one bias: each writes what it added, and reads what others did."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latf_openmm.errors import DataError


class Exchange:
    """A folder in which every walker has one file of its own.

    A row is what a walker added at one moment, (dim + 1) numbers of 8 bytes. Files only grow, and a row that
    is not whole yet is left for the next time. When a row reaches the other walkers depends on their speed,
    so runs of several processes are not reproducible to the last bit; a single one is.

    Parameters
    ----------
    folder
        Common to all walkers that share the bias.
    name
        Of this walker; the file is ``name.rows``.
    width
        Numbers in a row.
    """

    def __init__(self, folder: Path, name: str, width: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.own = folder / f"{name}.rows"
        self.folder = folder
        self.width = width
        self.read: dict[str, int] = {}
        self.written = 0

    def publish(self, rows: Tensor) -> None:
        """Add rows (n, width) to this walker's file."""
        data = rows.double().numpy().tobytes()
        with self.own.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.written += len(data)

    def collect(self) -> Tensor:
        """Rows of the other walkers that were not collected before, shape (n, width)."""
        rows = []
        size = 8 * self.width
        for path in sorted(self.folder.glob("*.rows")):
            if path == self.own:
                continue
            with path.open("rb") as file:
                file.seek(self.read.get(path.name, 0))
                data = file.read()
            whole = len(data) // size * size
            self.read[path.name] = self.read.get(path.name, 0) + whole
            rows.append(np.frombuffer(data[:whole]).reshape(-1, self.width))
        return torch.from_numpy(np.concatenate(rows).copy()) if rows else torch.empty(0, self.width)

    def position(self) -> dict[str, int]:
        """How far each file was read or, of the own one, written."""
        return {**self.read, self.own.name: self.written}

    def rewind(self, position: dict[str, int]) -> None:
        """Continue from an earlier `position`; what this walker wrote since then is cut off.

        Raises
        ------
        DataError
            If this walker's file is shorter than it was.
        """
        self.read = {name: place for name, place in position.items() if name != self.own.name}
        self.written = position.get(self.own.name, 0)
        size = self.own.stat().st_size if self.own.is_file() else 0
        if size < self.written:
            raise DataError(f"{self.own}: {size} bytes; there were {self.written} at the last checkpoint")
        if self.own.is_file():
            os.truncate(self.own, self.written)
