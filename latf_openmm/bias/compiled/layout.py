"""Where in memory the arrays of a program are, and which of them are in none."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latf_openmm.bias.compiled.program import (
    BOX,
    CONSTANT,
    INTEGER,
    POSITIONS,
    SCRATCH,
    STATE,
    Operation,
    Program,
    Size,
    View,
)

_LETTERS = {CONSTANT: "c", INTEGER: "k", POSITIONS: "w", SCRATCH: "w", BOX: "b", STATE: "s"}
"""Names in the source of the memory that each kind of array is in."""
_GRAIN = 8
"""Arrays begin at multiples of so many numbers, a line of the processor's cache."""
_USES_MAPS = ("map", "reduce")
"""Kinds of operation in which a map may be computed whose result they use."""


class Layout:
    """Memory of a program.

    Parameters
    ----------
    program
        Complete.

    Attributes
    ----------
    inlined
        For each array that is in no memory, the map that gives its elements, where they are used.
    scalars
        Places of constants of one number.
    scratch
        Numbers of scratch memory, which begins with the positions.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.inlined = inlined(program)
        self.scalars: set[int] = set()
        self._places: dict[int, Size] = {}
        self.constants, self.integers = self._place_constants()
        self.scratch = self._place_scratch()

    def place(self, array: int) -> tuple[str, Size]:
        """Return the name of the memory an array is in, and where there."""
        return _LETTERS[self.program.arrays[array].kind], self._places.get(array, Size(0))

    def _place_constants(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Put constants one after the other; the atoms come before other integers."""
        floats: list[NDArray[np.float64]] = []
        integers = [_grained(self.program.atoms)]
        for array, values in self.program.constants.items():
            kind = integers if values.dtype == np.int64 else floats
            place = sum(map(len, kind))
            self._places[array] = Size(place)
            kind.append(_grained(values))
            if kind is floats and len(values) == 1:
                self.scalars.add(place)
        return np.concatenate([*floats, np.zeros(0)]), np.concatenate(integers)

    def _place_scratch(self) -> Size:
        """Give memory to arrays while they are needed; those of open length come last and are kept."""
        last = self._last_uses()
        free: dict[int, list[int]] = {}
        fixed, growing, end = [], [], _rounded(3 * len(self.program.atoms))
        for index, operation in enumerate(self.program.operations):
            for view in operation.out:
                array, size = view.array, self.program.arrays[view.array].size
                if array in self._places or array in self.inlined:
                    continue
                if size.per_row:
                    growing.append(array)
                    continue
                length = _rounded(size.fixed)
                if free.get(length):
                    place = free[length].pop()
                else:
                    place, end = end, end + length
                self._places[array] = Size(place)
                fixed.append(array)
            for array in [array for array in fixed if last.get(array, index) <= index]:
                fixed.remove(array)
                free.setdefault(_rounded(self.program.arrays[array].size.fixed), []).append(
                    self._places[array].fixed
                )
        size = Size(end)
        for array in growing:
            self._places[array] = size
            more = self.program.arrays[array].size
            size = Size(size.fixed + more.fixed, size.per_row + more.per_row)
        return size

    def _last_uses(self) -> dict[int, int]:
        """For each array, the operation after which it is not needed."""
        operations = self.program.operations
        last: dict[int, int] = {}
        for view in self.program.results():
            last[view.array] = len(operations)
        for index in range(len(operations) - 1, -1, -1):
            operation = operations[index]
            out = operation.out[0].array
            moment = last.get(out, index) if out in self.inlined else index
            for view in operation.out:
                last.setdefault(view.array, moment)
            for view in operation.inputs:
                last[view.array] = max(last.get(view.array, 0), moment)
        return last


def inlined(program: Program) -> dict[int, Operation]:
    """Return the maps whose results are used once, element by element, by another map or a reduction."""
    reads = Counter[int]()
    writes = Counter(view.array for operation in program.operations for view in operation.out)
    users: dict[int, tuple[Operation, View]] = {}
    for operation in program.operations:
        for view in operation.inputs:
            reads[view.array] += 1
            users[view.array] = (operation, view)
    for view in program.results():
        reads[view.array] += 2
    maps: dict[int, Operation] = {}
    for operation in program.operations:
        array = operation.out[0].array
        if operation.kind != "map" or writes[array] != 1 or reads[array] != 1:
            continue
        user, view = users[array]
        if user.kind in _USES_MAPS and same_elements(view, operation.out[0]) is not None:
            maps[array] = operation
    return maps


def same_elements(view: View, written: View) -> list[int | None] | None:
    """Which axis of a view goes along each axis of what was written; None for axes of length 1.

    None where the view does not hold each element written exactly once.
    """
    axes: list[int | None] = []
    unused = [axis for axis, length in enumerate(view.shape) if length != Size(1)]
    for length, stride in zip(written.shape, written.strides, strict=True):
        if length == Size(1):
            axes.append(None)
            continue
        match = [axis for axis in unused if (view.shape[axis], view.strides[axis]) == (length, stride)]
        if not match:
            return None
        axes.append(match[0])
        unused.remove(match[0])
    return axes if not unused and view.offset == written.offset else None


def _rounded(size: int) -> int:
    return -(-size // _GRAIN) * _GRAIN


def _grained(values: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([values, np.zeros(_rounded(len(values)) - len(values), dtype=values.dtype)])
