"""Which examples a model classifies right."""

from torch import Tensor

from hypergrad.model.criterion import Criterion


def hits(criterion: Criterion, outputs: Tensor, y: Tensor, num_classes: int | None) -> Tensor | None:
    """Which of the examples that the loss counts are classified right, shape (m,).

    Args:
        criterion: the loss.
        outputs: z, shape (n, K, …), or one logit for each example, shape (n,) or (n, 1).
        y: targets, shape (n, …).
        num_classes: K if the targets are classes, else None.

    Returns:
        None if the targets are no classes, and not 0 or 1 for one logit.
    """
    if num_classes is not None:
        return (outputs.argmax(1) == y)[criterion.counted(y, num_classes)]
    z, y = criterion.fitted(outputs, y)
    if not criterion.has_logits or y.ndim != 1 or ((y != 0) & (y != 1)).any():
        return None
    return (z > 0) == y.bool()
