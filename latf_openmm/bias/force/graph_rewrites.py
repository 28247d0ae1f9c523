"""Products in a recorded graph that take in what is done before and after them: fewer operations, the same results.

Part of `latf_openmm.bias.force.traced_forces`. Constants are the weights of networks, centres, force constants; what is
combined beforehand is constant, so that results differ by rounding alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, fx

aten = torch.ops.aten


class KnownGraph(Protocol):
    """Knowledge of a graph while it is simplified."""

    graph: fx.Graph
    values: dict[fx.Node, Any]
    constant: set[fx.Node]
    grows: set[fx.Node]

    def make_constant(self, value: Tensor) -> fx.Node:
        """Return a node of this value, where the graph is being changed."""
        ...


class Products:
    """Changes one node after the other, in the order of the graph."""

    def __init__(self, known: KnownGraph) -> None:
        self.known = known
        self.rules: dict[Any, Callable[[fx.Node], bool]] = {
            aten.sqrt.default: self._norm,
            aten.sum.dim_IntList: self._dot,
            aten.mm.default: self._scaled_before,
            aten.add.Tensor: self._shifted_after,
            aten.sub.Tensor: self._shifted_after,
            aten.mul.Tensor: self._scaled_after,
            aten.index_add.default: self._copied,
            aten.addcmul.default: self._scaled_and_shifted_after,
        }

    def look_at(self, node: fx.Node) -> None:
        """Change the node, if one of the rules is for it."""
        rule = self.rules.get(node.target)
        value = self.known.values.get(node)
        if rule is None or node.kwargs or node in self.known.grows:
            return
        if isinstance(value, Tensor) and value.dtype == torch.float64:
            rule(node)

    # --- what nodes are ----------------------------------------------------------------------------

    def _constant(self, node: Any) -> Tensor | None:
        if isinstance(node, int | float):
            return torch.tensor(float(node), dtype=torch.float64)
        if isinstance(node, fx.Node) and node in self.known.constant:
            value = self.known.values[node]
            return value if value.dtype == torch.float64 else None
        return None

    def _call(self, node: Any, *targets: Any) -> fx.Node | None:
        """The node, where it is a call of one of the targets that nothing else uses."""
        if isinstance(node, fx.Node) and node.target in targets and len(node.users) == 1 and not node.kwargs:
            return node
        return None

    def _shape(self, node: Any) -> torch.Size | None:
        value = self.known.values.get(node) if isinstance(node, fx.Node) else None
        return value.shape if isinstance(value, Tensor) else None

    def _row(self, value: Tensor, width: int) -> Tensor | None:
        """The same numbers for every row: shape (width,)."""
        if value.numel() == 1:
            return value.reshape(1).expand(width)
        return value.reshape(width) if value.shape[-1] == value.numel() == width else None

    def _scaled(self, node: fx.Node) -> tuple[fx.Node, Tensor] | None:
        """(x, c) of a product x c with a constant that is the same for every row of x, which has its shape."""
        for place in (0, 1):
            x, factor = node.args[place], self._constant(node.args[1 - place])
            if factor is None or not isinstance(x, fx.Node) or self._shape(x) != self._shape(node):
                continue
            shape = self._shape(x)
            row = self._row(factor, shape[-1]) if shape else None
            if row is not None:
                return x, row
        return None

    def _make(self, value: Tensor) -> fx.Node:
        """A constant of its own: a traced module cannot have one tensor under two names."""
        return self.known.make_constant(value.detach().clone(memory_format=torch.contiguous_format))

    def _become(self, node: fx.Node, target: Any, *args: Any) -> bool:
        """Change the node; tensors among the arguments become constants."""
        with self.known.graph.inserting_before(node):
            node.args = tuple(self._make(a) if isinstance(a, Tensor) else a for a in args)
        node.target = target
        return True

    # --- rules -------------------------------------------------------------------------------------

    def _norm(self, node: fx.Node) -> bool:
        """sqrt(sum x^2) over the last dimension."""
        total = self._call(node.args[0], aten.sum.dim_IntList)
        square = total and self._call(total.args[0], aten.mul.Tensor)
        if not total or not square or square.args[0] is not square.args[1]:
            return False
        if len(total.args) > 2 and total.args[2]:  # dimensions are kept
            return False
        shape = self._shape(square)
        if shape is None or total.args[1] not in ([-1], [len(shape) - 1]):
            return False
        return self._become(node, aten.linalg_vector_norm.default, square.args[0], 2, [-1])

    def _dot(self, node: fx.Node) -> bool:
        """sum_k x_nk c_k."""
        product = self._call(node.args[0], aten.mul.Tensor)
        scaled = product and self._scaled(product)
        if not scaled or (len(node.args) > 2 and node.args[2]):
            return False
        x, row = scaled
        shape = self._shape(x)
        if shape is None or len(shape) != 2 or node.args[1] not in ([-1], [1]):
            return False
        return self._become(node, aten.mv.default, x, row)

    def _scaled_before(self, node: fx.Node) -> bool:
        """(x c) W as x (c W)."""
        weight, product = self._constant(node.args[1]), self._call(node.args[0], aten.mul.Tensor)
        scaled = product and self._scaled(product)
        if weight is None or not scaled:
            return False
        return self._become(node, aten.mm.default, scaled[0], scaled[1].unsqueeze(1) * weight)

    def _shifted_after(self, node: fx.Node) -> bool:
        """A further constant added to x W + b."""
        sign = 1.0 if node.target == aten.add.Tensor else -1.0
        for place in (0, 1) if sign > 0 else (0,):
            product, shift = self._product(node, node.args[place]), self._constant(node.args[1 - place])
            if product is not None and product.shift is not None and shift is not None:
                return self._affine(node, product.x, product.weight, product.shift + sign * shift)
        return False

    def _scaled_after(self, node: fx.Node) -> bool:
        """Rewrite a node of the form (x W + b) c, or (x v) c."""
        for place in (0, 1):
            product, factor = node.args[place], self._constant(node.args[1 - place])
            if factor is None:
                continue
            dot = self._call(product, aten.mv.default)
            vector = self._constant(dot.args[1]) if dot else None
            if dot and vector is not None and factor.numel() == 1 and self._shape(dot) == self._shape(node):
                return self._become(node, aten.mv.default, dot.args[0], vector * factor.reshape(1))
            if self._scaled_product(node, product, factor, None):
                return True
        return False

    def _scaled_and_shifted_after(self, node: fx.Node) -> bool:
        """Rewrite a node of the form c + (x W + b) d."""
        shift = self._constant(node.args[0])
        if shift is None:
            return False
        factors = ((node.args[1], node.args[2]), (node.args[2], node.args[1]))
        return any(
            self._scaled_product(node, product, factor, shift)
            for product, other in factors
            if (factor := self._constant(other)) is not None
        )

    def _copied(self, node: fx.Node) -> bool:
        """Rows added to a constant that is zero, each to another one."""
        start, dim, index, rows = node.args
        initial = self._constant(start)
        if (
            initial is None
            or initial.any()
            or not isinstance(index, fx.Node)
            or index not in self.known.constant
        ):
            return False
        places = self.known.values[index]
        if len(places.unique()) < len(places):
            return False
        return self._become(node, aten.index_copy.default, start, dim, index, rows)

    # --- x W + b -----------------------------------------------------------------------------------

    def _product(self, node: fx.Node, source: Any) -> "_Product | None":
        """Return `source` as a product if it is x W or x W + b with constant W and b, of the node's shape."""
        product = self._call(source, aten.mm.default, aten.add.Tensor)
        shape, shift = self._shape(node), None
        if product is not None and product.target == aten.add.Tensor:
            terms = (product.args[0], product.args[1])
            places = [i for i in (0, 1) if self._call(terms[i], aten.mm.default)]
            shift = self._constant(terms[1 - places[0]]) if places else None
            product = self._call(terms[places[0]], aten.mm.default) if shift is not None else None
        weight = self._constant(product.args[1]) if product else None
        if not product or weight is None or self._shape(product) != shape or self._shape(source) != shape:
            return None
        return _Product(product.args[0], weight, shift)

    def _scaled_product(self, node: fx.Node, source: Any, factor: Tensor, shift: Tensor | None) -> bool:
        """Make of the node (x W + b) `factor` + `shift`, if `source` is x W + b."""
        product, shape = self._product(node, source), self._shape(node)
        row = self._row(factor, shape[-1]) if shape and product else None
        if product is None or row is None:
            return False
        before = None if product.shift is None else product.shift * row
        if before is not None:
            shift = before if shift is None else before + shift
        return self._affine(node, product.x, product.weight * row, shift)

    def _affine(self, node: fx.Node, x: Any, weight: Tensor, shift: Tensor | None) -> bool:
        """Make of the node x W + b. Not by addmm, which TorchScript (torch 2.12) breaks, and which is no faster."""
        if shift is None:
            return self._become(node, aten.mm.default, x, weight)
        graph, values = self.known.graph, self.known.values
        with graph.inserting_before(node):
            product = graph.call_function(aten.mm.default, (x, self._make(weight)))
        values[product] = values[x] @ weight
        return self._become(node, aten.add.Tensor, product, shift)


@dataclass(frozen=True)
class _Product:
    """x W + b; `shift` b is None where there is none."""

    x: Any
    weight: Tensor
    shift: Tensor | None
