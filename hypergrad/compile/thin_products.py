"""Products of matrices with few columns, reordered and joined for speed."""

from typing import Any, cast

import torch
from torch import fx

from hypergrad.core.torch_internals.operations import UNSAFE_VIEW

_ATEN = torch.ops.aten
_THIN = 32
"""Most columns of a thin product. Measured at 10 (91 against 129 µs, see benchmarks); the limit is a judgement."""


def is_thin(product: fx.Node) -> bool:
    """Whether a node is a product A B with few columns, which BLAS libraries form faster as (Bᵀ Aᵀ)ᵀ."""
    if product.target is not _ATEN.mm.default:
        return False
    return is_narrow(product.meta["val"].shape)


def is_narrow(shape: tuple[int, ...]) -> bool:
    """Whether a shape is that of a matrix with few columns."""
    return len(shape) == 2 and shape[1] <= min(_THIN, shape[0])


def join_thin_products(traced: fx.GraphModule) -> None:
    """Form A B and A C with few columns as A (B C), in one pass over A, where C does not depend on A B."""
    graph, latest = traced.graph, dict[Any, fx.Node]()
    for node in [node for node in graph.nodes if is_thin(node)]:
        left, right = cast(tuple[fx.Node, fx.Node], node.args)
        matrix, needed = _untransposed(left), _needed(right)
        first = latest.get(matrix)
        if first is None or first in needed or _columns(first) + _columns(node) > _THIN:
            latest[matrix] = node
            continue
        nodes = list(graph.nodes)
        for other in nodes[nodes.index(first) :]:
            if other in needed:
                first.prepend(other)
        latest[matrix] = _joined(graph, first, node)
    traced.recompile()


def _joined(graph: fx.Graph, first: fx.Node, second: fx.Node) -> fx.Node:
    """Both products as one, before the first."""
    call, width, total = graph.call_function, _columns(first), _columns(first) + _columns(second)
    with graph.inserting_before(first):
        both = call(_ATEN.cat.default, ([first.args[1], second.args[1]], 1))
        product = call(_ATEN.mm.default, (first.args[0], both))
        product.meta["val"] = torch.empty(first.meta["val"].shape[0], total, device="meta")
        for node, start, stop in ((first, 0, width), (second, width, total)):
            node.replace_all_uses_with(call(_ATEN.slice.Tensor, (product, 1, start, stop)))
    graph.erase_node(first)
    graph.erase_node(second)
    return product


def _columns(product: fx.Node) -> int:
    return product.meta["val"].shape[1]


def _untransposed(node: fx.Node) -> tuple[Any, bool]:
    """The node, or the name of the constant, under all transpositions, and whether their number is odd."""
    odd = False
    while node.target is _ATEN.t.default:
        node, odd = node.all_input_nodes[0], not odd
    return node.target if node.op == "get_attr" else node, odd


def _needed(node: fx.Node) -> set[fx.Node]:
    """A node and all nodes that it is computed from."""
    found, waiting = set[fx.Node](), [node]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def turn_thin_products(traced: fx.GraphModule) -> None:
    """Form all products with few columns as (Bᵀ Aᵀ)ᵀ; what is computed from them then has transposed strides too."""
    for node in traced.graph.nodes:
        if node.target in (_ATEN.view.default, UNSAFE_VIEW):  # its argument may have other strides now
            node.target = _ATEN.reshape.default
        elif is_thin(node):
            with traced.graph.inserting_before(node):
                right, left = (traced.graph.call_function(_ATEN.t.default, (x,)) for x in node.args[::-1])
                turned = traced.graph.call_function(_ATEN.mm.default, (right, left))
                node.replace_all_uses_with(traced.graph.call_function(_ATEN.t.default, (turned,)))
            traced.graph.erase_node(node)
    traced.recompile()
