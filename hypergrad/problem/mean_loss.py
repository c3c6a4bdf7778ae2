"""A loss as a mean over batches, whose random draws depend only on the seed and the number of the batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, leaves
from hypergrad.core.errors import NonFiniteError
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


def require_arguments(losses: Mapping[str, Any], tensors: Mapping[str, Tensors], batches: Any) -> None:
    """Require losses that can be called, finite tensors, and batches that can be read.

    Args:
        losses: by the name of the argument.
        tensors: those of an argument, by its name.
        batches: an iterable, or None.

    Raises:
        TypeError: if a loss cannot be called, or `batches` is no iterable.
        NonFiniteError: if a tensor holds NaN or infinite values.
    """
    for name, loss in losses.items():
        if not callable(loss):
            raise TypeError(
                f"{name} must be a function of params and hparams that returns a tensor of shape (), but it is a "
                f"{type(loss).__name__}; give the function, and not its value: lambda params, hparams: …"
            )
    for argument, named in tensors.items():
        for name, x in named.items():
            if bad := int((~x.isfinite()).sum()):
                raise NonFiniteError(
                    f"{argument} must hold finite numbers, but {name!r} holds {bad} of {x.numel()} values that are NaN "
                    "or infinite; look for a training that diverged."
                )
    if batches is not None and not isinstance(batches, Iterable):
        raise TypeError(
            f"batches must be an iterable of batches, such as a DataLoader, but it is a {type(batches).__name__}; the "
            "size of a batch is a setting of the DataLoader."
        )


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
