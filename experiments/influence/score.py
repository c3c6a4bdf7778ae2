"""The linear datamodeling score."""

import torch
from torch import Tensor


def ranks(values: Tensor) -> Tensor:
    """The rank of each value in its column, ties counted by their mean rank, shape of `values`."""
    less = (values.unsqueeze(0) < values.unsqueeze(1)).sum(1)
    equal = (values.unsqueeze(0) == values.unsqueeze(1)).sum(1)
    return less + (equal - 1) / 2


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """The rank correlation of each column of a with that of b, shape (columns,); 0 for a constant column."""
    a, b = (ranks(x).double() for x in (a, b))
    a, b = (x - x.mean(0) for x in (a, b))
    product = a.norm(dim=0) * b.norm(dim=0)
    return torch.where(product > 0, (a * b).sum(0) / product, 0.0)


def lds(scores: Tensor, members: Tensor, losses: Tensor) -> Tensor:
    """How well scores rank retrained networks, for each dev example, shape (dev examples,).

    Args:
        scores: the change of a dev loss without an example, shape (dev examples, train examples).
        members: of the halves that were trained on, shape (halves, train examples).
        losses: of each dev example after that, shape (halves, dev examples).

    Source: Park, Georgiev, Ilyas, Leclerc & Madry, "TRAK: attributing model behavior at scale", ICML (2023).
    """
    predicted = (~members).to(scores) @ scores.T
    return spearman(predicted, losses)
