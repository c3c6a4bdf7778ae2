"""Functions of tensors as plain lists of tensor operations."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx

from hypergrad.compile.rewriting import lift_constants
from hypergrad.compile.thin_products import join_thin_products, turn_thin_products
from hypergrad.core.torch_internals.tracing import OpOverload, disable_proxy_modes_tracing, get_decompositions, make_fx
from hypergrad.core.torch_internals.trees import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

_ATEN = torch.ops.aten


class CannotCompileError(Exception):
    """A function cannot be traced or compiled; the message says why."""


def in_one_line(error: Exception) -> str:
    """The type of an error and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def trace(function: Callable[..., Any], arguments: Sequence[Tensor], decomposed: Sequence[Any] = ()) -> fx.GraphModule:
    """The operations of `function(*arguments)` in order, without those that no output needs.

    Tensors other than the arguments, such as the data, become constants: the caller must notice when they change.

    Args:
        function: composed of tensor operations; it may differentiate inside.
        arguments: an example of them; the trace is for their shapes.
        decomposed: operations to write out in simpler ones.

    Returns:
        The trace, a function from tensors to a sequence of tensors or to one.

    Raises:
        CannotCompileError: if an operation cannot be traced, or draws random numbers.
    """
    # A tensor given twice would become one argument, so each gets an object of its own.
    arguments = [x.detach() for x in arguments]
    try:
        traced = make_fx(function, decomposition_table=cast(Any, get_decompositions(decomposed)))(*arguments)
    except Exception as error:  # a user's own model may raise anything under a tracer
        raise CannotCompileError(in_one_line(error)) from error
    for node in traced.graph.nodes:
        if isinstance(node.target, OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags:
            raise CannotCompileError(f"it draws random numbers by {node.target}")
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def untraced() -> AbstractContextManager[Any]:
    """A context whose operations are computed, and do not become a part of a trace that is being made."""
    return disable_proxy_modes_tracing()


@dataclass(frozen=True)
class Nested:
    """A function of nestings of tensors, made from a function of lists of tensors.

    Attributes:
        flat: the function of the tensors, which returns a sequence of tensors.
        result: how the returned tensors are nested.
    """

    flat: Callable[..., Sequence[Tensor]]
    result: TreeSpec

    def __call__(self, *arguments: Any) -> Any:
        return tree_unflatten(self.flat(*tree_leaves(arguments)), self.result)


def trace_nested(function: Callable[..., Any], *arguments: Any) -> tuple[Nested, fx.GraphModule]:
    """`trace` for a function of nestings of tensors, which must keep the order of the example's.

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


def trace_without_writes(
    function: Callable[..., Any], arguments: Sequence[Tensor], table: Mapping[Any, Any]
) -> fx.GraphModule:
    """A function as a graph that changes no tensor in place.

    Args:
        function: of tensors. It may change tensors that it made, such as copies of tensors that it holds.
        arguments: examples.
        table: decompositions of operations.

    Raises:
        RuntimeError: what torch raises if it cannot be traced.
    """
    try:
        return make_fx(torch.func.functionalize(function), dict(table))(*arguments)
    except RuntimeError as error:
        if "non-functional tensor" not in str(error):
            raise
    # Tensors that the function holds, and copies of them, can only be written to if they are arguments.
    graph = make_fx(function)(*arguments)
    held = lift_constants(graph, lambda x: False)
    written = make_fx(torch.func.functionalize(graph), dict(table))(*held, *arguments)
    first = next(node for node in written.graph.nodes if node.op != "placeholder")
    for k, (node, tensor) in enumerate(zip(list(written.graph.nodes), held, strict=False)):
        written.register_buffer(f"held_{k}", tensor)
        with written.graph.inserting_before(first):
            node.replace_all_uses_with(written.graph.get_attr(f"held_{k}"))
        written.graph.erase_node(node)
    written.recompile()
    return written
