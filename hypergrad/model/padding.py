"""Rows of padding, to which torch gives no gradient although an embedding reads them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors
from hypergrad.core.torch_internals.modules import parameters_of
from hypergrad.model.calling import FunctionOfParameters
from hypergrad.model.criterion import Criterion
from hypergrad.model.requirements import layer

_ROUNDING = 1e-6
"""Relative change of a loss that counts as none, as where padding has a tiny weight in attention. A judgement."""


@torch.no_grad()
def require_still_padding(model: FunctionOfParameters, criterion: Criterion, X: Any, y: Tensor) -> None:
    """Require of every row of padding that it stays as it is in training, or does not matter to ℓ(z(w₀, X), y).

    In derivatives of any order, torch leaves out what the row `padding_idx` of nn.Embedding does to the outputs. This
    is right if the row stays as it is. If it is zero, it does: data and the usual penalties do not move it. Any other
    row moves with λ by penalties and weight decay, and so does one that another layer uses too.

    Args:
        model: z.
        criterion: ℓ.
        X: a few inputs.
        y: their targets.

    Raises:
        ValueError: if a row may move and matters.
    """

    def losses() -> list[Tensor]:
        return [criterion.value(model(model.params(), X, step), y) for step in (0, None)]

    for part in model.module.modules():
        if isinstance(part, nn.Embedding) and part.padding_idx is not None and part.weight.requires_grad:
            reason = "is not zero" if part.weight[part.padding_idx].any() else _other_use(model.module, part)
            if reason and _is_read(part, losses):
                raise ValueError(
                    f"{layer(model.module, part)} has a row of padding, padding_idx={part.padding_idx}, which "
                    f"{reason}, so that it moves in training. The loss depends on it, but torch gives it no gradient, "
                    "so a hypergradient would leave out its part. Let a mask keep padding out of the loss, set the "
                    "row to zero in a layer of its own, or set padding_idx to None."
                )


def without_padding(model: FunctionOfParameters, v: Tensors) -> Tensors:
    """A direction in which rows of padding stay as they are, as `require_still_padding` makes sure that they do."""
    rows = {id(part.weight): part.padding_idx for part in model.module.modules() if isinstance(part, nn.Embedding)}
    still = {name: rows.get(id(model.module.get_parameter(name))) for name in v}
    return {
        name: x if still[name] is None else x.index_fill(0, torch.tensor(still[name]).to(x.device), 0)
        for name, x in v.items()
    }


def _other_use(module: nn.Module, embedding: nn.Embedding) -> str:
    """Where the weight gets a gradient for the row of padding too."""
    for part in module.modules():
        same = isinstance(part, nn.Embedding) and part.padding_idx == embedding.padding_idx
        if not same and any(p is embedding.weight for p in parameters_of(part).values()):
            return f"is a weight of a {type(part).__name__} too"
    return ""


def _is_read(embedding: nn.Embedding, losses: Callable[[], list[Tensor]]) -> bool:
    def changed(part: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
        (ids,) = (*args, *kwargs.values())
        return output + (ids == embedding.padding_idx).unsqueeze(-1)

    before = losses()
    handle = embedding.register_forward_hook(changed, with_kwargs=True)
    try:
        after = losses()
    finally:
        handle.remove()
    return not all(
        torch.allclose(x, y, rtol=_ROUNDING, atol=0, equal_nan=True) for x, y in zip(before, after, strict=True)
    )
