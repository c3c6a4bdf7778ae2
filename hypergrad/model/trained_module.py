"""The user's module with trained values, and with running averages to use it in `eval()`."""

from collections.abc import Iterable
from copy import copy
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors
from hypergrad.core.torch_internals.modules import NormBase
from hypergrad.model.convention import arguments
from hypergrad.model.copying import copied


def keeps_averages(part: nn.Module) -> TypeGuard[NormBase]:
    """Whether a module is a normalisation that would update running averages when it is called."""
    return isinstance(part, NormBase) and part.training and part.track_running_stats


class ModuleTemplate:
    """A copy of a module as the user made it, from which trained copies are made.

    Args:
        module: not changed.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = copied(module)
        self._averaging = [name for name, part in self._module.named_modules() if keeps_averages(part)]

    @property
    def averages(self) -> bool:
        """Whether the module has running averages, which training does not update."""
        return bool(self._averaging)

    def without_values(self) -> "ModuleTemplate":
        """The same template without the memory of its parameters, of which `filled` then needs all."""
        other = copy(self)
        other._module = copied(self._module)
        for p in other._module.parameters():
            p.data = p.data.new_empty(0)
        return other

    @torch.no_grad()
    def filled(self, values: Tensors, like: nn.Module, batches: Iterable[Any]) -> nn.Module:
        """A copy in `eval()` mode with the given values, and with running averages over some batches.

        The averages are cumulative, with equal weights for all batches. Each layer sees the batches as the trained
        layers before it return them, normalised by the statistics of the batch, with dropout off.

        Args:
            values: of parameters and buffers, by name.
            like: a module that has all other values under the same names, on their device and in their dtype.
            batches: inputs; they are not read if the module has no running averages.
        """
        module = copied(self._module)
        known = dict(like.named_parameters()) | dict(like.named_buffers()) | values
        first = next(iter(values.values()))
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            tensor.data = known[name].detach().clone() if name in known else _placed(tensor, first)
        module.eval()
        _average([module.get_submodule(name) for name in self._averaging], module, batches)
        return module


def _placed(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor.to(like.device, like.dtype if tensor.is_floating_point() else None)


def _average(norms: list[Any], module: nn.Module, batches: Iterable[Any]) -> None:
    """Set the running averages of `norms`, which are parts of `module`."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the cumulative average of torch
    for inputs in batches if norms else ():
        args, kwargs = arguments(inputs)
        module(*args, **kwargs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
