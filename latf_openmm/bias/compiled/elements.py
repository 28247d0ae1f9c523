"""Elements of the arrays of a program: where each is in memory, and loops over them, as LLVM's instructions."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from llvmlite import ir

from latf_openmm.bias.compiled.instructions import Instructions
from latf_openmm.bias.compiled.layout import Layout
from latf_openmm.bias.compiled.program import Size, View

MEMORY = ("positions", "forces", "b", "s", "w", "c", "k")
"""Memory that the function is given, in order: of the arguments, and of the arrays by their letters."""

Indices = Sequence[ir.Value]


class Elements:
    """Reads and writes elements inside a function whose arguments are the memory, copies and rows of the state."""

    def __init__(self, function: ir.Function, layout: Layout) -> None:
        self.do = Instructions(function)
        self.layout = layout
        self.memory = dict(zip(MEMORY, function.args, strict=False))
        self.copies, self.rows = function.args[len(MEMORY) :]
        self.zero = self.do.integer(0)
        self.scalars: dict[int, ir.Value] = {}

    def size(self, size: Size) -> ir.Value:
        """A length."""
        if size.per_row == 0:
            return self.do.integer(size.fixed)
        return self.do.plus(self.do.times(self.rows, size.per_row), self.do.integer(size.fixed))

    @contextmanager
    def loops(self, view: View, axes: Sequence[int] | None = None) -> Iterator[list[ir.Value]]:
        """Repeat for all indices of a view, or of some axes of it; others are 0."""
        names = [self.zero] * len(view.shape)
        with ExitStack() as stack:
            for axis in range(len(names)) if axes is None else axes:
                if view.shape[axis] != Size(1):
                    names[axis] = stack.enter_context(self.do.loop(self.size(view.shape[axis])))
            yield names

    def place(self, view: View, names: Indices, *more: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Memory and place of an element; `more` is added to the place."""
        letter, base = self.layout.place(view.array)
        place = self.size(Size(base.fixed + view.offset.fixed, base.per_row + view.offset.per_row))
        for length, stride, name in zip(view.shape, view.strides, names, strict=True):
            if length != Size(1) and stride != Size(0):
                place = self.do.plus(place, self._distance(name, stride))
        for term in more:
            place = self.do.plus(place, term)
        return self.memory[letter], place

    def _distance(self, index: ir.Value, stride: Size) -> ir.Value:
        if stride.per_row == 0:
            return self.do.times(index, stride.fixed)
        return self.do.builder.mul(index, self.size(stride), flags=("nsw",))

    def element(self, view: View, names: Indices, *more: ir.Value) -> ir.Value:
        """An element, from memory."""
        letter, base = self.layout.place(view.array)
        if letter == "c" and not more and base.fixed in self.scalars:
            return self.scalars[base.fixed]
        return self.do.load(*self.place(view, names, *more))

    def keep(self, value: ir.Value, view: View, names: Indices, *more: ir.Value) -> None:
        """Write an element."""
        self.do.store(value, *self.place(view, names, *more))
