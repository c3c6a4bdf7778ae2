"""Random inner problems that are unlike each other, written once for torch and for jets."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jets import Jet
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import hypergrad as hg

Values = dict[str, Any]
"""Tensors or jets by name."""


def _softplus(z: Any) -> Any:
    return z.softplus() if isinstance(z, Jet) else torch.logaddexp(z, torch.zeros_like(z))


def _cross_entropy(z: Any, y: Any) -> Any:
    """For targets as probabilities, shape (N, K)."""
    return z.logsumexp() * y.sum(-1) - (z * y).sum(-1) if isinstance(z, Jet) else cross_entropy(z, y, reduction="none")


def _logistic(z: Any, y: Any) -> Any:
    if isinstance(z, Jet):
        return z.softplus() - z * y
    return binary_cross_entropy_with_logits(z, y, reduction="none")


EACH = {
    "quadratic": lambda z, y: (z - y).square() / 2,
    "logistic": _logistic,
    "softmax": _cross_entropy,
    "poisson": lambda z, y: z.exp() - y * z,
    "softplus": lambda z, y: _softplus(z - y) + _softplus(-1 * (z - y)),
    "exponential": lambda z, y: ((1 - 2 * y) * z).exp(),
    "pseudo-huber": lambda z, y: (1 + (z - y).square()).sqrt() - 1,
    "cauchy": lambda z, y: (z - y).square().log1p(),  # not convex
}
"""ℓ(z, y) for each example."""
MODELS = ("linear", "tanh", "softplus network", "quartic")
CONVEX = ("quadratic", "logistic", "softmax", "poisson", "softplus", "exponential", "pseudo-huber")
KINDS = (
    "l2",
    "penalties",
    "log penalties",
    "weights",
    "simplex weights",
    "smoothing",
    "input scale",
    "targets",
    "tilt",
)
"""What a hyperparameter does."""


@dataclass
class Formula:
    """Both losses.

    Attributes:
        loss: a name in `EACH`.
        model: a name in `MODELS`.
        kinds: names in `KINDS`.
        scale: of the inner loss, a power of 2.
        outer_scale: of the outer loss, a power of 2.
        direct: whether λ is in the outer loss too.
        rows: of train in the batch of a step; None for all.
    """

    loss: str
    model: str
    kinds: tuple[str, ...]
    scale: float = 1.0
    outer_scale: float = 1.0
    direct: bool = False
    rows: Any = field(default=None)

    def outputs(self, p: Values, lam: Values, X: Any) -> Any:
        w = p["w"] * lam["input scale"] if "input scale" in lam else p["w"]
        if self.model == "linear":
            return X @ w + p["b"] if "b" in p else X @ w
        if self.model == "quartic":
            return X @ w.square()
        hidden = X @ w + p["b"]
        hidden = hidden.tanh() if self.model == "tanh" else _softplus(hidden)
        if self.loss == "softmax":  # shape (N, h) times (h, K), in columns
            return (hidden[:, :, None] * p["v"][None]).sum(1)
        return (hidden * p["v"]).sum(-1)

    def train_loss(self, z: Any, p: Values, lam: Values, D: Values) -> Any:
        y, rows = lam.get("targets", D["y"]), self.rows
        y = y if rows is None else y[rows]
        if "smoothing" in lam:
            y = y * (1 - lam["smoothing"]) + lam["smoothing"] / 2
        each = EACH[self.loss](z, y)
        if "simplex weights" in lam:
            weights = lam["simplex weights"]
            value = (each * (weights if rows is None else weights[rows])).sum()
        elif "weights" in lam:
            value = (each * (lam["weights"] if rows is None else lam["weights"][rows])).mean()
        else:
            value = each.mean()
        for k, (name, w) in enumerate(p.items()):
            value = value + w.square().sum() * D["base"]
            if "l2" in lam:
                value = value + w.square().sum() * lam["l2"] / 2
            if "log penalties" in lam:
                value = value + w.square().sum() * lam["log penalties"][k].exp()
            if "penalties" in lam and name == "w":
                value = value + (w.square() * lam["penalties"]).sum() / 2
            if "tilt" in lam and name == "w":
                value = value - (w * lam["tilt"]).sum()
        return value * self.scale

    def inner(self, p: Values, lam: Values, D: Values) -> Any:
        X = D["X"] if self.rows is None else D["X"][self.rows]
        return self.train_loss(self.outputs(p, lam, X), p, lam, D)

    def outer(self, p: Values, lam: Values, D: Values) -> Any:
        z = self.outputs(p, lam, D["X_dev"])
        value = EACH[self.loss](z, D["y_dev"]).mean()
        if self.direct:
            for x in lam.values():
                value = value + x.square().sum() / 16 + x.sum() * p["w"].sum() / 8
        return value * self.outer_scale


class Composed(hg.InnerProblem):
    """A formula on data."""

    def __init__(self, formula: Formula, data: Values, start: Values, spaces: dict[str, hg.Hyperparameter]):
        super().__init__()
        self.formula, self.names, self.spaces = formula, tuple(data), spaces
        for name, x in (data | {f"start_{name}": x for name, x in start.items()}).items():
            self.register_buffer(name, x)
        self.start_names = tuple(start)

    @property
    def data(self) -> Values:
        return {name: getattr(self, name) for name in self.names}

    def init_params(self):
        return {name: getattr(self, f"start_{name}") for name in self.start_names}

    def hyperparameters(self):
        return self.spaces

    def outputs(self, params, hparams, batch):
        rows = self.formula.rows
        return self.formula.outputs(params, hparams, self.data["X"] if rows is None else self.data["X"][rows])

    def loss_of_outputs(self, outputs, params, hparams, batch):
        return self.formula.train_loss(outputs, params, hparams, self.data)

    def inner_loss(self, params, hparams, batch):
        return self.loss_of_outputs(self.outputs(params, hparams, batch), params, hparams, batch)

    def outer_loss(self, params, hparams, batch):
        return self.formula.outer(params, hparams, self.data)


def _targets(loss: str, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if loss == "softmax":
        return np.eye(z.shape[1])[(z + rng.gumbel(size=z.shape)).argmax(1)]
    if loss in ("logistic", "exponential"):
        return (z + rng.standard_normal(z.shape) > 0) * 1.0
    if loss == "poisson":
        return rng.poisson(np.exp(np.minimum(z, 3))) * 1.0
    return z + (rng.standard_t(2, z.shape) if loss in ("softplus", "cauchy") else rng.standard_normal(z.shape))


def _space(kind: str, rng: np.random.Generator, start: Values, y: np.ndarray, l2: float) -> hg.Hyperparameter:
    count = len(y)
    if kind in ("l2", "penalties"):
        shape = () if kind == "l2" else start["w"].shape
        return hg.Hyperparameter(
            torch.from_numpy(np.array(l2 * 10 ** rng.uniform(-1, 1, shape))), constraint=hg.positive
        )
    if kind == "log penalties":
        return hg.Hyperparameter(torch.from_numpy(np.log(l2) + rng.uniform(-2, 2, len(start))))
    if kind == "weights":
        return hg.Hyperparameter(torch.from_numpy(10 ** rng.uniform(-2, 0.3, count)), constraint=hg.positive)
    if kind == "simplex weights":
        return hg.Hyperparameter(torch.from_numpy(rng.dirichlet(np.ones(count))), constraint=hg.simplex)
    if kind == "smoothing":
        return hg.Hyperparameter(10 ** rng.uniform(-4, -0.5), constraint=hg.interval(0, 1))
    if kind == "input scale":
        return hg.Hyperparameter(torch.from_numpy(10 ** rng.uniform(-1, 1, start["w"].shape)), constraint=hg.positive)
    if kind == "targets":
        return hg.Hyperparameter(torch.from_numpy(y.copy()))
    return hg.Hyperparameter(torch.from_numpy(rng.standard_normal(start["w"].shape) * 0.1 * l2**0.5))


def allowed(loss: str, model: str, kind: str) -> bool:
    """Whether a kind of hyperparameter makes sense there."""
    if kind == "smoothing":
        return loss in ("logistic", "softmax")
    if kind == "targets":  # a minimum must exist for all of them
        return loss in ("quadratic", "softplus", "pseudo-huber", "cauchy", "logistic")
    return kind != "input scale" or model in ("linear", "quartic")


def composed(
    loss: str, model: str, rng: np.random.Generator, *, size: int, examples: int, dtype: torch.dtype
) -> Composed:
    """A random problem: κ from 1 to 1e10, one or two kinds of hyperparameters, scales of the losses.

    Args:
        loss: a name in `EACH`.
        model: a name in `MODELS`.
        rng: all is drawn from it.
        size: features, ≥ 1.
        examples: of train, and of dev.
        dtype: of all tensors.
    """
    condition = 10 ** rng.uniform(0, 10)
    Q = np.linalg.qr(rng.standard_normal((size, size)))[0]
    mix = np.logspace(0, -np.log10(condition) / 2, size)[:, None] * Q
    heads = 3 if loss == "softmax" else 1
    truth = Q.T @ rng.standard_normal((size, heads)) / 10 ** rng.uniform(0, 0.5)
    X, X_dev = (rng.standard_normal((examples, size)) @ mix for _ in range(2))
    if model == "linear":
        start = {"w": np.zeros((size, heads) if loss == "softmax" else size)}
        if rng.integers(2):
            start["b"] = np.zeros(heads if loss == "softmax" else ())
    elif model == "quartic":
        start = {"w": rng.uniform(0.3, 1.2, (size, heads) if loss == "softmax" else size)}
    else:
        hidden = int(rng.integers(1, 5))
        start = {
            "w": rng.standard_normal((size, hidden)) / size**0.5,
            "b": np.zeros(hidden),
            "v": rng.standard_normal((hidden, heads) if loss == "softmax" else hidden) / hidden**0.5,
        }
    y, y_dev = (_targets(loss, A @ truth if loss == "softmax" else (A @ truth)[:, 0], rng) for A in (X, X_dev))
    l2 = 10 ** (rng.uniform(-1, 2) - np.log10(condition)) if model == "linear" else 10 ** rng.uniform(-4, 0)
    kinds = [kind for kind in KINDS if allowed(loss, model, kind)]
    chosen = tuple(str(kind) for kind in rng.permutation(kinds)[: int(rng.integers(1, 3))])
    if {"weights", "simplex weights"} <= set(chosen):
        chosen = chosen[:1]
    formula = Formula(
        loss,
        model,
        chosen,
        scale=2.0 ** int(rng.integers(-10, 11)) if rng.integers(2) else 1.0,
        outer_scale=2.0 ** int(rng.integers(-20, 21)) if rng.integers(2) else 1.0,
        direct=bool(rng.integers(4) == 0),
    )
    data = {"X": X, "y": y, "X_dev": X_dev, "y_dev": y_dev, "base": np.array(l2 * 10 ** rng.uniform(-2, 0))}
    as_tensors = {name: torch.from_numpy(np.array(x)).to(dtype) for name, x in data.items()}
    starts = {name: torch.from_numpy(np.array(x)).to(dtype) for name, x in start.items()}
    return Composed(formula, as_tensors, starts, {kind: _space(kind, rng, start, y, l2) for kind in chosen})
