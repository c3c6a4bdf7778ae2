"""Functions through torch.compile."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hypergrad.compile.tracing import CannotCompileError, in_one_line
from hypergrad.core.torch_internals.trees import tree_leaves


def compile_checked(function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[..., Any]:
    """The function through torch.compile, whose first result is checked against the function itself.

    Args:
        function: of tensors and nestings of them, pure.
        arguments: where to check it.

    Returns:
        The compiled function, for arguments of the same shapes.

    Raises:
        CannotCompileError: if there is no compiler, the function cannot be compiled, or the first result differs.
    """
    fast = torch.compile(function, dynamic=False, fullgraph=True)
    try:
        found, wanted = (tree_leaves(f(*arguments)) for f in (fast, function))
    except Exception as error:  # a compiler may raise anything
        raise CannotCompileError(in_one_line(error)) from error
    require_same(found, wanted)
    return fast


def require_same(found: Sequence[Tensor], wanted: Sequence[Tensor], epsilon: float = 0.0) -> None:
    """Require that the tensors of a first result are equal to √ε, all of them together.

    Args:
        found: the tensors.
        wanted: what they should be.
        epsilon: ε of the format in which they are computed, if that is coarser than theirs.

    Raises:
        CannotCompileError: if they are not.
    """
    x, y = (torch.cat([tensor.reshape(-1) for tensor in tensors]) for tensors in (found, wanted))
    off = (torch.linalg.vector_norm(x - y) / torch.linalg.vector_norm(y)).item()
    if not off <= max(torch.finfo(y.dtype).eps, epsilon) ** 0.5:
        raise CannotCompileError(f"its first result was off by {off:.1e}")
