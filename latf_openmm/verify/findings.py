"""What a verification finds, one part of a run at a time."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from latf_openmm.storage import MANIFEST, PARTIAL, damages


@dataclass
class Findings:
    """What was found in one part of a run.

    Attributes
    ----------
    counts
        How much was looked at, by what it is.
    damages
        What is wrong with a file or folder, and what was expected; one line each.
    hashed, not_hashed
        Folders with and without a manifest.
    frames
        Frames in the tables at each temperature.
    """

    counts: Counter[str] = field(default_factory=Counter)
    damages: dict[Path, str] = field(default_factory=dict)
    hashed: list[Path] = field(default_factory=list)
    not_hashed: list[Path] = field(default_factory=list)
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

    def hashes(self, folder: Path) -> None:
        """Compare a folder with its manifest, after all else was looked at: that says more than a hash does."""
        found = damages(folder)
        if found is None:
            self.not_hashed.append(folder)
            return
        self.hashed.append(folder)
        self.counts["hashed"] += 1
        for path, text in found.items():
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
        return {path: text for findings in self.parts.values() for path, text in findings.damages.items()}

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages


def hashed_folders(path: Path) -> list[Path]:
    """All folders below `path` that have a manifest and are finished."""
    return sorted(file.parent for file in path.rglob(MANIFEST) if PARTIAL not in str(file.relative_to(path)))
