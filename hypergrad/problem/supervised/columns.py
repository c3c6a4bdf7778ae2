"""Which layers of a model read the columns of a table."""

from typing import Any

import torch
from torch import Tensor

from hypergrad.model.pure_module import PureModule


@torch.no_grad()
def column_readers(model: PureModule, X: Tensor) -> frozenset[str]:
    """The names of the parameters of layers whose input is X itself, so that the columns of X name their inputs.

    Args:
        model: it is called once, in evaluation.
        X: a few inputs, shape (n, p).
    """
    found: set[str] = set()

    def watch(name: str) -> Any:
        def see(module: Any, args: Any) -> None:
            if args and isinstance(args[0], Tensor) and args[0].shape == X.shape and torch.equal(args[0], X):
                found.update(f"{name}.{p}" if name else p for p, _ in module.named_parameters(recurse=False))

        return see

    handles = [part.register_forward_pre_hook(watch(name)) for name, part in model.module.named_modules()]
    try:
        model(model.params(), X, None)
    finally:
        for handle in handles:
            handle.remove()
    return frozenset(found)
