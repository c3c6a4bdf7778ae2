"""One outer step of a single-loop method as a function of tensors, λ and its optimiser included."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach, leaves, unflatten
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.outer.optimizer_update import OptimizerUpdate
from hypergrad.problem.base import InnerProblem
from hypergrad.single_loop.base import Method
from hypergrad.single_loop.default_steps import moved
from hypergrad.single_loop.given import BatchKind, GivenTerms, factors, with_factors


class JointState(NamedTuple):
    """All that an outer step changes.

    Attributes:
        u: the unconstrained hyperparameters.
        slots: the state of their optimiser, see `OptimizerUpdate.slots`.
        params: w.
        memory: of the method.
    """

    u: Tensors
    slots: dict[str, Tensors]
    params: Tensors
    memory: Any


class Row(NamedTuple):
    """What differs from step to step besides the state.

    Attributes:
        numbers: t, the factors of the schedules, the weights of the batches and the numbers of the optimiser; flat.
        indices: of the batches in their epochs, shape (B,).
        tensors: of the batches, in a flat list.
    """

    numbers: Tensor
    indices: Tensor
    tensors: Sequence[Tensor]


@dataclass(frozen=True)
class JointStep:
    """A move of the method at u, with ∂F/∂u along its direction, and then the step of the optimiser.

    Attributes:
        problem: what is tuned.
        spaces: its hyperparameters.
        method: how w moves, and which direction λ gets.
        update: how u moves.
        kinds: of the batches of a move, the outer one last.
        max_grad_norm: as in `OuterObjective`.
    """

    problem: InnerProblem
    spaces: dict[str, Hyperparameter]
    method: Method
    update: OptimizerUpdate
    kinds: tuple[BatchKind, ...]
    max_grad_norm: float | None

    def __call__(self, state: JointState, row: Row) -> JointState:
        """The state after the step."""
        num_batches, num_settings = len(self.kinds), self.update.num_numbers
        t, *numbers = row.numbers.unbind()
        settings, given = numbers[:num_settings], iter(numbers[num_settings:-num_batches])
        each, tensors = zip(self.kinds, row.indices.unbind(), numbers[-num_batches:], strict=True), iter(row.tensors)
        *inner, outer = [kind.placed(tensors, index, weight) for kind, index, weight in each]
        terms, method = GivenTerms(self.problem, 0, 0, inner, outer), with_factors(self.method, given)
        before = leaves(state.u)
        with torch.enable_grad():
            hparams = {name: self.spaces[name].to_natural(u) for name, u in before.items()}
        # A method may do arithmetic with the number of a move, which is a tensor here.
        move = moved(method, terms, state.params, detach(hparams), state.memory, cast(int, t))
        along = unflatten(move.direction, hparams)
        pulled = torch.autograd.grad([*hparams.values()], [*before.values()], [*along.values()])
        grad = self._clipped(dict(zip(before, pulled, strict=True)))
        u, slots = self.update.update(detach(before), grad, state.slots, settings)
        return JointState(u, slots, move.params, move.memory)

    def numbers(self, t: int, steps: Sequence[int], weights: Sequence[float]) -> list[float]:
        """The numbers of the row of move t, by the present settings of the optimiser.

        Args:
            t: the number of the move.
            steps: the steps that the optimiser has taken before, by group.
            weights: of the batches of the move, that of the outer one last.
        """
        return [float(t), *self.update.numbers(steps), *factors(self.method, t), *weights]

    def _clipped(self, grad: Tensors) -> Tensors:
        """As by `torch.nn.utils.clip_grad_norm_`."""
        if self.max_grad_norm is None:
            return grad
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(x) for x in grad.values()]))
        share = (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        return {name: share * x for name, x in grad.items()}
