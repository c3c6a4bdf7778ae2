"""Random regression problems whose hypergradient is known in extended precision, away from any automatic derivative."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import softplus

import hypergrad as hg

Array = Any
"""An array of numpy.longdouble."""


def _log1pexp(z: Array) -> Array:
    return np.maximum(z, 0) + np.log1p(np.exp(-abs(z)))


def _sigmoid(z: Array) -> Array:
    return (1 + np.tanh(z / 2)) / 2


@dataclass(frozen=True)
class Loss:
    """ℓ(z, y) for tensors, and ∂ℓ/∂z and ∂²ℓ/∂z² for arrays."""

    of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    slope: Callable[[Array, Array], Array]
    curvature: Callable[[Array, Array], Array]
    targets: Callable[[Array, np.random.Generator], Array]


LOSSES = {
    "quadratic": Loss(
        lambda z, y: (z - y).square() / 2,
        lambda z, y: z - y,
        lambda z, y: np.ones_like(z),
        lambda z, rng: z + rng.standard_normal(z.shape),
    ),
    "logistic": Loss(
        lambda z, y: softplus(z) - y * z,
        lambda z, y: _sigmoid(z) - y,
        lambda z, y: _sigmoid(z) * _sigmoid(-z),
        lambda z, rng: (z + rng.standard_normal(z.shape) > 0) * 1.0,
    ),
    "poisson": Loss(
        lambda z, y: z.exp() - y * z,
        lambda z, y: np.exp(z) - y,
        lambda z, y: np.exp(z),
        lambda z, rng: rng.poisson(np.exp(np.minimum(z, 3).astype(float))) * 1.0,
    ),
    "softplus": Loss(  # a smooth |z − y|
        lambda z, y: softplus(z - y) + softplus(y - z),
        lambda z, y: np.tanh((z - y) / 2),
        lambda z, y: 2 * _sigmoid(z - y) * _sigmoid(y - z),
        lambda z, rng: z + rng.standard_t(2, z.shape),
    ),
}


class GLM(hg.InnerProblem):
    """mean ℓ(Xw, y) + Σ l w²/2 over train, mean ℓ over dev, with one l or one for each entry of w."""

    def __init__(
        self,
        loss: str,
        rng: np.random.Generator,
        *,
        num_features: int,
        condition: float,
        l2: float,
        per_feature: bool,
        dtype: torch.dtype,
    ):
        super().__init__()
        n, m = num_features, 2 * num_features + 10
        Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
        mix = np.logspace(0, -np.log10(condition) / 2, n)[:, None] * Q
        truth = np.linalg.solve(mix, rng.standard_normal(n)) if condition < 1e3 else Q.T @ rng.standard_normal(n)
        self.loss = LOSSES[loss]

        def part() -> tuple[torch.Tensor, torch.Tensor]:
            X = rng.standard_normal((m, n)) @ mix
            y = self.loss.targets(X @ truth / np.sqrt(n), rng)
            return torch.from_numpy(X).to(dtype), torch.from_numpy(y).to(dtype)

        (self.X_train, self.y_train), (self.X_dev, self.y_dev) = part(), part()
        self.l2 = hg.Hyperparameter(torch.full((n,) if per_feature else (), l2, dtype=dtype), constraint=hg.positive)

    def init_params(self):
        return {"w": torch.zeros(self.X_train.shape[1], dtype=self.X_train.dtype)}

    def hyperparameters(self):
        return {"l2": self.l2}

    def outputs(self, params, hparams, batch):
        return self.X_train @ params["w"]

    def loss_of_outputs(self, outputs, params, hparams, batch):
        return self.loss.of(outputs, self.y_train).mean() + (hparams["l2"] * params["w"].square()).sum() / 2

    def inner_loss(self, params, hparams, batch):
        return self.loss_of_outputs(self.outputs(params, hparams, batch), params, hparams, batch)

    def outer_loss(self, params, hparams, batch):
        return self.loss.of(self.X_dev @ params["w"], self.y_dev).mean()

    def known(self) -> "KnownGLM":
        """The same problem, on the same rounded data, in extended precision."""
        X, y, X_dev, y_dev, l2 = (
            x.detach().double().numpy().astype(np.longdouble)
            for x in (self.X_train, self.y_train, self.X_dev, self.y_dev, self.init_hparams()["l2"])
        )
        return KnownGLM(self.loss, X, y, X_dev, y_dev, l2)


@dataclass(frozen=True)
class KnownGLM:
    """The solution and the hypergradient by Newton's method and iterative refinement in extended precision."""

    loss: Loss
    X: Array
    y: Array
    X_dev: Array
    y_dev: Array
    l2: Array

    def gradient(self, w: Array) -> Array:
        """∇_w g."""
        return self.loss.slope(self.X @ w, self.y) @ self.X / len(self.y) + self.l2 * w

    def hessian(self, w: Array) -> Array:
        """∂²g/∂w²."""
        scaled = self.loss.curvature(self.X @ w, self.y)[:, None] * self.X
        return self.X.T @ scaled / len(self.y) + np.diag(self.l2 * np.ones_like(w))

    def solution(self) -> Array:
        """w*: a damped Newton's method in double precision, then steps with its last Hessian in extended precision."""
        rough = KnownGLM(self.loss, *(x.astype(float) for x in (self.X, self.y, self.X_dev, self.y_dev, self.l2)))
        w = np.zeros(self.X.shape[1])
        for _ in range(100):
            gradient = rough.gradient(w)
            step, rate = np.linalg.solve(rough.hessian(w), gradient), 1.0
            while rate > 1e-6 and not norm(rough.gradient(w - rate * step)) <= norm(gradient):
                rate /= 2
            w = w - rate * step
            if norm(step) <= 1e-12 * norm(w):
                break
        inverse = np.linalg.inv(rough.hessian(w)).astype(np.longdouble)
        w = w.astype(np.longdouble)
        for _ in range(60):
            step = inverse @ self.gradient(w)
            w = w - step
            if norm(step) <= 1e-18 * norm(w):
                break
        return w

    def hypergradient(self, w: Array) -> Array:
        """dF/dl at the solution w."""
        outer = self.loss.slope(self.X_dev @ w, self.y_dev) @ self.X_dev / len(self.y_dev)
        product = -solve(self.hessian(w), outer) * w
        return product if self.l2.ndim else product.sum()[None]

    def partly_trained(self, w: Array, target: float) -> Array:
        """Where gradient flow on the model at the solution has brought the gradient to `target` of that at 0."""
        curvatures, U = np.linalg.eigh(self.hessian(w).astype(float))
        curvatures = np.maximum(curvatures, 0)
        away = -(U.T @ w.astype(float))
        times = 10.0 ** np.linspace(-3, 17, 200) / curvatures[-1]
        sizes = np.linalg.norm(curvatures * np.exp(-times[:, None] * curvatures) * away, axis=1)
        goal = target * norm(self.gradient(0 * w))
        t = times[np.argmax(sizes <= goal)] if (sizes <= goal).any() else times[-1]
        return w + (U @ (np.exp(-t * curvatures) * away)).astype(np.longdouble)


def norm(x: Array) -> float:
    """‖x‖ as a number."""
    return float(np.sqrt((x * x).sum()))


def solve(H: Array, b: Array) -> Array:
    """H⁻¹ b by a factorisation in double precision, refined in extended precision."""
    inverse = np.linalg.inv(H.astype(float)).astype(np.longdouble)
    x = inverse @ b
    for _ in range(30):
        step = inverse @ (b - H @ x)
        x = x + step
        if norm(step) <= 1e-18 * norm(x):
            break
    return x
