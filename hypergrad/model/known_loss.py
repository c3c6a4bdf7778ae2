"""What is known of the losses of torch.nn: which targets they expect, and the number that their mean divides by."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn import functional

from hypergrad.model.loss_setting import PartialLoss


@dataclass(frozen=True)
class KnownLoss:
    """A loss of torch.nn.

    Attributes:
        targets: "class" for an integer per example (or pixel), "entry" for a number per output, "set" for the classes
            of an example, filled up with −1.
        counts: whether its mean divides by the weights of the classes of all targets that it does not ignore, instead
            of by the number of its values.
        probabilities: whether the targets may be probabilities of the classes too.
    """

    targets: str
    counts: bool = False
    probabilities: bool = False


_ENTRY = KnownLoss("entry")
_KNOWN: dict[type[nn.Module], tuple[KnownLoss, Any]] = {
    nn.CrossEntropyLoss: (KnownLoss("class", counts=True, probabilities=True), functional.cross_entropy),
    nn.NLLLoss: (KnownLoss("class", counts=True), functional.nll_loss),
    nn.MultiMarginLoss: (KnownLoss("class"), functional.multi_margin_loss),
    nn.MultiLabelMarginLoss: (KnownLoss("set"), functional.multilabel_margin_loss),
    nn.MSELoss: (_ENTRY, functional.mse_loss),
    nn.L1Loss: (_ENTRY, functional.l1_loss),
    nn.SmoothL1Loss: (_ENTRY, functional.smooth_l1_loss),
    nn.HuberLoss: (_ENTRY, functional.huber_loss),
    nn.BCELoss: (_ENTRY, functional.binary_cross_entropy),
    nn.BCEWithLogitsLoss: (_ENTRY, functional.binary_cross_entropy_with_logits),
    nn.KLDivLoss: (_ENTRY, functional.kl_div),
    nn.PoissonNLLLoss: (_ENTRY, functional.poisson_nll_loss),
    nn.SoftMarginLoss: (_ENTRY, functional.soft_margin_loss),
    nn.HingeEmbeddingLoss: (_ENTRY, functional.hinge_embedding_loss),
    nn.MultiLabelSoftMarginLoss: (_ENTRY, functional.multilabel_soft_margin_loss),
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
