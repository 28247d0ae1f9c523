"""Paths and records of one round of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.run.records import DecisionRecord, RoundRecord, parse_as, read_as
from latf_openmm.storage import check_file, checked_record, is_listed, listed_files, read_arrays
from latf_openmm.units import temperature_name

if TYPE_CHECKING:
    import pandas as pd

IMPORTED = "imported.json"
"""File in a stage whose frames were not simulated here."""


BOX = "box "
"""Before a temperature: the boxes of its start structures."""


@dataclass(frozen=True)
class RoundFolder:
    """Paths of one round."""

    index: int
    path: Path

    @property
    def simulation(self) -> Path:
        """Folder of the round's simulation stage."""
        return self.path / "simulation"

    @property
    def model(self) -> Path:
        """Folder of the model trained in this round."""
        return self.path / "model"

    @property
    def starts(self) -> Path:
        """File of the start structures chosen for the next round."""
        return self.path / "starts.npz"

    @property
    def decision(self) -> Path:
        """File that says what the next round does, and why."""
        return self.path / "decision.json"

    def read_decision(self) -> DecisionRecord:
        """Read the plan of the next round.

        Raises
        ------
        DataError
            If it is missing or damaged.
        """
        self.check(self.decision)
        return read_as(DecisionRecord, self.decision)

    def check(self, path: Path) -> None:
        """Raise `DataError` where a file of a complete round is not what was written."""
        if self.complete:
            check_file(path)

    @property
    def record(self) -> Path:
        """File that is written when the round is complete."""
        return self.path / "round.json"

    def generated(self, temperature: float) -> Path:
        """Folder of what was generated at one temperature."""
        return self.path / "generated" / temperature_name(temperature)

    @property
    def complete(self) -> bool:
        """True where the round has ended."""
        return self.record.is_file()

    def imported(self) -> bool:
        """Return whether its frames were imported.

        Raises
        ------
        DataError
            If the file that says so is damaged or missing.
        """
        path = self.simulation / IMPORTED
        if is_listed(path):
            check_file(path)
        return path.is_file()

    def summary(self) -> RoundRecord:
        """Read the record of a complete round.

        Raises
        ------
        DataError
            If it is damaged.
        """
        return parse_as(RoundRecord, checked_record(self.record), self.record)

    def check_segments(self) -> None:
        """Raise `DataError` where a segment of a complete round is missing, or there is one that was not."""
        if self.complete:
            check_segments(self.record, self.simulation)

    def history(self) -> "pd.DataFrame":
        """Training history: one row for each epoch.

        Raises
        ------
        DataError
            If it is missing or damaged.
        """
        from latf_openmm.frames.walkers import read_table

        return read_table(self.model / "history.parquet")

    def read_starts(
        self, check: bool = True
    ) -> tuple[dict[float, NDArray[np.float64]], dict[float, NDArray[np.float64]]]:
        """Start positions (n_walkers, n_atoms, 3) and, where there are any, boxes (n_walkers, 3, 3) [nm].

        Each by temperature; with `check`, if the file is what was written.

        Raises
        ------
        DataError
            If the file is missing or damaged.
        """
        positions, boxes = {}, {}
        if check:
            self.check(self.starts)
        for name, values in read_arrays(self.starts, "start structures cannot be read").items():
            if name.startswith(BOX):
                boxes[float(name.removeprefix(BOX))] = values
            else:
                positions[float(name)] = values
        return positions, boxes


def check_segments(record: Path, stage: Path) -> None:
    """Raise `DataError` where the segments of a stage are not those that the record of what it belongs to lists."""
    checked_record(record)
    listed = {
        (record.parent / name).parent
        for name in listed_files(record)
        if (record.parent / name).parent.name.startswith("segment_")
    }
    present = {path for path in stage.glob("T*/segment_*") if path.suffix == ""}
    for path in sorted(listed - present):
        raise DataError(f"{path}: missing; expected a complete segment, which {record} lists")
    for path in sorted(present - listed):
        raise DataError(f"{path}: not expected; {record} does not list it")
