"""What happens without half of the examples: many trainings of a network at once, one for each half."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.influence.cases import WEIGHTS, Setting
from hypergrad.training.training import Training


class Side(hg.InnerProblem):
    """Trainings of one problem side by side, each with weights of the examples of its own.

    The loss is the sum of theirs, so that a solver which treats each entry alone trains each as if it were alone.

    Args:
        problem: what each trains; not changed.
        hparams: its hyperparameters, the weights with a row for each training.
    """

    def __init__(self, problem: hg.Supervised, hparams: hg.Tensors) -> None:
        super().__init__()
        self._problem, self._hparams = problem, hparams

    def init_params(self) -> hg.Tensors:
        """As promised; one initial point for all."""
        count = len(self._hparams[WEIGHTS])
        return {name: w.expand(count, *w.shape).clone() for name, w in self._problem.init_params().items()}

    def hyperparameters(self) -> dict[str, hg.Hyperparameter]:
        """As promised: none is tuned."""
        return {}

    def inner_batch(self, step: int) -> Any:
        """As promised; the same for all."""
        return self._problem.inner_batch(step)

    def inner_loss(self, params: hg.Tensors, hparams: hg.Tensors, batch: Any) -> Tensor:
        """As promised."""

        def one(w: hg.Tensors, weights: Tensor) -> Tensor:
            return self._problem.inner_loss(w, self._hparams | {WEIGHTS: weights}, batch)

        return vmap(one)(params, self._hparams[WEIGHTS]).sum()

    def outer_loss(self, params: hg.Tensors, hparams: hg.Tensors, batch: Any) -> Tensor:
        """As promised; not used."""
        return self.inner_loss(params, hparams, batch)


def halves(num_examples: int, count: int, seed: int = 0) -> Tensor:
    """Which examples belong to each of `count` random halves, shape (count, num_examples)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(num_examples, generator=generator) for _ in range(count)])
    return order < num_examples // 2


def trained(problem: hg.Supervised, setting: Setting, weights: Tensor) -> hg.Tensors:
    """The parameters after training with each row of weights, stacked."""
    side = Side(problem, problem.init_hparams() | {WEIGHTS: weights})
    return Training(solver=setting.solver, steps=setting.steps).run(side, {}, side.init_params()).params


@torch.no_grad()
def dev_losses(problem: hg.Supervised, params: hg.Tensors) -> Tensor:
    """The loss of each dev example under each of several networks, shape (networks, dev examples)."""
    X, y = problem.part("dev", None)

    def one(w: hg.Tensors) -> Tensor:
        return cross_entropy(functional_call(problem.model.module, w, (X,)), y, reduction="none")

    return vmap(one)(params)


def retrained(problem: hg.Supervised, setting: Setting, members: Tensor, kept: Path) -> Tensor:
    """The dev losses after training on each half, shape (halves, dev examples).

    Args:
        problem: what is trained.
        setting: how.
        members: of the halves; a member has weight 2, so that the mean loss is that of the half.
        kept: file of an earlier call with the same arguments, or where to write one.
    """
    if kept.exists():
        return torch.load(kept)
    losses = dev_losses(problem, trained(problem, setting, 2.0 * members))
    kept.parent.mkdir(parents=True, exist_ok=True)
    torch.save(losses, kept)
    return losses
