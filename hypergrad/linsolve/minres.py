"""Minimum residual method."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hypergrad.core.operator import Matvec, Operator
from hypergrad.linsolve.krylov import Cycle, Krylov, require_finite
from hypergrad.linsolve.window import read, window_size


@dataclass(frozen=True, kw_only=True)
class MINRES(Krylov):
    """Minimum residual method, for symmetric A, indefinite or singular too.

    Each iterate has the smallest residual in the Krylov space. For a singular A with b outside its range it ends at a
    least-squares solution, with status "inconsistent". If A is the Hessian at a saddle, the solution exists but is not
    the derivative of an argmin.

    Attributes:
        max_iter: most iterations, each with one product with A, ≥ 1.
        tol: stop once ‖b − A x‖ ≤ tol ‖b‖ (dimensionless), ≥ 0.

    Source: Paige & Saunders, "Solution of sparse indefinite systems of linear equations", SIAM J. Numer. Anal. (1975).
    """

    vectors: ClassVar[int] = 7

    def cycle(self, A: Operator, inverse: Matvec | None, r: Tensor, tol: float, max_iter: int) -> Cycle:
        # Lanczos vectors v with A V_k = V_{k+1} T_k; Givens rotations (c, s) turn T_k into an upper triangle with
        # diagonal γ and superdiagonals δ, ε; the columns of W = V R⁻¹ update x.
        eps = torch.finfo(r.dtype).eps
        x, start = torch.zeros_like(r), torch.linalg.vector_norm(r)
        residual = require_finite(start.item(), 0)
        vectors = _Vectors(A, r / start, torch.zeros_like(r), torch.zeros_like(start))
        w, w_before = torch.zeros_like(r), torch.zeros_like(r)
        c, s, delta_bar, epsilon, count = -1.0, 0.0, 0.0, 0.0, 0
        scale, size = 0.0, window_size(r)
        while residual > tol and count < max_iter:
            steps = min(size, max_iter - count)
            for step, (v, alpha, beta) in enumerate(vectors.further(steps)):
                count, surplus = count + 1, steps - step - 1
                require_finite(beta, count)
                delta, gamma_bar = c * delta_bar + s * alpha, s * delta_bar - c * alpha
                epsilon_before, epsilon, delta_bar = epsilon, s * beta, -c * beta
                scale = max(scale, abs(alpha), beta)
                # ‖A r‖ = ‖r‖ · ‖(γ̄, δ̄)‖: where this is 0 to rounding, r is orthogonal to the range of A.
                if math.hypot(gamma_bar, delta_bar) <= 10 * eps**0.5 * scale:
                    return Cycle(x, residual, count, surplus, is_least=True)
                gamma = math.hypot(gamma_bar, beta)
                c, s = gamma_bar / gamma, beta / gamma
                w, w_before = (v - epsilon_before * w_before - delta * w) / gamma, w
                x.add_(w, alpha=c * residual)
                residual *= s
                if beta <= eps * scale or residual <= tol:
                    return Cycle(x, abs(residual), count, surplus)
        return Cycle(x, abs(residual), count)


@dataclass
class _Vectors:
    """The vectors of Lanczos' method and the tridiagonal matrix T, several at a time.

    Attributes:
        A: symmetric.
        v: the next vector, shape (n,).
        before: the one before it.
        beta: the entry of T beside the diagonal for these two, shape ().
    """

    A: Operator
    v: Tensor
    before: Tensor
    beta: Tensor

    def further(self, steps: int) -> Iterator[tuple[Tensor, float, float]]:
        """v_k, T_kk and T_k,k+1 for the next vectors."""
        vectors, met = [], []
        for _ in range(steps):
            Av = self.A(self.v)
            alpha = torch.dot(self.v, Av)
            following = Av.addcmul_(self.v, alpha, value=-1).addcmul_(self.before, self.beta, value=-1)
            self.beta = torch.linalg.vector_norm(following)
            vectors.append(self.v)
            met += [alpha, self.beta]
            self.v, self.before = following / self.beta, self.v
        values = read(met)
        yield from zip(vectors, values[::2], values[1::2], strict=True)
