"""The floating-point formats in which a value was computed, found in its graph."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.torch_internals.objects import outputs_of

TF32 = 2.0**-10
"""ε of tf32, whose products of matrices have 10 bits after the leading one."""
_ON_TENSOR_CORES = ("Addmm", "Addbmm", "Baddbmm", "Bmm", "Convolution", "CudnnConvolution", "Linear", "Mm")


def coarsest(value: Tensor, name: str) -> float:
    """ε of the coarsest format of all tensors in the graph of a value, and of the value.

    On a GPU, tf32 counts where torch is allowed to use it. Constants, such as data, do not count. A node that stands
    for operations of which the graph is not kept has an attribute `hidden`, which maps the name to their ε.

    Args:
        value: a tensor.
        name: what an error calls it.

    Raises:
        ValueError: if that is float16.
    """
    eps = torch.finfo(value.dtype).eps
    if value.dtype == torch.float16:
        raise ValueError(_half(name))
    for node in _nodes(value):
        hidden = getattr(node, "hidden", None)
        eps = eps if hidden is None else max(eps, hidden(name))
        for of_output in outputs_of(node):  # of the backward operation, so the output of the operation itself
            if of_output.dtype == torch.float16:
                raise ValueError(_half(name))
            if of_output.dtype.is_floating_point:
                eps = max(eps, torch.finfo(of_output.dtype).eps)
            if of_output.dtype == torch.float32 and of_output.device.type == "cuda" and _allows_tf32(node.name()):
                eps = max(eps, TF32)
    return eps


def _nodes(value: Tensor) -> Iterator[Any]:
    """Each operation of a graph."""
    waiting = [value.grad_fn]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        yield node
        further = {before for before, _ in node.next_functions} - seen
        seen |= further
        waiting.extend(further)


def _allows_tf32(kind: str) -> bool:
    name = kind.removesuffix("0").removesuffix("Backward")
    if name not in _ON_TENSOR_CORES:
        return False
    return allows_tf32(torch.backends.cudnn if "Convolution" in name else torch.backends.cuda.matmul)


def autocasts(device: str) -> bool:
    """Whether autocast is on for a type of device; some types, such as "meta", have none."""
    return _has_autocast(device) and torch.is_autocast_enabled(device)


_has_autocast = lru_cache(torch.amp.is_autocast_available)


def allows_tf32(library: Any) -> bool:
    """Whether `torch.backends.cuda.matmul`, or cuDNN's convolutions, may use tf32 on an Nvidia GPU."""
    setting = setting_of(getattr(library, "conv", library))
    return bool(library.allow_tf32) if setting is None else setting == "tf32"


def setting_of(x: Any) -> str | None:
    """The precision of float32; None before torch 2.9, which has no such setting."""
    return getattr(x, "fp32_precision", None)


def _half(name: str) -> str:
    return (
        f"{name} is computed in float16, in which gradients below 6e-8 are 0: a derivative of it is wrong in silence, "
        "and scaling the loss does not help the second derivatives. Use bfloat16, which has the range of float32: "
        "torch.autocast(…, dtype=torch.bfloat16) in the model, or precision='bf16-mixed'."
    )
