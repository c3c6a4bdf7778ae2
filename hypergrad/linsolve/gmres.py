"""Generalised minimum residual method."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.operator import Matvec, Operator
from hypergrad.core.validation import require_int
from hypergrad.linsolve.krylov import Cycle, Krylov, norm


@dataclass(frozen=True, kw_only=True)
class GMRES(Krylov):
    """Restarted GMRES, for any nonsingular A: the Jacobians of roots and fixed points, which are not symmetric.

    Each iterate has the smallest residual in the Krylov space. It keeps `restart` vectors of n numbers. A restart
    forgets the space, so a small `restart` can stagnate where a larger one converges.

    Attributes:
        max_iter: most iterations in all, each with one product with A, ≥ 1.
        tol: stop once ‖b − A x‖ ≤ tol ‖b‖ (dimensionless), ≥ 0.
        restart: iterations between restarts, ≥ 1.

    Source: Saad & Schultz, "GMRES: a generalized minimal residual algorithm for solving nonsymmetric linear systems",
    SIAM J. Sci. Stat. Comput. (1986).
    """

    restart: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int(self, "restart", least=1)

    def cycle(self, A: Operator, inverse: Matvec | None, r: Tensor, tol: float, max_iter: int) -> Cycle:
        size = min(self.restart, max_iter, r.numel())
        beta = norm(r, 0)
        # Arnoldi: A V_k = V_{k+1} H_k with orthonormal V; the small least-squares problem is solved on the CPU.
        V = r.new_empty(size + 1, r.numel())
        V[0] = r / beta
        H = torch.zeros(size + 1, size, dtype=torch.float64)
        goal = torch.zeros(size + 1, 1, dtype=torch.float64)
        goal[0] = beta
        y, residual = goal[:0], beta
        for k in range(size):
            u = A(V[k])
            length = norm(u, k + 1)
            # Gram–Schmidt twice is enough to keep V orthonormal to rounding.
            for _ in range(2):
                overlap = V[: k + 1] @ u
                u = u - overlap @ V[: k + 1]
                H[: k + 1, k] += overlap.to(H)
            H[k + 1, k] = norm(u, k + 1)
            y = torch.linalg.lstsq(H[: k + 2, : k + 1], goal[: k + 2], driver="gelsd").solution
            residual = torch.linalg.vector_norm(goal[: k + 2] - H[: k + 2, : k + 1] @ y).item()
            breakdown = H[k + 1, k].item() <= 10 * torch.finfo(r.dtype).eps * length
            if residual <= tol or breakdown:
                is_least = breakdown and residual > max(tol, 1e-6 * beta)
                return Cycle(y[:, 0].to(r) @ V[: k + 1], residual, k + 1, is_least=is_least)
            V[k + 1] = u / H[k + 1, k].item()
        return Cycle(y[:, 0].to(r) @ V[:size], residual, size)
