"""Limited-memory BFGS."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hypergrad.autodiff import Tensors, flatten, unflatten
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.line_search import line_search
from hypergrad.solver.objective import Objective, Trial
from hypergrad.validation import require_int


@dataclass(frozen=True, kw_only=True)
class LBFGS(InnerSolver):
    """Quasi-Newton: w_{t+1} = w_t − α B ∇g(w_t), with B ≈ H⁻¹ from the last `memory` steps and α from a line search.

    For smooth inner losses that are the same at every step. It needs no learning rate, converges faster than linearly
    on strongly convex problems of few parameters, and costs one gradient a step near the solution. Made for implicit
    estimators: a step cannot be differentiated.

    The state is `params`, and from the first step on `trial`, the `loss` and flat `grad` there, and `history`, the last
    steps `s` and differences of gradients `y`, both of shape (at most memory, n).

    Attributes:
        memory: pairs (s, y) to keep, ≥ 1, each of 2 n numbers.

    Source: Liu & Nocedal, "On the limited memory BFGS method for large scale optimization", Mathematical Programming
    (1989).
    """

    differentiable: ClassVar[bool] = False
    check_every: ClassVar[int] = 5

    memory: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int(self, "memory", least=1)

    @torch.no_grad()
    def step(self, problem: InnerProblem, state: State, hparams: Tensors, t: int, first_step: int = 0) -> State:
        params = state["params"]
        objective = Objective.of(self, problem, params, hparams, first_step + t)
        w = flatten(params)
        if "trial" in state:
            here = Trial(w, state["trial"]["loss"].item(), state["trial"]["grad"])
            s, y = state["history"]["s"], state["history"]["y"]
        else:
            here = objective(w)
            s = y = w.new_zeros(0, len(w))
        there = _descend(objective, here, s, y)
        if there is None and len(s) == 0:
            return state
        if there is None:  # the pairs may be what misleads
            there, s, y = here, s[:0], y[:0]
        elif _curves(there.w - here.w, there.grad - here.grad):
            s = torch.cat([s, (there.w - here.w)[None]])[-self.memory :]
            y = torch.cat([y, (there.grad - here.grad)[None]])[-self.memory :]
        return {
            "params": unflatten(there.w, params),
            "trial": {"loss": w.new_tensor(there.loss), "grad": there.grad},
            "history": {"s": s, "y": y},
        }


def _descend(objective: Objective, here: Trial, s: Tensor, y: Tensor) -> Trial | None:
    """The next point; without a history a gradient step of length at most 1 before the line search."""
    if len(s):
        return line_search(objective, here, -_inverse_times(here.grad, s, y))
    length = 1 / max(torch.linalg.vector_norm(here.grad).item(), 1.0)
    return line_search(objective, here, -here.grad, length)


def _inverse_times(grad: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """B ∇g by the two-loop recursion, from B₀ = (sᵀy / yᵀy) I of the last pair."""
    rho = 1 / (s * y).sum(1)
    q, alphas = grad.clone(), torch.zeros_like(rho)
    for i in reversed(range(len(s))):
        alphas[i] = rho[i] * torch.dot(s[i], q)
        q -= alphas[i] * y[i]
    q /= rho[-1] * torch.dot(y[-1], y[-1])
    for i in range(len(s)):
        q += (alphas[i] - rho[i] * torch.dot(y[i], q)) * s[i]
    return q


def _curves(s: Tensor, y: Tensor) -> bool:
    """Whether a pair has positive curvature, clear of rounding, so that B stays positive definite."""
    least = torch.finfo(s.dtype).eps * torch.linalg.vector_norm(s) * torch.linalg.vector_norm(y)
    return bool(torch.dot(s, y) > least)
