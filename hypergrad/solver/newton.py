"""Newton's method."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from hypergrad.core.autodiff import detach, flatten, unflatten
from hypergrad.core.cost import spend
from hypergrad.core.errors import IndefiniteError
from hypergrad.core.operator import Operator
from hypergrad.core.validation import require_instance
from hypergrad.linsolve.base import LinearSolver
from hypergrad.linsolve.cg import CG
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.oracle import Oracle
from hypergrad.product.base import Product
from hypergrad.product.reverse import Reverse
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.coefficient import Coefficients
from hypergrad.solver.line_search import line_search
from hypergrad.solver.objective import LineSearchPoint, Objective, point_entries, stored_loss_and_norm

_FIRST_DAMPING = 1e-3
"""The first δ relative to ‖H∇g‖/‖∇g‖. A judgement: small, so that the step stays close to Newton's if it suffices."""
_MAX_DAMPINGS = 20
"""So δ reaches 1e16 ‖H∇g‖/‖∇g‖, more than the ratio of any two curvatures that float64 can represent together."""


@dataclass(frozen=True, kw_only=True)
class Newton(InnerSolver):
    """Newton's method: w_{t+1} = w_t − α (H + δI)⁻¹ ∇g(w_t), solved with products with the Hessian H.

    For inner losses that are twice differentiable and the same at every step. δ = 0 if H is positive definite.
    Otherwise δ starts at 1e-3 ‖H∇g‖/‖∇g‖ and grows tenfold until the linear solver meets no negative curvature. α comes
    from a line search that tries 1 first. Near the solution each step multiplies ‖∇g‖ by the linear solver's `tol`;
    with a small enough `tol` convergence is quadratic. Made for implicit estimators: a step cannot be differentiated.
    The state is `params`, and after the first step also `point`, the `loss` and flat `grad` there.

    Attributes:
        linsolve: how the Newton system is solved; it must refuse systems that are not positive definite.
        product: how products with H are formed; `GaussNewton` gives the Gauss–Newton method.

    Source: Nocedal & Wright, "Numerical optimization", chapters 3 and 7 (2006).
    """

    differentiable: ClassVar[bool] = False
    same_batch: ClassVar[bool] = True
    check_every: ClassVar[int] = 1

    linsolve: LinearSolver = field(default_factory=lambda: CG(max_iter=1000, tol=1e-2))
    product: Product = field(default_factory=Reverse)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_instance(self, "linsolve", LinearSolver)
        require_instance(self, "product", Product)

    @torch.no_grad()
    def step(self, oracle: Oracle, state: State, coefficients: Coefficients, t: int) -> State:
        params = state["params"]
        oracle = replace(oracle, hparams=detach(oracle.hparams))
        at = self.product.linearize(oracle, params)
        here = LineSearchPoint(flatten(params), at.evaluation.loss, at.phi.detach())
        if not here.grad.any():
            return state
        there = line_search(Objective(oracle, params), here, -self._inverse_times(at.product, here.grad))
        if there is None or _is_noise(here, there):
            return state
        return {"params": unflatten(there.w, params), "point": point_entries(there)}

    def require(self, problem: InnerProblem) -> None:
        super().require(problem)
        if not problem.is_minimisation:
            raise ValueError(
                f"Newton minimises the inner loss, but {type(problem).__name__} has a condition of its own. "
                "Use LBFGS, or a solver such as Momentum."
            )

    def known(self, state: State) -> tuple[float, float] | None:
        return stored_loss_and_norm(state)

    def _inverse_times(self, product: Operator, grad: Tensor) -> Tensor:
        """(H + δI)⁻¹ ∇g with the smallest δ that the linear solver accepts.

        Also raised, by what it calls: IndefiniteError if no δ is large enough.
        """
        try:
            return self._solve(product, grad)
        except IndefiniteError as error:
            failure = error
        size = (torch.linalg.vector_norm(product(grad)) / torch.linalg.vector_norm(grad)).item()
        for rung in range(_MAX_DAMPINGS):
            damping = _FIRST_DAMPING * max(size, torch.finfo(grad.dtype).eps) * 10**rung
            try:
                return self._solve(product.shifted(damping), grad)
            except IndefiniteError as error:
                failure = error
        raise failure

    def _solve(self, product: Operator, grad: Tensor) -> Tensor:
        found = self.linsolve.solve(product, grad)
        spend(matvecs=found.num_matvecs)
        return found.x


def _is_noise(here: LineSearchPoint, there: LineSearchPoint) -> bool:
    """Whether a Newton step gained nothing beyond rounding errors."""
    rounding = 10 * torch.finfo(here.w.dtype).eps * abs(here.loss)
    halved = torch.linalg.vector_norm(there.grad) <= torch.linalg.vector_norm(here.grad) / 2
    return there.loss >= here.loss - rounding and not bool(halved)
