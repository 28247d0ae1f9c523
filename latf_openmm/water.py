"""What water is: by its atoms, then by the name of its residue, since names depend on where a file comes from."""

from collections import Counter
from collections.abc import Iterable

_NAMES = {
    "HOH", "WAT", "SOL", "H2O", "HHO", "OHH", "OH2", "TIP", "TIP2", "TIP3", "TIP4", "TIP5", "TIP3P", "TIP4P",
    "TIP5P", "T3P", "T4P", "T5P", "TP3", "TP4", "TP5", "T4E", "T4I", "TIP4EW", "SPC", "SPCE", "OPC", "OPC3",
    "OP3", "SWM4", "SWM6", "DOD", "D2O", "W", "PW",
}  # fmt: skip
"""Residue names of water."""


def is_water(name: str, numbers: Iterable[int]) -> bool:
    """Return whether a residue is water.

    It has one oxygen with two hydrogens and any number of sites without element, or a known name and nothing else than
    these.

    Parameters
    ----------
    name
        Of the residue.
    numbers
        Atomic numbers of its atoms; 0 of a site without element.

    Examples
    --------
    >>> is_water("X", [8, 1, 1, 0]), is_water("WAT", [8]), is_water("SOL", [6, 8, 1]), is_water("OH", [8, 1])
    (True, True, False, False)
    """
    real = {number: count for number, count in Counter(numbers).items() if number > 0}
    if real == {8: 1, 1: 2}:
        return True
    return name in _NAMES and set(real) <= {1, 8} and real.get(8, 1) == 1
