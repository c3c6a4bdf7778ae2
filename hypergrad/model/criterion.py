"""A user's loss function: its mean, its value for each example, and the shapes of outputs and targets."""

import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Criterion:
    """ℓ(z, y), averaged over the examples or for each example.

    Attributes:
        loss: maps outputs and targets to a tensor of any shape; its mean is ℓ.
    """

    loss: Callable[[Tensor, Tensor], Tensor]

    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        """ℓ(z, y), shape ().

        Raises:
            TypeError: if the loss is not a tensor.
        """
        value = self.loss(_shaped(outputs, y), y)
        if not isinstance(value, Tensor):
            raise TypeError(f"The loss must return a tensor, but it returned {value!r} of {type(value).__name__}.")
        return value if value.ndim == 0 else value.mean()

    def each(self, outputs: Tensor, y: Tensor) -> Tensor:
        """ℓ(z_i, y_i), shape (n,), by `reduction="none"` if the loss has it, averaged over all axes but the first.

        Raises:
            ValueError: if the loss gives no value for each example.
        """
        losses = self._unreduced()(_shaped(outputs, y), y)
        if losses.ndim == 0 or len(losses) != len(y):
            raise ValueError(
                f"Weights of examples need a loss for each of the {len(y)} examples, but the loss returned a tensor of "
                f"shape {tuple(losses.shape)}; let it return shape ({len(y)},), or give it an argument `reduction`."
            )
        return losses.flatten(1).mean(1) if losses.ndim > 1 else losses

    @property
    def ignored(self) -> int | None:
        """The target that the loss ignores, if there is one."""
        settings = self.loss.keywords if isinstance(self.loss, partial) else {}
        return getattr(self.loss, "ignore_index", settings.get("ignore_index"))

    def _unreduced(self) -> Callable[[Tensor, Tensor], Tensor]:
        loss: Any = copy(self.loss)
        if isinstance(loss, nn.Module):
            if hasattr(loss, "reduction"):
                setattr(loss, "reduction", "none")  # noqa: B010 (an attribute of nn.Module is a tensor to pyright)
            return loss
        takes_reduction = "reduction" in inspect.signature(loss).parameters
        return partial(loss, reduction="none") if takes_reduction else loss


def _shaped(outputs: Tensor, y: Tensor) -> Tensor:
    """Outputs of shape (n, 1) as (n,) for targets of shape (n,); a loss would broadcast the two to (n, n)."""
    return outputs.squeeze(1) if outputs.shape == (len(y), 1) and y.ndim == 1 and y.is_floating_point() else outputs
