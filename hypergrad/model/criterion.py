"""A user's loss as a part of a problem: its value, and the terms of which it is made."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hypergrad.model.known_loss import IGNORED, has_logits, known_loss, require_two_arguments
from hypergrad.model.loss_setting import PartialLoss, changed, setting

_REDUCTIONS = ("none", "mean", "sum", "batchmean")
"""How a value is made of the terms of a loss; "none" stands for their mean, which is taken here."""


class Fraction(NamedTuple):
    """What a part of a batch is of the whole.

    Attributes:
        number: of the part, ≥ 0, by which its random draws differ from those of others; None for the whole.
        share: n_k / n, its share of the examples.
        denominator: N of the whole, shape (), for a mean of cross entropies; else None.
        is_empty: whether it stands for no example, so that its examples count in no statistics.
    """

    number: int | None
    share: float
    denominator: Tensor | None
    is_empty: bool = False


class Criterion(nn.Module):
    """ℓ(z, y) = 1/N Σ_i u_i, with a term u_i for each example and the loss's own denominator N.

    N is the number of entries for most losses of torch, 1 for `reduction="sum"`, n for "batchmean", and the sum of the
    weights of the classes of all targets that are not ignored, for a mean of cross entropies. In a mini-batch, it is
    that of the mini-batch. A loss that returns several values is averaged over them.

    Args:
        loss: a function, module or partial of outputs and targets; a module, and tensors that are keywords of a
            partial, are copied, and move with this module.

    Raises:
        TypeError: if the loss is a class, or cannot be called, or a loss of torch.nn with other arguments, or a partial
            that holds tensors in another way.
        ValueError: if the loss has parameters that require a gradient.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        if inspect.isclass(loss) or not callable(loss):
            raise TypeError(
                f"The loss must be a function of outputs and targets, or a module such as nn.CrossEntropyLoss(), but "
                f"it is {loss!r}."
            )
        self.loss: Any = _as_part(loss)
        require_two_arguments(self.loss)
        _require_constant(loss, self.loss)
        self.known = known_loss(self.loss)
        self.has_logits = has_logits(self.loss)
        self.converts = self.known is not None and self.known.targets == "entry"
        """Whether integer targets become numbers of the outputs' dtype."""
        self.reduction: str | None = setting(self.loss, "reduction") or "none"
        """One of `_REDUCTIONS`; None if the terms are not those of which the loss is made."""

    def value(
        self, outputs: Tensor, y: Tensor, classes: Tensor | None = None, fraction: Fraction | None = None
    ) -> Tensor:
        """ℓ(z, y), shape (), or what a part adds to it divided by its share: N of the whole takes the place of N.

        Args:
            outputs: z, shape (n, …).
            y: the targets, shape (n, …).
            classes: the classes from which an effect made probabilities y, or the same as y, or None.
            fraction: what the examples are of a batch; None if they are all of it.

        Raises:
            TypeError: if the loss is not a tensor.
        """
        if fraction is not None and fraction.denominator is not None:
            return self.each(outputs, y, classes, fraction).mean()
        z, y = self.fitted(outputs, y)
        loss, y = self._without_ignored(self.loss, y, classes)
        value = loss(z, y)
        if not isinstance(value, Tensor):
            raise TypeError(f"The loss must return a tensor, but it returned {value!r} of {type(value).__name__}.")
        if value.ndim > 0:
            return value.mean()
        if fraction is not None and self.reduction == "sum":
            return value / fraction.share
        return value if loss is self.loss else value * self._per_mean(value, y, classes)

    def each(
        self, outputs: Tensor, y: Tensor, classes: Tensor | None = None, fraction: Fraction | None = None
    ) -> Tensor:
        """n u_i / N, shape (n,), whose mean is ℓ(z, y); the arguments are those of `value`.

        Raises:
            ValueError: if the loss gives no term for each example.
        """
        z, y = self.fitted(outputs, y)
        loss, y = self._without_ignored(self.loss, y, classes)
        terms = changed(loss, reduction="none")(z, y)
        if terms.ndim == 0 or len(terms) != len(y) or self.reduction not in _REDUCTIONS:
            raise ValueError(no_terms(f"for {len(y)} examples it returned a tensor of shape {tuple(terms.shape)}"))
        means = terms.flatten(1).mean(1) if terms.ndim > 1 else terms
        if self.reduction == "sum":
            return means * (terms.numel() if fraction is None else terms.numel() / fraction.share)
        if self.reduction == "batchmean":
            return means * (terms.numel() / len(terms))
        if self.reduction == "mean" and self.known is not None and self.known.counts:
            classes = y if classes is None else classes
            if fraction is not None and fraction.denominator is not None:
                return means * (terms.numel() / fraction.share / fraction.denominator)
            return means * self._per_count(z, terms.numel(), classes)
        return means

    def fitted(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and targets as the loss needs them: outputs (n, 1) as (n,) for targets (n,), integers of its type."""
        wants_class = self.known is not None and self.known.targets == "class"
        if outputs.shape == (len(y), 1) and y.ndim == 1 and not wants_class:
            outputs = outputs.squeeze(1)  # a loss would broadcast the two to (n, n)
        if y.is_floating_point():
            return outputs, y
        if wants_class:
            return outputs, y.long()
        return outputs, y.to(outputs.dtype) if self.converts else y

    def count(self, y: Tensor) -> Tensor | None:
        """The denominator N of a mean of cross entropies with classes y, shape (); None for every other loss."""
        return self._counts(y, torch.float64).sum() if self.counts and not y.is_floating_point() else None

    def count_each(self, y: Tensor) -> Tensor | None:
        """What each example adds to `count`, shape (n,)."""
        if not self.counts or y.is_floating_point():
            return None
        counts = self._counts(y, torch.float64)
        return counts.flatten(1).sum(1) if counts.ndim > 1 else counts

    @property
    def counts(self) -> bool:
        """Whether the denominator of the loss depends on the targets if they are classes."""
        return self.reduction == "mean" and self.known is not None and self.known.counts

    def description(self) -> str:
        """The loss and its settings, but for tensors, as text."""
        loss = self.loss.function if isinstance(self.loss, PartialLoss) else self.loss
        owner: Any = self.loss
        settings = vars(owner) if isinstance(owner, nn.Module) else {}
        shown = {k: v for k, v in settings.items() if not k.startswith("_") and k not in ("training", "function")}
        return f"{type(loss).__name__ if isinstance(loss, nn.Module) else loss} {shown}"

    @property
    def ignored(self) -> int | None:
        """The target that the loss ignores, if there is one."""
        return setting(self.loss, "ignore_index")

    def counted(self, y: Tensor, num_classes: int) -> Tensor:
        """Which targets are classes from 0 to K − 1 that the loss does not ignore, shaped as y."""
        counted = (y >= 0) & (y < num_classes)
        return counted if self.ignored is None else counted & (y != self.ignored)

    def _without_ignored(self, loss: Any, y: Tensor, classes: Tensor | None) -> tuple[Any, Tensor]:
        """The loss, and probabilities y that are 0 where an example is ignored, so that its term is 0."""
        if self.known is None or not self.known.probabilities or not _replaced(y, classes):
            return loss, y
        counted = (classes != self.ignored).to(y.dtype).unsqueeze(1)
        return changed(loss, ignore_index=IGNORED), y * counted

    def _per_mean(self, value: Tensor, y: Tensor, classes: Tensor | None) -> Tensor | float:
        """What turns a mean over all examples with probabilities y into one over those that are counted."""
        if self.reduction != "mean" or classes is None:
            return 1.0
        return self._per_count(value, classes.numel(), classes)

    def _per_count(self, like: Tensor, size: int, classes: Tensor) -> Tensor | float:
        """The number of terms over N, in the dtype of `like`, for a mean of cross entropies."""
        if classes.is_floating_point():
            return 1.0
        return size / self._counts(classes, like.dtype).sum()

    def _counts(self, classes: Tensor, dtype: torch.dtype) -> Tensor:
        """What each class adds to N, shaped as they are."""
        counts = (classes != self.ignored).to(dtype)
        weight = setting(self.loss, "weight")
        return counts if weight is None else counts * weight[classes.long().clamp(0, len(weight) - 1)]


def _replaced(y: Tensor, classes: Tensor | None) -> bool:
    """Whether targets y are probabilities that an effect made of classes."""
    return classes is not None and y.is_floating_point() and not classes.is_floating_point()


def no_terms(met: str) -> str:
    """The message for a loss without a term for each example."""
    return (
        "Weights of examples need a loss for each of the examples, which together make its own value, but "
        f"{met}. Let the loss return shape (n,), one value for each example, or give it an argument `reduction` that "
        "may be 'none', or use a loss of torch.nn or a functools.partial of torch.nn.functional."
    )


def _as_part(loss: Any) -> Any:
    if isinstance(loss, partial):
        return PartialLoss(loss)
    return deepcopy(loss) if isinstance(loss, nn.Module) else loss


def _require_constant(given: Any, loss: Any) -> None:
    """Require that nothing in a loss is a parameter that could be trained.

    Raises:
        ValueError: if something is.
    """
    names = [name for name, p in loss.named_parameters() if p.requires_grad] if isinstance(loss, nn.Module) else []
    if isinstance(given, partial):
        names += [name for name, x in given.keywords.items() if isinstance(x, Tensor) and x.requires_grad]
    if names:
        raise ValueError(
            f"Only parameters of the model are trained, but the loss has {', '.join(map(repr, names))}, which requires "
            "a gradient. Make it a part of the model, whose outputs may hold all that the loss needs; to keep it "
            "constant, call requires_grad_(False) on it."
        )
