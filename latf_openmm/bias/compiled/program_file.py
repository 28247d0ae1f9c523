"""A program as bytes, and back; what is read is checked, so that no program reads or writes outside its arrays."""

import hashlib
import io
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latf_openmm.bias.compiled.program import (
    ARGUMENTS,
    BOX,
    CONSTANT,
    FUNCTION_NAMES,
    INTEGER,
    POSITIONS,
    SCRATCH,
    STATE,
    WHOLE_POWERS,
    Array,
    Operation,
    Program,
    Size,
    View,
)
from latf_openmm.errors import DataError

_VERSION = 1
"""Of the form of the bytes."""
_ROWS = (1, 2, 3, 1000)
"""Numbers of rows for which places are checked: lengths are linear in it."""
_INDEXED = ("gather", "scatter")
"""Kinds of operation with indices, each with a stride and a length among the numbers."""


def to_bytes(program: Program) -> bytes:
    """Return a program as bytes, which begin with the hash of the rest."""
    energy, forces = program.results()
    facts = {
        "version": _VERSION,
        "n_atoms": program.n_atoms,
        "arrays": [[array.kind, *array.size] for array in program.arrays],
        "operations": [
            [
                item.kind,
                item.function,
                list(map(_listed, item.out)),
                list(map(_listed, item.inputs)),
                item.numbers,
            ]
            for item in program.operations
        ],
        "energy": _listed(energy),
        "forces": _listed(forces),
    }
    text = np.frombuffer(json.dumps(facts, separators=(",", ":")).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    numbers = {str(array): values for array, values in program.constants.items()}
    np.savez_compressed(buffer, program=text, atoms=program.atoms, **numbers)  # type: ignore[arg-type]
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


def from_bytes(data: bytes, name: str) -> Program:
    """Return the program of bytes that `to_bytes` gave; `name` says in messages where they are from.

    Raises
    ------
    DataError
        If they were changed, or are no program.
    """
    size = hashlib.sha256().digest_size
    if hashlib.sha256(data[size:]).digest() != data[:size]:
        raise DataError(f"{name}: damaged, or changed after it was written; write it again")
    try:
        with np.load(io.BytesIO(data[size:]), allow_pickle=False) as stored:
            facts = json.loads(stored["program"].tobytes())
            if facts["version"] != _VERSION:
                raise DataError(f"{name}: form {facts['version']}, expected {_VERSION}; write it again")
            program = Program(np.asarray(stored["atoms"], dtype=np.int64), int(facts["n_atoms"]))
            program.constants = {int(key): stored[key] for key in stored.files if key.isdecimal()}
        program.arrays = [Array(kind, Size(*numbers)) for kind, *numbers in facts["arrays"]]
        program.operations = [
            Operation(kind, function, tuple(map(_view, out)), tuple(map(_view, inputs)), tuple(numbers))
            for kind, function, out, inputs, numbers in facts["operations"]
        ]
        program.energy, program.forces = _view(facts["energy"]), _view(facts["forces"])
        check(program)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name}: no program of a bias ({type(error).__name__}: {error})") from error
    return program


def _listed(view: View) -> list[Any]:
    return [
        view.array,
        list(view.offset),
        [list(size) for size in view.shape],
        [list(size) for size in view.strides],
    ]


def _view(listed: list[Any]) -> View:
    array, offset, shape, strides = listed
    return View(
        array, Size(*offset), tuple(Size(*size) for size in shape), tuple(Size(*size) for size in strides)
    )


def check(program: Program) -> None:
    """Check that every place is inside its array, and every operation one that is known.

    Raises
    ------
    DataError
        If one is not.
    """
    if len(program.atoms) and not 0 <= program.atoms.min() <= program.atoms.max() < program.n_atoms:
        raise DataError(f"atoms beyond the {program.n_atoms} that there are")
    for index, array in enumerate(program.arrays):
        _check_array(program, index, array)
    for operation in program.operations:
        if operation.function not in FUNCTION_NAMES.get(operation.kind, ()):
            raise DataError(f"an unknown operation {operation.kind} {operation.function}")
        if operation.function == "power" and operation.numbers[0] not in WHOLE_POWERS:
            raise DataError(f"a power of {operation.numbers[0]}")
        _check_operation(program, operation)
    energy, forces = program.results()
    if forces.shape != (Size(len(program.atoms)), Size(3)) or energy.shape:
        raise DataError("results of other shapes than expected")
    _check_places(program, energy)
    _check_places(program, forces)


def _check_array(program: Program, index: int, array: Array) -> None:
    kinds = {CONSTANT: np.float64, INTEGER: np.int64}
    if array.kind in kinds:
        values = program.constants[index]
        if values.dtype != kinds[array.kind] or values.shape != (array.size.fixed,) or array.size.per_row:
            raise DataError(f"constants {index} of another form")
    elif array.kind not in (SCRATCH, *ARGUMENTS):
        raise DataError(f"an unknown kind of array {array.kind}")
    limits = {POSITIONS: Size(3 * len(program.atoms)), BOX: Size(9)}
    if array.kind in limits and array.size not in (limits[array.kind], Size(0)):
        raise DataError(f"{array.kind} of another size")


def _check_operation(program: Program, operation: Operation) -> None:
    """Check the places of an operation, and that constant indices are inside what they index."""
    indexed = operation.kind in _INDEXED
    for view in operation.out:
        if program.arrays[view.array].kind != SCRATCH:
            raise DataError("an operation that changes its arguments")
    if not indexed and operation.function != "sparse":
        for view in (*operation.out, *operation.inputs):
            _check_places(program, view)
        shapes = {view.shape for view in (*operation.out, *operation.inputs)}
        if operation.kind in ("map", "reduce", "sort", "argmin", "scan") and len(shapes) > 1:
            raise DataError(f"a {operation.kind} of different shapes")
        if any(not 0 <= number < len(operation.out[0].shape) for number in _axes(operation)):
            raise DataError(f"a {operation.kind} along an axis that is not there")
        if operation.kind == "product":
            _check_product(operation)
        return
    if operation.function == "sparse":
        _check_sparse(program, operation)
        return
    target = operation.out[0] if operation.kind == "scatter" else operation.inputs[0]
    pairs = list(zip(operation.numbers[::2], operation.numbers[1::2], strict=True))
    _check_indexed(program, target, operation.inputs[1:], pairs, ())
    for view in (operation.out[0], operation.inputs[0]):
        if view is not target:
            _check_places(program, view)


def _check_sparse(program: Program, operation: Operation) -> None:
    values, begins, columns, second = operation.inputs
    (out,) = operation.out
    for view in (values, begins, columns, out):
        _check_places(program, view)
    _check_indexed(program, second, [columns], [(second.strides[1].fixed, second.shape[1].fixed)], (1,))
    places = program.constants.get(begins.array, np.empty(0))
    counts = [values.shape == columns.shape, begins.shape == (Size(out.shape[1].fixed + 1),)]
    lists = all(view.strides == (Size(1),) and view.offset == Size(0) for view in (values, begins, columns))
    ascending = len(places) and places.min() >= 0 and places.max() <= values.shape[0].fixed
    if not (all(counts) and lists and ascending and out.shape[0] == second.shape[0] == Size(1)):
        raise DataError("a sparse matrix of another form than expected")
    if out.shape[2] != second.shape[2]:
        raise DataError("a product of matrices that do not fit")


def _axes(operation: Operation) -> Iterable[int]:
    return operation.numbers if operation.kind in ("reduce", "sort", "argmin", "scan") else ()


def _check_product(operation: Operation) -> None:
    (first, second), (out,) = operation.inputs, operation.out
    if out.shape != (*first.shape[:2], second.shape[2]) or first.shape[2] != second.shape[1]:
        raise DataError("a product of matrices that do not fit")


def _check_indexed(
    program: Program,
    view: View,
    indices: Iterable[View],
    pairs: list[tuple[int, int]],
    without: tuple[int, ...],
) -> None:
    """Check a view with what its indices may add: (stride, length) for each."""
    more = []
    for index, (stride, length) in zip(indices, pairs, strict=True):
        _check_places(program, index)
        if program.arrays[index.array].kind == INTEGER:
            values = program.constants[index.array]
            if len(values) and not 0 <= values.min() <= values.max() < length:
                raise DataError("an index outside what it indexes")
        more.append((length, stride))
    shape = tuple(Size(1) if axis in without else length for axis, length in enumerate(view.shape))
    _check_places(program, View(view.array, view.offset, shape, view.strides), more)


def _check_places(program: Program, view: View, more: Iterable[tuple[int, int]] = ()) -> None:
    """Check that all places of a view are in its array, whatever the number of rows."""
    array = program.arrays[view.array]
    for rows in _ROWS:
        lengths = [
            (size.at(rows), stride.at(rows)) for size, stride in zip(view.shape, view.strides, strict=True)
        ]
        lengths += list(more)
        if any(length < 0 for length, _ in lengths):
            raise DataError("a negative length")
        if any(length == 0 for length, _ in lengths):
            continue
        steps = [(length - 1) * stride for length, stride in lengths]
        first = view.offset.at(rows) + sum(step for step in steps if step < 0)
        last = view.offset.at(rows) + sum(step for step in steps if step > 0)
        if first < 0 or last >= array.size.at(rows):
            raise DataError(f"a place outside an array of {array.size.at(rows)} numbers")


def state_rows(program: Program, state: NDArray[np.float64]) -> int:
    """Return the number of rows of a state.

    Raises
    ------
    DataError
        If it does not have the form that the program was made for.
    """
    rows = len(state) if state.ndim else 0
    expected = sum(array.size.at(rows) for array in program.arrays if array.kind == STATE)
    if state.size != expected:
        raise DataError(f"a state of {state.size} numbers; the program expects {expected}")
    return rows
