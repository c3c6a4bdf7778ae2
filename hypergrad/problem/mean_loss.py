"""A loss as a mean over batches, whose random draws depend only on the seed and the number of the batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, leaves
from hypergrad.core.seed import seed_of

_ROUNDING = 16
"""Units of rounding by which two calls of one function may differ, as parallel sums do."""


@dataclass(frozen=True)
class MeanLoss:
    """(w, λ) ↦ mean_b ℓ(w, λ, batch b), or ℓ(w, λ) without batches.

    Attributes:
        name: what errors call it.
        loss: ℓ on named tensors, shape ().
        batches: None, or at least one.
        seed: of the draws, with batches.

    Raises:
        ValueError: if there are batches, but none.
    """

    name: str
    loss: Callable[..., Tensor]
    batches: Sequence[Any] | None
    seed: int

    def __post_init__(self) -> None:
        if self.batches is not None and not len(self.batches):
            raise ValueError("batches must hold at least 1 batch, but it holds 0; an iterator can be read only once.")

    def __call__(self, params: Tensors, hparams: Tensors) -> Tensor:
        """The mean."""
        if self.batches is None:
            return self.loss(params, hparams)
        losses = [self.of_batch(b)(params, hparams).reshape(()) for b in range(len(self.batches))]
        return torch.stack(losses).mean()

    def of_batch(self, number: int) -> Callable[[Tensors, Tensors], Tensor]:
        """(w, λ) ↦ the loss on one batch."""
        return partial(self._of_batch, number)

    def _of_batch(self, number: int, params: Tensors, hparams: Tensors) -> Tensor:
        assert self.batches is not None  # only with batches there is a number
        device = next(iter(params.values())).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed_of(self.name, self.seed, number))
            return self.loss(params, hparams, self.batches[number])


@torch.no_grad()
def require_repeatable(loss: MeanLoss, params: Tensors, hparams: Tensors) -> None:
    """Require that two calls at one point give the same value, up to rounding.

    Raises:
        ValueError: if they do not.
    """
    # Leaves, because a loss may select the parameters that require a gradient.
    first, second = (loss(leaves(params), hparams).item() for _ in range(2))
    eps = torch.finfo(next(iter(params.values())).dtype).eps
    if abs(first - second) <= _ROUNDING * eps * max(abs(first), abs(second)) or first == second or first != first:
        return
    remedy = (
        "Draw from torch's generator, which is seeded for each batch, instead of numpy's or Python's"
        if loss.batches is not None
        else "Call eval() on a module with dropout, or fix the mini-batch and the seed inside the loss; or give "
        "batches=…, such as a DataLoader, to get the hypergradient of the mean loss with its standard error"
    )
    raise ValueError(
        f"{loss.name} must give the same value at each call with the same arguments, but two calls gave {first:.9g} "
        f"and {second:.9g}: it draws random numbers or another mini-batch. {remedy}."
    )
