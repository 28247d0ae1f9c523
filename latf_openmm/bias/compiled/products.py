"""Products of matrices as instructions: what takes most of the time of a network."""

from collections.abc import Sequence

from llvmlite import ir

from latf_openmm.bias.compiled.elements import Elements
from latf_openmm.bias.compiled.instructions import WIDTH
from latf_openmm.bias.compiled.program import Operation, Size, View

_BLOCK = 4
"""Vectors of columns that are added up at a time, each in its register."""
_FEW = 4
"""Columns of a sparse product up to so many are added up at a time."""


def write_product(elements: Elements, operation: Operation) -> None:
    """Write out = first second for a batch of matrices; or with a sparse first matrix."""
    if operation.function == "sparse":
        _sparse(elements, operation)
        return
    (first, second), (out,) = operation.inputs, operation.out
    columns = out.shape[2]
    in_order = second.strides[2] == out.strides[2] == Size(1)
    if in_order and columns.per_row == 0 and columns.fixed >= WIDTH:
        _by_columns(elements, first, second, out)
    else:
        _by_elements(elements, first, second, out)


def _by_elements(elements: Elements, first: View, second: View, out: View) -> None:
    do = elements.do
    with elements.loops(out) as (h, i, j):
        total = do.variable(do.number(0.0))
        with do.loop(elements.size(first.shape[2])) as q:
            term = do.mul(elements.element(first, (h, i, q)), elements.element(second, (h, q, j)))
            do.builder.store(do.add(do.builder.load(total), term), total)
        elements.keep(do.builder.load(total), out, (h, i, j))


def _by_columns(elements: Elements, first: View, second: View, out: View) -> None:
    """Add up a few vectors of columns at a time; the last one may hold columns of the one before it again."""
    do, n = elements.do, out.shape[2].fixed
    starts = [*range(0, n - WIDTH + 1, WIDTH), *([n - WIDTH] if n % WIDTH else [])]
    with elements.loops(out, (0, 1)) as (h, i, _):
        for block in (starts[k : k + _BLOCK] for k in range(0, len(starts), _BLOCK)):
            totals = [do.variable(do.vector(0.0)) for _ in block]
            with do.loop(elements.size(first.shape[2])) as q:
                factor = do.spread(elements.element(first, (h, i, q)))
                for start, total in zip(block, totals, strict=True):
                    row = do.load_vector(*elements.place(second, (h, q, do.integer(start))))
                    do.builder.store(do.add(do.builder.load(total), do.mul(factor, row)), total)
            for start, total in zip(block, totals, strict=True):
                do.store_vector(do.builder.load(total), *elements.place(out, (h, i, do.integer(start))))


def _sparse(elements: Elements, operation: Operation) -> None:
    """Row by row, by the elements that are not zero: their values, where rows begin among them, their columns."""
    (values, begins, columns, second), (out,), do = operation.inputs, operation.out, elements.do
    width = out.shape[2]
    few = width.per_row == 0 and width.fixed <= _FEW
    line = View(second.array, second.offset, (width,), (second.strides[2],))

    def add_up(row: ir.Value, js: Sequence[ir.Value]) -> None:
        totals = [do.variable(do.number(0.0)) for _ in js]
        begin, end = (
            do.load(*elements.place(begins, (index,))) for index in (row, do.plus(row, do.integer(1)))
        )
        with do.loop(end, begin) as p:
            factor = elements.element(values, (p,))
            place = do.times(elements.element(columns, (p,)), second.strides[1].fixed)
            for j, total in zip(js, totals, strict=True):
                term = do.mul(factor, elements.element(line, (j,), place))
                do.builder.store(do.add(do.builder.load(total), term), total)
        for j, total in zip(js, totals, strict=True):
            elements.keep(do.builder.load(total), out, (elements.zero, row, j))

    with elements.loops(out, (1,)) as (_, row, _):
        if few:
            add_up(row, [do.integer(j) for j in range(width.fixed)])
        else:
            with elements.loops(out, (2,)) as (_, _, j):
                add_up(row, [j])
