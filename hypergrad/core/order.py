"""How often a value will be differentiated, by which a model chooses its kernels."""

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from hypergrad.core.torch_internals.tracing import get_proxy_mode
from hypergrad.core.torch_internals.transforms import forward_ad_level, peek_interpreter_stack

T = TypeVar("T")
_PLAIN = {Tensor, nn.Parameter}


class _Here(threading.local):
    """What is known in a thread."""

    once = False


_HERE = _Here()


class differentiated:  # noqa: N801 (a context manager, made for each gradient; a generator costs microseconds)
    """A context whose values are differentiated once, or perhaps twice.

    Args:
        once: whether nothing in it is differentiated twice.
    """

    __slots__ = ("_before", "_once")

    def __init__(self, *, once: bool) -> None:
        self._once = once

    def __enter__(self) -> None:
        self._before, _HERE.once = _HERE.once, self._once

    def __exit__(self, *error: object) -> None:
        _HERE.once = self._before


def first_order(evaluate: Callable[[], T]) -> T:
    """`evaluate()`, of which nothing is differentiated twice, so that models may use kernels with one derivative.

    If a function of the user's own differentiates within, as a penalty on a gradient does, torch raises that such a
    kernel has no second derivative. Then all is evaluated again, with kernels that have one.
    """  # noqa: DOC501 (it is raised again)
    try:
        with differentiated(once=True):
            return evaluate()
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
    with differentiated(once=False):
        return evaluate()


def is_first_order(like: Tensor | None) -> bool:
    """Whether what is computed now is not differentiated, or once, by `torch.autograd` and nothing else.

    Args:
        like: one of the tensors that it is computed from, if any.
    """
    return (_HERE.once or not torch.is_grad_enabled()) and are_plain(() if like is None else (like,))


def are_plain(tensors: Iterable[Tensor]) -> bool:
    """Whether operations on tensors are computed at once: no transform of `torch.func`, trace or forward mode."""
    return (
        peek_interpreter_stack() is None
        and forward_ad_level() < 0
        and get_proxy_mode() is None
        and all(type(x) in _PLAIN for x in tensors)
    )
