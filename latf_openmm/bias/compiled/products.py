"""Products of matrices as instructions: what takes most of the time of a network."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llvmlite import ir

from latf_openmm.bias.compiled.instructions import WIDTH
from latf_openmm.bias.compiled.program import Operation, Size, View

if TYPE_CHECKING:
    from latf_openmm.bias.compiled.loops import Writer

_BLOCK = 4
"""Vectors of columns that are added up at a time, each in its register."""
_FEW = 4
"""Columns of a sparse product up to so many are added up at a time."""


def write_product(writer: "Writer", operation: Operation) -> None:
    """Write out = first second for a batch of matrices; or with a sparse first matrix."""
    if operation.function == "sparse":
        _sparse(writer, operation)
        return
    (first, second), (out,) = operation.inputs, operation.out
    columns = out.shape[2]
    in_order = second.strides[2] == out.strides[2] == Size(1)
    if in_order and columns.per_row == 0 and columns.fixed >= WIDTH:
        _by_columns(writer, first, second, out)
    else:
        _by_elements(writer, first, second, out)


def _by_elements(writer: "Writer", first: View, second: View, out: View) -> None:
    do = writer.do
    with writer.loops(out) as (h, i, j):
        total = do.variable(do.number(0.0))
        with do.loop(writer.size(first.shape[2])) as q:
            term = do.mul(writer.element(first, (h, i, q)), writer.element(second, (h, q, j)))
            do.builder.store(do.add(do.builder.load(total), term), total)
        writer.keep(do.builder.load(total), out, (h, i, j))


def _by_columns(writer: "Writer", first: View, second: View, out: View) -> None:
    """Add up a few vectors of columns at a time; the last one may hold columns of the one before it again."""
    do, n = writer.do, out.shape[2].fixed
    starts = [*range(0, n - WIDTH + 1, WIDTH), *([n - WIDTH] if n % WIDTH else [])]
    with writer.loops(out, (0, 1)) as (h, i, _):
        for block in (starts[k : k + _BLOCK] for k in range(0, len(starts), _BLOCK)):
            totals = [do.variable(do.vector(0.0)) for _ in block]
            with do.loop(writer.size(first.shape[2])) as q:
                factor = do.spread(writer.element(first, (h, i, q)))
                for start, total in zip(block, totals, strict=True):
                    row = do.load_vector(*writer.place(second, (h, q, do.integer(start))))
                    do.builder.store(do.add(do.builder.load(total), do.mul(factor, row)), total)
            for start, total in zip(block, totals, strict=True):
                do.store_vector(do.builder.load(total), *writer.place(out, (h, i, do.integer(start))))


def _sparse(writer: "Writer", operation: Operation) -> None:
    """Row by row, by the elements that are not zero: their values, where rows begin among them, their columns."""
    (values, begins, columns, second), (out,), do = operation.inputs, operation.out, writer.do
    width = out.shape[2]
    few = width.per_row == 0 and width.fixed <= _FEW
    line = View(second.array, second.offset, (width,), (second.strides[2],))

    def add_up(row: ir.Value, js: Sequence[ir.Value]) -> None:
        totals = [do.variable(do.number(0.0)) for _ in js]
        begin, end = (
            do.load(*writer.place(begins, (index,))) for index in (row, do.plus(row, do.integer(1)))
        )
        with do.loop(end, begin) as p:
            factor = writer.element(values, (p,))
            place = do.times(writer.element(columns, (p,)), second.strides[1].fixed)
            for j, total in zip(js, totals, strict=True):
                term = do.mul(factor, writer.element(line, (j,), place))
                do.builder.store(do.add(do.builder.load(total), term), total)
        for j, total in zip(js, totals, strict=True):
            writer.keep(do.builder.load(total), out, (writer.zero, row, j))

    with writer.loops(out, (1,)) as (_, row, _):
        if few:
            add_up(row, [do.integer(j) for j in range(width.fixed)])
        else:
            with writer.loops(out, (2,)) as (_, _, j):
                add_up(row, [j])
