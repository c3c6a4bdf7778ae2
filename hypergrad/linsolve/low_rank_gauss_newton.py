"""A preconditioner from the examples that have the most curvature."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.errors import IndefiniteError, NonFiniteError
from hypergrad.core.operator import CannotApproximateError, Matvec, Operator
from hypergrad.core.validation import require_int, require_real
from hypergrad.linsolve.base import Preconditioner, SolveCost


@dataclass(frozen=True, kw_only=True)
class LowRankGaussNewton(Preconditioner):
    """M = D + JᵀJ, of which the `rank` rows of J are the steepest directions of the loss of single examples.

    D is the diagonal of the curvature of the penalties, plus the damping of A. In a row of J are the derivatives of the
    outputs of one example along an eigenvector of the curvature of its loss, so that the rows of all examples and
    eigenvectors would make JᵀJ the Gauss–Newton matrix. On a network that fits most of its examples, a few rows make up
    most of it. M⁻¹ follows from the Woodbury identity. It takes no product with A, but as much as a few gradients, and
    rank · n numbers in single precision. It serves `Supervised` problems with outputs of shape (n, k).

    Attributes:
        rank: rows of J, ≥ 1; at most as many as there are.
        damping: ≥ 0, added to M alone, in units of A.

    Source: Ren & Goldfarb, "Efficient subsampled Gauss-Newton and natural gradient methods for training neural
    networks" (2019), for the identity; Dangel, Tatzel & Hennig, "ViViT: curvature access through the generalized
    Gauss-Newton's low-rank structure", TMLR (2022), for the rows. That the steepest are chosen is ours.
    """

    rank: int = 250
    damping: float = 0.0

    def __post_init__(self) -> None:
        require_int(self, "rank", least=1)
        require_real(self, "damping", least=0)

    def preparation(self, n: int) -> SolveCost:
        return SolveCost(0, vectors=self.rank)

    def prepare(self, A: Operator, like: Tensor) -> tuple[Matvec, int]:
        """As promised.

        Raises:
            ValueError: if nothing is known of the examples behind A.
            IndefiniteError: if an entry of D is not positive.
            NonFiniteError: if J is NaN or infinite.
        """
        if A.kronecker is None or A.kronecker.rows is None:
            raise ValueError(
                "LowRankGaussNewton needs the examples of a network, which hg.Supervised and its kin know, but nothing "
                "is known here but products. Use hg.Nystrom, or hg.CG without a preconditioner (linsolve=cg)."
            )
        D = A.kronecker.diagonal().to(like) + (A.kronecker.shift + self.damping)
        least = D.min().item()
        if not least > 0:
            raise IndefiniteError(
                f"LowRankGaussNewton needs a positive curvature in all parameters, but that of the penalties and the "
                f"damping is {least:.1e} in one of them. Set its damping > 0, or that of the estimator, or add an L2 "
                "penalty on all parameters."
            )
        root = D.sqrt()
        try:
            S = _scaled(A.kronecker.rows(self.rank), root, self.rank)
        except CannotApproximateError as reason:
            raise ValueError(
                f"LowRankGaussNewton cannot serve this problem: {reason}. Use hg.Nystrom, or hg.CG without a "
                "preconditioner (linsolve=cg)."
            ) from reason
        if not S.isfinite().all():
            raise NonFiniteError("The outputs or their derivatives are NaN or infinite: look at the train data.")
        return _woodbury(S, root), 0


def _scaled(rows: Iterator[Tensor], root: Tensor, rank: int) -> Tensor:
    """J D^(−1/2), shape (m, n), in single precision: a preconditioner needs no more, and is twice as fast in it."""
    S, m = torch.empty(rank, len(root), dtype=torch.float32, device=root.device), 0
    for some in rows:
        S[m : m + len(some)] = some / root
        m += len(some)
    return S[:m]


def _woodbury(S: Tensor, root: Tensor) -> Matvec:
    """v ↦ D^(−1/2) (I + SᵀS)⁻¹ D^(−1/2) v, for S of shape (m, n) and the root of D of shape (n,)."""
    core = (S @ S.T).double()
    core.diagonal().add_(1 + torch.finfo(S.dtype).eps * core.trace())
    L = torch.linalg.cholesky(core).to(S)

    def solve(v: Tensor) -> Tensor:
        u = v / root
        along = torch.cholesky_solve((S @ u.to(S))[:, None], L)[:, 0]
        return (u - (along @ S).to(u)) / root

    return solve
