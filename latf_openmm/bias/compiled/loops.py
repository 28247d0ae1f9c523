"""The operations of a program as loops of LLVM's instructions; the same text for programs of the same form.

Numbers are not in it, so that what was compiled for one model serves for all of its architecture. A map whose result
is used once, by another map or a sum, is computed there.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from llvmlite import ir

from latf_openmm.bias.compiled.elements import MEMORY, Elements, Indices
from latf_openmm.bias.compiled.instructions import DOUBLE, FUNCTIONS, INTEGER as WHOLE, Instructions
from latf_openmm.bias.compiled.layout import Layout, same_elements
from latf_openmm.bias.compiled.products import write_product
from latf_openmm.bias.compiled.program import INTEGER, Operation, Program, View

ENTRY = "evaluate"
"""Name of the function."""
_Lines = tuple[list[ir.Value], AbstractContextManager[list[ir.Value]]]


def instructions(program: Program, layout: Layout) -> str:
    """Return the text of ``double evaluate(table, n)``.

    `table` is the address of eight integers: the addresses of positions, forces, box, state, scratch, constants and
    integers, and the number of copies. n is the number of rows of the state. It returns the energy of all copies.
    """
    module = ir.Module("bias")
    pointers = [(WHOLE if name == "k" else DOUBLE).as_pointer() for name in MEMORY]
    inner = ir.Function(module, ir.FunctionType(DOUBLE, [*pointers, WHOLE, WHOLE]), "copies")
    inner.linkage = "internal"
    for argument in inner.args[: len(MEMORY)]:
        argument.add_attribute("noalias")
    Writer(inner, program, layout).write()
    outer = ir.Function(module, ir.FunctionType(DOUBLE, [WHOLE.as_pointer(), WHOLE]), ENTRY)
    write = Instructions(outer)
    numbers = [write.load(outer.args[0], write.integer(index)) for index in range(len(MEMORY) + 1)]
    memory = [
        write.builder.inttoptr(number, kind) for number, kind in zip(numbers[:-1], pointers, strict=True)
    ]
    write.builder.ret(write.builder.call(inner, [*memory, numbers[-1], outer.args[1]]))
    return str(module)


class Writer(Elements):
    """Writes the function for all copies."""

    def __init__(self, function: ir.Function, program: Program, layout: Layout) -> None:
        super().__init__(function, layout)
        self.program = program
        self.kinds = {
            "map": self._map,
            "reduce": self._reduce,
            "product": lambda operation: write_product(self, operation),
            "gather": self._gather,
            "scatter": self._scatter,
            "sort": self._sort,
            "argmin": self._argmin,
            "scan": self._scan,
        }

    def write(self) -> None:
        """Write everything: for each copy its positions, the operations, and its forces."""
        do, (energy, forces) = self.do, self.program.results()
        self.scalars = {
            place: do.load(self.memory["c"], do.integer(place)) for place in sorted(self.layout.scalars)
        }
        total = do.variable(do.number(0.0))
        axis = [do.integer(index) for index in range(3)]
        with do.loop(self.copies) as copy:
            base = do.times(copy, 3 * self.program.n_atoms)
            with self._atoms() as (i, atom):
                for j in range(3):
                    place = do.plus(base, do.plus(atom, axis[j]))
                    target = do.plus(do.times(i, 3), axis[j])
                    do.store(do.load(self.memory["positions"], place), self.memory["w"], target)
            for operation in self.program.operations:
                if operation.out[0].array not in self.layout.inlined:
                    self.kinds[operation.kind](operation)
            do.builder.store(do.add(do.builder.load(total), self.element(energy, ())), total)
            with self._atoms() as (i, atom):
                for j in range(3):
                    value = self.element(forces, (i, axis[j]))
                    do.store(value, self.memory["forces"], do.plus(base, do.plus(atom, axis[j])))
        do.builder.ret(do.builder.load(total))

    @contextmanager
    def _atoms(self) -> Iterator[tuple[ir.Value, ir.Value]]:
        """Repeat for each atom that counts; its index among them, and three times that in a copy."""
        with self.do.loop(self.do.integer(len(self.program.atoms))) as i:
            yield i, self.do.times(self.do.load(self.memory["k"], i), 3)

    # --- elements ----------------------------------------------------------------------------------

    def value(self, view: View, names: Indices) -> ir.Value:
        """An element, computed here where it is in no memory."""
        operation = self.layout.inlined.get(view.array)
        if operation is None:
            return self.element(view, names)
        axes = same_elements(view, operation.out[0])
        assert axes is not None
        return self.mapped(operation, [self.zero if axis is None else names[axis] for axis in axes])

    def mapped(self, operation: Operation, names: Indices) -> ir.Value:
        """An element of the result of a map."""
        values = [self.value(view, names) for view in operation.inputs]
        return FUNCTIONS[operation.function](self.do, *values, *operation.numbers)

    # --- operations --------------------------------------------------------------------------------

    def _map(self, operation: Operation) -> None:
        (out,) = operation.out
        with self.loops(out) as names:
            self.keep(self.mapped(operation, names), out, names)

    def _reduce(self, operation: Operation) -> None:
        (source,), (out,), do = operation.inputs, operation.out, self.do
        start = {"sum": 0.0, "max": float("-inf"), "min": float("inf")}[operation.function]
        with self._lines(source, operation.numbers) as (names, inner):
            total = do.variable(do.number(start))
            with inner as further:
                value = self.value(source, _merged(names, further))
                do.builder.store(self._joined(operation.function, do.builder.load(total), value), total)
            self.keep(do.builder.load(total), out, names)

    @contextmanager
    def _lines(self, view: View, axes: Sequence[int]) -> Iterator[_Lines]:
        """Repeat for all axes but some; the loops over these are to be opened inside."""
        kept = [axis for axis in range(len(view.shape)) if axis not in axes]
        with self.loops(view, kept) as names:
            yield names, self.loops(view, axes)

    def _index(self, view: View, names: Indices, length: int) -> ir.Value:
        """An index, kept inside the array where it was computed."""
        do, value = self.do, self.value(view, names)
        if self.program.arrays[view.array].kind == INTEGER:
            return value
        inside = do.builder.and_(
            do.compared(">=", value, do.number(0.0)), do.compared("<", value, do.number(float(length)))
        )
        return do.builder.fptosi(do.chosen(inside, value, do.number(0.0)), WHOLE)

    def _distances(self, operation: Operation, names: Indices) -> list[ir.Value]:
        """Distances that the indices of an operation add to a place."""
        numbers = zip(operation.numbers[::2], operation.numbers[1::2], strict=True)
        return [
            self.do.times(self._index(view, names, length), stride)
            for view, (stride, length) in zip(operation.inputs[1:], numbers, strict=True)
        ]

    def _gather(self, operation: Operation) -> None:
        (out,) = operation.out
        with self.loops(out) as names:
            value = self.element(operation.inputs[0], names, *self._distances(operation, names))
            self.keep(value, out, names)

    def _scatter(self, operation: Operation) -> None:
        (out,) = operation.out
        with self.loops(out) as names:
            value, distances = self.element(operation.inputs[0], names), self._distances(operation, names)
            if operation.function != "set":
                value = self._joined(operation.function, self.element(out, names, *distances), value)
            self.keep(value, out, names, *distances)

    def _joined(self, function: str, total: ir.Value, value: ir.Value) -> ir.Value:
        """Return a sum, largest or smallest value with one more."""
        if function in ("add", "sum"):
            return self.do.add(total, value)
        return self.do.extreme(">" if function == "max" else "<", value, total)

    def _sort(self, operation: Operation) -> None:
        """By insertion: an element changes places with the one before it as long as that has to come after it."""
        (source,), (values, indices), axis = operation.inputs, operation.out, operation.numbers[0]
        do, sign = self.do, "<" if operation.function == "ascending" else ">"
        with self._lines(source, (axis,)) as (names, inner), inner as further:
            at = _merged(names, further)
            self.keep(self.element(source, at), values, at)
            self.keep(do.builder.sitofp(at[axis], DOUBLE), indices, at)
            with do.loop(at[axis]) as back:
                later = do.builder.sub(at[axis], back)
                earlier = do.builder.sub(later, do.integer(1))
                pair = [[*at[:axis], index, *at[axis + 1 :]] for index in (later, earlier)]
                swap = do.compared(sign, *(self.element(values, place) for place in pair))
                for view in (values, indices):
                    a, b = (self.element(view, place) for place in pair)
                    self.keep(do.chosen(swap, b, a), view, pair[0])
                    self.keep(do.chosen(swap, a, b), view, pair[1])

    def _argmin(self, operation: Operation) -> None:
        (source,), (out,), axis = operation.inputs, operation.out, operation.numbers[0]
        do, smallest = self.do, operation.function == "min"
        with self._lines(source, (axis,)) as (names, inner):
            best = do.variable(do.number(float("inf") if smallest else float("-inf")))
            place = do.variable(do.number(0.0))
            with inner as further:
                at = _merged(names, further)
                value, before = self.element(source, at), do.builder.load(best)
                better = do.compared("<" if smallest else ">", value, before)
                do.builder.store(do.chosen(better, value, before), best)
                index = do.builder.sitofp(at[axis], DOUBLE)
                do.builder.store(do.chosen(better, index, do.builder.load(place)), place)
            self.keep(do.builder.load(place), out, names)

    def _scan(self, operation: Operation) -> None:
        (source,), (out,), do = operation.inputs, operation.out, self.do
        with self._lines(source, operation.numbers) as (names, inner):
            total = do.variable(do.number(0.0))
            with inner as further:
                at = _merged(names, further)
                do.builder.store(do.add(do.builder.load(total), self.element(source, at)), total)
                self.keep(do.builder.load(total), out, at)


def _merged(first: Indices, second: Indices) -> list[ir.Value]:
    """Indices of which each is in one of two lists; in the other it is the constant 0."""
    return [b if isinstance(a, ir.Constant) else a for a, b in zip(first, second, strict=True)]
