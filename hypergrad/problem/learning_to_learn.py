"""Learning how to train: the coefficients of a solver, judged by the training loss that they reach."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.problem.base import InnerProblem, Parts
from hypergrad.problem.batch_place import BatchPlace
from hypergrad.problem.wrapper import Wrapper


class LearningToLearn(Wrapper):
    """The training loss of a problem after T steps, as a function of how it was trained.

    F(ρ) = g(w_T(ρ), λ₀)    with    w_{t+1} = Φ(w_t, ρ)

    ρ are coefficients that the solver names, as in `GradientDescent(lr="lr")`. λ₀ are the initial hyperparameters of
    the problem and stay fixed. ρ requires an estimator that differentiates through the steps, and `warm_start=False`:
    the minimum of g does not depend on the way to it.

    Args:
        problem: what is trained.
        coefficients: ρ by name.

    Raises:
        ValueError: if the problem has an L1 penalty, which requires special solvers.

    Source: Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NIPS (2016).
    """

    def __init__(self, problem: InnerProblem, coefficients: Mapping[str, Hyperparameter]) -> None:
        super().__init__(problem)
        self._coefficients = dict(coefficients)

    def untied(self, hparams: Tensors) -> Tensors:
        return self.problem.init_hparams()

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self._coefficients

    def with_effect(self) -> list[str]:
        return []  # those of the problem are fixed, and a coefficient may have the name of one

    def outer_batch(self, step: int) -> Any:
        return self.problem.inner_batch(step)

    def outer_place(self, step: int) -> BatchPlace:
        return self.problem.inner_place(step)

    def outer_parts(self, batch: Any) -> Parts | None:
        return self.inner_parts(batch)

    def outer_share(self, batch: Any, rank: int, world: int) -> tuple[Any, float]:
        return self.inner_share(batch, rank, world)

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.inner_loss(params, hparams, batch)
