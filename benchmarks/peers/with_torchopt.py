"""TorchOpt: its `custom_root` with its conjugate gradient, and with its Neumann series."""
# pyright: reportMissingImports=false

import json
import math
from functools import partial

import numpy as np
import torch
import torchopt
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.peers.protocol import Work, serve


def load(arrays: dict[str, np.ndarray]) -> dict[str, tuple[Work, int]]:
    """The contestants; CG spends a product on its first residual, at zero."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if name != "shapes"}
    shapes = json.loads(str(arrays["shapes"]))
    ridge = arrays["damping"].item() or None

    def cg(budget: int, scale: float) -> np.ndarray:
        solve = torchopt.linear_solve.solve_cg(maxiter=budget, rtol=0.0, atol=0.0, ridge=ridge)
        return hypergradient(tensors, shapes, solve)

    def neumann(budget: int, scale: float) -> np.ndarray:
        solve = torchopt.linear_solve.solve_inv(ns=True, maxiter=budget, alpha=scale, ridge=ridge)
        return hypergradient(tensors, shapes, solve)

    return {"TorchOpt, CG": (cg, 1), "TorchOpt, Neumann": (neumann, 0)}


def hypergradient(data: dict[str, Tensor], shapes: list[list[int]], solve) -> np.ndarray:
    """dF/dλ through `custom_root` around a solver that is done."""
    inner = partial(inner_loss, data, shapes)

    @torchopt.diff.implicit.custom_root(torch.func.grad(inner, argnums=0), argnums=1, solve=solve)
    def solution(w: Tensor, l2: Tensor) -> Tensor:
        return w.clone()

    l2 = data["l2"].clone().requires_grad_()
    outer = cross_entropy(logits(shapes, solution(data["w"], l2), data["X_dev"]), data["y_dev"])
    return torch.autograd.grad(outer, l2)[0].numpy()


def inner_loss(data: dict[str, Tensor], shapes: list[list[int]], w: Tensor, l2: Tensor) -> Tensor:
    """g = cross-entropy + Σ_i λ_i w_i² / 2."""
    return cross_entropy(logits(shapes, w, data["X"]), data["y"]) + (l2 * w * w).sum() / 2


def logits(shapes: list[list[int]], w: Tensor, X: Tensor) -> Tensor:
    """X W, or tanh(X W₁ + b₁) W₂ + b₂."""
    pieces = w.split([math.prod(shape) for shape in shapes])
    parts = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
    if len(parts) == 1:
        return X @ parts[0]
    W1, b1, W2, b2 = parts
    return torch.tanh(X @ W1 + b1) @ W2 + b2


if __name__ == "__main__":
    serve(load, lambda: f"torchopt {torchopt.__version__}, torch {torch.__version__}")
