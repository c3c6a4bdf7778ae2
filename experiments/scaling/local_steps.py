"""SOBA with several local moves between two averages, on a small quadratic: what they do to the result.

Each of P ranks has losses of its own, with w of shape (n,) and λ of shape (p,),

    g_r(w, λ) = wᵀ A_r w / 2 − wᵀ (b_r + B_r λ),    f_r(w, λ) = (w − d_r)ᵀ C_r (w − d_r) / 2 + ρ |λ|² / 2,

and g and f are their means. A rank moves z = (w, v, λ) by SOBA on g_r and f_r,

    D_w = A_r w − b_r − B_r λ,    D_v = A_r v + C_r (w − d_r),    D_λ = ρ λ − B_rᵀ v,

k times. Then all take the mean of z, by one all-reduce. All of it is linear: a move is z ↦ M_r z + c_r. k = 1 is data
parallel, because the mean of the moves is the move on the mean losses. For k > 1 the ranks drift apart, each to the
solution of its own losses, and the fixed point is another one:

    z_k = (I − mean_r M_r^k)⁻¹ mean_r Σ_{j<k} M_r^j c_r.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

RANKS, N, NUM_HPARAMS = 8, 20, 5
_RHO = 0.1


@dataclass(frozen=True)
class Moves:
    """A move of each rank, z ↦ M_r z + c_r, and F on all data.

    Attributes:
        M: shape (ranks, 2 n + p, 2 n + p).
        c: shape (ranks, 2 n + p).
        F: the Hessian of F(λ) = f(w*(λ), λ), shape (p, p).
        best: the minimiser of F, shape (p,).
    """

    M: Tensor
    c: Tensor
    F: Tensor
    best: Tensor

    @classmethod
    def drawn(cls, apart: float, lr: float, outer_lr: float, seed: int = 0) -> "Moves":
        """Moves on random quadratics.

        Args:
            apart: how much the losses of the ranks differ, ≥ 0; with 0 they are the same, with 1 the differences are as
                large as the losses.
            lr: step of w and v; the largest curvature of g is about 1.
            outer_lr: step of λ.
            seed: of the draw.
        """
        draw = _Draw(torch.Generator().manual_seed(seed), apart)
        curvatures = torch.logspace(0, -0.5, N, dtype=torch.float64)
        A, C = draw.positive(curvatures), draw.positive(torch.ones(N, dtype=torch.float64))
        b, B, d = draw.tensor(N), draw.tensor(N, NUM_HPARAMS) / N**0.5, draw.tensor(N)
        zero = A.new_zeros
        eye = torch.eye(NUM_HPARAMS, dtype=torch.float64).expand(RANKS, NUM_HPARAMS, NUM_HPARAMS)
        rows = [
            torch.cat([A, zero(RANKS, N, N), -B], 2),
            torch.cat([C, A, zero(RANKS, N, NUM_HPARAMS)], 2),
            torch.cat([zero(RANKS, NUM_HPARAMS, N), -B.mT, _RHO * eye], 2),
        ]
        K, k = torch.cat(rows, 1), torch.cat([b, (C @ d[..., None])[..., 0], zero(RANKS, NUM_HPARAMS)], 1)
        step = torch.cat([torch.full((2 * N,), lr), torch.full((NUM_HPARAMS,), outer_lr)]).double()
        # On all data: w* = H⁻¹ (b + B λ), and F is a quadratic.
        H, J = A.mean(0), torch.linalg.solve(A.mean(0), B.mean(0))
        offset = C.mean(0) @ torch.linalg.solve(H, b.mean(0)) - (C @ d[..., None])[..., 0].mean(0)
        F = J.T @ C.mean(0) @ J + _RHO * torch.eye(NUM_HPARAMS, dtype=torch.float64)
        return cls(torch.eye(len(step)) - step[:, None] * K, step * k, F, -torch.linalg.solve(F, J.T @ offset))

    def gap(self, z: Tensor) -> float:
        """F(λ) − min F over F(0) − min F."""
        off = z[-NUM_HPARAMS:] - self.best
        return ((off @ self.F @ off) / (self.best @ self.F @ self.best)).item()

    def after(self, local: int) -> tuple[Tensor, Tensor]:
        """`local` moves as one, M_r^k and Σ_{j<k} M_r^j c_r."""
        power, total = torch.eye(self.M.shape[1], dtype=self.M.dtype).expand_as(self.M), torch.zeros_like(self.c)
        for _ in range(local):
            total = (self.M @ total[..., None])[..., 0] + self.c
            power = self.M @ power
        return power, total

    def fixed_point(self, local: int) -> Tensor:
        """z_k, where averages of `local` moves end."""
        power, total = (x.mean(0) for x in self.after(local))
        return torch.linalg.solve(torch.eye(len(power), dtype=power.dtype) - power, total)

    def rate(self, local: int) -> float:
        """The factor by which an average of `local` moves brings z closer to z_k, at last."""
        power, _ = self.after(local)
        return torch.linalg.eigvals(power.mean(0)).abs().max().item()


@dataclass
class _Draw:
    generator: torch.Generator
    apart: float

    def tensor(self, *shape: int) -> Tensor:
        """A random tensor, and a deviation from it for each rank, whose mean over the ranks is 0."""
        common, own = self._normal(*shape), self._normal(RANKS, *shape)
        return common + self.apart * (own - own.mean(0))

    def positive(self, eigenvalues: Tensor) -> Tensor:
        """Positive definite matrices; the mean over the ranks has about these eigenvalues."""
        X = self._normal(RANKS, 4 * N, N)
        scatter = X.mT @ X / (4 * N)
        mixed = (1 - min(self.apart, 1)) * scatter.mean(0) + min(self.apart, 1) * scatter
        root = eigenvalues.sqrt()
        return root[:, None] * mixed * root

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)


def run(moves: Moves, local: int, averages: int, *, noise: float = 0.0, seed: int = 1) -> list[float]:
    """The gap after each average.

    Args:
        moves: of all ranks.
        local: k, moves between two averages.
        averages: how many.
        noise: standard deviation of what mini-batches add to each entry of a move, independent for each rank.
        seed: of that.
    """
    generator = torch.Generator().manual_seed(seed)
    z, gaps = torch.zeros_like(moves.c), []
    for _ in range(averages):
        for _ in range(local):
            z = (moves.M @ z[..., None])[..., 0] + moves.c
            if noise > 0:
                z = z + noise * torch.randn(z.shape, generator=generator, dtype=z.dtype)
        z = z.mean(0, keepdim=True).expand_as(z)
        gaps.append(moves.gap(z[0]))
    return gaps
