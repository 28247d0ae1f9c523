"""HTML of objects in notebooks: a card with facts, tables and notes, readable on light and dark backgrounds.

Colours are the notebook's: text inherits its colour, backgrounds are transparent and lines are half-transparent grey.
Everything that is shown is escaped; names may be a user's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_LINE = "1px solid rgba(128,128,128,.45)"
"""Border."""
_CELL = "padding:.15em .7em;background:transparent;border:0"
"""Style of a cell."""
_MAX_PLACES = 4
"""Decimal places beyond which numbers are written with an exponent."""
_MAX_ROWS = 30
"""Rows of a table that are shown, at most."""


@dataclass(frozen=True)
class Table:
    """Rows under a header; the first column is text, the others are numbers.

    Attributes
    ----------
    header
        Of the columns.
    rows
        Texts, each as many as the header has.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def card(
    title: str, facts: Mapping[str, str], tables: Sequence[Table] = (), notes: Sequence[str] = ()
) -> str:
    """Return HTML of an object for a notebook.

    Parameters
    ----------
    title
        Its name.
    facts
        Texts by their name; empty ones are left out.
    tables, notes
        Below the facts; notes are sentences.

    Examples
    --------
    >>> "<b>A &lt;run&gt;</b>" in card("A <run>", {"frames": "800"}, notes=["It is complete."])
    True
    """
    rows = "".join(
        f'<tr style="background:transparent"><th style="{_CELL};text-align:left;font-weight:normal;opacity:.75">'
        f'{escape(name)}</th><td style="{_CELL};text-align:left">{escape(text)}</td></tr>'
        for name, text in facts.items()
        if text
    )
    parts = [f'<table style="{_table()}">{rows}</table>' if rows else "", *(_html(table) for table in tables)]
    parts += [f'<p style="margin:.4em 0 0 0">{escape(note)}</p>' for note in notes]
    return (
        f'<div style="border:{_LINE};border-radius:4px;padding:.5em .8em;display:inline-block;max-width:60em;'
        f'overflow-x:auto;color:inherit;background:transparent"><b>{escape(title)}</b>{"".join(parts)}</div>'
    )


def _html(table: Table) -> str:
    """Return one table, with a row that says how many are left out."""
    rows = [_row("th", table.header, f";border-bottom:{_LINE};font-weight:bold")]
    rows += [_row("td", row) for row in table.rows[:_MAX_ROWS]]
    if (left_out := len(table.rows) - _MAX_ROWS) > 0:
        rows.append(_row("td", [f"… {left_out} more"]))
    return f'<table style="{_table()}">{"".join(rows)}</table>'


def _row(tag: str, cells: Sequence[str], style: str = "") -> str:
    style += ";white-space:nowrap"
    aligned = ("left" if number == 0 else "right" for number in range(len(cells)))
    html = "".join(
        f'<{tag} style="{_CELL};text-align:{side}{style}">{escape(cell)}</{tag}>'
        for side, cell in zip(aligned, cells, strict=True)
    )
    return f'<tr style="background:transparent">{html}</tr>'


def _table() -> str:
    return "border-collapse:collapse;margin:.4em 0 0 0;border:0;color:inherit"


def with_error(value: float, error: float, digits: int = 2) -> str:
    """Return a number with its standard error, with the digits that the error leaves.

    Examples
    --------
    >>> with_error(0.49382, 0.0243), with_error(-1523.27, 41.0), with_error(0.5, float("nan"))
    ('0.494 ± 0.024', '-1523 ± 41', '0.5')
    >>> with_error(7.94e-8, 2.83e-8)
    '7.9e-08 ± 2.8e-08'
    >>> with_error(0.2285, 0.00091), with_error(0.0, 2.83e-8)
    ('0.22850 ± 0.00091', '0.0 ± 2.8e-08')
    """
    if not error < float("inf") or error <= 0:
        return f"{value:.4g}"
    places = max(0, digits - 1 - _magnitude(error))
    if places > _MAX_PLACES:
        wanted = digits + max(0, _magnitude(value) - _magnitude(error)) if value else digits
        return f"{value:#.{wanted}g} ± {error:#.{digits}g}"
    return f"{value:.{places}f} ± {error:.{places}f}"


def count(number: float) -> str:
    """Return a number of samples.

    Examples
    --------
    >>> count(8271.4), count(65.93), count(4.812)
    ('8,271', '65.9', '4.81')
    """
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _magnitude(number: float) -> int:
    """Power of ten of the first digit, after rounding to two digits."""
    return int(f"{number:.1e}".partition("e")[2])
