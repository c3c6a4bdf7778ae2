"""higher and TorchOpt: their differentiable SGD through a training run, and backward."""
# pyright: reportMissingImports=false

import json
from collections.abc import Callable
from importlib.metadata import version

import higher
import numpy as np
import torch
import torchopt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.peers.protocol import Work, serve


class Classifier(nn.Module):
    """X W, or tanh(X W₁ + b₁) W₂ + b₂."""

    def __init__(self, w: Tensor, shapes: list[list[int]]) -> None:
        super().__init__()
        pieces = w.split([torch.Size(shape).numel() for shape in shapes])
        for k, (piece, shape) in enumerate(zip(pieces, shapes, strict=True)):
            self.register_parameter(f"p{k}", nn.Parameter(piece.view(shape).clone()))

    def forward(self, X: Tensor) -> Tensor:
        first, *rest = self.parameters()
        if not rest:
            return X @ first
        b1, W2, b2 = rest
        return torch.tanh(X @ first + b1) @ W2 + b2


def load(arrays: dict[str, np.ndarray]) -> dict[str, tuple[Work, int]]:
    """The contestants; the budget is the number of steps."""
    shapes = json.loads(str(arrays["shapes"]))
    sizes = [torch.Size(shape).numel() for shape in shapes]
    lr, momentum = arrays["lr"].item(), arrays["momentum"].item()
    data = {name: torch.from_numpy(arrays[name]) for name in ("X", "y", "X_dev", "y_dev", "w", "l2")}

    def objectives(l2: Tensor) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        penalties = [x.view(shape) for x, shape in zip(l2.split(sizes), shapes, strict=True)]

        def inner(model: Callable[[Tensor], Tensor], params: list[Tensor]) -> Tensor:
            penalty = sum((h * p * p).sum() for h, p in zip(penalties, params, strict=True)) / 2
            return cross_entropy(model(data["X"]), data["y"]) + penalty

        return inner, lambda model: cross_entropy(model(data["X_dev"]), data["y_dev"])

    def by_higher(budget: int, scale: float) -> np.ndarray:
        l2 = data["l2"].clone().requires_grad_()
        inner, outer = objectives(l2)
        model = Classifier(data["w"], shapes)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
        with higher.innerloop_ctx(model, optimizer) as (functional, differentiable):
            for _ in range(budget):
                differentiable.step(inner(functional, list(functional.parameters())))
            return torch.autograd.grad(outer(functional), l2)[0].numpy()

    def by_torchopt(budget: int, scale: float) -> np.ndarray:
        l2 = data["l2"].clone().requires_grad_()
        inner, outer = objectives(l2)
        model = Classifier(data["w"], shapes)
        optimizer = torchopt.MetaSGD(model, lr=lr, momentum=momentum)
        for _ in range(budget):
            optimizer.step(inner(model, list(model.parameters())))
        return torch.autograd.grad(outer(model), l2)[0].numpy()

    return {"higher": (by_higher, 0), "TorchOpt, MetaSGD": (by_torchopt, 0)}


def note() -> str:
    """Versions."""
    return f"higher {version('higher')}, torchopt {torchopt.__version__}, torch {torch.__version__}"


if __name__ == "__main__":
    serve(load, note)
