"""Whether a model accepts the examples: errors that name the part, what the layer expects, and what it got."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.core.torch_internals.modules import CALL, Loss
from hypergrad.data.tree import named, shapes
from hypergrad.model.pure_module import PureModule
from hypergrad.model.requirements import require_servable


def require_module(model: Any, loss: Any) -> None:
    """Require that the model is a module, and not the loss.

    Raises:
        TypeError: if not.

    Also raised, by what it calls: TypeError or ValueError if the module cannot be served.
    """
    if isinstance(model, Loss) or isinstance(loss, nn.Module) and not isinstance(model, nn.Module):
        raise TypeError(
            f"The model must be a torch.nn.Module that maps inputs to outputs, but it is the loss {_named(model)}; "
            "model and loss are swapped."
        )
    require_servable(model)


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
    """Require that a model, which was tried on train, can be called with a few inputs of the other parts.

    Also raised, by what it calls: ValueError if it cannot.
    """
    tried = {_kind(inputs["train"])}
    for name, X in inputs.items():
        if _kind(X) not in tried:
            with accepting(name, X):
                model(model.params(), X, None)
            tried.add(_kind(X))


def _failed(error: BaseException) -> str | None:
    """The innermost module that was running, and its first input, as text; None if there was none."""
    found, trace = None, error.__traceback__
    while trace is not None:
        frame, code = trace.tb_frame, trace.tb_frame.f_code
        module = frame.f_locals.get("self")
        # A call whose arguments do not fit fails before `forward` begins.
        runs = code.co_name in (CALL, "forward")
        if runs and isinstance(module, nn.Module) and not isinstance(module, PureModule):
            inputs = [frame.f_locals.get(name) for name in code.co_varnames[1:]] if code.co_name == "forward" else []
            got = [f", which got {shapes(x)}," for x in inputs if isinstance(x, Tensor)]
            text = repr(module)
            found = (text if "\n" not in text else type(module).__name__) + "".join(got[:1])
        if trace.tb_next is None and str(frame.f_globals.get("__name__")).startswith("hypergrad."):
            return None  # it says itself what is wrong
        trace = trace.tb_next
    return found


def _kind(X: Any) -> str:
    return str({name: (x.shape[1:], x.dtype) for name, x in named(X).items()})


def _swapped(X: Any) -> str:
    is_flat = isinstance(X, Tensor) and X.ndim == 1
    return "; or are X and y swapped? X has one number for each example" if is_flat else ""


def _named(loss: Any) -> str:
    return getattr(loss, "__name__", type(loss).__name__)
