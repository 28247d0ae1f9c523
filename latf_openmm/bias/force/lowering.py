"""A recorded graph of tensor operations as a `Program`: every operation a nest of loops on views of arrays.

Which views share an array is seen from torch itself, by running the graph on examples: a node whose result has the
storage of an earlier one writes nothing. Sizes that differ between the examples become lengths that depend on the
number of rows of the state.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from latf_openmm.bias.compiled.program import BOX, POSITIONS, SCRATCH, STATE, Operation, Program, Size, View
from latf_openmm.bias.force.traced_forces import node_values
from latf_openmm.errors import ModelError


class UnknownOperationError(ModelError):
    """An operation, or a form of it, that no program has."""


class Lowering:
    """One walk through a graph.

    Parameters
    ----------
    module
        Graph of (positions, box, state) -> (energy, forces).
    examples
        Arguments; three of different numbers of rows of the state where that number changes, else one.
    program
        What is added to.
    """

    def __init__(
        self, module: fx.GraphModule, examples: Sequence[Sequence[Tensor]], program: Program
    ) -> None:
        self.module = module
        self.program = program
        self.rows = [len(arguments[2]) for arguments in examples]
        self.values = [node_values(module, arguments) for arguments in examples]
        self.arrays: dict[tuple[int, bool], int] = {}
        self.known_constants: dict[tuple[float, ...], int] = {}

    def run(self, handlers: dict[Any, "Handler"]) -> Program:
        """Add all operations, and return the program.

        Raises
        ------
        UnknownOperationError
            If there is no handler for one of them.
        """
        kinds = iter((POSITIONS, BOX, STATE))
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self._argument(node, next(kinds))
            elif node.op == "get_attr":
                self._constant(node)
            elif node.op == "output":
                energy, forces = node.args[0]
                self.program.energy, self.program.forces = self.view(energy), self.view(forces)
            elif node.op == "call_function" and not self._writes_nothing(node):
                self._operation(node, handlers)
        return self.program

    def _operation(self, node: fx.Node, handlers: dict[Any, "Handler"]) -> None:
        if node.target not in handlers:
            raise UnknownOperationError(f"no program has the operation {node.target}")
        try:
            handlers[node.target](self, node, *node.args, **node.kwargs)
        except TypeError as error:
            raise UnknownOperationError(f"no program has this form of {node.target} ({error})") from error

    # --- what nodes are ----------------------------------------------------------------------------

    def tensors(self, node: Any) -> list[Tensor]:
        """Values of a node that is a tensor, one for each example."""
        values = [known[node] for known in self.values]
        if not all(isinstance(value, Tensor) for value in values):
            raise UnknownOperationError(f"{node} is not a tensor")
        return values

    def view(self, node: Any) -> View:
        """Elements of a node, as numbers."""
        return self.view_of(self.tensors(node))

    def view_of(self, tensors: Sequence[Tensor], integers: bool = False) -> View:
        """Elements of a tensor, given by its values for all examples; `integers`: constant indices stay integers."""
        key = (storage(tensors[0]), integers)
        array = self.arrays[key if key in self.arrays else (key[0], False)]
        (offset,) = self._fits([(int(value.storage_offset()),) for value in tensors])
        shape = self._fits([tuple(value.shape) for value in tensors])
        return View(array, offset, shape, self._fits([value.stride() for value in tensors]))

    def _fits(self, values: Sequence[Sequence[int]]) -> tuple[Size, ...]:
        """Lengths, one for each position, from those of all examples."""
        sizes = []
        for numbers in zip(*values, strict=True):
            size = Size(numbers[0])
            if len(set(numbers)) > 1:
                per_row = (numbers[1] - numbers[0]) // (self.rows[1] - self.rows[0])
                size = Size(numbers[0] - per_row * self.rows[0], per_row)
            if [size.at(rows) for rows in self.rows] != list(numbers):
                raise UnknownOperationError(f"sizes {numbers} do not grow with the number of rows")
            sizes.append(size)
        return tuple(sizes)

    # --- arrays ------------------------------------------------------------------------------------

    def _argument(self, node: fx.Node, kind: str) -> None:
        (size,) = self._fits([(value.numel(),) for value in self.tensors(node)])
        self.arrays[storage(self.tensors(node)[0]), False] = self.program.add_array(kind, size)

    def _constant(self, node: fx.Node) -> None:
        """Register the storage of a constant; of indices as integers, too."""
        value = self.tensors(node)[0]
        key = storage(value)
        if (key, False) in self.arrays:
            return
        flat = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage()).detach().numpy()
        self.arrays[key, False] = self.program.add_constant(flat.astype(np.float64))
        if value.dtype == torch.int64:
            self.arrays[key, True] = self.program.add_constant(flat)

    def number(self, value: float | int | bool, shape: tuple[Size, ...] = ()) -> View:
        """A number, as a view of any shape."""
        key = (float(value),)
        if key not in self.known_constants:
            self.known_constants[key] = self.program.add_constant(np.array(key))
        return View(self.known_constants[key], Size(0), shape, (Size(0),) * len(shape))

    def scratch(self, shape: tuple[Size, ...]) -> View:
        """A new array for intermediate results, in C order."""
        strides: list[Size] = []
        size = Size(1)
        for length in reversed(shape):
            strides.append(size)
            size = _times(size, length)
        array = self.program.add_array(SCRATCH, size)
        return View(array, Size(0), shape, tuple(reversed(strides)))

    def new(self, node: fx.Node) -> View:
        """A new array for the result of a node, laid out as torch does."""
        return self.new_of(self.tensors(node))

    def new_of(self, tensors: Sequence[Tensor]) -> View:
        """A new array for a result, given by its values for all examples."""
        if not all(_is_dense(value) for value in tensors):
            raise UnknownOperationError("a result does not fill its memory")
        (size,) = self._fits([(value.numel(),) for value in tensors])
        self.arrays[storage(tensors[0]), False] = self.program.add_array(SCRATCH, size)
        return self.view_of(tensors)

    def _writes_nothing(self, node: fx.Node) -> bool:
        """Return whether the storages of all results are there already."""
        value = self.values[0][node]
        results = [value] if isinstance(value, Tensor) else list(value)
        return all((storage(result), False) in self.arrays for result in results)

    # --- operations --------------------------------------------------------------------------------

    def operand(self, argument: Any, shape: tuple[Size, ...]) -> View:
        """A node or a number as a view of the given shape."""
        if not isinstance(argument, fx.Node):
            return self.number(argument, shape)
        return expanded(self.view(argument), shape)

    def add(
        self,
        kind: str,
        function: str,
        out: View | tuple[View, ...],
        inputs: Sequence[View],
        numbers: Sequence[int] = (),
    ) -> None:
        """Add an operation with one result or several."""
        outs = (out,) if isinstance(out, View) else out
        self.program.operations.append(Operation(kind, function, outs, tuple(inputs), tuple(numbers)))

    def mapped(self, function: str, *inputs: View) -> View:
        """Add a map into a new array of the shape of its inputs."""
        out = self.scratch(inputs[0].shape)
        self.add("map", function, out, inputs)
        return out

    def listed(self, values: Tensor) -> View:
        """A constant list."""
        array = self.program.add_constant(values.detach().numpy())
        return View(array, Size(0), (Size(len(values)),), (Size(1),))

    def copy(self, source: View, out: View) -> None:
        """Add the copying of a view."""
        self.add("map", "copy", out, [expanded(source, out.shape)])


Handler = Callable[..., None]
"""Adds what a node does to a program: of a `Lowering`, the node, and its arguments as torch names them."""


def storage(tensor: Tensor) -> int:
    """Return what tells the memory of a tensor from that of others, as long as it lives."""
    return int(tensor.untyped_storage()._cdata)


def expanded(view: View, shape: tuple[Size, ...]) -> View:
    """Return a view of a larger shape, by torch's rules of broadcasting."""
    missing = len(shape) - len(view.shape)
    old = (Size(1),) * missing + view.shape
    strides = (Size(0),) * missing + view.strides
    kept = tuple(
        Size(0) if length == Size(1) else stride for length, stride in zip(old, strides, strict=True)
    )
    return View(view.array, view.offset, shape, kept)


def part(view: View, axis: int, first: int, length: Size, step: int = 1) -> View:
    """Return the elements first, first + step, ... along one axis."""
    stride = view.strides[axis]
    offset = plus(view.offset, Size(first * stride.fixed, first * stride.per_row))
    strides = (
        *view.strides[:axis],
        Size(step * stride.fixed, step * stride.per_row),
        *view.strides[axis + 1 :],
    )
    return View(view.array, offset, (*view.shape[:axis], length, *view.shape[axis + 1 :]), strides)


def plus(first: Size, second: Size) -> Size:
    """Return the sum of two lengths."""
    return Size(first.fixed + second.fixed, first.per_row + second.per_row)


def _times(first: Size, second: Size) -> Size:
    if first.per_row and second.per_row:
        raise UnknownOperationError("a size grows with the square of the number of rows")
    return Size(first.fixed * second.fixed, first.fixed * second.per_row + first.per_row * second.fixed)


def _is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor fills its memory, in some order of its axes."""
    size = 1
    pairs = [
        (stride, length) for stride, length in zip(tensor.stride(), tensor.shape, strict=True) if length != 1
    ]
    for stride, length in sorted(pairs):
        if stride != size:
            return False
        size *= length
    return int(tensor.storage_offset()) == 0
