"""Records of a run: the content of its JSON files, with types; reading them needs none of what made them."""

import json
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, StrictInt, ValidationError, model_validator

from latf_openmm.errors import DataError, first_line
from latf_openmm.storage import Facts


class Record(BaseModel):
    """The content of one file, or a part of it; keys that are not named are left out.

    Attributes
    ----------
    content
        What a file should hold, for messages.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)
    content: ClassVar[str] = ""

    def plain(self) -> dict[str, Any]:
        """Return mappings, lists, texts and numbers, as they are written."""
        return self.model_dump(by_alias=True)


R = TypeVar("R", bound=Record)


class Header(Record):
    """The part of ``run.json`` that every schema has.

    Attributes
    ----------
    number
        Schema of the folder.
    versions
        Of the packages that worked on it, in order.
    """

    content = "'schema', a whole number, and 'versions', a list of mappings"
    number: StrictInt = Field(alias="schema")
    versions: list[dict[str, str]]


class RunRecord(Header):
    """``run.json``.

    Attributes
    ----------
    configurations
        Hashes of the configurations it was started and continued with.
    system_files
        Hashes of the files that its system was made from, by their paths; None where they were not noted.
    files
        Sizes and hashes of the records of what is complete, by their paths.
    """

    content = "the record of a run"
    configurations: list[str]
    system_files: dict[str, str] | None = None
    files: dict[str, Facts]


class Populations(Record):
    """Populations of the states in the frames at one temperature, with errors; each (n_states,)."""

    temperature: float
    populations: list[float]
    errors: list[float]


class SampleSize(Record):
    """Kish's effective sample size of the bias weights of one run, and its number of frames."""

    run: str
    temperature: float
    frames: int
    effective: float


class Change(Record):
    """Change of the distribution at one temperature [nats].

    Attributes
    ----------
    frames
        Divergence of the frames up to the round before from all frames.
    flow_to_frames
        Divergence of the flow from all frames.
    """

    temperature: float
    frames: float
    flow_to_frames: float


class TemperingRecord(Record):
    """Moves of the walkers of a round among its temperatures.

    Attributes
    ----------
    kind, walkers, round_trips
        Of the tempering; number of walkers, and of their ways from the lowest to the highest temperature and back.
    acceptance
        Of exchanges between neighbouring temperatures, shape (n_temperatures - 1,); None where there was no attempt.
    """

    kind: str
    walkers: int
    round_trips: int
    acceptance: list[float | None]


class Seconds(Record):
    """Wall time of the steps of a round over all starts [s]."""

    simulate: float
    train: float
    generate: float

    @property
    def total(self) -> float:
        """Wall time of all [s]."""
        return self.simulate + self.train + self.generate


class RoundRecord(Record):
    """``round.json``.

    Attributes
    ----------
    temperatures, dropped, biased
        Where it was simulated; groups of walkers it goes on without, and why; whether walkers felt a bias.
    n_states, frames
        States of its model; frames of all rounds so far.
    simulated_ps, seconds
        Simulated time [ps], and wall time.
    populations, effective_sample_size, change
        Results, a row for each temperature or run.
    restarts
        Number of times that groups of walkers went on without their checkpoint.
    tempering
        Moves among temperatures; None where walkers stay at theirs.
    versions, files
        Packages at work; sizes and hashes of everything else in the round.
    """

    content = "the summary of a round"
    round: int
    temperatures: list[float]
    dropped: dict[str, str]
    biased: bool
    n_states: int
    frames: int
    simulated_ps: float
    seconds: Seconds
    populations: list[Populations]
    effective_sample_size: list[SampleSize]
    change: list[Change]
    restarts: dict[str, int]
    tempering: TemperingRecord | None = None
    versions: dict[str, str]
    files: dict[str, Facts]


class DecisionRecord(Record):
    """``decision.json``: the plan of the next round; see `latf_openmm.run.strategies.Decision`.

    Attributes
    ----------
    starts
        Origin of each start structure, by temperature.
    moving
        Whether walkers move among the temperatures, where the configuration has a tempering.
    """

    content = "the plan of a round"
    strategy: str
    temperatures: list[float]
    biased: list[float]
    stop: bool
    reasons: list[str]
    starts: dict[str, list[str]]
    diagnostics: dict[str, list[dict[str, Any]]]
    moving: bool = True


class ValidationRecord(Record):
    """``complete.json``: wall time of the validation runs over all starts [s]; sizes and hashes of their files."""

    content = "the record of validation runs"
    seconds: float
    files: dict[str, Facts]


class GeneratedRecord(Record):
    """``summary.json`` of what a flow generated, as far as it is compared with the files beside it."""

    content = "the record of what was generated"
    samples: int
    structures: int


class ImportedWalker(Record):
    """One walker: its folder in the stage, and the number of the file that each of its segments is of."""

    folder: str
    walker: int
    temperature: float
    files: list[int]


class ImportedSource(Record):
    """Files of one trajectory, and the walkers made of it."""

    paths: list[Path]
    walkers: list[ImportedWalker]

    @model_validator(mode="after")
    def _files_are_there(self) -> "ImportedSource":
        if any(not 0 <= file < len(self.paths) for walker in self.walkers for file in walker.files):
            raise ValueError("'files' of a walker are not among the 'paths'")
        return self


class ImportedRecord(Record, RootModel[list[ImportedSource]]):
    """``imported.json``: all trajectories that were imported."""

    model_config = ConfigDict(frozen=True)
    content = "paths and walkers of each trajectory"


def parse_as(cls: type[R], data: Any, path: Path) -> R:
    """Return the record that a file holds.

    Parameters
    ----------
    data
        What JSON gave.
    path
        The file, for messages.

    Raises
    ------
    DataError
        If it holds something else.
    """
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        text = f"{place}: {first['msg']}" if place else first["msg"]
        raise DataError(f"{path}: damaged ({text}); expected {cls.content}") from None


def read_as(cls: type[R], path: Path) -> R:
    """Read a record; whether the file is the one that was written is not looked at.

    Raises
    ------
    DataError
        If it cannot be read, or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: damaged: it cannot be read ({first_line(error)}); expected {cls.content}"
        ) from None
    return parse_as(cls, data, path)
