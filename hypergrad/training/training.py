"""Training without a graph: run a solver until the gradient is small, and say so when it blows up."""

from dataclasses import dataclass

import torch

from hypergrad.core.autodiff import Tensors, detach
from hypergrad.core.errors import DivergenceError
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.point import Point, blew_up, look, require_finite
from hypergrad.solver.base import InnerSolver
from hypergrad.training.compilation import compile_steps
from hypergrad.training.divergence import explain_divergence
from hypergrad.training.dynamics import Dynamics


@dataclass(frozen=True)
class Training:
    """What training came to.

    Attributes:
        params: where it ended.
        steps: inner steps taken.
        end: loss and ‖φ‖ there.
        status: "converged"; "stagnated" when rounding errors allowed no further step; "max_iter" when the steps
            ran out first, or "rising" when they ran out and the inner loss is higher than at the start.
        remark: whether the steps were compiled, or why not; "" where that was not asked for.
    """

    params: Tensors
    steps: int
    end: Point
    status: str
    remark: str = ""


@torch.no_grad()
def train(
    problem: InnerProblem,
    solver: InnerSolver,
    hparams: Tensors,
    params: Tensors,
    *,
    max_steps: int,
    first_step: int = 0,
    tol: float = 0.0,
    check_every: int | None = None,
    compile: bool = False,
) -> Training:
    """Train from `params` until ‖φ(w)‖ ≤ tol ‖φ(w₀)‖ with w₀ = `problem.init_params()`, or the steps run out.

    φ is the problem's optimality condition, by default ∇g.

    The tolerance refers to w₀ and not to the start, so that it means the same after a warm start.

    Args:
        problem: gives the inner loss and its batches.
        solver: the dynamics.
        hparams: λ, natural units.
        params: where to start, before `problem.initial`; not changed.
        max_steps: most inner steps to take, ≥ 0.
        first_step: index of the first batch, ≥ 0.
        tol: relative tolerance on ‖φ‖, ≥ 0; 0 takes all steps and looks at φ once, at the end.
        check_every: inner steps between two looks at φ, each of which costs one gradient, ≥ 1; the solver's own when
            None. A solver that knows its gradient is looked at after every step.
        compile: run several steps at a time through torch.compile.

    Returns:
        The parameters, the steps taken, and the loss and ‖φ‖ at the end.

    Raises:
        DivergenceError: if training blew up; the message names the step, the loss, and the learning rate's bound.

    Also raised, by what it calls: NonFiniteError if the loss or its gradient is NaN or infinite at the start;
    ValueError if the solver cannot train the problem.
    """
    solver.require(problem)
    hparams, params = detach(hparams), detach(params)
    state = solver.start(problem, params, hparams)
    start = look(problem, solver.params(state), hparams, first_step)
    require_finite(start, hparams)
    goal = tol * look(problem, problem.init_params(), hparams, first_step).grad_norm if tol > 0 else 0.0

    here, known, steps, is_stuck = start, None, 0, False
    stride = solver.check_every if check_every is None else check_every
    dynamics, remark = Dynamics(problem, solver, hparams, first_step), ""
    if compile and max_steps > 0:
        dynamics, remark = compile_steps(dynamics, state, range(max_steps), pull_back=False)
    while here.grad_norm > goal and steps < max_steps and not is_stuck:
        stop = min(steps + stride, max_steps) if tol > 0 else max_steps
        if dynamics.stride is not None:
            state, steps = dynamics.advance(state, range(steps, stop)), stop
        while steps < stop and not is_stuck:
            before, state = state, dynamics.step(state, steps)
            steps, is_stuck = steps + 1, state is before
            known = solver.known(state) if problem.is_minimisation else None
            if known is not None and known[1] <= goal:
                stop = steps
        here = look(problem, solver.params(state), hparams, first_step + steps) if known is None else Point(*known)
        if blew_up(start, here):
            raise DivergenceError(
                explain_divergence(problem, solver, hparams, params, steps=steps, first_step=first_step)
            )
    if here.grad_norm <= goal:
        status = "converged"
    elif is_stuck:
        status = "stagnated"
    else:
        status = "rising" if here.loss > start.loss else "max_iter"
    return Training(params=solver.params(state), steps=steps, end=here, status=status, remark=remark)
