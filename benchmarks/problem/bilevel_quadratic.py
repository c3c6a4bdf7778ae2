"""The quadratic of benchopt's bilevel benchmark: both losses are means of quadratic functions of w and λ."""

import torch
from torch import Tensor

import hypergrad as hg
from benchmarks.problem.partitioned import Batch, Partitioned
from hypergrad.core.seed import seed_of

MU, CROSS = 0.1, 0.1
"""The least curvature in w and λ, and the largest singular value of the cross terms; the largest curvature is 1."""


class BilevelQuadratic(Partitioned):
    """Example i of either loss is ½ (xᵀw)² + ½ (sᵀλ)² + (aᵀλ)(bᵀw) + cᵀw + dᵀλ with its own x, b, c and s, a, d.

    The second derivatives of the mean have eigenvalues spaced evenly in their logarithm from `MU` to 1, in λ with a 0
    in the place of the first, and the cross term has singular values from `MU` to `CROSS`. λ is `hp`, without a
    constraint, and starts from a normal draw; w starts from 0.

    Args:
        num_train: n examples of the inner loss.
        num_dev: m examples of the outer loss.
        size: entries of w.
        num_hparams: entries of λ, ≥ 2.
        batch_size: of both losses; None for one batch of all.
        seed: of the examples and of the order of the batches.

    Source: https://github.com/benchopt/benchmark_bilevel, its data set "quadratic"; Dagréou, Ablin, Vaiter & Moreau,
    NeurIPS (2022).
    """

    def __init__(
        self,
        *,
        num_train: int = 1024,
        num_dev: int = 1024,
        size: int = 100,
        num_hparams: int = 10,
        batch_size: int | None = 64,
        seed: int = 0,
    ) -> None:
        attempt = 0
        while True:  # a draw whose F is not convex is drawn again, as in the benchmark
            generator = torch.Generator().manual_seed(seed_of("bilevel quadratic", seed, attempt))
            train, dev = (_examples(n, size, num_hparams, generator) for n in (num_train, num_dev))
            super().__init__(train, dev, batch_size, seed)
            if torch.linalg.eigvalsh(self._second_derivative())[0] > 1e-12:
                break
            attempt += 1
        self.hp = hg.Hyperparameter(torch.randn(num_hparams, generator=generator, dtype=torch.float64))

    def init_params(self) -> hg.Tensors:
        return {"w": self.X.new_zeros(self.X.shape[2])}

    def hyperparameters(self) -> dict[str, hg.Hyperparameter]:
        return {"hp": self.hp}

    def inner_loss(self, params: hg.Tensors, hparams: hg.Tensors, batch: Batch) -> Tensor:
        return _mean_loss(params["w"], hparams["hp"], *batch)

    def outer_loss(self, params: hg.Tensors, hparams: hg.Tensors, batch: Batch) -> Tensor:
        return _mean_loss(params["w"], hparams["hp"], *batch)

    def solution(self, hparams: hg.Tensors) -> hg.Tensors:
        A, _, C, c, _ = _means(self.X, self.Y)
        return {"w": -torch.linalg.solve(A, C.T @ hparams["hp"] + c)}

    def value(self, hparams: hg.Tensors) -> tuple[float, Tensor]:
        hp, w = hparams["hp"], self.solution(hparams)["w"]
        J = self._response()
        A, S, C, c, d = _means(self.X_dev, self.Y_dev)
        F = self.outer_loss({"w": w}, hparams, self.whole_outer_batch()).item()
        return F, S @ hp + C @ w + d + J.T @ (A @ w + C.T @ hp + c)

    def optimum(self) -> float:
        zero = {"hp": torch.zeros_like(self.hp.value(self.X.dtype))}
        return self.value({"hp": -torch.linalg.solve(self._second_derivative(), self.value(zero)[1])})[0]

    def _response(self) -> Tensor:
        """∂w*/∂λ, shape (size, num_hparams)."""
        A, _, C, _, _ = _means(self.X, self.Y)
        return -torch.linalg.solve(A, C.T)

    def _second_derivative(self) -> Tensor:
        """∇²F, which does not depend on λ."""
        J = self._response()
        A, S, C, _, _ = _means(self.X_dev, self.Y_dev)
        return J.T @ A @ J + S + C @ J + (C @ J).T


def _mean_loss(w: Tensor, hp: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    x, b, c = (X @ w).unbind(1)
    s, a, d = (Y @ hp).unbind(1)
    return (x * x / 2 + s * s / 2 + a * b + c + d).mean()


def _examples(n: int, size: int, num_hparams: int, generator: torch.Generator) -> Batch:
    """(x, b, c) of n examples, shape (n, 3, size), and (s, a, d), shape (n, 3, num_hparams)."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def rotation(k: int) -> Tensor:
        return torch.linalg.qr(normal(k, k))[0]

    def spread(low: float, high: float, k: int) -> Tensor:
        return torch.logspace(*torch.tensor([low, high]).log10().tolist(), k, dtype=torch.float64)

    Q, R, U, V = rotation(size), rotation(num_hparams), rotation(num_hparams), rotation(size)
    x = normal(n, size) @ (Q * spread(MU, 1, size).sqrt()) @ Q.T
    s = normal(n, num_hparams) @ (R * torch.cat([Q.new_zeros(1), spread(MU, 1, num_hparams - 1).sqrt()])) @ R.T
    z, k = normal(n, size), min(size, num_hparams)
    a = z[:, :k] * spread(MU, CROSS, k) @ U[:, :k].T
    return torch.stack([x, z @ V.T, normal(n, size)], 1), torch.stack([s, a, normal(n, num_hparams)], 1)


def _means(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The mean loss is ½ wᵀ A w + ½ λᵀ S λ + λᵀ C w + cᵀ w + dᵀ λ: A, S, C, c and d."""
    (x, b, c), (s, a, d) = X.unbind(1), Y.unbind(1)
    n = len(X)
    return x.T @ x / n, s.T @ s / n, a.T @ b / n, c.mean(0), d.mean(0)
