"""Whether a model accepts the examples: errors that name the part, what the layer expects, and what it got."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.loss import _Loss

from hypergrad.data.tree import named, shapes, take
from hypergrad.model.pure_module import PureModule


def require_module(model: Any, loss: Any) -> None:
    """Require that the model is a module, and not the loss.

    Raises:
        TypeError: if not.
    """
    if not isinstance(model, nn.Module):
        remedy = "model and loss are swapped" if isinstance(loss, nn.Module) else "give an instance of a module"
        raise TypeError(f"The model must be a torch.nn.Module, but it is {_named(model)}; {remedy}.")
    if isinstance(model, _Loss):
        raise TypeError(
            f"The model must map inputs to outputs, but it is the loss {type(model).__name__}; model and loss are "
            "swapped."
        )


@contextmanager
def accepting(name: str, X: Any) -> Iterator[None]:
    """A context that explains errors of a call of a module with inputs X of the part `name`.

    Raises:
        ValueError: if the forward of a module raises anything.
    """
    try:
        yield
    except Exception as error:
        layer = _failed(error)
        if layer is None:
            raise
        raise ValueError(
            f"The model must accept the inputs of the {name} part, {shapes(X)}, but {layer} raised "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'without a message'}. Give inputs "
            f"as this layer expects them, or change the layer{_swapped(X)}."
        ) from error


@torch.no_grad()
def require_accepted(model: PureModule, inputs: Mapping[str, Any]) -> None:
    """Require that a model can be called with a few inputs of each part, by the name of the part.

    Also raised, by what it calls: ValueError if it cannot.
    """
    tried = set()
    for name, X in inputs.items():
        kind = str({key: (x.shape[1:], x.dtype) for key, x in named(X).items()})
        if kind not in tried:
            with accepting(name, X):
                model(model.params(), X, None)
            tried.add(kind)


@torch.no_grad()
def require_statistics(model: PureModule, X: Any, size: int, batch_size: int | None, drop_last: bool) -> None:
    """Require that batch normalisation has more than one example in each step.

    Raises:
        ValueError: if a batch has too few.
    """
    step = min(batch_size or size, size)
    least = step if drop_last or size % step == 0 else size % step
    if least != 1 or not any(
        isinstance(part, _BatchNorm) and part.running_mean is None for part in model.module.modules()
    ):
        return
    try:
        model(model.params(), take(X, slice(0, 1)), 0)
    except ValueError as error:
        raise ValueError(
            f"Batch normalisation needs at least 2 examples in each step, but with {size} train examples and "
            f"batch_size = {batch_size} the last batch of an epoch has 1; set drop_last=True, or another batch_size."
        ) from error


def _failed(error: BaseException) -> str | None:
    """The innermost module that was running, and its first input, as text; None if there was none."""
    found, trace = None, error.__traceback__
    while trace is not None:
        frame, code = trace.tb_frame, trace.tb_frame.f_code
        module = frame.f_locals.get("self")
        # A call whose arguments do not fit fails before `forward` begins.
        runs = code.co_name in ("_call_impl", "forward")
        if runs and isinstance(module, nn.Module) and not isinstance(module, PureModule):
            inputs = [frame.f_locals.get(name) for name in code.co_varnames[1:]] if code.co_name == "forward" else []
            got = [f", which got {shapes(x)}," for x in inputs if isinstance(x, Tensor)]
            text = repr(module)
            found = (text if "\n" not in text else type(module).__name__) + "".join(got[:1])
        trace = trace.tb_next
    return found


def _swapped(X: Any) -> str:
    is_flat = isinstance(X, Tensor) and X.ndim == 1
    return "; or are X and y swapped? X has one number for each example" if is_flat else ""


def _named(value: Any) -> str:
    kind = "the class" if isinstance(value, type) else "the function"
    name = getattr(value, "__name__", None)
    return f"{kind} {name}" if name else f"a {type(value).__name__}"
