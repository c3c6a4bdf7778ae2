"""A trial of the loss of a supervised problem with the targets and weights that its effects make."""

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.effect.combined import CombinedEffects
from hypergrad.model.criterion import Criterion
from hypergrad.model.loss_terms import require_terms
from hypergrad.model.loss_trial import examples, require_targets


@torch.no_grad()
def try_effects(
    criterion: Criterion,
    effects: CombinedEffects,
    hparams: Tensors,
    outputs: Tensor,
    targets: Tensor,
    pool: Tensor,
    num_classes: int | None,
) -> None:
    """Try the loss with the targets that effects make, and require its terms if they weigh examples.

    Args:
        criterion: the loss.
        effects: of the problem.
        hparams: λ.
        outputs: z of a few examples.
        targets: of the first examples of train, or of all, shape (n, …).
        pool: of all examples that a fold or a final training may use.
        num_classes: K if they are classes, else None.

    Raises:
        ValueError: if the loss does not accept the targets.

    Also raised, by what it calls: ValueError if examples are weighted and the loss has no term for each, or the effect
    does not fit the targets.
    """
    z, classes = examples(outputs, targets, num_classes)
    if effects.changes_targets:
        _require_known_classes(criterion, pool, num_classes)
    y = effects.targets(classes, hparams, num_classes)
    try:
        criterion.value(z, y, classes)
    except (RuntimeError, TypeError, IndexError) as error:
        raise ValueError(
            f"The loss failed on targets of shape {tuple(y.shape)} and {y.dtype}, which an effect such as "
            f"hg.LabelSmoothing made of classes: {str(error).rstrip('.')}. Choose a loss that accepts probabilities, "
            "such as torch.nn.functional.cross_entropy."
        ) from error
    if effects.weighs:
        effects.weights(torch.arange(len(targets), device=targets.device), targets, hparams)
        require_terms(criterion, z, y, classes)


def require_read_targets(criterion: Criterion, outputs: Tensor, num_classes: int | None, name: str, y: Tensor) -> None:
    """Require that targets that were just read fit the loss.

    Args:
        criterion: the loss.
        outputs: z of a few examples, on any device.
        num_classes: K if an effect changes classes, else None.
        name: of the part.
        y: its targets, shape (n, …).

    Also raised, by what it calls: ValueError if some do not.
    """
    require_targets(criterion, outputs, y, name)
    _require_known_classes(criterion, y, num_classes)


def _require_known_classes(criterion: Criterion, y: Tensor, num_classes: int | None) -> None:
    """Require that all targets are classes, if the loss is a user's.

    Raises:
        ValueError: if some are not.
    """
    if num_classes is None or criterion.known is not None:
        return
    others = y[~criterion.counted(y, num_classes)]
    if len(others):
        raise ValueError(
            f"Probabilities can be made of classes from 0 to {num_classes - 1} only, but {len(others)} targets are "
            f"others, such as {others[0].item()}. Use torch.nn.CrossEntropyLoss(ignore_index=…), of which it is known "
            "which targets it ignores, or leave out the effect, such as hg.LabelSmoothing."
        )
