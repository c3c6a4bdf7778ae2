"""Traces compiled for many calls: what their arguments share is computed once, the rest by Inductor alone."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from hypergrad.compile.tracing import CannotCompileError

_LONG_LOOP = 2**14
"""Steps of a loop for each thread, at least."""
_SMALL = 2**10
"""Numbers in a matrix whose product with a vector is not worth a call of BLAS."""


class Lowered(NamedTuple):
    """A function of (*early, *late) arguments in two.

    Attributes:
        prepare: (*early) ↦ what all calls with these share.
        run: (*what they share, *late) ↦ the results; it must be called without grad mode.
    """

    prepare: Callable[..., Sequence[Tensor]]
    run: Callable[..., Sequence[Tensor]]


def lowered(traced: fx.GraphModule, early: Sequence[Tensor], late: Sequence[Tensor]) -> Lowered:
    """A trace, split, and its second half compiled by Inductor, without the guards that torch.compile puts around it.

    Common subexpressions are computed once.

    Args:
        traced: of tensors, with a tuple of tensors as its result.
        early: arguments of the shapes and precisions that it will be called with, outside any graph.
        late: the others.

    Returns:
        The two halves, for arguments like these.

    Raises:
        CannotCompileError: if there is no compiler, or no way to compile it.
    """
    # Imported here, because the import of Inductor takes seconds, and that of sympy half a second.
    from torch._functorch.compile_utils import fx_graph_cse
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table

    try:
        table = {**select_decomp_table(), torch.ops.aten.mm.default: _small_product}
        plain = make_fx(torch.func.functionalize(traced), table)(*early, *late)
        prepare, rest = split(fx.GraphModule(plain, fx_graph_cse(plain.graph)), len(early))
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        fake = [mode.from_tensor(tensor) for tensor in (*prepare(*early), *late)]
        FakeTensorProp(rest, mode).propagate_dont_convert_inputs(*fake)
        # A second thread has to be woken: it is worth that for long loops only.
        with config.patch({"cpp.min_chunk_size": _LONG_LOOP}):
            fast: Any = compile_fx_inner(rest, fake)
    except Exception as error:  # whatever a compiler may raise
        raise CannotCompileError(type(error).__name__) from error
    return Lowered(prepare, lambda *tensors: fast(list(tensors)))


def _small_product(left: Tensor, right: Tensor) -> Tensor:
    """A row times a small matrix as a sum of products, which Inductor puts into the loops around it."""
    if len(left) == 1 and right.numel() <= _SMALL:
        return (left.T * right).sum(0, keepdim=True)
    return NotImplemented


def split(whole: fx.GraphModule, num_early: int) -> tuple[fx.GraphModule, fx.GraphModule]:
    """A graph of functions without side effects in two: what its later arguments do not reach, and the rest.

    Returns:
        (*early) ↦ what they share, and (*what they share, *late) ↦ the results.
    """
    nodes = list(whole.graph.nodes)
    arguments = [node for node in nodes if node.op == "placeholder"]
    reached = {*arguments[num_early:], nodes[-1]}
    for node in nodes:
        if reached.intersection(node.all_input_nodes):
            reached.add(node)
    used = dict.fromkeys(x for node in nodes if node in reached for x in node.all_input_nodes if x not in reached)
    shared = [node for node in used if node.op != "get_attr"]
    before, after = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node not in reached:
            copies[node] = before.node_copy(node, lambda x: copies[x])
    before.output(tuple(copies[node] for node in shared))
    rest = {node: after.placeholder(f"shared_{i}") for i, node in enumerate(shared)}
    rest |= {node: after.node_copy(node) for node in (*arguments[num_early:], *used) if node not in rest}
    for node in nodes:
        if node in reached and node.op != "placeholder":
            rest[node] = after.node_copy(node, lambda x: rest[x])
    before.eliminate_dead_code()
    return fx.GraphModule(whole, before), fx.GraphModule(whole, after)
