"""Traces compiled by Inductor alone, for many calls: what the calls share is computed once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from hypergrad.compile.rewriting import drop_aliases, drop_logarithms, lift_constants
from hypergrad.compile.splitting import split_by_argument
from hypergrad.compile.tracing import CannotCompileError, in_one_line, trace_without_writes
from hypergrad.core.torch_internals.tracing import FakeTensorMode

SHORT_CALLS: Mapping[str, Any] = {"cpp.min_chunk_size": 2**14}
"""Settings for calls of microseconds. A judgement: waking a second thread pays only for loops that are longer."""
_SMALL = 2**10
"""Most numbers in a matrix whose product with a row is written out. A judgement: a call of BLAS costs more there."""


class InductorProgram(NamedTuple):
    """A function of (*early, *late) arguments in two.

    Attributes:
        prepare: (*early) ↦ what all calls with these share.
        run: (*what they share, *late) ↦ the results, contiguous; to be called without grad mode.
        constants: the tensors that `prepare` holds, which stay where they are.
    """

    prepare: Callable[..., list[Tensor]]
    run: Callable[..., Sequence[Tensor]]
    constants: Sequence[Tensor]


def compile_with_inductor(
    function: Callable[..., Sequence[Tensor]],
    early: Sequence[Tensor],
    late: Sequence[Tensor],
    settings: Mapping[str, Any] | None = None,
) -> InductorProgram:
    """A function split in two, the second half compiled by Inductor without the guards that torch.compile adds.

    Common subexpressions are computed once.

    Args:
        function: of tensors, without side effects. Tensors that it holds, such as the data, are constants: their
            addresses are fixed, their values are not.
        early: examples of the first arguments, in the shapes, precisions and strides of later calls, outside any graph.
        late: examples of the other arguments.
        settings: of Inductor, by name.

    Returns:
        The two halves, for arguments like these.

    Raises:
        CannotCompileError: if there is no compiler, or the function cannot be compiled.
    """
    # Imported here, because the import of Inductor takes seconds, and that of sympy half a second.
    from hypergrad.core.torch_internals.inductor import config, fx_graph_cse, select_decomp_table

    try:
        table = {**select_decomp_table(), torch.ops.aten.mm.default: _small_product}
        plain = trace_without_writes(function, [*early, *late], table)
        drop_aliases(plain)
        # A number on the CPU in a function of tensors on a GPU is no argument of a CUDA graph.
        constants = lift_constants(plain, lambda x: x.ndim == 0 and x.device != late[0].device)
        whole = fx.GraphModule(plain, fx_graph_cse(plain.graph))
        drop_logarithms(whole)
        # Without early arguments nothing is worth a computation apart from the compiled one.
        first, rest = split_by_argument(whole, len(constants) + len(early) if early else 0)
        prepare = (lambda *early: _dense(first(*constants, *early))) if early else (lambda: list(constants))
        shared = prepare(*early)
        with config.patch(dict(settings or {})):
            run = compile_graph(rest, _fake_run(rest, [*shared, *late]))
    except Exception as error:  # a compiler may raise anything
        raise CannotCompileError(in_one_line(error)) from error
    return InductorProgram(prepare, lambda *tensors: run(list(tensors)), constants)


def compile_graph(graph: fx.GraphModule, arguments: Sequence[Tensor]) -> Callable[[list[Tensor]], Sequence[Tensor]]:
    """Inductor's code for a graph, a function of a list of tensors like the fake ones that are given."""
    from hypergrad.core.torch_internals.inductor import TracingContext, compile_fx_inner, detect_fake_mode, tracing

    # Without this context, which knows whether a size is a symbol, Inductor keeps no graph for the next process.
    with tracing(TracingContext(detect_fake_mode(arguments))):
        found: Any = compile_fx_inner(graph, arguments)
    return found


def _fake_run(graph: fx.GraphModule, arguments: Sequence[Tensor]) -> list[Tensor]:
    """Find the shapes and strides of all values of a graph, and make its results contiguous; return fake arguments."""
    from hypergrad.core.torch_internals.inductor import ShapeEnv  # here, because it imports sympy

    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    fake: list[Tensor] = [mode.from_tensor(tensor, static_shapes=True) for tensor in arguments]
    FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*fake)
    output = next(node for node in graph.graph.nodes if node.op == "output")
    for node in output.all_input_nodes:
        if not node.meta["val"].is_contiguous():
            with graph.graph.inserting_before(output):
                copied = graph.graph.call_function(
                    torch.ops.aten.clone.default, (node,), {"memory_format": torch.contiguous_format}
                )
            copied.meta["val"] = node.meta["val"].contiguous()
            output.replace_input_with(node, copied)
    # Otherwise Inductor may choose other strides for the results.
    output.meta["user_visible_output_idxs"] = list(range(len(output.args[0])))
    graph.recompile()
    return fake


def _dense(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, copied where several entries share memory."""
    return [x.contiguous() if 0 in x.stride() else x for x in tensors]


def _small_product(left: Tensor, right: Tensor) -> Tensor:
    """A row times a small matrix as a sum of products, which Inductor fuses with the loops around it."""
    if len(left) == 1 and right.numel() <= _SMALL:
        return (left.T * right).sum(0, keepdim=True)
    return NotImplemented
