"""Limited-memory BFGS."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.validation import require_int
from hypergrad.problem.oracle import Oracle
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.coefficient import Coefficients
from hypergrad.solver.line_search import line_search
from hypergrad.solver.objective import LineSearchPoint, Objective, point_entries, stored_loss_and_norm


@dataclass(frozen=True, kw_only=True)
class LBFGS(InnerSolver):
    """Quasi-Newton: w_{t+1} = w_t − α B ∇g(w_t), with B ≈ H⁻¹ from the last `memory` steps and α from a line search.

    For smooth inner losses that are the same at every step. It needs no learning rate, converges faster than linearly
    on strongly convex problems of few parameters, and costs one gradient a step near the solution. Made for implicit
    estimators: a step cannot be differentiated.

    The state is `params`. After the first step it also holds `point`, the `loss` and flat `grad` there, and `history`:
    the last m ≤ memory steps `s` and differences of gradients `y`, both of shape (m, n), and `r`, the upper triangle of
    s yᵀ.

    Attributes:
        memory: pairs (s, y) to keep, ≥ 1, each of 2 n numbers.

    Examples:
        >>> problem = hg.Ridge(hg.diabetes(), l2=0.1)
        >>> λ = problem.init_hparams()
        >>> trained = hg.Training(solver=hg.LBFGS(), steps=100, tol=1e-6).run(problem, λ, problem.init_params())
        >>> torch.allclose(trained.params["weight"], problem.solution(λ)["weight"], atol=1e-4)
        True
        >>> trained.report.steps < 30
        True

    Source: Liu & Nocedal, "On the limited memory BFGS method for large scale optimization", Mathematical Programming
    (1989); Byrd, Nocedal & Schnabel, "Representations of quasi-Newton matrices and their use in limited memory
    methods", Mathematical Programming (1994).
    """

    differentiable: ClassVar[bool] = False
    same_batch: ClassVar[bool] = True
    check_every: ClassVar[int] = 5

    memory: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int(self, "memory", least=1)

    @torch.no_grad()
    def step(self, oracle: Oracle, state: State, coefficients: Coefficients, t: int) -> State:
        params = state["params"]
        objective, w = Objective(oracle, params), flatten(params)
        if "point" in state:
            here = LineSearchPoint(w, state["point"]["loss"].item(), state["point"]["grad"])
            history = state["history"]
        else:
            here = objective(w)
            history = _empty_history(w)
        there = _descend(objective, here, history)
        if there is None and len(history["s"]) == 0:
            return state
        if there is None:  # the pairs may give a bad direction: start again without them
            there, history = here, _empty_history(w)
        else:
            history = _extended(history, there.w - here.w, there.grad - here.grad, self.memory)
        return {
            "params": unflatten(there.w, params),
            "point": point_entries(there),
            "history": history,
        }

    def known(self, state: State) -> tuple[float, float] | None:
        return stored_loss_and_norm(state)


def _descend(objective: Objective, here: LineSearchPoint, history: Tensors) -> LineSearchPoint | None:
    """The next point; without a history, the line search begins with a gradient step of length at most 1."""
    if len(history["s"]):
        return line_search(objective, here, -_inverse_times(here.grad, history))
    length = 1 / max(torch.linalg.vector_norm(here.grad).item(), 1.0)
    return line_search(objective, here, -here.grad, length)


def _inverse_times(grad: Tensor, history: Tensors) -> Tensor:
    """B ∇g, from B₀ = γ I with γ = sᵀy / yᵀy of the last pair, in the compact representation.

    With the pairs as the rows of S and Y, R the upper triangle of S Yᵀ and D its diagonal, and p = R⁻¹ S ∇g,

        B ∇g = γ (∇g − Yᵀ p) + Sᵀ R⁻ᵀ (D p + γ Y (Yᵀ p − ∇g)),

    a few products with matrices; the recursion over the pairs would be 4 m small operations.
    """
    s, y, r = history["s"], history["y"], history["r"]
    gamma = r[-1, -1] / torch.dot(y[-1], y[-1])
    p = torch.linalg.solve_triangular(r, (s @ grad)[:, None], upper=True)[:, 0]
    rest = grad - p @ y
    q = torch.linalg.solve_triangular(r.T, (r.diagonal() * p - gamma * (y @ rest))[:, None], upper=False)[:, 0]
    return gamma * rest + q @ s


def _extended(history: Tensors, s: Tensor, y: Tensor, memory: int) -> Tensors:
    """The history with the pair (s, y) added, at most `memory` pairs; unchanged if its curvature is not positive.

    The curvature must exceed rounding, so that B stays positive definite.
    """
    sy = torch.dot(s, y)
    if not sy > torch.finfo(s.dtype).eps * torch.linalg.vector_norm(s) * torch.linalg.vector_norm(y):
        return history
    first = max(len(history["s"]) + 1 - memory, 0)
    pairs = {"s": history["s"][first:], "y": history["y"][first:], "r": history["r"][first:, first:]}
    m = len(pairs["s"])
    r = torch.zeros(m + 1, m + 1, dtype=s.dtype, device=s.device)
    r[:m, :m], r[:m, m], r[m, m] = pairs["r"], pairs["s"] @ y, sy
    return {"s": torch.cat([pairs["s"], s[None]]), "y": torch.cat([pairs["y"], y[None]]), "r": r}


def _empty_history(w: Tensor) -> Tensors:
    return {"s": w.new_zeros(0, len(w)), "y": w.new_zeros(0, len(w)), "r": w.new_zeros(0, 0)}
