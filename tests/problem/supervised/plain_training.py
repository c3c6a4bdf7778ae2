"""Training as a user writes it, in place, with central differences of the dev loss: the truth for hypergradients."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

import hypergrad as hg


def slope(
    model: nn.Module,
    train_loss: Callable[[nn.Module, int], Tensor],
    dev_loss: Callable[[nn.Module], Tensor],
    *,
    l2: float,
    lr: float,
    steps: int,
    eps: float = 1e-5,
) -> tuple[float, float]:
    """The dev loss after gradient descent on train_loss(model, step) + l2 ‖w‖², and its derivative in l2."""

    def trained(penalty: float) -> float:
        ours = deepcopy(model)
        weights = [p for p in ours.parameters() if p.requires_grad]
        descent = torch.optim.SGD(weights, lr=lr)
        for step in range(steps):
            descent.zero_grad()
            (train_loss(ours, step) + penalty * sum(p.square().sum() for p in weights)).backward()
            descent.step()
        with torch.no_grad():
            return dev_loss(ours.eval()).item()

    return trained(l2), (trained(l2 + eps) - trained(l2 - eps)) / (2 * eps)


def estimates(
    problem: hg.InnerProblem, *, steps: int, lr: float = 0.0, solver: hg.InnerSolver | None = None, **settings: Any
) -> tuple[float, float]:
    """The dev loss and the hypergradient for the hyperparameter `l2` through gradient descent, or another solver."""
    estimator = hg.Unrolled(solver=solver or hg.GradientDescent(lr=lr), inner_steps=steps, **settings)
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    return found.outer_loss, found.grad["l2"].item()
