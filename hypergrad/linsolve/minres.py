"""Minimum residual method."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.operator import Matvec, Operator
from hypergrad.linsolve.krylov import Cycle, Krylov, norm


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

    def cycle(self, A: Operator, inverse: Matvec | None, r: Tensor, tol: float, max_iter: int) -> Cycle:
        # Lanczos vectors v with A V_k = V_{k+1} T_k; Givens rotations (c, s) turn T_k into an upper triangle with
        # diagonal γ and superdiagonals δ, ε; the columns of W = V R⁻¹ update x.
        eps = torch.finfo(r.dtype).eps
        x, beta = torch.zeros_like(r), norm(r, 0)
        v, v_before = r / beta, torch.zeros_like(r)
        w, w_before = torch.zeros_like(r), torch.zeros_like(r)
        c, s, delta_bar, epsilon, residual, scale, count = -1.0, 0.0, 0.0, 0.0, beta, 0.0, 0
        beta = 0.0
        while residual > tol and count < max_iter:
            Av = A(v)
            count += 1
            alpha = torch.dot(v, Av).item()
            v_next = Av.sub_(v, alpha=alpha).sub_(v_before, alpha=beta)
            beta = norm(v_next, count)
            delta, gamma_bar = c * delta_bar + s * alpha, s * delta_bar - c * alpha
            epsilon_before, epsilon, delta_bar = epsilon, s * beta, -c * beta
            scale = max(scale, abs(alpha), beta)
            # ‖A r‖ = ‖r‖ · ‖(γ̄, δ̄)‖: where this is 0 to rounding, r is orthogonal to the range of A.
            if math.hypot(gamma_bar, delta_bar) <= 10 * eps**0.5 * scale:
                return Cycle(x, residual, count, is_least=True)
            gamma = math.hypot(gamma_bar, beta)
            c, s = gamma_bar / gamma, beta / gamma
            w, w_before = (v - epsilon_before * w_before - delta * w) / gamma, w
            x.add_(w, alpha=c * residual)
            residual *= s
            if beta <= eps * scale:
                break
            v, v_before = v_next / beta, v
        return Cycle(x, abs(residual), count)
