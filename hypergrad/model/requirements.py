"""What a module must be before it is copied and called: kinds that cannot be served, by name."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hypergrad.core.torch_internals.modules import COMPILED, buffers_of, gradient_hooks_of, parameters_of, submodules_of

_PARALLEL = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")
_REAL = (torch.float32, torch.float64)


def layer(module: nn.Module, part: nn.Module) -> str:
    """What a message calls a part of a module, such as "The layer 'body.0' of the model, a Linear,"."""
    name = next((name for name, x in module.named_modules() if x is part), None)
    kind = type(part).__name__
    if name is None:
        return f"A {kind} in an attribute of the model"
    return f"The layer {name!r} of the model, a {kind}," if name else f"The model, a {kind},"


def require_servable(module: nn.Module) -> None:
    """Require what can be known of a module without a call.

    Raises:
        TypeError: if it is not a module, or cannot be a function of its parameters.
        ValueError: if its parameters have no values yet, or cannot be trained.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"The model must be a torch.nn.Module, but it is {_no_module(module)}.")
    for part in module.modules():
        reason = _kind(part)
        if reason:
            raise TypeError(f"{layer(module, part)} cannot be a function of its parameters: {reason}")
        for name, x in [*parameters_of(part).items(), *buffers_of(part).items()]:
            reason = (
                "" if x is None else _without_values(x) or (_untrainable(x) if x.requires_grad else "") or _hooked(x)
            )
            if reason:
                raise ValueError(f"{layer(module, part)} has {name!r}, {reason}")


def _no_module(given: object) -> str:
    if isinstance(given, type):
        return f"the class {given.__name__}. Pass a module that it makes, such as {given.__name__}(…)"
    return (
        f"{given!r} of {type(given).__name__}. Write a class derived from torch.nn.Module, whose forward maps a batch "
        "of inputs to a batch of outputs, and whose parameters are what is trained"
    )


def _kind(part: nn.Module) -> str:
    kind = type(part)
    if isinstance(part, torch.jit.ScriptModule):
        return "it is compiled by TorchScript. Pass the Python module from which it was made."
    if COMPILED in submodules_of(part):
        return (
            "torch.compile made it, and the gradient of what that compiles cannot be differentiated. Pass the module "
            "from which it was made, its `_orig_mod`; compile=true of an estimator compiles training steps."
        )
    if kind.__name__ in _PARALLEL and kind.__module__.startswith("torch."):
        return (
            "it splits the work among devices or processes, while a training step here is one function on one device. "
            "Pass the module inside it, its `.module`."
        )
    return ""


def _hooked(x: Tensor) -> str:
    hooks = gradient_hooks_of(x)
    if not hooks:
        return ""
    return (
        f"whose gradient goes through {len(hooks)} hook{'s'[: len(hooks) > 1]}, which training as a function of its "
        "parameters does not call. Remove them, and do in the loss or in forward what they do."
    )


def _without_values(x: Tensor) -> str:
    if is_lazy(x):
        return "which has no shape yet. Call the model once on a batch of inputs before you pass it."
    if x.is_meta:
        return "which has no values, because it is on the device meta. Call to_empty(device=…) and initialise it."
    return ""


def _untrainable(x: Tensor) -> str:
    if type(x.data).__name__ == "DTensor":
        return "which is spread over several processes. Pass a module whose tensors are on one device."
    if x.dtype.is_complex:
        return (
            f"which has complex values ({x.dtype}), while gradients are vectors of real numbers here. Keep "
            "torch.view_as_real of it as the parameter, and apply torch.view_as_complex in forward."
        )
    if x.dtype not in _REAL:
        return (
            f"of dtype {x.dtype}, which is too coarse for second derivatives: expected torch.float32 or torch.float64. "
            "Call float() on the model; to compute in bfloat16, give precision='bf16-mixed' to hg.Trainer."
        )
    if bad := int((~x.detach().isfinite()).sum()):
        return (
            f"of which {bad} of {x.numel()} values are NaN or infinite, and nothing can be computed from them. "
            "Initialise it, or load it from a training that did not diverge."
        )
    return ""
