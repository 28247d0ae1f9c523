"""What a run has cost: simulated time, force evaluations and wall time."""

from collections.abc import Sequence
from dataclasses import dataclass

from latf_openmm.run.folder import RunFolder
from latf_openmm.run.records import RoundRecord, ValidationRecord, parse_as
from latf_openmm.storage import checked_record
from latf_openmm.units import TemperatureScale

_DAY = 86_400.0
"""Seconds of a day."""


@dataclass(frozen=True)
class Cost:
    """One row of the table.

    Attributes
    ----------
    name
        What it was spent on.
    biased
        Whether walkers felt a bias; None where it says nothing.
    simulated_ps
        Of all walkers together; of what was simulated here.
    evaluations
        Of the system's forces: one a time step of each walker.
    simulate, train, generate
        Wall time [s]; None where it is not known or nothing was done.
    imported_ps
        Time of trajectories that were imported.
    """

    name: str
    biased: bool | None
    simulated_ps: float
    evaluations: int
    simulate: float | None
    train: float | None = None
    generate: float | None = None
    imported_ps: float = 0.0

    def time_text(self, scale: TemperatureScale) -> str:
        """Simulated time for people, and apart from it that of imported trajectories."""
        kelvin = scale.name == "K"
        simulated, imported = (
            scale.duration(ps) if kelvin else f"{ps:,.0f}" for ps in (self.simulated_ps, self.imported_ps)
        )
        if not self.imported_ps:
            return simulated
        return f"{simulated}, and {imported} imported" if self.simulated_ps else f"none; {imported} imported"

    @property
    def wall(self) -> float:
        """All wall time that is known [s]."""
        return sum(seconds for seconds in (self.simulate, self.train, self.generate) if seconds is not None)

    @property
    def ns_per_day(self) -> float | None:
        """Simulated time of all walkers over the wall time of the simulation; None where that is not known."""
        return self.simulated_ps / 1000 * _DAY / self.simulate if self.simulate else None


def costs(run: RunFolder, rounds: Sequence[RoundRecord]) -> list[Cost]:
    """Rows of the rounds, of the validation runs where there are some, and the total."""
    timestep = run.config.simulation.timestep
    rows = []
    for record in rounds:
        seconds, imported = record.seconds, run.round(record.round).imported()
        rows.append(
            Cost(
                f"round {record.round}" + (", imported" if imported else ""),
                record.biased,
                0.0 if imported else record.simulated_ps,
                0 if imported else round(record.simulated_ps / timestep),
                None if imported else seconds.simulate,
                seconds.train,
                seconds.generate,
                record.simulated_ps if imported else 0.0,
            )
        )
    validation = run.config.validation_simulation()
    if validation is not None and run.validated.is_file():
        ended = parse_as(ValidationRecord, checked_record(run.validated), run.validated)
        steps = validation.steps
        rows.append(Cost("validation", False, steps * timestep, steps, ended.seconds))
    return [*rows, _total(rows)]


def _total(rows: Sequence[Cost]) -> Cost:
    """Sum of rows."""
    ours = [row for row in rows if row.simulate is not None]
    return Cost(
        "total",
        None,
        sum(row.simulated_ps for row in ours),
        sum(row.evaluations for row in ours),
        sum(row.simulate or 0.0 for row in ours) if ours else None,
        sum(row.train or 0.0 for row in rows),
        sum(row.generate or 0.0 for row in rows),
        sum(row.imported_ps for row in rows),
    )
