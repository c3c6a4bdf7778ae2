"""Traces compiled by Inductor alone, for many calls: what the calls share is computed once."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from hypergrad.compile.splitting import split_by_argument
from hypergrad.compile.tracing import CannotCompileError

_LONG_LOOP = 2**14
"""Least number of loop steps for each thread. A judgement: waking a second thread pays for long loops only."""
_SMALL = 2**10
"""Most numbers in a matrix whose product with a row is written out. A judgement: a call of BLAS costs more there."""


class InductorProgram(NamedTuple):
    """A function of (*early, *late) arguments in two.

    Attributes:
        prepare: (*early) ↦ what all calls with these share.
        run: (*what they share, *late) ↦ the results; to be called without grad mode.
    """

    prepare: Callable[..., Sequence[Tensor]]
    run: Callable[..., Sequence[Tensor]]


def compile_with_inductor(traced: fx.GraphModule, early: Sequence[Tensor], late: Sequence[Tensor]) -> InductorProgram:
    """A trace split in two, the second half compiled by Inductor without the guards that torch.compile adds.

    Common subexpressions are computed once.

    Args:
        traced: a function of tensors that returns a tuple of tensors.
        early: examples of the first arguments, in the shapes and precisions of later calls, outside any graph.
        late: examples of the other arguments.

    Returns:
        The two halves, for arguments like these.

    Raises:
        CannotCompileError: if there is no compiler, or the trace cannot be compiled.
    """
    # Imported here, because the import of Inductor takes seconds, and that of sympy half a second.
    from torch._functorch.compile_utils import fx_graph_cse
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table

    try:
        table = {**select_decomp_table(), torch.ops.aten.mm.default: _small_product}
        plain = make_fx(torch.func.functionalize(traced), table)(*early, *late)
        prepare, rest = split_by_argument(fx.GraphModule(plain, fx_graph_cse(plain.graph)), len(early))
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        fake = [mode.from_tensor(tensor) for tensor in (*prepare(*early), *late)]
        FakeTensorProp(rest, mode).propagate_dont_convert_inputs(*fake)
        with config.patch({"cpp.min_chunk_size": _LONG_LOOP}):
            fast: Any = compile_fx_inner(rest, fake)
    except Exception as error:  # a compiler may raise anything
        raise CannotCompileError(type(error).__name__) from error
    return InductorProgram(prepare, lambda *tensors: fast(list(tensors)))


def _small_product(left: Tensor, right: Tensor) -> Tensor:
    """A row times a small matrix as a sum of products, which Inductor fuses with the loops around it."""
    if len(left) == 1 and right.numel() <= _SMALL:
        return (left.T * right).sum(0, keepdim=True)
    return NotImplemented
