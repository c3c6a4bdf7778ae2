"""Functions of tensors as plain lists of tensor operations, and those through torch.compile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.proxy import GraphAppendingTracer
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from hypergrad.compile.thin_products import join_thin_products, turn_thin_products

_ATEN = torch.ops.aten


class CannotCompileError(Exception):
    """A function cannot be traced or compiled; the message says why."""


def said_by(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def trace(function: Callable[..., Any], arguments: Sequence[Tensor], decomposed: Sequence[Any] = ()) -> fx.GraphModule:
    """The operations of `function(*arguments)` one after the other, without those that no output needs.

    Tensors other than the arguments, such as the data, become constants: the caller has to notice when they change.

    Args:
        function: composed of tensor operations; it may differentiate inside.
        arguments: an example of them, whose shapes the trace is for.
        decomposed: operations to be written out in simpler ones.

    Returns:
        The trace, a function from tensors to a sequence of tensors or to one.

    Raises:
        CannotCompileError: if an operation cannot be traced, or draws random numbers.
    """
    # A tensor that is given twice would be taken for one argument.
    arguments = [x.detach() for x in arguments]
    try:
        traced = make_fx(function, decomposition_table=cast(Any, get_decompositions(decomposed)))(*arguments)
    except Exception as error:  # a user's own model may raise anything under a tracer
        raise CannotCompileError(said_by(error)) from error
    for node in traced.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags:
            raise CannotCompileError(f"it draws random numbers by {node.target}")
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


@dataclass(frozen=True)
class Nested:
    """A function of nestings of tensors, made of one on lists of them.

    Attributes:
        flat: the function on the tensors, which returns a sequence of tensors.
        result: how its tensors are nested.
    """

    flat: Callable[..., Sequence[Tensor]]
    result: TreeSpec

    def __call__(self, *arguments: Any) -> Any:
        values = tree_leaves(arguments)
        found = _inlined(self.flat, values) if isinstance(values[0], fx.Proxy) else self.flat(*values)
        return tree_unflatten(found, self.result)


def trace_nested(function: Callable[..., Any], *arguments: Any) -> tuple[Nested, fx.GraphModule]:
    """`trace` for a function of nestings of tensors, which must come in the order of the example's.

    Returns:
        The function, and its trace on the tensors alone.

    Also raised, by what it calls: CannotCompileError, as in `trace`.
    """
    values, structure = tree_flatten(arguments)
    result: list[TreeSpec] = []

    def flat(*tensors: Tensor) -> list[Tensor]:
        found, nesting = tree_flatten(function(*tree_unflatten(tensors, structure)))
        result.append(nesting)
        return found

    traced = trace(flat, values, [_ATEN.addmm])
    join_thin_products(traced)
    turn_thin_products(traced)
    return Nested(traced, result[0]), traced


def compose(function: Callable[..., Any], part: fx.GraphModule, *arguments: Any) -> Nested:
    """A function that calls a traced one several times, as one list of operations.

    Args:
        function: of nestings of tensors, which it otherwise only indexes, adds and stacks.
        part: the trace that it calls.
        arguments: an example of its arguments.

    """
    values, structure = tree_flatten(arguments)
    graph = fx.Graph()
    tracer = GraphAppendingTracer(graph)
    proxies = [fx.Proxy(graph.placeholder(f"x{k}"), tracer) for k in range(len(values))]
    found, nesting = tree_flatten(function(*tree_unflatten(proxies, structure)))
    graph.output([proxy.node for proxy in found])
    return Nested(fx.GraphModule(part, graph), nesting)


def _inlined(part: Any, proxies: list[fx.Proxy]) -> list[fx.Proxy]:
    """The operations of a trace, appended to those that the proxies stand for."""
    graph = proxies[0].node.graph
    inputs = [node for node in part.graph.nodes if node.op == "placeholder"]
    found = graph.graph_copy(part.graph, {node: proxy.node for node, proxy in zip(inputs, proxies, strict=True)})
    return [fx.Proxy(node, proxies[0].tracer) for node in cast(list[fx.Node], found)]


def compiled(function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[..., Any]:
    """The function through torch.compile, after a check of its first result against itself.

    Args:
        function: of tensors and nestings of them, pure.
        arguments: where to check it.

    Returns:
        The compiled function, for arguments of the same shapes.

    Raises:
        CannotCompileError: if there is no compiler, or no way to compile it, or the first result is another one.
    """
    fast = torch.compile(function, dynamic=False, fullgraph=True)
    try:
        found, wanted = (torch.cat([x.reshape(-1) for x in tree_leaves(f(*arguments))]) for f in (fast, function))
    except Exception as error:  # whatever a compiler may raise
        raise CannotCompileError(said_by(error)) from error
    off = (torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted)).item()
    if not off <= torch.finfo(wanted.dtype).eps ** 0.5:
        raise CannotCompileError(f"its first result was off by {off:.1e}")
    return fast
