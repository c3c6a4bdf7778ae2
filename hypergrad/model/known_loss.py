"""What is known of the losses of torch.nn: which targets they expect, and the number that their mean divides by."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from hypergrad.model.loss_setting import PartialLoss

IGNORED = -100
"""What cross entropy ignores by default; with probabilities as targets it accepts no other value."""


@dataclass(frozen=True)
class KnownLoss:
    """A loss of torch.nn.

    Attributes:
        targets: "class" for an integer per example (or pixel), "entry" for a number per output, "set" for the classes
            of an example, filled up with −1.
        counts: whether its mean divides by the weights of the classes of all targets that it does not ignore, instead
            of by the number of its values.
        probabilities: whether the targets may be probabilities of the classes too.
        least: the least target that is a number.
        most: the largest.
        signs: whether they are −1 or 1.
    """

    targets: str
    counts: bool = False
    probabilities: bool = False
    least: float = -math.inf
    most: float = math.inf
    signs: bool = False


_ENTRY = KnownLoss("entry")
_UNIT = KnownLoss("entry", least=0, most=1)
_SIGN = KnownLoss("entry", least=-1, most=1, signs=True)
_KNOWN: dict[type[nn.Module], tuple[KnownLoss, Any]] = {
    nn.CrossEntropyLoss: (KnownLoss("class", counts=True, probabilities=True, least=0), functional.cross_entropy),
    nn.NLLLoss: (KnownLoss("class", counts=True), functional.nll_loss),
    nn.MultiMarginLoss: (KnownLoss("class"), functional.multi_margin_loss),
    nn.MultiLabelMarginLoss: (KnownLoss("set"), functional.multilabel_margin_loss),
    nn.MSELoss: (_ENTRY, functional.mse_loss),
    nn.L1Loss: (_ENTRY, functional.l1_loss),
    nn.SmoothL1Loss: (_ENTRY, functional.smooth_l1_loss),
    nn.HuberLoss: (_ENTRY, functional.huber_loss),
    nn.BCELoss: (_UNIT, functional.binary_cross_entropy),
    nn.BCEWithLogitsLoss: (_UNIT, functional.binary_cross_entropy_with_logits),
    nn.KLDivLoss: (_ENTRY, functional.kl_div),
    nn.PoissonNLLLoss: (KnownLoss("entry", least=0), functional.poisson_nll_loss),
    nn.SoftMarginLoss: (_SIGN, functional.soft_margin_loss),
    nn.HingeEmbeddingLoss: (_SIGN, functional.hinge_embedding_loss),
    nn.MultiLabelSoftMarginLoss: (_UNIT, functional.multilabel_soft_margin_loss),
}
_OTHER_ARGUMENTS: dict[type[nn.Module], tuple[str, Any]] = {
    nn.GaussianNLLLoss: ("means, targets and variances", functional.gaussian_nll_loss),
    nn.CosineEmbeddingLoss: ("two embeddings and a sign", functional.cosine_embedding_loss),
    nn.MarginRankingLoss: ("two scores and a sign", functional.margin_ranking_loss),
    nn.TripletMarginLoss: ("three embeddings", functional.triplet_margin_loss),
    nn.TripletMarginWithDistanceLoss: ("three embeddings", functional.triplet_margin_with_distance_loss),
    nn.CTCLoss: ("sequences with their lengths", functional.ctc_loss),
}


def torch_class(loss: Any, classes: dict[type[nn.Module], tuple[Any, Any]]) -> type[nn.Module] | None:
    """Which of some classes of torch.nn a loss is, as a module with its `forward`, a function or a partial; or None."""
    function = loss.function if isinstance(loss, PartialLoss) else loss
    for kind, (_, functional_form) in classes.items():
        if function is functional_form or isinstance(function, kind) and type(function).forward is kind.forward:
            return kind
    return None


def known_loss(loss: Any) -> KnownLoss | None:
    """What is known of a loss; None for a function or module of a user."""
    kind = torch_class(loss, _KNOWN)
    return None if kind is None else _KNOWN[kind][0]


def require_range(known: KnownLoss, y: Tensor, name: str) -> None:
    """Require that targets that are numbers lie where a loss is defined.

    Args:
        known: the loss.
        y: the targets.
        name: of their part.

    Raises:
        ValueError: if some do not.
    """
    if known.targets == "set" or known.targets == "class" and not y.is_floating_point():
        return
    if y.is_complex():
        raise ValueError(
            f"The targets of the {name} part must be real numbers for this loss, but they are of {y.dtype}; put real "
            "and imaginary parts side by side by torch.view_as_real, for the outputs too."
        )
    bad = (y < known.least) | (y > known.most)
    if known.signs:
        bad |= y.abs() != 1
    if bad.any():
        both = f"from {known.least:g} to {known.most:g}" if known.most < math.inf else f"at least {known.least:g}"
        raise ValueError(
            f"The targets of the {name} part must be {'-1 or 1' if known.signs else both} for this loss, but "
            f"{int(bad.sum())} of {y.numel()} are not, such as {y[bad][0].item():.6g}; convert them, or choose another "
            "loss."
        )


def has_logits(loss: Any) -> bool:
    """Whether a loss is the cross entropy of one logit for each target."""
    return torch_class(loss, _KNOWN) is nn.BCEWithLogitsLoss


def require_two_arguments(loss: Any) -> None:
    """Require that a loss is not one of torch.nn with other arguments than outputs and targets.

    Raises:
        TypeError: if it is.
    """
    kind = torch_class(loss, _OTHER_ARGUMENTS)
    if kind is not None:
        raise TypeError(
            f"A loss must be a function of outputs and targets, but {kind.__name__} is one of "
            f"{_OTHER_ARGUMENTS[kind][0]}. Let the model return all that it needs, side by side, and take it apart in "
            "a loss of your own, such as lambda z, y: torch.nn.functional.gaussian_nll_loss(z[:, 0], y, z[:, 1].exp())."
        )
