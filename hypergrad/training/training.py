"""Training without a graph: a solver runs until the gradient is small; a run that blows up raises an error."""

import math
from dataclasses import dataclass

import torch

from hypergrad.core.autodiff import Tensors, detach
from hypergrad.core.errors import DivergenceError
from hypergrad.core.status import Status
from hypergrad.core.validation import require_compile, require_int, require_real
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.evaluation import InnerEvaluation, blew_up, require_finite
from hypergrad.solver.base import InnerSolver, State, require_solver
from hypergrad.solver.requirements import require_normal_squares
from hypergrad.training.compile_choice import Ledger
from hypergrad.training.compile_steps import compile_steps, eager_seconds
from hypergrad.training.divergence import explain_divergence
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.report import TrainingReport


@dataclass(frozen=True)
class Trained:
    """Trained parameters.

    Attributes:
        params: where training ended.
        report: the outcome of training.
    """

    params: Tensors
    report: TrainingReport

    @classmethod
    def given(cls, params: Tensors) -> "Trained":
        """Parameters that someone else has trained; nothing is known of that."""
        return cls(params, TrainingReport(math.nan, math.nan, 0, Status.NOT_REQUIRED))


@dataclass(frozen=True, kw_only=True)
class Training:
    """Trains until ‖φ(w)‖ ≤ tol ‖φ(w₀)‖ with w₀ = `problem.init_params()`, or until the steps run out.

    φ is the problem's optimality condition, by default ∇g. The tolerance refers to w₀ and not to the start, so it
    means the same after a warm start.

    Attributes:
        solver: how to train.
        steps: most inner steps, ≥ 0.
        tol: relative tolerance on ‖φ‖, ≥ 0; 0 takes all steps and evaluates φ once, at the end.
        check_every: inner steps between two evaluations of φ, each of which costs one gradient, ≥ 1; None uses
            `solver.check_every`. If the solver knows its gradient, φ is checked after every step.
        compile: run several steps at a time through torch's Inductor; "auto" does so once it pays, see docs/compile.md.
    """

    solver: InnerSolver
    steps: int
    tol: float = 0.0
    check_every: int | None = None
    compile: bool | str = False

    def __post_init__(self) -> None:
        require_solver(self)
        require_int(self, "steps", least=0)
        require_real(self, "tol", least=0)
        require_compile(self)
        if self.check_every is not None:
            require_int(self, "check_every", least=1)

    @torch.no_grad()
    def run(self, problem: InnerProblem, hparams: Tensors, params: Tensors, first_step: int = 0) -> Trained:
        """Train.

        Args:
            problem: gives the inner loss and its batches.
            hparams: λ, natural units.
            params: where to start, before `problem.initial`; not changed.
            first_step: index of the first batch, ≥ 0.

        Returns:
            The trained parameters, and a report. Its status is `CONVERGED`; `STAGNATED` if rounding errors allowed no
            further step; `MAX_ITER` if the steps ran out first; or `RISING` if they ran out and the inner loss is
            higher than at the start.

        Raises:
            DivergenceError: if training blew up; the message names the step, the loss, and the learning rate's bound.

        Also raised, by what it calls: NonFiniteError if the loss or its gradient is NaN or infinite at the start;
        ValueError if the solver cannot train the problem.
        """
        solver = self.solver
        solver.require(problem)
        hparams, params = detach(hparams), detach(params)
        dynamics, state = Dynamics(problem, solver, hparams, first_step), solver.start(problem, params, hparams)
        start = dynamics.oracle(0).evaluate(solver.params(state))
        require_finite(start, hparams)
        require_normal_squares(solver, state, hparams, start.grad_norm)
        goal = self.tol * dynamics.oracle(0).evaluate(problem.init_params()).grad_norm if self.tol > 0 else 0.0
        dynamics, remark, ledger = self._with_compiled_steps(dynamics, state)
        run = _Run(dynamics, goal, state, start)
        while run.here.grad_norm > goal and run.steps < self.steps and not run.is_stuck:
            run.advance(self._next_check(run.steps))
            if blew_up(start, run.here):
                raise DivergenceError(explain_divergence(dynamics, params, run.steps))
        if ledger is not None:
            ledger.add(run.steps)
        report = TrainingReport(run.here.loss, run.here.grad_norm, run.steps, run.status(start), remark)
        return Trained(solver.params(run.state), report)

    def _with_compiled_steps(self, dynamics: Dynamics, state: State) -> tuple[Dynamics, str, Ledger | None]:
        """The dynamics, with compiled steps if wanted, the remark on that, and what counts steps if they are not."""
        if not self.compile or self.steps == 0:
            return dynamics, "", None
        if self.compile == "auto":
            ledger = eager_seconds(dynamics, state, 0, pull_back=False)
            reason = ledger.refuse(self.steps if self.tol == 0 else None)
            if reason:
                return dynamics, reason, ledger
        return *compile_steps(dynamics, state, range(self.steps), pull_back=False), None

    def _next_check(self, steps: int) -> int:
        """The step at which to evaluate φ next, after `steps` steps."""
        if self.tol == 0:
            return self.steps
        return min(steps + (self.solver.check_every if self.check_every is None else self.check_every), self.steps)


@dataclass
class _Run:
    """A training run under way.

    Attributes:
        dynamics: what a step does.
        goal: the ‖φ‖ at which training has converged.
        state: the state after the last step.
        here: inner loss and ‖φ‖ there.
        steps: the number of steps taken.
        is_stuck: whether rounding errors allowed no further step.
    """

    dynamics: Dynamics
    goal: float
    state: State
    here: InnerEvaluation
    steps: int = 0
    is_stuck: bool = False

    def advance(self, stop: int) -> None:
        """Train up to step `stop`, or until training has converged or is stuck, and evaluate φ there."""
        dynamics, solver, state, steps, known = self.dynamics, self.dynamics.solver, self.state, self.steps, None
        knows = dynamics.problem.is_minimisation
        if dynamics.stride is not None:
            state, steps = dynamics.advance(state, range(steps, stop)), stop
        while steps < stop and not self.is_stuck:
            before, state = state, dynamics.step(state, steps)
            steps, self.is_stuck = steps + 1, state is before
            known = solver.known(state) if knows else None
            if known is not None and known[1] <= self.goal:
                stop = steps
        self.state, self.steps = state, steps
        self.here = InnerEvaluation(*known) if known else dynamics.oracle(steps).evaluate(solver.params(state))

    def status(self, start: InnerEvaluation) -> Status:
        """How the run that began at `start` ended."""
        if self.here.grad_norm <= self.goal:
            return Status.CONVERGED
        if self.is_stuck:
            return Status.STAGNATED
        return Status.RISING if self.here.loss > start.loss else Status.MAX_ITER
