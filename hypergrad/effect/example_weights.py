"""Weights of the train examples."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.effect.base import Effect, Site


@dataclass(frozen=True, kw_only=True)
class ExampleWeights(Effect):
    """A weight λ_i for each train example: g = 1/N Σ_i λ_i u_i. Wrong labels end with small weights.

    u_i are the terms of the loss, and N is its own denominator, such as n, so that weights of 1 change nothing.

    Attributes:
        init: the initial weight.
        constraint: of the weights: `positive`, or `unit_interval` for weights from 0 to 1.

    Examples:
        >>> X, y = torch.ones(3, 1), torch.tensor([1.0, 1.0, 4.0])  # the last target is wrong
        >>> model, loss, dev = torch.nn.Linear(1, 1, bias=False), torch.nn.MSELoss(), (2 * X, 2 * X[:, 0])
        >>> weights = {"weight": hg.ExampleWeights()}
        >>> problem = hg.Supervised(model=model, loss=loss, train=(X, y), dev=dev, hyperparameters=weights)
        >>> estimator = hg.Implicit(solver=hg.LBFGS(), inner_tol=1e-8)
        >>> estimator.estimate(problem, problem.init_hparams(), problem.init_params()).grad["weight"]
        tensor([-2.6667, -2.6667,  5.3333])

    Source: Ren, Zeng, Yang & Urtasun, "Learning to reweight examples for robust deep learning", ICML (2018).
    """

    init: float = 1.0
    constraint: Constraint = constraints.positive

    def space(self, site: Site) -> Hyperparameter:
        return Hyperparameter(self.init, shape=(site.num_examples,), constraint=self.constraint)

    def weights(self, value: Tensor, rows: Tensor | None, y: Tensor) -> Tensor:
        return value if rows is None else value[rows]

    def widened(self, value: Tensor, num_more: int) -> Tensor:
        return torch.cat([value, value.mean().expand(num_more)])
