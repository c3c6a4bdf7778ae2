"""A model that computes its loss itself, by the convention of the transformers library."""

from typing import Any

import torch
from torch import Tensor

from hypergrad.data.batch import LABELS
from hypergrad.data.tree import shapes
from hypergrad.effect.combined import CombinedEffects
from hypergrad.model.convention import OUTPUTS
from hypergrad.model.pure_module import PureModule


def returned(loss: Tensor, y: Tensor) -> Tensor:
    """The loss that the model returned, in the place of a function of outputs and targets."""
    return loss


def with_labels(X: Any, y: Tensor) -> dict[str, Any]:
    """The arguments of the model, its inputs and targets by name.

    Raises:
        TypeError: if the inputs have no names.
    """
    if not isinstance(X, dict):
        raise TypeError(
            f"Without a loss, the model gets all entries of a batch by name, so that train, dev and test must be dicts "
            f"with the targets under {LABELS!r}, but the inputs are {shapes(X)}; give dicts, or a loss."
        )
    return X | {LABELS: y}


def require_outputs(returns_loss: bool) -> None:
    """Require a loss of the model's outputs.

    Raises:
        ValueError: if the model returns its loss instead.
    """
    if returns_loss:
        raise ValueError(
            "Gauss–Newton products need a loss of the model's outputs, but this model returns its loss itself; give "
            "hg.Supervised a `loss`, or choose another product, such as hg.Reverse()."
        )


def require_no_targets(effects: CombinedEffects) -> None:
    """Require effects that change neither the targets nor the weights of examples.

    Raises:
        ValueError: if one does.
    """
    if effects.changes_targets or effects.weighs:
        what = "changes the targets" if effects.changes_targets else "weights the examples"
        raise ValueError(
            f"A hyperparameter {what}, which needs a loss of outputs and targets, but the model returns its loss "
            "itself; give hg.Supervised a `loss`, such as torch.nn.functional.cross_entropy, which gets the logits."
        )


@torch.no_grad()
def num_logits(model: PureModule, X: dict[str, Any], y: Tensor) -> int | None:
    """K if the model returns K logits for each example, whose targets are integers; else None.

    Args:
        model: it is called once, in evaluation.
        X: a few inputs with their targets.
        y: their targets.
    """
    if y.ndim != 1 or y.is_floating_point():
        return None
    try:
        logits = model.returning(OUTPUTS)(model.params(), X, None)
    except TypeError:  # it returns nothing but its loss
        return None
    return logits.shape[1] if logits.ndim == 2 and logits.shape[1] > 1 else None
