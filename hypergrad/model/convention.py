"""How a module is called with the inputs of a batch, and which tensor of what it returns is used."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

OUTPUTS, LOSS = "logits", "loss"
"""The entries of what a model of the transformers library returns."""


def arguments(X: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments: a dict by name, a tuple by position, anything else alone."""
    if isinstance(X, dict):
        return (), X
    return X if isinstance(X, tuple) else (X,), {}


def tensor_of(returned: Any, module: nn.Module, entry: str = OUTPUTS) -> Tensor:
    """The tensor that a module returned, or an entry of it.

    Args:
        returned: a tensor, or a mapping or object with the entry.
        module: the module, for errors.
        entry: `OUTPUTS` or `LOSS`.

    Raises:
        TypeError: if there is no such tensor.
    """
    if isinstance(returned, Tensor) and entry == OUTPUTS:
        return returned
    found = returned.get(entry) if isinstance(returned, Mapping) else getattr(returned, entry, None)
    if isinstance(found, Tensor):
        return found
    name, kind = type(module).__name__, type(returned).__name__
    has = f" with {', '.join(map(str, returned))}" if isinstance(returned, Mapping) else ""
    if entry == LOSS:
        raise TypeError(
            f"Without `loss`, {name} must return an object with a tensor `loss` when it is called with `labels`, but "
            f"it returned a {kind}{has}; give hg.Supervised the loss."
        )
    raise TypeError(
        f"{name} must return a tensor or an object with a tensor `logits`, but it returned a {kind}{has}; wrap it in a "
        "module whose forward returns one tensor."
    )
