"""Methods that penalise the distance of w to the minimum of the inner loss."""

from dataclasses import dataclass

from hypergrad.core.validation import require_real
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.precision import epsilon_of
from hypergrad.single_loop.base import Method
from hypergrad.solver.base import InnerSolver


@dataclass(frozen=True, kw_only=True)
class PenaltyMethod(Method):
    """A method whose direction of λ has a small difference of gradients, times a multiplier, and no second derivative.

    Attributes:
        solver: as in `Method`; None, the default, is gradient descent with the inner step of `step_sizes`.
        multiplier: in the first move, > 0.
    """

    solver: InnerSolver | None = None
    multiplier: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_real(self, "multiplier", above=0)

    @property
    def num_matvecs(self) -> int:
        return 0

    def require(self, problem: InnerProblem) -> None:
        """As promised by `Method`, and that the precision of the losses resolves the difference.

        Raises:
            ValueError: if it does not.
        """
        super().require(problem)
        epsilon = epsilon_of(problem)
        if self.multiplier * epsilon > 1:
            raise ValueError(
                f"{type(self).__name__} multiplies the rounding errors of two gradients, a part ε = {epsilon:.1e} of "
                f"each in the precision of this run, by multiplier = {self.multiplier:g}, so that they are larger than "
                f"the gradients. Take a multiplier below {1 / epsilon:.3g}, better below {0.2 / epsilon:.2g}, or "
                'precision="float32".'
            )
