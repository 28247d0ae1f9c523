"""Checks of an installation, and how they are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from latf_openmm.doctor.probes import BACKENDS

Status = Literal["ok", "warning", "failed"]
STYLES: Mapping[Status, str] = {"ok": "green", "warning": "yellow", "failed": "bold red"}
"""Colour of each status."""


@dataclass(frozen=True)
class Check:
    """One thing looked at: what it is, how it is, what was seen, and what to do about it (may be empty)."""

    name: str
    status: Status
    detail: str
    way_out: str = ""


@dataclass(frozen=True)
class DoctorReport:
    """Everything the doctor saw.

    Parameters
    ----------
    checks
        All checks, in the order in which people read them.
    problems
        Combinations of versions known to be bad, whether or not a check ran into them.
    usable
        (backend, platform) pairs all of whose checks passed.
    """

    checks: tuple[Check, ...]
    problems: tuple[Check, ...] = ()
    usable: tuple[tuple[str, str], ...] = ()

    @property
    def can_bias(self) -> bool:
        """Return whether at least one backend passes on at least one platform."""
        return bool(self.usable)

    @property
    def exit_code(self) -> int:
        """0 if biasing works, 1 if not."""
        return 0 if self.can_bias else 1

    @property
    def verdict(self) -> str:
        """One line that says whether, and with what, this machine can bias."""
        if not self.can_bias:
            line = "Biasing does not work here: no backend passes on any platform."
            advice = [check.way_out for check in (*self.problems, *self.checks) if check.way_out]
            return f"{line} Start with: {advice[0]}" if advice else line
        parts = []
        for backend in BACKENDS:
            platforms = [platform for name, platform in self.usable if name == backend]
            tried = any(check.name.startswith(backend) for check in self.checks if "wheel" not in check.name)
            if platforms:
                parts.append(f"{backend} on {', '.join(platforms)}")
            elif tried:
                parts.append(f"{backend} is not usable")
        return f"Biasing works: {'; '.join(parts)}."


def render(report: DoctorReport, console: Console) -> None:
    """Print the checks as a table, then what to do, then the verdict on a line of its own."""
    table = Table("Check", "Status", "Detail")
    for check in report.checks:
        status = Text(check.status, STYLES[check.status])
        table.add_row(Text(check.name), status, Text(check.detail))  # Text: "[cuda12]" is not markup
    console.print(table)
    _advise("Known problems", report.problems, console)
    known = {problem.way_out for problem in report.problems}
    others = [check for check in report.checks if check.status != "ok" and check.way_out not in known]
    _advise("What to do", [check for check in others if check.way_out], console)
    console.print(Text(report.verdict, STYLES["ok" if report.can_bias else "failed"]), soft_wrap=True)


def _advise(title: str, checks: Sequence[Check], console: Console) -> None:
    if checks:
        console.print(Text(title, "bold"))
    for check in checks:
        console.print(Text(f"  {check.name}: {check.detail}\n    -> {check.way_out}"), soft_wrap=True)
