"""A training run that is differentiated: its start, the dev loss at its end, and checks of both."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from hypergrad.core.autodiff import Tensors, detach, leaves
from hypergrad.core.errors import DivergenceError
from hypergrad.core.order import first_order
from hypergrad.core.status import Status
from hypergrad.estimator.base import require_finite_loss
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.evaluation import InnerEvaluation, blew_up, require_finite
from hypergrad.problem.parts import accumulated_outer_loss
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.requirements import require_normal_squares
from hypergrad.tape.base import Tape, Trajectory
from hypergrad.training.divergence import explain_divergence
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.report import TrainingReport
from hypergrad.training.states import Partial, as_leaves, filled, state_vjp


@dataclass(frozen=True)
class OuterEvaluation:
    """f(w_T, λ), linearized.

    Attributes:
        outer_loss: f.
        end: inner loss and gradient norm there.
        adjoint: ∂f/∂s_T, shaped as the solver's state; zero in entries on which f does not depend.
        direct: ∂f/∂λ by name; None if f does not depend on a hyperparameter.
    """

    outer_loss: float
    end: InnerEvaluation
    adjoint: State
    direct: Partial

    def report(self, inner_steps: int, remark: str) -> TrainingReport:
        """The report of training, which is differentiated whether it converged or not."""
        return TrainingReport(self.end.loss, self.end.grad_norm, inner_steps, Status.NOT_REQUIRED, remark)


@dataclass(frozen=True)
class DifferentiatedRun:
    """A run of training steps t = 0, …, `inner_steps` − 1 at λ.

    Attributes:
        dynamics: what a step does, with λ as leaves.
        params: the given initial parameters, before `problem.initial`.
        inner_steps: the number of steps.
        begin: inner loss and gradient norm at the start.
    """

    dynamics: Dynamics
    params: Tensors
    inner_steps: int
    begin: InnerEvaluation

    @classmethod
    def of(
        cls, problem: InnerProblem, solver: InnerSolver, hparams: Tensors, params: Tensors, first_step: int, steps: int
    ) -> "DifferentiatedRun":
        """Evaluate and check the start of training; neither λ nor the parameters are changed.

        Also raised, by what it calls: NonFiniteError if the inner loss or its gradient is NaN or infinite there;
        UnusedHyperparameterError if a hyperparameter is for the solver, and no coefficient names it; ValueError if the
        solver cannot train the problem, or a coefficient names no hyperparameter, or one of the wrong
        shape.
        """
        solver.require(problem)
        solver.require_used(problem)
        solver.validate(hparams, steps, params)
        dynamics, params = Dynamics(problem, solver, leaves(hparams), first_step), detach(params)
        with torch.no_grad():
            start = solver.start(problem, params, hparams)
        begin = dynamics.oracle(0).evaluate(solver.params(start))
        require_finite(begin, hparams)
        require_normal_squares(solver, start, hparams, begin.grad_norm)
        return cls(dynamics, params, steps, begin)

    def only(self, name: str) -> "DifferentiatedRun":
        """The same run, of which the terms of dF/dλ for one hyperparameter alone are wanted."""
        hparams = detach(self.dynamics.hparams)
        return replace(self, dynamics=replace(self.dynamics, hparams=hparams | leaves({name: hparams[name]})))

    def start(self) -> State:
        """s₀, differentiable with respect to λ if grad mode is enabled."""
        return self.dynamics.solver.start(self.dynamics.problem, self.params, self.dynamics.hparams)

    @property
    def moves_start(self) -> bool:
        """Whether s₀ may depend on λ."""
        return self.dynamics.problem.tunes_initial or type(self.dynamics.solver).start is not InnerSolver.start

    def record(self, tape: Tape, horizon: int) -> Trajectory:
        """Train, with a way back through the last `horizon` steps."""
        with torch.no_grad():
            state = self.start()
        last = range(self.inner_steps - horizon, self.inner_steps)
        state = self.dynamics.advance(state, range(last.start))
        return tape.record(self.dynamics, state, last) if last else Trajectory(state, iter(()))

    def start_term(self, adjoint: State) -> Partial:
        """(∂s₀/∂λ)ᵀ a₀, the term of dF/dλ through the start of training."""
        with torch.enable_grad():
            start = self.start()
        return state_vjp(start, adjoint, {}, self.dynamics.hparams)[1]

    def at_start(self, adjoint: State) -> State:
        """dF/ds₀ from the adjoint a₀, with dF/dw₀ for `params`: other parts of s₀ may depend on w₀ too."""
        with torch.no_grad():
            w = leaves(self.dynamics.solver.params(self.start()))
        with torch.enable_grad():
            made = self.dynamics.solver.init(w)
        pulled, _ = state_vjp(made, adjoint, {"params": w}, {})
        return adjoint | filled(pulled, {"params": w})

    def evaluate(self, state: State, outer_step: int) -> OuterEvaluation:
        """Evaluate the outer loss at the end of the run.

        Raises:
            DivergenceError: if training blew up.
            ValueError: if the outer loss depends on no parameter.

        Also raised, by what it calls: NonFiniteError if the outer loss is NaN or infinite.
        """
        problem, solver, hparams = self.dynamics.problem, self.dynamics.solver, self.dynamics.hparams
        ends = self.dynamics.oracle(self.inner_steps).evaluate(solver.params(state))
        if blew_up(self.begin, ends):
            raise DivergenceError(explain_divergence(self.dynamics, self.params, self.inner_steps))
        end = as_leaves(state)

        @torch.enable_grad()
        def outer() -> tuple[float, Mapping[str, Partial], Partial]:
            batch = problem.outer_batch(outer_step)
            loss = accumulated_outer_loss(problem, solver.params(end), hparams, batch)
            value = require_finite_loss(loss, problem)
            return value, *state_vjp({"": {"f": loss}}, {"": {"f": torch.ones_like(loss)}}, end, hparams)

        value, adjoint, direct = first_order(outer)
        if all(grad is None for grads in adjoint.values() for grad in grads.values()):
            raise ValueError(
                "The outer loss depends on none of the parameters, so there is nothing to tune through them."
            )
        return OuterEvaluation(value, ends, filled(adjoint, end), direct)
