"""Tensors in attributes that were computed from parameters, or share their memory, before the module is called."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hypergrad.core.torch_internals.modules import buffers_of
from hypergrad.core.torch_internals.trees import tree_leaves
from hypergrad.model.copying import own_state, parts_of
from hypergrad.model.requirements import layer


class Suspect(NamedTuple):
    """A tensor of a copied module that training would leave at its initial value, unless each call replaces it."""

    module: nn.Module
    part: nn.Module
    attribute: str
    value: Any
    tensor: Tensor
    reason: str

    def require_replaced(self) -> None:
        """Require that the calls until now have replaced the tensor.

        Raises:
            ValueError: if it is.
        """
        if any(x is self.tensor for x in tree_leaves(_attributes(self.part).get(self.attribute))):
            raise ValueError(
                f"{layer(self.module, self.part)} has an attribute {self.attribute!r} that {self.reason}, and a call "
                "does not compute it again, so it would not follow the parameters in training. Compute it in forward, "
                "or detach and clone it if it is a constant."
            )


def suspects(module: nn.Module, copy: nn.Module) -> list[Suspect]:
    """The suspects of a copy of a user's module.

    Raises:
        ValueError: if two parameters share their memory.
    """
    memory: dict[int, str] = {}
    at: dict[tuple[int, int], str] = {}
    for name, p in module.named_parameters():
        if p.requires_grad and p.numel():
            memory.setdefault(p.untyped_storage().data_ptr(), name)
            other = at.setdefault((p.data_ptr(), p.numel()), name)
            if other != name:
                raise ValueError(
                    f"The parameters {other!r} and {name!r} of the model share their memory but are two parameters. "
                    "Make them one: assign the first one, not its data, to both attributes."
                )
    found: list[Suspect] = []
    for mine, yours in zip(parts_of(module), parts_of(copy), strict=True):
        theirs = _attributes(yours)
        for attribute, value in _attributes(mine).items():
            for x, copied in zip(tree_leaves(value), tree_leaves(theirs.get(attribute)), strict=False):
                reason = _reason(x, memory)
                if reason:
                    found.append(Suspect(copy, yours, attribute, theirs[attribute], copied, reason))
    return found


def _reason(x: Any, memory: dict[int, str]) -> str:
    if not isinstance(x, Tensor) or isinstance(x, nn.Parameter):
        return ""
    owner = memory.get(x.untyped_storage().data_ptr()) if x.numel() and x.layout is torch.strided else None
    if owner is not None:
        return f"shares the memory of the parameter {owner!r}"
    return "" if x.is_leaf else "was computed from parameters"


def _attributes(part: nn.Module) -> dict[str, Any]:
    return own_state(part) | buffers_of(part)
