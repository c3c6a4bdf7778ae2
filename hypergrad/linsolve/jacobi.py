"""The diagonal as a preconditioner."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.errors import IndefiniteError, NonFiniteError
from hypergrad.core.operator import Matvec, Operator
from hypergrad.core.validation import require_int
from hypergrad.linsolve.base import Preconditioner, SolveCost, bad_product
from hypergrad.linsolve.window import read

_PER = ("slice", "entry")


@dataclass(frozen=True, kw_only=True)
class Jacobi(Preconditioner):
    """M = diag(A), estimated from `num_probes` products with random signs: the mean of z ∘ A z.

    The estimate is exact for a diagonal A. It helps where the scale of the parameters varies more than the noise, which
    is the norm of the off-diagonal entries of a row. With `per="slice"` M has one value for each slice of a
    matrix-shaped parameter across the dimension of widest variation, for example all weights of one feature. The mean
    over a slice averages the noise away, so one or two probes are enough. It also keeps subspaces that A has for all
    features alike, such as the null space of a softmax. Values below a thousandth of their mean are raised to it, so
    that M is positive definite.

    Attributes:
        num_probes: products to spend, ≥ 1.
        per: "slice", one value per slice of a parameter of two or more dimensions, where the shapes of the parameters
            are known, or "entry", one value per parameter.

    Raises:
        IndefiniteError: (from `prepare`) if the estimated trace is not positive.

    Source: Bekas, Kokiopoulou & Saad, "An estimator for the diagonal of a matrix", Appl. Numer. Math. (2007).
    """

    num_probes: int = 10
    per: str = "entry"

    def __post_init__(self) -> None:
        require_int(self, "num_probes", least=1)
        if self.per not in _PER:
            raise ValueError(f"Jacobi.per must be one of {', '.join(_PER)}, but it is {self.per!r}.")

    def preparation(self, n: int) -> SolveCost:
        return SolveCost(self.num_probes, vectors=1)

    def prepare(self, A: Operator, like: Tensor) -> tuple[Matvec, int]:
        diagonal = self.diagonal(A, like)
        return lambda v: v / diagonal, self.num_probes

    def diagonal(self, A: Operator, like: Tensor) -> Tensor:
        """The diagonal of M, shape (n,), all > 0.

        Raises:
            NonFiniteError: if a product is NaN or infinite.
            IndefiniteError: if the estimated trace is not positive.
        """
        generator = torch.Generator().manual_seed(0)
        diagonal = torch.zeros_like(like)
        for _ in range(self.num_probes):
            z = (torch.randint(0, 2, (like.numel(),), generator=generator) * 2 - 1).to(like)
            diagonal.addcmul_(z, A(z), value=1 / self.num_probes)
        mean = diagonal.mean().item()
        if not abs(mean) < float("inf"):
            raise NonFiniteError(bad_product(self.num_probes))
        if mean <= 0:
            raise IndefiniteError(
                f"A preconditioner needs a positive definite matrix, but its mean eigenvalue is {mean:.2e}. Solve the "
                f"inner problem further, or add damping larger than {-mean:.2e}."
            )
        if self.per == "slice" and A.shapes is not None:
            diagonal = _averaged(diagonal, A.shapes)
        return diagonal.clamp_(min=1e-3 * mean)


def _averaged(diagonal: Tensor, shapes: tuple[tuple[int, ...], ...]) -> Tensor:
    """The means of each tensor over all dimensions except the one along which they vary most; a vector stays as it is.

    The standard error of each mean is added in quadrature, so that noise makes no mean tiny.
    """
    pieces = [d.view(shape) for d, shape in zip(diagonal.split([math.prod(s) for s in shapes]), shapes, strict=True)]
    means = [[_mean(D, kept) for kept in range(D.ndim)] if D.ndim > 1 else [] for D in pieces]
    variations = iter(read([variation for of_piece in means for variation, _ in of_piece]) if any(means) else [])
    found = []
    for D, of_piece in zip(pieces, means, strict=True):
        candidates = [(next(variations), mean) for _, mean in of_piece]
        found.append(
            max(candidates, key=lambda c: c[0])[1].expand(D.shape).reshape(-1) if candidates else D.reshape(-1)
        )
    return torch.cat(found)


def _mean(D: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The variance of the means over all dimensions except `kept`, and these means with their standard errors."""
    others = [d for d in range(D.ndim) if d != kept]
    variance, mean = torch.var_mean(D, dim=others, keepdim=True, correction=0)
    uncertain = variance * (mean.numel() / D.numel())
    return mean.var(correction=0), (mean.square() + uncertain).sqrt()
