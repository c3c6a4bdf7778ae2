"""Generalised minimum residual method."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from operator import add

import torch
from torch import Tensor

from hypergrad.core.operator import Matvec, Operator
from hypergrad.core.validation import require_int
from hypergrad.linsolve.base import SolveCost
from hypergrad.linsolve.krylov import Cycle, Krylov, require_finite
from hypergrad.linsolve.window import window_size


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

    def cost(self, n: int) -> SolveCost | None:
        most = super().cost(n)
        restarts = (self.max_iter - 1) // self.restart  # each begins with the true residual
        return None if most is None else SolveCost(most.products + restarts, vectors=self.restart + 3)

    def cycle(self, A: Operator, inverse: Matvec | None, r: Tensor, tol: float, max_iter: int) -> Cycle:
        size = min(self.restart, max_iter, r.numel())
        start = torch.linalg.vector_norm(r)
        beta = require_finite(start.item(), 0)
        # Arnoldi: A V_k = V_{k+1} H_k with orthonormal V; the small least-squares problem is solved on the CPU.
        V = r.new_empty(size + 1, r.numel())
        V[0] = r / start
        H = torch.zeros(size + 1, size, dtype=torch.float64)
        goal = torch.zeros(size + 1, 1, dtype=torch.float64)
        goal[0] = beta
        y, residual, window = goal[:0], beta, window_size(r)
        for first in range(0, size, window):
            last = min(first + window, size)
            for k, (length, column) in enumerate(_further(A, V, first, last), start=first):
                require_finite(length, k + 1)
                require_finite(column[-1], k + 1)
                H[: k + 2, k] = torch.tensor(column, dtype=torch.float64)
                y = torch.linalg.lstsq(H[: k + 2, : k + 1], goal[: k + 2], driver="gelsd").solution
                rest = goal[: k + 2] - H[: k + 2, : k + 1] @ y
                residual = float(torch.linalg.vector_norm(rest).numpy())  # on the CPU: nothing to wait for
                breakdown = column[-1] <= 10 * torch.finfo(r.dtype).eps * length
                if residual <= tol or breakdown:
                    is_least = breakdown and residual > max(tol, 1e-6 * beta)
                    return Cycle(y[:, 0].to(r) @ V[: k + 1], residual, k + 1, last - k - 1, is_least)
        return Cycle(y[:, 0].to(r) @ V[:size], residual, size)


def _further(A: Operator, V: Tensor, first: int, last: int) -> Iterator[tuple[float, list[float]]]:
    """Make the rows from `first` + 1 to `last` of V by Arnoldi's method.

    Yields:
        For each, the norm of its product before it was made orthogonal, and its column of H.
    """
    met = []
    for k in range(first, last):
        u = A(V[k])
        met.append(torch.linalg.vector_norm(u)[None])
        # Gram–Schmidt twice is enough to keep V orthonormal to rounding.
        for _ in range(2):
            overlap = V[: k + 1] @ u
            u = u - overlap @ V[: k + 1]
            met.append(overlap)
        met.append(torch.linalg.vector_norm(u)[None])
        torch.div(u, met[-1], out=V[k + 1])
    values = iter(torch.cat(met).tolist())
    for k in range(first, last):
        length, once, twice = next(values), list(islice(values, k + 1)), list(islice(values, k + 1))
        yield length, [*map(add, once, twice), next(values)]
