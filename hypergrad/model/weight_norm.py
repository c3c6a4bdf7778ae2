"""Weight normalisation by operations whose second derivatives are right."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm

from hypergrad.core.torch_internals import modules


def write_out_weight_norm(module: nn.Module) -> None:
    """Let the weight-normalised layers of a module compute g v / ‖v‖ by plain operations, in place.

    The second derivatives of torch's own operation are wrong, see `torch.autograd.gradgradcheck(torch._weight_norm)`.
    """
    for part in module.modules():
        for name, child in part.named_children():
            if isinstance(child, modules.WeightNorm):
                modules.submodules_of(part)[name] = _ByPlainOperations(child.dim)
        for key, hook in modules.forward_pre_hooks_of(part).items():
            if isinstance(hook, WeightNorm):
                modules.forward_pre_hooks_of(part)[key] = _HookOfPlainOperations(hook.name, hook.dim)


def weight(v: Tensor, g: Tensor, dim: int) -> Tensor:
    """g v / ‖v‖, with a norm for each index along `dim`, or one of all entries if it is −1."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


class _ByPlainOperations(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return weight(v, g, self.dim)


class _HookOfPlainOperations(WeightNorm):
    def compute_weight(self, module: nn.Module) -> Any:
        return weight(getattr(module, f"{self.name}_v"), getattr(module, f"{self.name}_g"), self.dim)
