"""Hypergradients by differentiating through the training run, backwards."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach
from hypergrad.core.errors import UnusedHyperparameterError
from hypergrad.core.validation import require_instance, require_int
from hypergrad.estimator.base import HypergradEstimator, Hypergradient, add_terms
from hypergrad.estimator.tally import Tally, add
from hypergrad.estimator.training_run import TrainingRun
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver, require_differentiable
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.tape.base import Cost, Tape, Trajectory
from hypergrad.tape.checkpoint import Checkpoint
from hypergrad.tape.footprint import measure
from hypergrad.tape.graph import Graph
from hypergrad.tape.plan import Plan
from hypergrad.tape.reversible import Reversible
from hypergrad.tape.store import Store
from hypergrad.training.compilation import MOST_STEPS, compile_steps


@dataclass(frozen=True, kw_only=True)
class Unrolled(HypergradEstimator):
    """Reverse-mode differentiation of f(w_T(λ), λ) through the last K of T training steps.

    Exact for the run that was made, converged or not, when K = T; a shorter horizon K drops the influence of λ on the
    first T − K steps and on the start, and `truncation_bias` in the stats estimates what that is.

    K = 0 takes the steps as w₀ ↦ w₀ + a constant, ∂w_T/∂w₀ = I: of the indirect term it keeps (∂w₀/∂λ)ᵀ ∂f/∂w at w_T,
    for no Hessian product. Where λ is the start itself, that is first-order MAML.

    Attributes:
        solver: how the inner problem is trained; its coefficients can be hyperparameters.
        tape: how the states come back, and so what memory and time it takes; all give the same hypergradient.
        inner_steps: training steps T, ≥ 1.
        horizon: truncation horizon K, from 0 to T; None differentiates through all T steps, and the start.
        compile: run several steps at a time, and their pull-back, through torch.compile, which takes some ten seconds
            once for a problem and a C++ compiler; `training_remark` in the stats says whether that was done, or why
            not. Not for `Reversible`.

    Source: Domke, "Generic methods for optimization-based modeling", AISTATS (2012); Shaban, Cheng, Hatch & Boots,
    "Truncated back-propagation for bilevel optimization", AISTATS (2019); Finn, Abbeel & Levine, "Model-agnostic
    meta-learning for fast adaptation of deep networks", ICML (2017).
    """

    solver: InnerSolver = field(default_factory=GradientDescent)
    tape: Tape = field(default_factory=Graph)
    inner_steps: int = 100
    horizon: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        require_instance(self, "solver", InnerSolver)
        require_differentiable(self, self.solver)
        require_instance(self, "tape", Tape)
        require_int(self, "inner_steps", least=1)
        require_instance(self, "compile", bool)
        if self.horizon is not None:
            require_int(self, "horizon", least=0)
            if self.horizon > self.inner_steps:
                raise ValueError(
                    f"Unrolled.horizon must be at most inner_steps = {self.inner_steps}, but it is {self.horizon}."
                )

    def estimate(
        self,
        problem: InnerProblem,
        hparams: Tensors,
        params: Tensors,
        *,
        outer_step: int = 0,
        inner_step: int = 0,
        adjoint: Tensor | None = None,
    ) -> Hypergradient:
        run = TrainingRun.of(problem, self.solver, hparams, params, inner_step, self.inner_steps)
        run, remark = self._compiled(run)
        trajectory = self._record(run)
        judged = run.judge(trajectory.end, outer_step)
        tally, start = Tally(self._horizon, self.inner_steps, run.dynamics.stride), judged.adjoint
        for start, terms, steps in trajectory.pull_back(judged.adjoint):  # noqa: B007 (the last one is dF/ds₀)
            for term in terms:
                tally.add(term, steps)
        is_whole = self._horizon == self.inner_steps
        indirect = tally.total()
        if is_whole or self._horizon == 0:
            add(indirect, run.start_term(start))
        if self._horizon == 0:
            _require_in_start(hparams, indirect)
        hint = f"it enters neither the last {self._horizon} training steps nor the outer loss."
        grad = add_terms(judged.direct, {name: indirect.get(name) for name in judged.direct}, hint)
        return Hypergradient(
            grad=grad,
            params=detach(self.solver.params(trajectory.end)),
            outer_loss=judged.outer_loss,
            stats={
                **judged.stats(self.inner_steps),
                "num_matvecs": self._horizon,
                "truncation_bias": tally.bias(grad),
                "training_remark": remark,
            },
            start=run.at_start(start) if is_whole else None,
        )

    def plan(self, problem: InnerProblem, hparams: Tensors | None = None, params: Tensors | None = None) -> Plan:
        """What memory and how many gradients each tape would take for one estimate, found from one eager step.

        Args:
            problem: what is tuned.
            hparams: λ in natural units; `problem.init_hparams()` when None.
            params: where training starts; `problem.init_params()` when None.

        Returns:
            The cost of every tape; `print` shows it as a table.

        Also raised, by what it calls: NonFiniteError if the inner loss or its gradient is NaN or infinite at the start;
        ValueError if no tape fits into the budget of an `AutoTape`.
        """
        if self._horizon == 0:
            return Plan({"no tape": Cost(memory=0, gradients=self.inner_steps)}, 0)
        hparams = problem.init_hparams() if hparams is None else hparams
        params = problem.init_params() if params is None else params
        run = TrainingRun.of(problem, self.solver, hparams, params, 0, self.inner_steps)
        with torch.no_grad():
            footprint = measure(run.dynamics, run.start(), 0)
        tapes, steps = dict.fromkeys([Graph(), Store(), Checkpoint(), Reversible(), self.tape]), self._differentiated
        costs = {repr(tape): tape.cost(run.dynamics, footprint, steps) for tape in tapes}
        return Plan(costs, self._horizon, self.compile)

    @property
    def _horizon(self) -> int:
        return self.inner_steps if self.horizon is None else self.horizon

    @property
    def _differentiated(self) -> range:
        return range(self.inner_steps - self._horizon, self.inner_steps)

    def _compiled(self, run: TrainingRun) -> tuple[TrainingRun, str]:
        """The run with compiled steps where they were asked for, and what came of it."""
        if not self.compile:
            return run, ""
        if not self.tape.takes_compiled:
            return run, f"not compiled: {type(self.tape).__name__} takes steps of its own"
        # a quarter of the horizon at most, by which the truncation bias is judged
        most = min(MOST_STEPS, self.horizon // 4) if self.horizon else MOST_STEPS
        steps, pull_back = self._differentiated or range(self.inner_steps), self._horizon > 0
        with torch.no_grad():
            dynamics, remark = compile_steps(run.dynamics, run.start(), steps, max(most, 1), pull_back=pull_back)
        return replace(run, dynamics=dynamics), remark

    def _record(self, run: TrainingRun) -> Trajectory:
        """Train, with a way back through the steps within the horizon."""
        with torch.no_grad():
            state = run.start()
        state = run.dynamics.advance(state, range(self._differentiated.start))
        if self._horizon == 0:
            return Trajectory(state, iter(()))
        return self.tape.record(run.dynamics, state, self._differentiated)


def _require_in_start(hparams: Tensors, indirect: Tensors) -> None:
    """Require that each hyperparameter moves the start, where else the direct term alone would pass for the whole.

    Raises:
        UnusedHyperparameterError: if one does not.
    """
    for name in hparams:
        if name not in indirect:
            raise UnusedHyperparameterError(
                f"The start of training does not depend on the hyperparameter {name!r}, and horizon = 0 differentiates "
                "none of the steps. Use a horizon of 1 or more."
            )
