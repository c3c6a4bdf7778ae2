"""A problem at its trained parameters, with the hypergradient that is exact there."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize

import hypergrad as hg
from benchmarks.problem.base import PenalisedClassifier
from benchmarks.problem.mlp import TanhMLP
from benchmarks.problem.softmax import DecayingScales, Digits
from hypergrad.core.autodiff import Tensors, flatten, unflatten

PROBLEMS: dict[str, tuple[str, Callable[[], PenalisedClassifier]]] = {
    "a": ("softmax regression on digits, 1000 × 64 × 10, 640 penalties", Digits),
    "b": ("softmax regression, 20000 × 1000 × 10, decaying scales, 10,000 penalties", DecayingScales),
    "c": ("damped 784-256-10 tanh MLP, n = 5000, 203,530 penalties", TanhMLP),
}
_MAX_TRAINING = 5000


@dataclass(frozen=True)
class Case:
    """Where the hypergradient is taken.

    Attributes:
        problem: what is tuned; training was on all its data.
        params: w, trained until no entry of ∇g exceeds the problem's `inner_tol`.
        hparams: λ.
        path: an .npz with the same arrays, for contestants in another interpreter.
    """

    problem: PenalisedClassifier
    params: Tensors
    hparams: Tensors
    path: Path

    @property
    def damping(self) -> float:
        """δ, which is added to the Hessian."""
        return self.problem.damping

    @cached_property
    def inner_gradient(self) -> float:
        """‖∇_w g‖ at w."""
        with torch.no_grad():
            return flatten(self.problem.optimality(self.params, self.hparams, None)).norm().item()

    @classmethod
    def of(cls, problem: PenalisedClassifier) -> "Case":
        """The problem, trained now or, where its arrays are known from an earlier run, then."""
        start, hparams = problem.init_params(), problem.init_hparams()
        arrays = {
            **{name: getattr(problem, name).numpy() for name in ("X", "y", "X_dev", "y_dev")},
            "l2": flatten(hparams).numpy(),
            "damping": np.array(problem.damping),
            "shapes": np.array(json.dumps([list(w.shape) for w in start.values()])),
        }
        path = _cache() / f"{type(problem).__name__}-{_digest(arrays, start, problem.inner_tol)}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.with_suffix(".half.npz")
            np.savez(half, w=_train(problem, start, hparams), **arrays)
            half.rename(path)
        with np.load(path) as saved:
            w = torch.from_numpy(saved["w"])
        return cls(problem, unflatten(w, start), hparams, path)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hypergrad-benchmarks"


def _digest(arrays: dict[str, np.ndarray], start: hg.Tensors, inner_tol: float) -> str:
    digest = hashlib.sha256(str(inner_tol).encode())
    for array in (*arrays.values(), flatten(start).numpy()):
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _train(problem: PenalisedClassifier, start: Tensors, hparams: Tensors) -> np.ndarray:
    """w after L-BFGS.

    Raises:
        RuntimeError: if ∇g stays above the problem's `inner_tol`.
    """

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.no_grad():
            loss, grad = problem.inner_loss_and_gradient(unflatten(torch.from_numpy(flat), start), hparams, None)
        return loss.item(), flatten(grad).numpy()

    options = {"maxiter": _MAX_TRAINING, "maxfun": 2 * _MAX_TRAINING, "gtol": problem.inner_tol, "ftol": 0.0}
    found = minimize(loss_and_gradient, flatten(start).numpy(), jac=True, method="L-BFGS-B", options=options)
    left = np.abs(found.jac).max()
    if left > problem.inner_tol:
        raise RuntimeError(
            f"Training {type(problem).__name__} to ∇g ≤ {problem.inner_tol:.0e} stopped at {left:.1e} after "
            f"{found.nit} iterations ({found.message}). Raise its inner_tol."
        )
    return found.x
