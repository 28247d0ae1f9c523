"""Program: what a bias computes, as a list of operations on views of arrays. Plain data, checked when it is read.

An operation is one nest of loops. Its operands are views: a place in an array, and for every loop the distance between
elements, as in `numpy.lib.stride_tricks.as_strided`. All numbers are double precision; indices may be integers.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latf_openmm.errors import DataError

SCRATCH, CONSTANT, INTEGER, POSITIONS, BOX, STATE = (
    "scratch",
    "constant",
    "integer",
    "positions",
    "box",
    "state",
)
"""Kinds of array: intermediate results; constants; constant indices; and the arguments."""
ARGUMENTS = (POSITIONS, BOX, STATE)
"""Kinds of array that a program is given."""
MAPS = (
    *(
        "abs",
        "acos",
        "add",
        "and",
        "asin",
        "atan",
        "atan2",
        "ceil",
        "copy",
        "cos",
        "cosh",
        "div",
        "eq",
        "erf",
    ),
    *("exp", "expm1", "floor", "ge", "gt", "hardshrink", "le", "log", "log1p", "lt", "maximum", "minimum"),
    *("mul", "ne", "neg", "not", "or", "pow", "power", "reciprocal", "relu", "remainder", "round", "rsqrt"),
    *("sigmoid", "sign", "sin", "sinh", "softshrink", "sqrt", "sub", "tan", "tanh", "trunc", "where"),
)
"""Functions of a map."""
WHOLE_POWERS = range(1, 9)
"""Powers of the map ``power``, which are taken by products."""
FUNCTION_NAMES = {
    "map": MAPS,
    "reduce": ("sum", "max", "min"),
    "product": ("dense", "sparse"),
    "gather": ("",),
    "scatter": ("add", "max", "min", "set"),
    "sort": ("ascending", "descending"),
    "argmin": ("min", "max"),
    "scan": ("sum",),
}
"""Kinds of operation, and the functions of each."""


class Size(NamedTuple):
    """A length that may depend on the number of rows n of the state: ``fixed + per_row * n``."""

    fixed: int
    per_row: int = 0

    def at(self, rows: int) -> int:
        """Return the length for a number of rows."""
        return self.fixed + self.per_row * rows


@dataclass(frozen=True)
class View:
    """Elements of an array: the one at (i, j, ...) is element ``offset + i strides[0] + j strides[1] + ...``."""

    array: int
    offset: Size
    shape: tuple[Size, ...]
    strides: tuple[Size, ...]


@dataclass(frozen=True)
class Array:
    """An array: its kind, and its number of elements."""

    kind: str
    size: Size


@dataclass(frozen=True)
class Operation:
    """One nest of loops.

    Parameters
    ----------
    kind
        One of `FUNCTION_NAMES`.
    function
        Which function of that kind, for example ``"exp"``.
    out
        What is written.
    inputs
        What is read; of a map, each with the shape of `out`.
    numbers
        Whole numbers that belong to the function, such as an axis.
    """

    kind: str
    function: str
    out: tuple[View, ...]
    inputs: tuple[View, ...]
    numbers: tuple[int, ...] = ()


@dataclass
class Program:
    """The energy and the forces of one copy.

    Parameters
    ----------
    atoms
        Atoms whose positions are read and that feel a force, of `n_atoms`.
    n_atoms
        Atoms of a copy.
    arrays, operations
        In order.
    energy, forces
        Results: one number [kJ/mol]; and (len(atoms), 3) [kJ/mol/nm].
    constants
        Numbers of the constant arrays, by their index.
    """

    atoms: NDArray[np.int64]
    n_atoms: int
    arrays: list[Array] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    energy: View | None = None
    forces: View | None = None
    constants: dict[int, NDArray[Any]] = field(default_factory=dict)

    def add_array(self, kind: str, size: Size) -> int:
        """Add an array and return its index."""
        self.arrays.append(Array(kind, size))
        return len(self.arrays) - 1

    def add_constant(self, values: NDArray[Any]) -> int:
        """Add a constant array, of indices where they are integers, and return its index."""
        integers = values.dtype.kind == "i"
        index = self.add_array(INTEGER if integers else CONSTANT, Size(values.size))
        self.constants[index] = np.ascontiguousarray(
            values, dtype=np.int64 if integers else np.float64
        ).ravel()
        return index

    def results(self) -> tuple[View, View]:
        """Return energy and forces of a complete program."""
        if self.energy is None or self.forces is None:
            raise DataError("a program without results; expected energy and forces")
        return self.energy, self.forces

    def reads(self, kind: str) -> bool:
        """Return whether an operation reads an argument."""
        return any(
            self.arrays[view.array].kind == kind for operation in self.operations for view in operation.inputs
        )
