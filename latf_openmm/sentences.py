"""Sentences for people: lists of names, and many sentences on one subject as one."""

import difflib
import re
from collections.abc import Iterable, Sequence

SHOWN = 3
"""Names that are given where there are many."""
_NUMBER = r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?"
"""A number in a sentence."""


def listed(words: Sequence[str], shown: int | None = None) -> str:
    """Join words as people do; of many only the first `shown`.

    Examples
    --------
    >>> listed(["300 K", "350 K", "400 K"])
    '300 K, 350 K and 400 K'
    >>> listed(["3", "7", "9", "11", "12"], 3)
    '3, 7, 9 and 2 more'
    """
    if shown is not None and len(words) > shown + 1:
        return f"{', '.join(words[:shown])} and {len(words) - shown} more"
    return _joined(words, "and")


def alternatives(words: Sequence[str]) -> str:
    """Join words of which one holds.

    Examples
    --------
    >>> alternatives(["number", "list of numbers", "none"])
    'number, list of numbers or none'
    """
    return _joined(words, "or")


def _joined(words: Sequence[str], last: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """Ask after the name that is nearest to one that is unknown; empty where none is near.

    Examples
    --------
    >>> did_you_mean("barier", ["pace", "barrier"]), did_you_mean("kernels", ["pace", "barrier"])
    ("; did you mean 'barrier'?", '')
    """
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def states_text(states: Sequence[str]) -> str:
    """Name one state or several, of many the first.

    Examples
    --------
    >>> states_text(["3"]), states_text(["3", "7", "9", "11", "12"])
    ('state 3', 'states 3, 7, 9 and 2 more')
    """
    return f"state{'' if len(states) == 1 else 's'} {listed(states, SHOWN)}"


def condensed(remarks: Iterable[tuple[str, str]]) -> list[str]:
    """Say once what several sentences say that differ in their numbers only: the first, and the places of the others.

    Parameters
    ----------
    remarks
        Sentences, those that weigh most first, and what each is about, such as "state 3 at 300 K".

    Examples
    --------
    >>> condensed([("state 1 has 2 frames", "state 1"), ("state 4 has 3 frames", "state 4"), ("T is low", "T")])
    ['state 1 has 2 frames; likewise state 4', 'T is low']
    """
    subjects: dict[str, list[tuple[str, str]]] = {}
    for text, place in remarks:
        subjects.setdefault(_subject(text), []).append((text, place))
    said = []
    for (text, first), *others in subjects.values():
        places = [place for place in dict.fromkeys(place for _, place in others) if place != first]
        said.append(f"{text}; likewise {listed(places, SHOWN)}" if places else text)
    return said


def _subject(text: str) -> str:
    """Return a sentence without its numbers, lists of numbers and what is in brackets."""
    bare = re.sub(_NUMBER, "#", re.sub(r" ?\([^()]*\)", "", text))
    return re.sub(r"states? #(?:,? #)*(?: and #(?: more)?)?", "state #", bare)
