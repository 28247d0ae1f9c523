"""Progress where there is no terminal: plain lines, not too many."""

from io import StringIO

import pytest
from rich.console import Console

from latf_openmm import progress as module
from latf_openmm.progress import LineProgress, bar, make_progress


def lines_of(screen: StringIO) -> list[str]:
    """Lines without the time of the day."""
    return [line.split(" ", 1)[1] for line in screen.getvalue().splitlines()]


def test_bars_are_for_terminals() -> None:
    assert isinstance(make_progress(Console(file=StringIO())), LineProgress)
    assert not isinstance(make_progress(Console(file=StringIO(), force_terminal=True)), LineProgress)


def test_a_step_begins_and_ends_with_a_line() -> None:
    screen = StringIO()
    with make_progress(Console(file=screen)) as progress, bar(progress, "work [1]", 100) as advance:
        for _ in range(100):  # in no time
            advance(1, "all of it")
    first, last = lines_of(screen)
    assert first == "work [1]: begins"
    assert last.startswith("work [1]: done in ")
    assert last.endswith(" s; all of it")


def test_every_tenth_has_a_line_where_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    monkeypatch.setattr(module, "_SOON", 0.0)
    with make_progress(Console(file=screen)) as progress, bar(progress, "work", 2000) as advance:
        for _ in range(40):
            advance(50, "")
    lines = lines_of(screen)
    assert len(lines) == 11  # as it begins and ends, and nine between
    assert lines[1].startswith("work: 200 of 2,000 (10 %), ")
    assert lines[1].endswith(" left")


def test_what_takes_very_long_has_one_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    monkeypatch.setattr(module, "_LATE", 0.0)
    with make_progress(Console(file=screen)) as progress, bar(progress, "work", 1000) as advance:
        for _ in range(3):
            advance(1, "")
    assert len(lines_of(screen)) == 5


@pytest.mark.parametrize("terminal", [True, False])
def test_the_time_left_of_slow_steps_is_known(terminal: bool) -> None:
    """As of epochs that take two minutes each."""
    progress = make_progress(Console(file=StringIO(), force_terminal=terminal))
    clock = iter(range(0, 12_000, 120))
    progress.get_time = lambda: float(next(clock))  # type: ignore[method-assign]
    task = progress.add_task("work", total=10, note="")
    for _ in range(3):
        progress.update(task, advance=1)
    assert progress.tasks[0].time_remaining == pytest.approx(7 * 120)


def test_an_error_has_no_line_of_its_own() -> None:
    screen = StringIO()
    with (
        pytest.raises(RuntimeError),
        make_progress(Console(file=screen)) as progress,
        bar(progress, "work", 10),
    ):
        raise RuntimeError
    assert lines_of(screen) == ["work: begins"]


def test_quiet_leaves_them_out(capsys: pytest.CaptureFixture[str]) -> None:
    with make_progress(Console(quiet=True)) as progress, bar(progress, "work", 10):
        pass
    assert capsys.readouterr().out == ""
