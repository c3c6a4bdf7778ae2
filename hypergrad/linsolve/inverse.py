"""What products with A have taught about A⁻¹: all of it for few parameters, else a subspace, and CG beyond it."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hypergrad.core.errors import IndefiniteError
from hypergrad.core.operator import CannotApproximateError, Matvec, Operator
from hypergrad.linsolve.base import Preconditioner
from hypergrad.linsolve.cg import CG

_SMALL = 100
"""Parameters up to which A is decomposed: CG would spend about as many products. A judgement, as in `Auto`."""
_CHUNK = 64
"""Products to form at once, as in `Dense`."""
_MOST = 100
"""Vectors of the subspace to keep. A judgement: beyond, orthogonalising them costs as much as products."""
_FEW = 10
"""Vectors below which nothing was learned. A judgement: Krylov solvers seldom need fewer products."""
_FIRST_ROUNDS = 2
"""Rounds of CG by which A is explored if nothing was learned. A judgement."""
_ROUND = 0.1
"""Factor by which one round of CG reduces the residual. A judgement: few rounds, and few products too many."""


class UnresolvedError(Exception):
    """Why A⁻¹ is not known well enough."""


@dataclass
class Recording:
    """Vectors and their products with A, kept while others compute them.

    Attributes:
        vectors: v_1, …, v_k, shape (n,) each, of norm 1.
        products: A v_1, …, A v_k.
        whole: parameters up to which all of A is wanted, because the solver forms it.
        is_krylov: whether a Krylov solver chose the vectors, which then know both ends of the spectrum.
    """

    vectors: list[Tensor] = field(default_factory=list)
    products: list[Tensor] = field(default_factory=list)
    whole: int = 0
    is_krylov: bool = False

    def matrix(self, n: int) -> Tensor | None:
        """A, if its products with all unit vectors were recorded in their order; else None."""
        if not n <= len(self.vectors) <= 2 * max(self.whole, _SMALL):
            return None
        units = torch.stack(self.vectors[:n], 1)
        return torch.stack(self.products[:n], 1) if torch.equal(units, torch.eye(n).to(units)) else None

    def watch(self, A: Operator) -> Operator:
        """A, whose products are kept; those of a compiled operator are not seen."""

        def watched(product: Matvec) -> Matvec:
            return lambda V: self._keep(V, product(V))

        make = A.approximate
        return replace(
            A,
            matvec=watched(A.matvec),
            columns=None if A.columns is None else watched(A.columns),
            approximate=None if make is None else lambda: self.watch(make()),
        )

    def _keep(self, V: Tensor, AV: Tensor) -> Tensor:
        pairs = [(V, AV)] if V.ndim == 1 else zip(V.T, AV.T, strict=True)
        for v, Av in pairs:
            length = torch.linalg.vector_norm(v)
            if len(self.vectors) < max(_MOST, self.whole) and length > 0:
                self.vectors.append(v / length)
                self.products.append(Av / length)
        return AV


@dataclass
class Subspace:
    """A on the span of orthonormal Q: x ≈ Q (QᵀAQ)⁻¹ Qᵀ b.

    Attributes:
        Q: shape (n, k).
        AQ: shape (n, k).
        values: the eigenvalues of QᵀAQ, ascending; Q is rotated so that this matrix is diagonal.
    """

    Q: Tensor
    AQ: Tensor
    values: Tensor

    @classmethod
    def of(cls, recording: Recording, like: Tensor) -> "Subspace":
        """The span of the recorded vectors.

        Raises:
            IndefiniteError: if A is not positive definite on it.
        """
        if not recording.vectors:
            empty = like.new_zeros(len(like), 0)
            return cls(empty, empty, like.new_zeros(0))
        V, AV = (torch.stack([x.to(like) for x in xs], 1) for xs in (recording.vectors, recording.products))
        W, sizes, Zt = torch.linalg.svd(V, full_matrices=False)
        keep = sizes > torch.finfo(like.dtype).eps ** 0.25 * sizes[0]
        Q, AQ = W[:, keep], AV @ (Zt[keep].T / sizes[keep])
        values, turn = torch.linalg.eigh((Q.T @ AQ + AQ.T @ Q) / 2)
        if values[0] <= 0:
            raise IndefiniteError(f"The curvature {values[0]:.1e} is not positive.")
        return cls(Q @ turn, AQ @ turn, values)

    @property
    def middle(self) -> float:
        """The geometric mean of the extreme eigenvalues, which stands for those outside; 1 if none is known."""
        return (self.values[0] * self.values[-1]).sqrt().item() if len(self.values) else 1.0

    def solve(self, b: Tensor) -> tuple[Tensor, Tensor]:
        """x in the subspace, and b − A x."""
        y = (self.Q.T @ b) / self.values
        return self.Q @ y, b - self.AQ @ y

    def preconditioner(self, outside: Matvec | None) -> Matvec:
        """The inverse on the subspace, and an approximate one, or the identity, where A leads away from it."""

        def inverse(r: Tensor) -> Tensor:
            x, rest = self.solve(r)
            z = rest / self.middle if outside is None else outside(rest)
            return x + z - self.Q @ ((self.AQ.T @ z) / self.values)

        return inverse


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
        if len(b) <= max(_SMALL, recording.whole):
            H = recording.matrix(len(b))
            spent = len(b) if H is None else 0
            return cls(A, b, _decomposed(_matrix(A, b) if H is None else H, b.dtype), recording, None, budget, spent)
        prepared, spent = (None, 0) if outside is None else outside.prepare(A, b)
        found = cls(A, b, Subspace.of(recording, b), recording, prepared, budget, spent)
        if not recording.is_krylov or len(recording.vectors) < _FEW:
            for _ in range(_FIRST_ROUNDS):
                _, b = found.further(b)
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

    def further(self, left: Tensor) -> tuple[Tensor, Tensor]:
        """A correction for a residual, which leaves a tenth of it, and what it leaves.

        Raises:
            UnresolvedError: if the products run out, or rounding is in the way.
        """
        first, seen = torch.linalg.vector_norm(left), Recording()
        x, rest = self.rough(left)
        before, near = torch.inf, seen.watch(_near(self.A))
        while torch.linalg.vector_norm(rest) < before / 2 and self.spent < self.budget:
            before = torch.linalg.vector_norm(rest).item()
            x = x + self._cycle(near, rest, (_ROUND * first).item())
            rest = left - self.A(x)
            self.spent += 1
            if torch.linalg.vector_norm(rest) <= 2 * _ROUND * first:
                break
        else:
            raise UnresolvedError(
                f"CG did not reach a residual of {_ROUND:g} in {self.spent} products, or rounding allows none"
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
        self.spent += done.num_matvecs
        return unit * done.d.to(rest)

    def _learn(self, seen: Recording) -> None:
        """Add products; those of an operator that was close may contradict them, and are then forgotten."""
        old, more = self.recording, len(seen.vectors)
        kept = max(_MOST - more, 0)
        both = Recording(
            old.vectors[len(old.vectors) - kept :] + seen.vectors,
            old.products[len(old.products) - kept :] + seen.products,
        )
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
        IndefiniteError: if it is not positive definite.
    """
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
