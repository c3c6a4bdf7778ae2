"""The updates of torch's optimisers as functions of tensors, for compiled steps."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from hypergrad.core.autodiff import Tensors

Group = dict[str, Any]
"""An entry of `param_groups`: the settings of some hyperparameters."""


class UpdateRule(ABC):
    """One step of an optimiser for one hyperparameter u with gradient ∂F/∂u.

    What may differ from step to step is among the numbers of the step, and everything else among the flags.
    """

    @abstractmethod
    def flags(self, group: Group) -> tuple[bool, ...]:
        """The settings that decide which operations a step has; they stay the same in a run."""

    @abstractmethod
    def entries(self, group: Group) -> tuple[str, ...]:
        """The names of the tensors in the optimiser's state that a step reads and changes, shaped as u."""

    @abstractmethod
    def numbers(self, group: Group, step: int) -> list[float]:
        """The numbers of a step, after `step` steps of the optimiser; the same count for all groups and steps."""

    @abstractmethod
    def update(self, group: Group, u: Tensor, grad: Tensor, state: Tensors, numbers: list[Tensor]) -> list[Tensor]:
        """u and the entries of the state after a step, outside any graph.

        Args:
            group: only its flags are read.
            u: before the step.
            grad: ∂F/∂u.
            state: the entries by name.
            numbers: of the step, each of shape ().
        """


class SGDRule(UpdateRule):
    """torch.optim.SGD: b ← momentum b + (1 − dampening) ∇F, u −= lr b."""

    def flags(self, group: Group) -> tuple[bool, ...]:
        return group["momentum"] != 0, group["nesterov"], group["maximize"]

    def entries(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] != 0 else ()

    def numbers(self, group: Group, step: int) -> list[float]:
        return [*map(float, (group["lr"], group["weight_decay"], group["momentum"], 1 - group["dampening"]))]

    def update(self, group: Group, u: Tensor, grad: Tensor, state: Tensors, numbers: list[Tensor]) -> list[Tensor]:
        has_momentum, is_nesterov, maximises = self.flags(group)
        lr, decay, momentum, share = numbers
        grad = (-grad if maximises else grad) + decay * u
        if not has_momentum:
            return [u - lr * grad]
        buffer = momentum * state["momentum_buffer"] + share * grad
        return [u - lr * (grad + momentum * buffer if is_nesterov else buffer), buffer]


class AdamRule(UpdateRule):
    """torch.optim.Adam and AdamW: u −= lr m̂ / (√v̂ + ε) with the averages m of ∇F and v of (∇F)²."""

    def flags(self, group: Group) -> tuple[bool, ...]:
        return group["decoupled_weight_decay"], group["amsgrad"], group["maximize"]

    def entries(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else []))

    def numbers(self, group: Group, step: int) -> list[float]:
        lr, (beta, beta_sq), decay = float(group["lr"]), map(float, group["betas"]), float(group["weight_decay"])
        size, root = lr / (1 - beta ** (step + 1)), (1 - beta_sq ** (step + 1)) ** 0.5
        keep = 1 - lr * decay if group["decoupled_weight_decay"] else decay
        return [size, root, 1 - beta, beta_sq, 1 - beta_sq, float(group["eps"]), keep]

    def update(self, group: Group, u: Tensor, grad: Tensor, state: Tensors, numbers: list[Tensor]) -> list[Tensor]:
        is_decoupled, is_amsgrad, maximises = self.flags(group)
        size, root, fresh, old_sq, fresh_sq, eps, decay = numbers
        grad = -grad if maximises else grad
        u, grad = (u * decay, grad) if is_decoupled else (u, grad + decay * u)
        average = torch.lerp(state["exp_avg"], grad, fresh)
        square = old_sq * state["exp_avg_sq"] + fresh_sq * grad * grad
        most = [torch.maximum(state["max_exp_avg_sq"], square)] if is_amsgrad else []
        after = u - size * average / ((most or [square])[0].sqrt() / root + eps)
        return [after, average, square, *most]


RULES: dict[type[Optimizer], UpdateRule] = {SGD: SGDRule(), Adam: AdamRule(), AdamW: AdamRule()}
"""By optimiser; subclasses may do something else."""
