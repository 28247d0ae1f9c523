"""A recorded graph of tensor operations, made shorter: what does not change is computed beforehand.

A network of the usual size takes a few microseconds of arithmetic; what a step costs is the number of operations.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from latf_openmm.bias import torchscript
from latf_openmm.bias.force.graph_rewrites import Products

aten = torch.ops.aten
_LIKE = {
    aten.ones_like.default,
    aten.zeros_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
}
"""Depend on the form of their first argument only."""
_SAME = {aten.detach.default, aten.alias.default, aten.lift_fresh_copy.default, aten.clone.default}
"""Give their argument, or a copy of it."""
_VIEWS = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.expand.default,
    aten.permute.default,
    aten.transpose.int,
    aten.squeeze.dim,
    aten.slice.Tensor,
    aten._to_copy.default,
}
"""Give the elements of their argument in another shape."""
_TRANSPOSES = {aten.t.default, aten.transpose.int, aten.permute.default}
"""Swap dimensions; a constant keeps the layout that they give it."""
_POINTWISE = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}
"""Arithmetic on elements, which expands its arguments itself."""


_PRODUCT = {aten.addmm.default: lambda b, x, y: x @ y + b}
"""addmm is taken apart: once a module is frozen (which TorchForce does itself), TorchScript's shape analysis (torch
2.12) gives it the shape of its bias, and a batch larger than one then fails."""


def _silu_backward(slope: Tensor, x: Tensor) -> Tensor:
    """Derivative of x sigmoid(x), with the sigmoid as one operation, which the function itself has, too."""
    sigmoid = torch.sigmoid(x)
    return slope * (sigmoid + x * sigmoid * (1.0 - sigmoid))


_COMPOSED = (
    *(aten._softmax, aten._softmax_backward_data, aten.logical_and_, aten.logical_or_, aten.repeat),
    *(aten.elu, aten.exp2, aten.gelu, aten.hardtanh, aten.leaky_relu, aten.native_layer_norm),
)
"""Operations that torch's own table of core operations leaves as they are."""
ELEMENTARY = {
    **core_aten_decompositions(),
    **get_decompositions(_COMPOSED),
    **dict.fromkeys(
        (aten.hardshrink_backward.default, aten.softshrink_backward.default),
        lambda slope, x, limit: torch.where(x.abs() <= limit, 0.0, slope),
    ),
    aten.silu.default: lambda x: x * torch.sigmoid(x),
    aten.silu_backward.default: _silu_backward,
    **_PRODUCT,
}
"""How composed operations are made of few elementary ones."""


def recorded(
    call: Callable[..., Any], examples: Sequence[Sequence[Tensor]], table: Mapping[Any, Callable[..., Any]]
) -> fx.GraphModule:
    """Return the simplified graph of what `call` does with tensors of the shapes of the examples.

    Parameters
    ----------
    call
        Of tensors; what it does must not depend on their values.
    examples
        One or more tuples of arguments; sizes in which they differ are left open.
    table
        Operations that are recorded as others.
    """
    graph = make_fx(call, decomposition_table=dict(table))(*examples[0])
    if any(_changes_its_arguments(node) for node in graph.graph.nodes):
        graph = make_fx(torch.func.functionalize(graph))(*examples[0])
    return simplify(graph, examples)


def record(call: Callable[..., Any], examples: Sequence[Sequence[Tensor]]) -> torch.jit.ScriptModule:
    """Return TorchScript of what `call` does; arguments as for `recorded`."""
    graph = recorded(call, examples, _PRODUCT)
    module: torch.jit.ScriptModule = torchscript.trace(graph, tuple(examples[0]), check_trace=False)
    return module.eval()


def simplify(module: fx.GraphModule, examples: Sequence[Sequence[Tensor]]) -> fx.GraphModule:
    """Return a graph of fewer operations with the same results; examples as for `record`.

    Constant parts are folded and constant factors put together, views that change nothing and expansions that
    arithmetic does itself are left out, what is multiplied by zero goes, operations done twice are done once, and
    products take in constant factors and shifts before and after them.
    A graph that changes tensors in place stays as it is.
    """
    if any(_changes_its_arguments(node) for node in module.graph.nodes):
        return module
    _Simplifier(module, examples).run()
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.graph.lint()
    module.recompile()
    return module


def _changes_its_arguments(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_random(node: fx.Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in target.tags


class _Values(fx.Interpreter):
    """The value of every node for some arguments."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.of: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.of[n] = super().run_node(n)
        return self.of[n]


@torch.no_grad()
def node_values(module: fx.GraphModule, arguments: Sequence[Tensor]) -> dict[fx.Node, Any]:
    """Return the value of every node of a graph for some arguments."""
    interpreter = _Values(module)
    interpreter.run(*arguments)
    return interpreter.of


class _Simplifier:
    """One walk through the graph, in order; every node is looked at once."""

    def __init__(self, module: fx.GraphModule, examples: Sequence[Sequence[Tensor]]) -> None:
        self.module, self.graph = module, module.graph
        self.values = node_values(module, examples[0])
        others = [node_values(module, arguments) for arguments in examples[1:]]
        self.grows = {
            node
            for node, value in self.values.items()
            if isinstance(value, Tensor) and any(other[node].shape != value.shape for other in others)
        }
        self.constant = {node for node in self.graph.nodes if node.op == "get_attr"}
        self.zero: set[Any] = set()
        self.seen: dict[Any, fx.Node] = {}
        self.products = Products(self)

    def run(self) -> None:
        """Simplify."""
        for node in list(self.graph.nodes):
            if node.op != "call_function":
                continue
            same = self._same_as(node)
            if same is not None:
                self._replace(node, same)
            elif self._is_constant(node):
                self._fold(node)
            else:
                self._explicit(node)
                self._sum_of_one(node)
                self._doubled(node)
                self._one_factor(node)
                self._without_expansions(node)
                self.products.look_at(node)
                self._once(node)

    def _tensor(self, node: Any) -> Tensor | None:
        value = self.values.get(node) if isinstance(node, fx.Node) else None
        return value if isinstance(value, Tensor) else None

    def _same_as(self, node: fx.Node) -> fx.Node | None:
        """The argument, where the node returns it as it is."""
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node):
            return None
        if node.target in (aten.add.Tensor, aten.sub.Tensor) and not node.kwargs:
            return self._without_zero(node) or self._without_two(node)
        if source in self.constant:  # folded; and it may be laid out otherwise than when it was recorded
            return None
        old, new = self._tensor(source), self._tensor(node)
        if old is None or new is None:
            return None
        if node.target in _SAME:  # a copy may be made for its layout
            return source if old.stride() == new.stride() else None
        if node.target not in _VIEWS or node in self.grows:
            return None
        same = (old.shape, old.stride(), old.dtype) == (new.shape, new.stride(), new.dtype)
        return source if same and old.storage_offset() == new.storage_offset() else None

    def _without_zero(self, node: fx.Node) -> fx.Node | None:
        """The other term of a sum or difference, if one term is zero."""
        places = (1, 0) if node.target == aten.add.Tensor else (1,)
        for place in places:
            other = node.args[1 - place]
            value = self._tensor(other)
            if node.args[place] in self.zero and isinstance(other, fx.Node) and value is not None:
                result = self.values[node]
                same = (value.shape, value.dtype) == (result.shape, result.dtype)
                return other if same else None
        return None

    def _without_two(self, node: fx.Node) -> fx.Node | None:
        """2 (d g / (2 r)) as d g / r, exactly the same: the gradient of r = sqrt(sum d^2) comes in that form."""
        product = node.args[0]
        if node.target != aten.add.Tensor or product is not node.args[1] or not isinstance(product, fx.Node):
            return None
        if product.target != aten.mul.Tensor or len(product.users) > 1:
            return None
        for factor in product.all_input_nodes:
            quotient = factor.args[0] if factor.target == aten.unsqueeze.default else factor
            if not isinstance(quotient, fx.Node) or quotient.target != aten.div.Tensor:
                continue
            twice = quotient.args[1]
            alone = len(factor.users) == 1 and len(quotient.users) == 1
            if (
                alone
                and isinstance(twice, fx.Node)
                and twice.target == aten.mul.Scalar
                and twice.args[1] == 2
            ):
                quotient.update_arg(1, twice.args[0])
                return product
        return None

    def _is_zero(self, node: fx.Node) -> bool:
        """Return whether the node is x - x or zero times something: derivatives that are written into a graph."""
        if node in self.grows or self._tensor(node) is None:
            return False
        if node.target == aten.sub.Tensor:
            return node.args[0] is node.args[1] and not node.kwargs
        return node.target == aten.mul.Tensor and any(source in self.zero for source in node.args)

    def _is_constant(self, node: fx.Node) -> bool:
        target = node.target
        if self._tensor(node) is None or not isinstance(target, torch._ops.OpOverload):
            return False
        if _is_random(node) or "empty" in target._schema.name:
            return False
        if target in _LIKE and node.args[0] not in self.grows:
            return True
        if self._is_zero(node):
            return True
        return all(source in self.constant for source in node.all_input_nodes)

    def _fold(self, node: fx.Node) -> None:
        """Replace the node by its value; a transpose stays a view, so that weights are in the caches once."""
        value = self.values[node].detach()
        if node.target not in _TRANSPOSES:
            value = value.clone(memory_format=torch.contiguous_format)
        with self.graph.inserting_before(node):
            constant = self.make_constant(value)
        self._replace(node, constant)

    def make_constant(self, value: Tensor) -> fx.Node:
        """Return a node of this value, where the graph is being changed."""
        name = f"_folded{len(self.constant)}"
        self.module.register_buffer(name, value)
        node = self.graph.get_attr(name)
        self.constant.add(node)
        if not value.any():
            self.zero.add(node)
        self.values[node] = value
        return node

    def _explicit(self, node: fx.Node) -> None:
        """No -1 in the shape of a view: TorchScript (torch 2.12) takes the wrong size for it in frozen modules."""
        if node.target in (aten.view.default, aten.reshape.default) and node not in self.grows:
            node.args = (node.args[0], list(self.values[node].shape))

    def _sum_of_one(self, node: fx.Node) -> None:
        """The sum of one number is that number."""
        source = self._tensor(node.args[0]) if node.args else None
        if node.target == aten.sum.default and source is not None and source.numel() == 1 and not node.kwargs:
            node.target, node.args = aten.view.default, (node.args[0], [])

    def _doubled(self, node: fx.Node) -> None:
        """A number plus itself as a product, so that the factor can be put together with others."""
        value = self._tensor(node)
        if node.target != aten.add.Tensor or node.kwargs or node.args[0] is not node.args[1] or value is None:
            return
        if value.is_floating_point() and node not in self.grows:
            with self.graph.inserting_before(node):
                two = self.make_constant(torch.full((), 2.0, dtype=value.dtype))
            node.target, node.args = aten.mul.Tensor, (two, node.args[0])

    def _one_factor(self, node: fx.Node) -> None:
        """(x c) d and (x c) / d as x times one constant."""
        if node.target not in (aten.mul.Tensor, aten.div.Tensor) or node in self.grows:
            return
        places = (1, 0) if node.target == aten.mul.Tensor else (1,)
        for place in places:
            product, outer = node.args[1 - place], node.args[place]
            if not isinstance(outer, fx.Node) or outer not in self.constant:
                continue
            if (
                not isinstance(product, fx.Node)
                or product.target != aten.mul.Tensor
                or len(product.users) > 1
            ):
                continue
            for inner, x in (product.args, product.args[::-1]):
                if inner in self.constant and isinstance(inner, fx.Node) and isinstance(x, fx.Node):
                    a, b = self.values[inner], self.values[outer]
                    if not a.dtype == b.dtype == self.values[node].dtype:
                        return
                    with self.graph.inserting_before(node):
                        factor = self.make_constant(a * b if node.target == aten.mul.Tensor else a / b)
                    node.target, node.args = aten.mul.Tensor, (factor, x)
                    return

    def _without_expansions(self, node: fx.Node) -> None:
        """Arithmetic expands its arguments itself, if another one has the shape of the result."""
        if node.target not in _POINTWISE or node in self.grows:
            return
        shape = self.values[node].shape
        for index, other in ((0, 1), (1, 0)):
            source, partner = node.args[index], self._tensor(node.args[other])
            if partner is None or partner.shape != shape or not isinstance(source, fx.Node):
                continue
            if source.target == aten.expand.default and isinstance(source.args[0], fx.Node):
                node.update_arg(index, source.args[0])
                if not source.users:
                    self.graph.erase_node(source)

    def _once(self, node: fx.Node) -> None:
        """Use the earlier one of two nodes that do the same."""
        if _is_random(node):
            return
        key = (node.target, _hashable(node.args), _hashable(node.kwargs))
        earlier = self.seen.setdefault(key, node)
        if earlier is not node:
            self._replace(node, earlier)

    def _replace(self, node: fx.Node, other: fx.Node) -> None:
        node.replace_all_uses_with(other)
        self.graph.erase_node(node)


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _hashable(item)) for name, item in value.items())
    return value if isinstance(value, (fx.Node, int, float, bool, str, type(None))) else repr(value)
