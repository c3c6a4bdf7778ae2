"""Gradient descent on λ with a step that the problem suggests."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.optim import SGD

from hypergrad.core.validation import require_int, require_real
from hypergrad.problem.base import InnerProblem
from hypergrad.single_loop.step_sizes import step_sizes


@dataclass(frozen=True, kw_only=True)
class SuggestedSGD:
    """Makes a `torch.optim.SGD` whose lr is `factor` times the outer step of `hg.step_sizes`, to two digits.

    The step is estimated once, at the initial hyperparameters and parameters, and its gradients and products count as
    those of the run. It suits a `SingleLoop` with `solver=None`, whose inner step comes from the same estimate.

    Attributes:
        factor: > 0.
        num_batches: most batches of each loss to use, ≥ 1.
    """

    factor: float = 1.0
    num_batches: int = 16

    def __post_init__(self) -> None:
        require_real(self, "factor", above=0)
        require_int(self, "num_batches", least=1)

    def __call__(self, tensors: Sequence[Tensor], problem: InnerProblem) -> SGD:
        """The optimiser of the unconstrained hyperparameters of a problem."""
        outer = step_sizes(problem, num_batches=self.num_batches).outer
        # Two digits are what the estimate is worth. They are the same on another machine, where the run may go on.
        return SGD(tensors, lr=float(f"{self.factor * outer:.2g}"))
