"""What a verification finds, one part of a run at a time."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from latf_openmm.errors import DataError
from latf_openmm.run.records import R, read_as
from latf_openmm.storage import MANIFEST, PARTIAL, damage, damages, listed_files


@dataclass
class Findings:
    """Counts and damages of one part of a run.

    Attributes
    ----------
    counts
        How much was looked at, by what it is.
    damages
        What is wrong with a file or folder, and what was expected; one line each.
    hashed
        Folders that were compared with their manifests.
    frames
        Frames in the tables at each temperature.
    """

    counts: Counter[str] = field(default_factory=Counter)
    damages: dict[Path, str] = field(default_factory=dict)
    hashed: list[Path] = field(default_factory=list)
    frames: Counter[float] = field(default_factory=Counter)

    def damage(self, path: Path, text: str) -> None:
        """Note what is wrong with a file; the first thing that is stays."""
        self.damages.setdefault(path, text)

    def missing(self, path: Path, expected: str) -> bool:
        """Note a file or folder that is not there; return whether it is not."""
        if path.exists():
            return False
        self.damage(path, f"missing; expected {expected}")
        return True

    def read(self, cls: type[R], path: Path) -> R | None:
        """Return the record in a file; None where it is damaged, which is noted."""
        try:
            return read_as(cls, path)
        except DataError as error:
            self.damage(path, str(error).removeprefix(f"{path}: "))
            return None

    def record(self, path: Path) -> None:
        """Compare the record of a round with the hashes above it, and what it lists with those in it."""
        if text := damage(path):
            self.damage(path, text)
        try:
            listed = listed_files(path)
        except DataError as error:
            self.damage(path, str(error).removeprefix(f"{path}: "))
            return
        for file in (path.parent / name for name in listed):
            if not file.parent.is_dir():
                self.damage(file.parent, f"missing; {path.name} lists files in it")
            elif text := damage(file):
                self.damage(file, text)

    def hashes(self, folder: Path) -> None:
        """Compare a folder with its manifest, after all else was looked at: that says more than a hash does."""
        wrong = damages(folder)
        if wrong is None:
            self.damage(folder / MANIFEST, "missing; expected names, sizes and hashes of the files beside it")
            return
        self.hashed.append(folder)
        self.counts["hashed"] += 1
        for path, text in wrong.items():
            self.damage(path, text)


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Attributes
    ----------
    part
        Part of the run it belongs to.
    label
        What is looked at, in a word or two.
    look
        Notes what it finds.
    """

    part: str
    label: str
    look: Callable[[Findings], None]


@dataclass(frozen=True)
class Report:
    """All that was found.

    Attributes
    ----------
    path
        Folder of the run.
    parts
        Findings of each part, in order.
    unfinished
        What interruptions left; harmless.
    """

    path: Path
    parts: dict[str, Findings]
    unfinished: list[Path]

    @property
    def damages(self) -> dict[Path, str]:
        """Everything that is wrong."""
        first = reversed(self.parts.values())  # what was noted first says most
        return {path: text for findings in first for path, text in findings.damages.items()}

    @property
    def intact(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.damages


def hashed_folders(path: Path) -> list[Path]:
    """All folders below `path` that have a manifest and are finished."""
    return sorted(file.parent for file in path.rglob(MANIFEST) if PARTIAL not in str(file.relative_to(path)))
