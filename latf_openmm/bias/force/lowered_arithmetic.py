"""How torch's arithmetic is written as loops, for `Lowering`: maps, reductions and products."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from latf_openmm.bias.compiled.program import CONSTANT, WHOLE_POWERS, Size, View
from latf_openmm.bias.force.lowering import Handler, Lowering, UnknownOperationError

aten = torch.ops.aten
_MAPS: dict[Any, str] = {
    aten.abs.default: "abs",
    aten.acos.default: "acos",
    aten.asin.default: "asin",
    aten.atan.default: "atan",
    aten.atan2.default: "atan2",
    aten.ceil.default: "ceil",
    aten.cos.default: "cos",
    aten.cosh.default: "cosh",
    aten.div.Tensor: "div",
    aten.div.Scalar: "div",
    aten.eq.Scalar: "eq",
    aten.eq.Tensor: "eq",
    aten.erf.default: "erf",
    aten.exp.default: "exp",
    aten.expm1.default: "expm1",
    aten.floor.default: "floor",
    aten.ge.Scalar: "ge",
    aten.ge.Tensor: "ge",
    aten.gt.Scalar: "gt",
    aten.gt.Tensor: "gt",
    aten.hardshrink.default: "hardshrink",
    aten.le.Scalar: "le",
    aten.le.Tensor: "le",
    aten.log.default: "log",
    aten.log1p.default: "log1p",
    aten.logical_and.default: "and",
    aten.logical_not.default: "not",
    aten.logical_or.default: "or",
    aten.bitwise_and.Tensor: "and",
    aten.bitwise_or.Tensor: "or",
    aten.bitwise_not.default: "not",
    aten.lt.Scalar: "lt",
    aten.lt.Tensor: "lt",
    aten.maximum.default: "maximum",
    aten.minimum.default: "minimum",
    aten.mul.Scalar: "mul",
    aten.mul.Tensor: "mul",
    aten.ne.Scalar: "ne",
    aten.ne.Tensor: "ne",
    aten.neg.default: "neg",
    aten.pow.Tensor_Tensor: "pow",
    aten.pow.Scalar: "pow",
    aten.reciprocal.default: "reciprocal",
    aten.relu.default: "relu",
    aten.remainder.Scalar: "remainder",
    aten.remainder.Tensor: "remainder",
    aten.round.default: "round",
    aten.rsqrt.default: "rsqrt",
    aten.sigmoid.default: "sigmoid",
    aten.sign.default: "sign",
    aten.sin.default: "sin",
    aten.sinh.default: "sinh",
    aten.softshrink.default: "softshrink",
    aten.sqrt.default: "sqrt",
    aten.tan.default: "tan",
    aten.tanh.default: "tanh",
    aten.trunc.default: "trunc",
    aten.where.self: "where",
}
"""Operations on elements, with the functions of a map."""
_BASES: dict[Any, float] = {aten.log2.default: 2.0, aten.log10.default: 10.0}
"""Bases of logarithms."""
_REDUCTIONS: dict[Any, str] = {
    aten.sum.dim_IntList: "sum",
    aten.sum.default: "sum",
    aten.amax.default: "max",
    aten.amin.default: "min",
}
"""Operations along axes, with the functions of a reduction."""
_SPARSE = 0.3
"""Part of a constant matrix that may be other than zero for it to be multiplied by those elements alone."""
_SUMS = (aten.add.Tensor, aten.add.Scalar)
"""Sums of two; of others of that form the second is subtracted."""


def _map(low: Lowering, node: fx.Node, *arguments: Any) -> None:
    out = low.new(node)
    low.add("map", _MAPS[node.target], out, [low.operand(argument, out.shape) for argument in arguments])


def _shrink(low: Lowering, node: fx.Node, source: Any, limit: float = 0.5) -> None:
    _map(low, node, source, limit)


def _linear(low: Lowering, node: fx.Node, first: Any, second: Any, alpha: float = 1) -> None:
    out = low.new(node)
    a, b = low.operand(first, out.shape), low.operand(second, out.shape)
    if alpha != 1:
        b = low.mapped("mul", b, low.number(alpha, out.shape))
    low.add("map", "add" if node.target in _SUMS else "sub", out, [a, b])


def _addcmul(low: Lowering, node: fx.Node, first: Any, second: Any, third: Any) -> None:
    out = low.new(node)
    product = low.mapped("mul", low.operand(second, out.shape), low.operand(third, out.shape))
    low.add("map", "add", out, [low.operand(first, out.shape), product])


def _clamp(low: Lowering, node: fx.Node, source: Any, min: Any = None, max: Any = None) -> None:
    out = low.new(node)
    value = low.operand(source, out.shape)
    if min is not None:
        value = low.mapped("maximum", value, low.operand(min, out.shape))
    if max is not None:
        value = low.mapped("minimum", value, low.operand(max, out.shape))
    low.copy(value, out)


def _power(low: Lowering, node: fx.Node, source: Any, exponent: float) -> None:
    out = low.new(node)
    value = low.operand(source, out.shape)
    if exponent in WHOLE_POWERS:
        low.add("map", "power", out, [value], [int(exponent)])
    elif exponent == 0.5:
        low.add("map", "sqrt", out, [value])
    else:
        low.add("map", "pow", out, [value, low.number(exponent, out.shape)])


def _logarithm(low: Lowering, node: fx.Node, source: Any) -> None:
    out = low.new(node)
    natural = low.mapped("log", low.operand(source, out.shape))
    low.add("map", "mul", out, [natural, low.number(1.0 / math.log(_BASES[node.target]), out.shape)])


def _to_copy(low: Lowering, node: fx.Node, source: Any, dtype: Any = None, **_: Any) -> None:
    old, new = low.tensors(source)[0].dtype, low.tensors(node)[0].dtype
    out = low.new(node)
    value = low.operand(source, out.shape)
    if new == torch.bool:
        low.add("map", "ne", out, [value, low.number(0.0, out.shape)])
    else:
        truncates = old.is_floating_point and not new.is_floating_point
        low.add("map", "trunc" if truncates else "copy", out, [value])


def _clone(low: Lowering, node: fx.Node, source: Any, memory_format: Any = None) -> None:
    low.copy(low.view(source), low.new(node))


def _copy_into(low: Lowering, node: fx.Node, target: Any, source: Any) -> None:
    """The second argument, in the form of the first."""
    if low.tensors(target)[0].dtype != low.tensors(source)[0].dtype:
        raise UnknownOperationError("copying into another type")
    low.copy(low.view(source), low.new(node))


def _fill(low: Lowering, node: fx.Node, *_: Any, **__: Any) -> None:
    values = [value.flatten() for value in low.tensors(node)]
    filled = values[-1][0] if len(values[-1]) else 0.0
    if not all(bool((value == filled).all()) for value in values):
        raise UnknownOperationError(f"{node.target} of an open length")
    low.copy(low.number(float(filled)), low.new(node))


# --- reductions ------------------------------------------------------------------------------------


def _axes(dims: Any, n: int) -> list[int]:
    given = range(n) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    return sorted(axis % n for axis in given) if n else []


def along_axes(out: View, shape: tuple[Size, ...], axes: Sequence[int]) -> View:
    """Return a result as a view of the shape of what is reduced: it stays in place along those axes."""
    kept = iter(out.strides)
    strides = []
    for axis in range(len(shape)):
        stride = next(kept) if axis not in axes or len(out.shape) == len(shape) else Size(0)
        strides.append(Size(0) if axis in axes else stride)
    return View(out.array, out.offset, shape, tuple(strides))


def _reduce(low: Lowering, node: fx.Node, source: Any, dim: Any = None, keepdim: bool = False) -> None:
    value = low.view(source)
    axes = _axes(dim, len(value.shape))
    low.add("reduce", _REDUCTIONS[node.target], along_axes(low.new(node), value.shape, axes), [value], axes)


def _mean(low: Lowering, node: fx.Node, source: Any, dim: Any = None, keepdim: bool = False) -> None:
    value, out = low.view(source), low.new(node)
    axes = _axes(dim, len(value.shape))
    count = 1
    for axis in axes:
        if value.shape[axis].per_row:
            raise UnknownOperationError("the mean of an open number of elements")
        count *= value.shape[axis].fixed
    total = low.scratch(out.shape)
    low.add("reduce", "sum", along_axes(total, value.shape, axes), [value], axes)
    low.add("map", "div", out, [total, low.number(count, out.shape)])


def _norm(
    low: Lowering, node: fx.Node, source: Any, order: float = 2, dim: Any = None, keepdim: bool = False
) -> None:
    if order != 2:
        raise UnknownOperationError(f"a norm of order {order}")
    value, out = low.view(source), low.new(node)
    axes = _axes(dim, len(value.shape))
    squares, total = low.scratch(value.shape), low.scratch(out.shape)
    low.add("map", "power", squares, [value], [2])
    low.add("reduce", "sum", along_axes(total, value.shape, axes), [squares], axes)
    low.add("map", "sqrt", out, [total])


# --- products --------------------------------------------------------------------------------------


def lifted(view: View, axis: int) -> View:
    """Return a view with one more axis, of length 1."""
    shape = (*view.shape[:axis], Size(1), *view.shape[axis:])
    return View(view.array, view.offset, shape, (*view.strides[:axis], Size(0), *view.strides[axis:]))


def _turned(view: View) -> View:
    """Swap the last two axes."""
    shape, strides = view.shape, view.strides
    return View(view.array, view.offset, (shape[0], shape[2], shape[1]), (strides[0], strides[2], strides[1]))


def _product(low: Lowering, node: fx.Node, first: Any, second: Any) -> None:
    out, a, b = low.new(node), low.view(first), low.view(second)
    if len(a.shape) == 1:  # dot
        a, out = lifted(a, 0), lifted(out, 0)
    if len(b.shape) == 1:  # dot, mv
        b, out = lifted(b, 1), lifted(out, len(out.shape))
    if len(out.shape) == 2:
        a, b, out = lifted(a, 0), lifted(b, 0), lifted(out, 0)
    if (matrix := _few_elements(low, first)) is not None:
        _sparse(low, matrix, b, out)
    elif (matrix := _few_elements(low, second)) is not None:
        _sparse(low, matrix.t(), _turned(a), _turned(out))
    else:
        if out.shape[2] == Size(1):
            a, b, out = _turned(b), _turned(a), _turned(out)
        low.add("product", "dense", out, [a, _row_by_row(low, b)])


def _row_by_row(low: Lowering, matrices: View) -> View:
    """Constant matrices whose rows lie one after the other in memory."""
    program, shape = low.program, matrices.shape
    if program.arrays[matrices.array].kind != CONSTANT or matrices.strides[2] == Size(1):
        return matrices
    strides = [8 * stride.fixed for stride in matrices.strides]
    memory = program.constants[matrices.array][matrices.offset.fixed :]
    values = np.lib.stride_tricks.as_strided(memory, [size.fixed for size in shape], strides)
    array = program.add_constant(values.ravel())
    lengths = Size(shape[1].fixed * shape[2].fixed), shape[2], Size(1)
    return View(array, Size(0), shape, lengths)


def _few_elements(low: Lowering, node: Any) -> Tensor | None:
    """A constant matrix, or a batch of one, if it is mostly zeros."""
    value = low.tensors(node)[0]
    if value.dim() == 3 and value.shape[0] == 1:
        value = value[0]
    if node.op != "get_attr" or value.dim() != 2 or value.numel() == 0:
        return None
    return value if int(torch.count_nonzero(value)) < _SPARSE * value.numel() else None


def _sparse(low: Lowering, matrix: Tensor, second: View, out: View) -> None:
    """The product of a constant matrix, by the elements that are not zero, with a batch of one matrix."""
    rows, columns = torch.nonzero(matrix, as_tuple=True)  # row by row
    ends = torch.cumsum(torch.bincount(rows, minlength=len(matrix)), 0)
    begins = torch.cat([torch.zeros(1, dtype=torch.long), ends])
    lists = [low.listed(values) for values in (matrix[rows, columns].double(), begins, columns)]
    low.add("product", "sparse", out, [*lists, second])


ARITHMETIC: dict[Any, Handler] = {
    **dict.fromkeys(_MAPS, _map),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys((aten.hardshrink.default, aten.softshrink.default), _shrink),
    **dict.fromkeys((*_SUMS, aten.sub.Tensor, aten.sub.Scalar), _linear),
    **dict.fromkeys((aten.clamp.default, aten.clamp.Tensor, aten.clamp_min.default), _clamp),
    **dict.fromkeys((aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default), _product),
    **dict.fromkeys((aten.full.default, aten.full_like.default, aten.scalar_tensor.default), _fill),
    **dict.fromkeys(_BASES, _logarithm),
    aten.addcmul.default: _addcmul,
    aten.pow.Tensor_Scalar: _power,
    aten._to_copy.default: _to_copy,
    aten.clone.default: _clone,
    aten.copy.default: _copy_into,
    aten.mean.dim: _mean,
    aten.mean.default: _mean,
    aten.linalg_vector_norm.default: _norm,
}
"""For each operation of torch that computes with elements, the function that adds it to a program."""
