"""Logistic regression with a penalty for each feature, of the size of ijcnn1 in benchopt's bilevel benchmark."""

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import logsigmoid

import hypergrad as hg
from benchmarks.problem.partitioned import Batch, Partitioned
from hypergrad.core.seed import seed_of

_BOX = 30.0
"""|log λ| of the least F, which may fall for ever as a penalty goes to 0 or ∞."""


class BilevelLogistic(Partitioned):
    """g = mean log(1 + exp(−y xᵀw)) + ½ Σ_j λ_j w_j² on train, and f the same mean on dev.

    The features are correlated normal variables, of which half bear on y = ±1. λ is `l2` > 0, shape (num_features,), at
    first drawn from 0 to 1; w starts from 0.

    Args:
        num_train: n examples of the inner loss.
        num_dev: m examples of the outer loss.
        num_features: entries of w and of λ.
        batch_size: of both losses; None for one batch of all.
        seed: of the examples and of the order of the batches.

    Source: https://github.com/benchopt/benchmark_bilevel, its data set "ijcnn1", of which this has the size and not
    the data.
    """

    def __init__(
        self,
        *,
        num_train: int = 49_990,
        num_dev: int = 91_701,
        num_features: int = 22,
        batch_size: int | None = 64,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed_of("bilevel logistic", seed))

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        X = normal(num_train + num_dev, num_features) @ (0.8 * normal(num_features, num_features) / num_features**0.5)
        w = normal(num_features)
        w[::2] = 0
        y = torch.sign(X @ w + normal(len(X)))
        super().__init__((X[:num_train], y[:num_train]), (X[num_train:], y[num_train:]), batch_size, seed)
        init = torch.rand(num_features, generator=generator, dtype=torch.float64)
        self.l2 = hg.Hyperparameter(init, constraint=hg.positive)

    def init_params(self) -> hg.Tensors:
        return {"w": self.X.new_zeros(self.X.shape[1])}

    def hyperparameters(self) -> dict[str, hg.Hyperparameter]:
        return {"l2": self.l2}

    def inner_loss(self, params: hg.Tensors, hparams: hg.Tensors, batch: Batch) -> Tensor:
        w = params["w"]
        return _mean_loss(w, *batch) + (hparams["l2"] * w * w).sum() / 2

    def outer_loss(self, params: hg.Tensors, hparams: hg.Tensors, batch: Batch) -> Tensor:
        return _mean_loss(params["w"], *batch)

    def solution(self, hparams: hg.Tensors) -> hg.Tensors:
        return self._trained(hparams, self.init_params())

    def _trained(self, hparams: hg.Tensors, start: hg.Tensors) -> hg.Tensors:
        """w* by Newton steps to ‖∇g‖ ≤ 1e-13, halved while g rises."""
        w, l2, data = start["w"], hparams["l2"], (self.X, self.Y)
        for _ in range(50):
            grad, H = _derivatives(w, *data)
            grad = grad + l2 * w
            if grad.norm() <= 1e-13:
                break
            step, loss = torch.linalg.solve(H + l2.diag(), grad), self.inner_loss({"w": w}, hparams, data)
            while self.inner_loss({"w": w - step}, hparams, data) > loss + 1e-15:
                step = step / 2
            w = w - step
        return {"w": w}

    def value(self, hparams: hg.Tensors) -> tuple[float, Tensor]:
        """F, and dF/d log λ, in which the benchmark states its gradient."""
        return self._value(hparams, self.solution(hparams))

    def _value(self, hparams: hg.Tensors, params: hg.Tensors) -> tuple[float, Tensor]:
        l2, w = hparams["l2"], params["w"]
        v = torch.linalg.solve(
            _derivatives(w, self.X, self.Y)[1] + l2.diag(), _derivatives(w, self.X_dev, self.Y_dev)[0]
        )
        return self.outer_loss(params, hparams, self.whole_outer_batch()).item(), -l2 * w * v

    def optimum(self) -> float:
        """The least of two minima of F over |log λ| ≤ 30, found by L-BFGS-B from the start and from all log λ = −4.

        F is not convex in log λ. At full size its minima differ by 1e-5, so that F* is not known better.
        """
        starts = self.l2.value(torch.float64).log(), torch.full_like(self.l2.value(torch.float64), -4)
        return min(self._minimum(u.numpy()) for u in starts)

    def _minimum(self, start: np.ndarray) -> float:
        """F at the minimum to which L-BFGS-B leads."""
        params = self.init_params()

        def fun(u: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal params
            hparams = {"l2": torch.from_numpy(u).exp()}
            params = self._trained(hparams, params)
            F, grad = self._value(hparams, params)
            return F, grad.numpy()

        options = {"maxiter": 300, "ftol": 0.0, "gtol": 1e-9}
        box = [(-_BOX, _BOX)] * len(start)
        return minimize(fun, start, jac=True, method="L-BFGS-B", bounds=box, options=options).fun


def _mean_loss(w: Tensor, X: Tensor, y: Tensor) -> Tensor:
    return -logsigmoid(y * (X @ w)).mean()


def _derivatives(w: Tensor, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient and the second derivative of mean log(1 + exp(−y xᵀw))."""
    p = torch.sigmoid(-y * (X @ w))
    return -(X.T @ (y * p)) / len(X), X.T @ ((p * (1 - p))[:, None] * X) / len(X)
