"""A⁻¹ as far as products have taught it: everywhere for few parameters, else on a subspace, and by CG beyond it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hypergrad.core.errors import IndefiniteError
from hypergrad.core.operator import CannotApproximateError, Matvec, Operator
from hypergrad.linsolve.base import Preconditioner
from hypergrad.linsolve.cg import CG
from hypergrad.linsolve.recording import SMALL, Recording
from hypergrad.linsolve.subspace import Subspace

_CHUNK = 64
"""Products to form at once, as in `Dense`."""
_FEW = 10
"""Vectors below which nothing was learned. A judgement: Krylov solvers seldom need fewer products."""
_FIRST_ROUNDS = 2
"""Rounds of CG by which A is explored if nothing was learned. A judgement."""
_FIRST_ROUND = 1e-2
"""Factor by which each of these rounds reduces the residual: with 0.1 the sweep over problems found violations."""
_ROUND = 0.2
"""Factor by which one round of CG reduces the residual. A judgement: smaller ones cost products that seldom matter."""


class UnresolvedError(Exception):
    """Why A⁻¹ is not known well enough."""


@dataclass
class Inverse:
    """x ↦ A⁻¹ x as far as products have taught it.

    Attributes:
        A: symmetric positive definite.
        like: a vector of shape (n,) that gives dtype and device.
        known: A where it is known: everywhere for few parameters.
        recording: what it is known from; further products are added.
        outside: an approximate inverse beyond that; None for a multiple of the identity.
        budget: products that may be spent.
        spent: those that were.
    """

    A: Operator
    like: Tensor
    known: Subspace
    recording: Recording
    outside: Matvec | None
    budget: int
    spent: int = 0

    @classmethod
    def of(cls, A: Operator, b: Tensor, recording: Recording, outside: Preconditioner | None, budget: int) -> "Inverse":
        """What is known of A.

        Args:
            A: symmetric positive definite.
            b: where A⁻¹ is to be known first, if little was recorded, shape (n,).
            recording: vectors and their products.
            outside: a preconditioner beyond what was recorded.
            budget: products that may be spent.

        Also raised, by what it calls: UnresolvedError if rounding hides the smallest curvature; IndefiniteError if a
        curvature is not positive.
        """
        if len(b) <= max(SMALL, recording.whole):
            H = recording.matrix(len(b))
            spent = len(b) if H is None else 0
            return cls(A, b, _decomposed(_matrix(A, b) if H is None else H, b.dtype), recording, None, budget, spent)
        prepared, spent = (None, 0) if outside is None else outside.prepare(A, b)
        found = cls(A, b, Subspace.of(recording, b), recording, prepared, budget, spent)
        if not recording.is_krylov or len(recording.vectors) < _FEW:
            for _ in range(_FIRST_ROUNDS):
                _, b = found.further(b, _FIRST_ROUND)
        _require_resolved(found.known.values, b.dtype)
        return found

    def moved(self, A: Operator) -> "Inverse":
        """The same for an operator close to A."""
        if not self.is_whole:
            return replace(self, A=A)
        known = _decomposed(_matrix(A, self.like), self.like.dtype)
        return replace(self, A=A, known=known, spent=self.spent + len(self.like))

    @property
    def is_whole(self) -> bool:
        """Whether A is known everywhere."""
        return self.known.Q.shape[1] == len(self.like)

    @property
    def size(self) -> float:
        """The largest eigenvalue that is known."""
        return self.known.values[-1].item()

    def rough(self, b: Tensor) -> tuple[Tensor, Tensor]:
        """x from the subspace alone, without a product, and b − A x."""
        x, left = self.known.solve(b.to(self.known.Q))
        return x.to(b), torch.zeros_like(b) if self.is_whole else left.to(b)

    def spread(self, xi: Tensor) -> Tensor:
        """About A⁻¹ ξ for a random ξ, without a product."""
        x, _ = self.known.solve(xi.to(self.known.Q))
        outside = xi - (self.known.Q @ (self.known.Q.T @ xi.to(self.known.Q))).to(xi)
        return x.to(xi) if self.is_whole else x + outside / self.known.middle

    def further(self, left: Tensor, part: float = _ROUND) -> tuple[Tensor, Tensor]:
        """A correction for a residual, which leaves some part of it, and what it leaves.

        Raises:
            UnresolvedError: if the products run out, or rounding is in the way.
        """
        first, seen = torch.linalg.vector_norm(left), Recording()
        x, rest = self.rough(left)
        before, near = torch.inf, seen.watch(_near(self.A))
        while torch.linalg.vector_norm(rest) < before / 2 and self.spent < self.budget:
            before = torch.linalg.vector_norm(rest).item()
            x = x + self._cycle(near, rest, (part * first).item())
            rest = left - self.A(x)
            self.spent += 1
            if torch.linalg.vector_norm(rest) <= 2 * part * first:
                break
        else:
            raise UnresolvedError(
                f"CG did not reach a residual of {part:g} in {self.spent} products, or rounding allows none"
            )
        self._learn(seen)
        _require_resolved(self.known.values, left.dtype)
        return x, rest

    def _cycle(self, near: Operator, rest: Tensor, goal: float) -> Tensor:
        """Conjugate gradient for A d = rest down to a residual of `goal`, on an operator that may be less precise."""
        unit, inverse = torch.linalg.vector_norm(rest).item(), self.known.preconditioner(self.outside)
        if unit <= goal:
            return torch.zeros_like(rest)

        def rounded(r: Tensor) -> Tensor:
            return inverse(r.to(rest)).to(r)

        start = (rest / unit).to(near.dtype or rest.dtype)
        done = CG().cycle(replace(near, compile=None), rounded, start, goal / unit, self.budget - self.spent)
        self.spent += done.num_matvecs + done.surplus
        return unit * done.d.to(rest)

    def _learn(self, seen: Recording) -> None:
        """Add products; those of an operator that was close may contradict them, and are then forgotten."""
        both = self.recording.joined(seen)
        try:
            self.known, self.recording = Subspace.of(both, self.like), both
        except IndefiniteError:
            self.known, self.recording = Subspace.of(seen, self.like), seen


def _matrix(A: Operator, like: Tensor) -> Tensor:
    n = len(like)
    columns = torch.eye(n, dtype=like.dtype, device=like.device).split(_CHUNK, 1)
    return torch.cat([A(units) for units in columns], 1)


def _decomposed(H: Tensor, dtype: torch.dtype) -> Subspace:
    """A matrix, decomposed in double precision.

    Raises:
        UnresolvedError: if it is not finite.
        IndefiniteError: if it is not positive definite.
    """
    if not H.isfinite().all():
        raise UnresolvedError("products with the Hessian are NaN or infinite where a Newton step leads")
    H = H.double()
    values, U = torch.linalg.eigh((H + H.T) / 2)
    if values[0] <= -10 * torch.finfo(dtype).eps * values[-1] or values[-1] <= 0:
        raise IndefiniteError(f"The curvature {values[0]:.1e} is not positive.")
    _require_resolved(values, dtype)
    return Subspace(U, H @ U, values)


def _require_resolved(values: Tensor, dtype: torch.dtype) -> None:
    """Require that the smallest eigenvalue is not rounding.

    Raises:
        UnresolvedError: if it is.
    """
    if values[0] <= 10 * torch.finfo(dtype).eps * values[-1]:
        kappa = (values[-1] / values[0]).item()
        at = f"at a condition number κ of {kappa:.1e}" if kappa > 0 else "of a curvature that is about zero"
        raise UnresolvedError(f"{at}, rounding in {str(dtype).removeprefix('torch.')} hides the smallest curvature")


def _near(A: Operator) -> Operator:
    try:
        return A if A.approximate is None else A.approximate()
    except CannotApproximateError:
        return A
