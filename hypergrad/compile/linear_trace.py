"""A linear function of v as a plain list of tensor operations, split into what depends on v and what does not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast as cast_type

import torch
from torch import Tensor, fx
from torch.fx.passes.dialect.common.cse_pass import CSEPass

from hypergrad.compile.rewriting import call_functions
from hypergrad.compile.splitting import dependents, first_half
from hypergrad.compile.thin_products import is_thin
from hypergrad.compile.tracing import trace
from hypergrad.core.torch_internals.operations import SOFTMAX_BACKWARDS

_ATEN = torch.ops.aten
_DECOMPOSED = [
    *(*SOFTMAX_BACKWARDS, _ATEN.logit_backward, _ATEN.softplus_backward),
    *(_ATEN.gelu_backward, _ATEN.silu_backward, _ATEN.sigmoid_backward, _ATEN.tanh_backward, _ATEN.mish_backward),
    *(_ATEN.elu_backward, _ATEN.hardswish_backward, _ATEN.log_sigmoid_backward, _ATEN.native_layer_norm_backward),
]
"""Backward passes with a factor that does not depend on v, mostly an exponential. Written out, it is shared."""


@dataclass(frozen=True)
class LinearTrace:
    """A function of (point, v) that is linear in v, in two halves.

    Attributes:
        prepare: (*point) ↦ what the products at this point share.
        product: (*what they share, v) ↦ A v, in the precision of its arguments.
        shapes: of what they share.
    """

    prepare: Callable[..., tuple[Tensor, ...]]
    product: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]


def trace_linear(function: Callable[..., Tensor], point: list[Tensor], v: Tensor, dtype: torch.dtype) -> LinearTrace:
    """Trace `function(*point, v)`, linear in v, and split it.

    A product then repeats only what depends on v: no forward pass and no graph of autograd. A matrix of few columns is
    multiplied in the order that is fast in BLAS libraries, (Zᵀ X)ᵀ instead of Xᵀ Z. Tensors other than the arguments,
    such as the data, become constants: the caller must notice when they change.

    Args:
        function: composed of tensor operations; it may differentiate inside.
        point: the other tensors that it depends on.
        v: a vector, shape (n,).
        dtype: the precision of the products.

    Returns:
        The two halves.

    Also raised, by what it calls: CannotCompileError if it draws random numbers, or an operation cannot be traced.
    """
    whole = trace(function, [*point, v], _DECOMPOSED)
    _fold_constants(whole)
    whole.graph.eliminate_dead_code()
    return _split(_without_repeats(whole), dtype)


def _without_repeats(whole: fx.GraphModule) -> fx.GraphModule:
    found = CSEPass()(whole)
    return whole if found is None else found.graph_module


def _fold_constants(whole: fx.GraphModule) -> None:
    """Compute once what depends on constants only, such as the transpose of the data."""
    known: dict[fx.Node, Tensor] = {}
    for node in list(whole.graph.nodes):
        if node.op == "get_attr":
            known[node] = getattr(whole, node.target)
        elif node.op == "call_function" and node.all_input_nodes and known.keys() >= set(node.all_input_nodes):
            value = node.target(*fx.map_arg(node.args, known.get), **fx.map_arg(node.kwargs, known.get))
            if isinstance(value, Tensor):
                name = f"_folded_{len(known)}"
                whole.register_buffer(name, value)
                with whole.graph.inserting_before(node):
                    folded = whole.graph.get_attr(name)
                folded.meta = node.meta
                node.replace_all_uses_with(folded)
                known[folded] = value


def _split(whole: fx.GraphModule, dtype: torch.dtype) -> LinearTrace:
    """Both halves: the nodes that do not depend on v, and those that do."""
    nodes = list(whole.graph.nodes)
    v = [node for node in nodes if node.op == "placeholder"][-1]
    reached = {*dependents(nodes, [v]), nodes[-1]}
    shared = {
        used: None
        for node in nodes
        if node in reached
        for used in node.all_input_nodes
        if used not in reached and used.op != "get_attr"
    }
    prepare, product = first_half(nodes, reached, shared), fx.Graph()
    after = {node: product.placeholder(f"shared_{i}") for i, node in enumerate(shared)}
    after[v] = product.placeholder("v")
    for node in nodes:
        if node.op == "get_attr" and reached.intersection(node.users):
            after[node] = product.node_copy(node)
        elif node in reached and node is not v:
            after[node] = _simplified(product, node, after, dtype)
    call_functions(product)
    shapes = tuple(tuple(node.meta["val"].shape) for node in shared)
    return LinearTrace(_module(whole, prepare), _module(whole, product, dtype), shapes)


def _module(whole: fx.GraphModule, graph: fx.Graph, dtype: torch.dtype | None = None) -> fx.GraphModule:
    """The graph with the constants that it uses, cast to `dtype` if given; constants that share storage still do."""
    graph.eliminate_dead_code()
    used = {node.target for node in graph.nodes if node.op == "get_attr"}
    constants = {name: value for name, value in whole.named_buffers() if name in used}
    if dtype is not None:
        storages = {value.untyped_storage().data_ptr(): value for value in constants.values()}
        flat = {key: cast(value.as_strided((_length(value),), (1,), 0), dtype) for key, value in storages.items()}
        for name, value in constants.items():
            near = flat[value.untyped_storage().data_ptr()]
            constants[name] = near.as_strided(value.shape, value.stride(), value.storage_offset())
    return fx.GraphModule(dict(constants), graph)


def _length(value: Tensor) -> int:
    return value.untyped_storage().nbytes() // value.element_size()


def cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A floating-point tensor in the precision `dtype`, any other as it is."""
    return value.to(dtype) if value.is_floating_point() else value


def _simplified(graph: fx.Graph, node: fx.Node, after: dict[fx.Node, fx.Node], dtype: torch.dtype) -> fx.Node:
    """The node copied into the graph of a product, or a cheaper one of the same value."""
    call, args = graph.call_function, node.args
    if node.target is _ATEN.detach.default:
        return after[node.all_input_nodes[0]]
    if node.target is _ATEN.add.Tensor and not node.kwargs:
        for term, other in (args, args[::-1]):
            adds_nothing = isinstance(other, fx.Node) and other.target is _ATEN.zeros_like.default
            if adds_nothing and isinstance(term, fx.Node) and term.meta["val"].shape == node.meta["val"].shape:
                return after[term]
    if node.target is _ATEN.view.default:  # its argument may be a transposed one now
        return call(_ATEN.reshape.default, (after[node.all_input_nodes[0]], args[1]))
    if is_thin(node):
        left, right = (call(_ATEN.t.default, (after[cast_type(fx.Node, factor)],)) for factor in args)
        return call(_ATEN.t.default, (call(_ATEN.mm.default, (right, left)),))
    copied = graph.node_copy(node, lambda n: after[n])
    copied.args = tuple(dtype if isinstance(arg, torch.dtype) and arg.is_floating_point else arg for arg in copied.args)
    copied.kwargs = {
        name: dtype if isinstance(arg, torch.dtype) and arg.is_floating_point else arg
        for name, arg in copied.kwargs.items()
    }
    return copied
