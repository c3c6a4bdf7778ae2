"""What a torch.nn.Module holds by name, and modules that torch does not show."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import batchnorm, loss
from torch.nn.utils import parametrizations

PARAMETERS, BUFFERS, SUBMODULES = "_parameters", "_buffers", "_modules"
"""The attributes that hold them, without which the others are a module's own. When one goes, take its new name."""
CALL = "_call_impl"
"""The function whose frame says, in a trace, which module was called. When it goes, errors name no layer; take the name
of the function that calls `forward`."""
COMPILED = "_orig_mod"
"""The submodule of what torch.compile made of a module. When it goes, take the type of such a module."""
NormBase = batchnorm._NormBase
"""All layers that may keep statistics of batches or instances. When it goes, list nn.BatchNorm1d and its kin."""
BatchNorm = batchnorm._BatchNorm
"""All layers that normalise by statistics of a batch. When it goes, list nn.BatchNorm1d and its kin."""
Loss = loss._Loss
"""All of torch's losses. When it goes, take the classes of `torch.nn.modules.loss` by name."""
WeightNorm = parametrizations._WeightNorm
"""What `torch.nn.utils.parametrizations.weight_norm` registers. When it goes, take the type that it registers then."""


def parameters_of(part: nn.Module) -> dict[str, Any]:
    """The parameters of a module itself, by attribute, as it holds them: a place for None too, and a name for each.

    When it goes: reading can be done by `named_parameters(recurse=False, remove_duplicate=False)`, and calls with other
    tensors by `torch.func.functional_call`, which is slower.
    """
    return part._parameters


def buffers_of(part: nn.Module) -> dict[str, Any]:
    """The buffers of a module itself, by attribute, as it holds them.

    When it goes: as for `parameters_of`, with `named_buffers`.
    """
    return part._buffers


def submodules_of(part: nn.Module) -> dict[str, Any]:
    """The modules in a module itself, by attribute, as it holds them.

    When it goes: reading can be done by `named_children`, writing by `setattr`.
    """
    return part._modules


def set_buffers(part: nn.Module, buffers: Mapping[str, Any]) -> None:
    """Let a shallow copy of a module hold these, and not the dict of the original.

    When it goes: copy the module by `copy.deepcopy` with a memo of all tensors, then `register_buffer`.
    """
    part._buffers = dict(buffers)


def set_submodules(part: nn.Module, modules: Mapping[str, Any]) -> None:
    """Let a shallow copy of a module hold these, and not the dict of the original; when it goes, see `set_buffers`."""
    part._modules = dict(modules)


def forward_hooks_of(part: nn.Module) -> dict[int, Any]:
    """The hooks that are called after `forward`; without them, count every module as one with hooks."""
    return part._forward_hooks


def forward_pre_hooks_of(part: nn.Module) -> dict[int, Any]:
    """The hooks that are called before `forward`, of which that of `weight_norm` is replaced.

    When it goes: refuse modules with `torch.nn.utils.weight_norm`, the old one, which torch has deprecated.
    """
    return part._forward_pre_hooks


def gradient_hooks_of(x: Tensor) -> list[Any]:
    """The hooks of a parameter's gradient; without them, such hooks are not refused any more, and docs must say so."""
    return [*(x._backward_hooks or ()), *(getattr(x, "_post_accumulate_grad_hooks", None) or ())]
