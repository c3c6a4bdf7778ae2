"""The diagonal as a preconditioner."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.errors import IndefiniteError, NonFiniteError
from hypergrad.linsolve.base import Matvec, Preconditioner, bad_product
from hypergrad.validation import require_int


@dataclass(frozen=True, kw_only=True)
class Jacobi(Preconditioner):
    """M = diag(A), estimated from `num_probes` products with random signs: the mean of z ∘ A z.

    The estimate is exact for a diagonal A, and of use where the scale of the parameters varies more than the rows of A
    are wide. Entries below a thousandth of their mean are raised to it, so that M is positive definite.

    Attributes:
        num_probes: products to spend, ≥ 1.

    Raises:
        IndefiniteError: (from `prepare`) if the estimated trace is not positive.

    Source: Bekas, Kokiopoulou & Saad, "An estimator for the diagonal of a matrix", Appl. Numer. Math. (2007).
    """

    num_probes: int = 10

    def __post_init__(self) -> None:
        require_int(self, "num_probes", least=1)

    def prepare(self, matvec: Matvec, like: Tensor) -> tuple[Matvec, int]:
        generator = torch.Generator().manual_seed(0)
        diagonal = torch.zeros_like(like)
        for _ in range(self.num_probes):
            z = (torch.randint(0, 2, (like.numel(),), generator=generator) * 2 - 1).to(like)
            diagonal.addcmul_(z, matvec(z), value=1 / self.num_probes)
        mean = diagonal.mean().item()
        if not abs(mean) < float("inf"):
            raise NonFiniteError(bad_product(self.num_probes))
        if mean <= 0:
            raise IndefiniteError(
                f"A preconditioner needs a positive definite matrix, but its mean eigenvalue is {mean:.2e}. Solve the "
                f"inner problem further, or add damping larger than {-mean:.2e}."
            )
        diagonal.clamp_(min=1e-3 * mean)
        return lambda v: v / diagonal, self.num_probes
