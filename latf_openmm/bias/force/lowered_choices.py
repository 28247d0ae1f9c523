"""How torch's choices of elements are written as loops, for `Lowering`: indices, joints, orders."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from latf_openmm.bias.compiled.program import Size, View
from latf_openmm.bias.force.lowered_arithmetic import ARITHMETIC, along_axes, lifted
from latf_openmm.bias.force.lowering import Handler, Lowering, UnknownOperationError, expanded, part, plus

aten = torch.ops.aten
_JOINS = {"sum": ("add", 0.0), "amax": ("max", -math.inf), "amin": ("min", math.inf)}
"""How values that go to one place are joined: function, and what it begins with."""


def _indices(low: Lowering, node: Any, length: Size) -> View:
    """Indices as a view: integers where they are constant, and not negative."""
    tensors = low.tensors(node)
    if tensors[0].dtype == torch.bool:
        raise UnknownOperationError("a mask as an index")
    if node.op == "get_attr" and bool((tensors[0] < 0).any()):
        wrapped = tensors[0] + (tensors[0] < 0) * length.fixed
        array = low.listed(wrapped.flatten()).array
        strides = torch.empty(wrapped.shape, device="meta").stride()
        return View(array, Size(0), tuple(map(Size, wrapped.shape)), tuple(map(Size, strides)))
    return low.view_of(tensors, integers=True)


def _numbers(view: View, axes: Sequence[int]) -> list[int]:
    """Stride and length of the axes that are indexed."""
    numbers = []
    for axis in axes:
        stride, length = view.strides[axis], view.shape[axis]
        if stride.per_row or length.per_row:
            raise UnknownOperationError("an index into an axis of open length")
        numbers += [stride.fixed, length.fixed]
    return numbers


def _at(view: View, axis: int, shape: tuple[Size, ...]) -> View:
    """Elements of a view along all axes but one, which an index gives."""
    strides = tuple(Size(0) if i == axis else stride for i, stride in enumerate(view.strides))
    return View(view.array, view.offset, shape, strides)


def _along(index: View, axis: int, shape: tuple[Size, ...]) -> View:
    """A list of indices along one axis of a shape."""
    strides = tuple(index.strides[0] if i == axis else Size(0) for i in range(len(shape)))
    return View(index.array, index.offset, shape, strides)


def _gather(
    low: Lowering, node: fx.Node, source: Any, dim: int, index: Any, sparse_grad: bool = False
) -> None:
    value, out = low.view(source), low.new(node)
    axis = dim % len(value.shape)
    places = _indices(low, index, value.shape[axis])
    low.add("gather", "", out, [_at(value, axis, out.shape), places], _numbers(value, [axis]))


def _index_select(low: Lowering, node: fx.Node, source: Any, dim: int, index: Any) -> None:
    value, out = low.view(source), low.new(node)
    axis = dim % len(value.shape)
    places = _along(_indices(low, index, value.shape[axis]), axis, out.shape)
    low.add("gather", "", out, [_at(value, axis, out.shape), places], _numbers(value, [axis]))


def _take(low: Lowering, node: fx.Node, source: Any, index: Any) -> None:
    value, out = low.view(source), low.new(node)
    if len(value.shape) != 1:
        raise UnknownOperationError("take from more than one axis")
    base = View(value.array, value.offset, out.shape, (Size(0),) * len(out.shape))
    low.add("gather", "", out, [base, _indices(low, index, value.shape[0])], _numbers(value, [0]))


def _indexed(
    low: Lowering, source: View, given: Sequence[Any], shape: tuple[Size, ...]
) -> tuple[View, list[View], list[int]]:
    """Elements, indices and numbers of ``source[given]``, with neighbouring axes indexed by tensors."""
    axes = _indexed_axes(given)
    first, last = axes[0], axes[-1]
    views = [_indices(low, given[axis], source.shape[axis]) for axis in axes]
    depth = max(len(view.shape) for view in views)
    strides = (*source.strides[:first], *(Size(0),) * depth, *source.strides[last + 1 :])
    inner = shape[first : first + depth]
    before, after = (Size(0),) * first, (Size(0),) * (len(shape) - first - depth)
    indices = [
        View(view.array, view.offset, shape, (*before, *expanded(view, inner).strides, *after))
        for view in views
    ]
    return View(source.array, source.offset, shape, strides), indices, _numbers(source, axes)


def _indexed_axes(given: Sequence[Any]) -> list[int]:
    axes = [axis for axis, item in enumerate(given) if item is not None]
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise UnknownOperationError("indices of axes that are not neighbours")
    return axes


def _index(low: Lowering, node: fx.Node, source: Any, given: Sequence[Any]) -> None:
    out = low.new(node)
    base, indices, numbers = _indexed(low, low.view(source), given, out.shape)
    low.add("gather", "", out, [base, *indices], numbers)


def _index_put(
    low: Lowering, node: fx.Node, target: Any, given: Sequence[Any], values: Any, accumulate: bool = False
) -> None:
    out = low.new(node)
    low.copy(low.view(target), out)
    axes = _indexed_axes(given)
    lengths = torch.broadcast_shapes(*[low.tensors(given[axis])[0].shape for axis in axes])
    shape = (*out.shape[: axes[0]], *(Size(n) for n in lengths), *out.shape[axes[-1] + 1 :])
    base, indices, numbers = _indexed(low, out, given, shape)
    low.add("scatter", "add" if accumulate else "set", base, [low.operand(values, shape), *indices], numbers)


def _index_change(low: Lowering, node: fx.Node, target: Any, dim: int, index: Any, source: Any) -> None:
    out = low.new(node)
    low.copy(low.view(target), out)
    axis, value = dim % len(out.shape), low.view(source)
    places = _along(_indices(low, index, out.shape[axis]), axis, value.shape)
    function = "add" if node.target == aten.index_add.default else "set"
    low.add("scatter", function, _at(out, axis, value.shape), [value, places], _numbers(out, [axis]))


def _scatter(low: Lowering, node: fx.Node, target: Any, dim: int, index: Any, source: Any) -> None:
    out = low.new(node)
    low.copy(low.view(target), out)
    axis = dim % len(out.shape)
    places = _indices(low, index, out.shape[axis])
    if not isinstance(source, fx.Node):
        value = low.number(source, places.shape)
    else:  # torch takes as much of it as there are indices
        value = low.view(source)
        value = View(value.array, value.offset, places.shape, value.strides)
    function = "add" if node.target == aten.scatter_add.default else "set"
    low.add("scatter", function, _at(out, axis, places.shape), [value, places], _numbers(out, [axis]))


def _scatter_reduce(
    low: Lowering,
    node: fx.Node,
    target: Any,
    dim: int,
    index: Any,
    source: Any,
    reduce: str,
    include_self: bool = True,
) -> None:
    if reduce not in _JOINS:
        raise UnknownOperationError(f"scatter_reduce by {reduce}")
    function, start = _JOINS[reduce]
    out, value = low.new(node), low.view(source)
    low.copy(low.view(target), out)
    axis = dim % len(out.shape)
    places = _indices(low, index, out.shape[axis])
    base, numbers = _at(out, axis, places.shape), _numbers(out, [axis])
    if not include_self:
        low.add("scatter", "set", base, [low.number(start, places.shape), places], numbers)
    value = View(value.array, value.offset, places.shape, value.strides)
    low.add("scatter", function, base, [value, places], numbers)


def _cat(low: Lowering, node: fx.Node, items: Sequence[Any], dim: int = 0) -> None:
    out = low.new(node)
    axis, place = dim % len(out.shape), out
    stride = out.strides[axis]
    for item in items:
        if low.tensors(item)[0].dim() != len(out.shape):
            continue  # torch leaves empty lists out
        value = low.view(item)
        length = value.shape[axis]
        low.copy(value, part(place, axis, 0, length))
        if stride.per_row and length.per_row:
            raise UnknownOperationError("a joint of open lengths")
        more = Size(
            stride.fixed * length.fixed, stride.fixed * length.per_row + stride.per_row * length.fixed
        )
        place = View(place.array, plus(place.offset, more), place.shape, place.strides)


def _slice_scatter(
    low: Lowering,
    node: fx.Node,
    target: Any,
    source: Any,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> None:
    out, value = low.new(node), low.view(source)
    low.copy(low.view(target), out)
    axis, first = dim % len(out.shape), start or 0
    first += out.shape[axis].fixed if first < 0 else 0
    low.copy(value, part(out, axis, first, value.shape[axis], step))


def _select_scatter(low: Lowering, node: fx.Node, target: Any, source: Any, dim: int, index: int) -> None:
    out = low.new(node)
    low.copy(low.view(target), out)
    axis = dim % len(out.shape)
    low.copy(lifted(low.view(source), axis), part(out, axis, index % out.shape[axis].fixed, Size(1)))


def _pad(low: Lowering, node: fx.Node, source: Any, pads: Sequence[int], value: float = 0.0) -> None:
    out, inside = low.new(node), low.view(source)
    low.copy(low.number(value), out)
    place, last = out, len(out.shape) - 1
    for index in range(len(pads) // 2):
        before, after = pads[2 * index : 2 * index + 2]
        length = plus(inside.shape[last - index], Size(min(before, 0) + min(after, 0)))
        inside = part(inside, last - index, max(-before, 0), length)
        place = part(place, last - index, max(before, 0), length)
    low.copy(inside, place)


def _flip(low: Lowering, node: fx.Node, source: Any, dims: Sequence[int]) -> None:
    value = low.view(source)
    for dim in dims:
        length = value.shape[dim]
        if length.per_row:
            raise UnknownOperationError("an axis of open length backwards")
        value = part(value, dim % len(value.shape), length.fixed - 1, length, -1)
    low.copy(value, low.new(node))


def _sort(low: Lowering, node: fx.Node, source: Any, dim: int = -1, descending: bool = False) -> None:
    value = low.view(source)
    outs = tuple(low.new_of([values[node][item] for values in low.values]) for item in (0, 1))
    low.add("sort", "descending" if descending else "ascending", outs, [value], [dim % len(value.shape)])


def _argmin(low: Lowering, node: fx.Node, source: Any, dim: int | None = None, keepdim: bool = False) -> None:
    if dim is None:
        raise UnknownOperationError(f"{node.target} of all elements")
    value = low.view(source)
    axis = dim % len(value.shape)
    function = "min" if node.target == aten.argmin.default else "max"
    low.add("argmin", function, along_axes(low.new(node), value.shape, [axis]), [value], [axis])


def _cumsum(low: Lowering, node: fx.Node, source: Any, dim: int) -> None:
    value = low.view(source)
    low.add("scan", "sum", low.new(node), [value], [dim % len(value.shape)])


def _nothing(low: Lowering, node: fx.Node, *_: Any) -> None:
    """Add nothing: the node is one of several results of an operation."""


HANDLERS: dict[Any, Handler] = {
    **ARITHMETIC,
    aten.gather.default: _gather,
    aten.index_select.default: _index_select,
    aten.take.default: _take,
    aten.index.Tensor: _index,
    aten.index_put.default: _index_put,
    aten.index_add.default: _index_change,
    aten.index_copy.default: _index_change,
    aten.scatter.src: _scatter,
    aten.scatter.value: _scatter,
    aten.scatter_add.default: _scatter,
    aten.scatter_reduce.two: _scatter_reduce,
    aten.cat.default: _cat,
    aten.slice_scatter.default: _slice_scatter,
    aten.select_scatter.default: _select_scatter,
    aten.constant_pad_nd.default: _pad,
    aten.flip.default: _flip,
    aten.sort.default: _sort,
    aten.argmin.default: _argmin,
    aten.argmax.default: _argmin,
    aten.cumsum.default: _cumsum,
    operator.getitem: _nothing,
}
"""For each operation of torch, the function that adds it to a program; views need none."""
