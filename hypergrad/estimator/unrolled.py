"""Hypergradients by differentiating through the training run, backwards."""

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, overload

import torch
from torch.nn.utils import get_total_norm

from hypergrad.core.autodiff import Tensors, detach
from hypergrad.core.errors import UnusedHyperparameterError
from hypergrad.core.validation import require_compile, require_instance, require_int
from hypergrad.estimator.base import HypergradEstimator, Hypergradient, add_terms
from hypergrad.estimator.differentiated_run import DifferentiatedRun
from hypergrad.estimator.own_terms import OwnTerms
from hypergrad.estimator.rank_plan import RankPlan
from hypergrad.estimator.rehearsal import Rehearsal
from hypergrad.estimator.report import UnrollingReport
from hypergrad.estimator.start_gradient import StartGradient
from hypergrad.estimator.tally import Tally, add
from hypergrad.estimator.unrolled_plan import plan_unrolled
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.second_derivatives import require_second_derivatives
from hypergrad.solver.base import InnerSolver, State, require_differentiable, require_solver
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.tape.base import Tape, TapeCost, Trajectory
from hypergrad.tape.checkpoint import Checkpoint
from hypergrad.tape.footprint import measure
from hypergrad.tape.graph import Graph
from hypergrad.tape.plan import Plan
from hypergrad.tape.reversible import Reversible
from hypergrad.tape.store import Store
from hypergrad.training.compile_steps import compile_steps, eager_seconds
from hypergrad.training.training import Training


@dataclass(frozen=True, kw_only=True)
class Unrolled(HypergradEstimator):
    """Reverse-mode differentiation of f(w_T(λ), λ) through the last K of T training steps.

    Exact for this run, converged or not, if K = T. A shorter horizon K drops the influence of λ on the first T − K
    steps and on the start; `truncation_bias` in the stats estimates the error of that, to the order of magnitude only.

    K = 0 treats the steps as w₀ ↦ w₀ + a constant, ∂w_T/∂w₀ = I: of the indirect term it keeps (∂w₀/∂λ)ᵀ ∂f/∂w at w_T,
    without a Hessian product. If λ is the start itself, that is first-order MAML.

    Attributes:
        solver: how the inner problem is trained; its coefficients can be hyperparameters.
        tape: how the states are recovered. All tapes give the same hypergradient, and differ in memory and time.
        inner_steps: training steps T, ≥ 1.
        horizon: truncation horizon K, from 0 to T; None differentiates through all T steps, and the start.
        compile: run several steps at a time, and their pull-back, through torch's Inductor. It requires a C++ compiler,
            and some ten seconds once for a problem. "auto" does so once it pays, see docs/compile.md. `training_remark`
            in the stats says whether it was done, or why not. `Reversible` does not support it.

    Examples:
        >>> problem = hg.Ridge(hg.diabetes())
        >>> for horizon in (20, 5):
        ...     estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=20, horizon=horizon)
        ...     found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
        ...     print(f"horizon {horizon}: dF/dλ = {found.grad['l2']:.4f}")
        horizon 20: dF/dλ = 0.0424
        horizon 5: dF/dλ = 0.0404

    Source: Domke, "Generic methods for optimization-based modeling", AISTATS (2012); Shaban, Cheng, Hatch & Boots,
    "Truncated back-propagation for bilevel optimization", AISTATS (2019); Finn, Abbeel & Levine, "Model-agnostic
    meta-learning for fast adaptation of deep networks", ICML (2017).
    """

    solver: InnerSolver = field(default_factory=GradientDescent)
    tape: Tape = field(default_factory=Graph)
    inner_steps: int = 100
    horizon: int | None = None
    compile: bool | str = False

    def __post_init__(self) -> None:
        require_solver(self)
        require_differentiable(self, self.solver)
        require_instance(self, "tape", Tape)
        require_int(self, "inner_steps", least=1)
        require_compile(self)
        if self.horizon is not None:
            require_int(self, "horizon", least=0)
            if self.horizon > self.inner_steps:
                raise ValueError(
                    f"Unrolled.horizon must be at most inner_steps = {self.inner_steps}, but it is {self.horizon}."
                )

    @property
    def training(self) -> Training:
        return Training(solver=self.solver, steps=self.inner_steps, compile=self.compile)

    def estimate(
        self,
        problem: InnerProblem,
        hparams: Tensors,
        params: Tensors,
        *,
        outer_step: int = 0,
        inner_step: int = 0,
        carry: Any = None,
    ) -> Hypergradient:
        require_second_derivatives(problem, "Unrolled")
        run, remark = self._with_compiled_steps(
            DifferentiatedRun.of(problem, self.solver, hparams, params, inner_step, self.inner_steps)
        )
        own = OwnTerms.of(run)
        trajectory = own.run.record(self.tape, self._horizon)
        with closing(trajectory):
            outer = run.evaluate(trajectory.end, outer_step)
            tally, reached = self._sweep(run, trajectory, outer.adjoint)
        own.sum(tally)
        indirect = self._indirect(run, tally, reached)
        hint = f"it enters neither the last {self._horizon} training steps nor the outer loss."
        grad = add_terms(outer.direct, {name: indirect.get(name) for name in outer.direct}, hint)
        return Hypergradient(
            grad,
            detach(self.solver.params(trajectory.end)),
            outer.outer_loss,
            training=outer.report(self.inner_steps, remark),
            unrolling=UnrollingReport(self._horizon, tally.bias(grad), _growth(outer.adjoint, reached.adjoint)),
            start=self._start(run, reached),
        )

    @overload
    def plan(self, problem: InnerProblem, hparams: Tensors | None = None, params: Tensors | None = None) -> Plan: ...

    @overload
    def plan(
        self, problem: InnerProblem, hparams: Tensors | None = None, params: Tensors | None = None, *, world: int
    ) -> RankPlan: ...

    def plan(
        self,
        problem: InnerProblem,
        hparams: Tensors | None = None,
        params: Tensors | None = None,
        *,
        world: int | None = None,
    ) -> Plan | RankPlan:
        """What one estimate would need, from one eager step: with each tape, or on each of some ranks with this tape.

        Args:
            problem: what is tuned; for ranks it is shared by `DataParallel`, if it is not yet.
            hparams: λ in natural units; `problem.init_hparams()` if None.
            params: where training starts; `problem.init_params()` if None.
            world: the number of ranks, ≥ 1; the others need not be there.

        Returns:
            Without `world`, the memory and the number of gradients of every tape; else what the parts of an estimate
            cost a rank. `print` shows a table.

        Also raised, by what it calls: NonFiniteError if the inner loss or its gradient is NaN or infinite at the start;
        ValueError if no tape fits into the budget of an `AutoTape`; with `world`, TypeError or ValueError if it is no
        integer ≥ 1, or the tape does not serve the solver, and NotImplementedError if the problem cannot be shared.
        """
        if world is not None:
            rehearsal = Rehearsal.of(problem, hparams, params, world)
            return plan_unrolled(rehearsal, self.solver, self.tape, self.inner_steps, self._horizon)
        if self._horizon == 0:
            return Plan({"no tape": TapeCost(memory=0, gradients=self.inner_steps)}, 0)
        hparams = problem.init_hparams() if hparams is None else hparams
        params = problem.init_params() if params is None else params
        run = DifferentiatedRun.of(problem, self.solver, hparams, params, 0, self.inner_steps)
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

    def _with_compiled_steps(self, run: DifferentiatedRun) -> tuple[DifferentiatedRun, str]:
        """The run, with compiled steps if requested, and the remark on that."""
        if not self.compile:
            return run, ""
        if not self.tape.takes_compiled:
            return run, f"not compiled: {type(self.tape).__name__} uses steps of its own"
        # The truncation bias is estimated from quarters of the horizon.
        most = max(self.horizon // 4, 1) if self.horizon else None
        steps, pull_back = self._differentiated or range(self.inner_steps), self._horizon > 0
        with torch.no_grad():
            start = run.start()
            if self.compile == "auto":
                ledger = eager_seconds(run.dynamics, start, 0, pull_back=pull_back)
                reason = ledger.refuse(self.inner_steps)
                if reason:
                    ledger.add(self.inner_steps)
                    return run, reason
            dynamics, remark = compile_steps(run.dynamics, start, steps, most, pull_back=pull_back)
        return replace(run, dynamics=dynamics), remark

    def _sweep(self, run: DifferentiatedRun, trajectory: Trajectory, adjoint: State) -> tuple[Tally, "_Reached"]:
        """The terms of the steps within the horizon, and the adjoint that is left, of the first state if it matters."""
        tally, reached = Tally(self._horizon, self.inner_steps, run.dynamics.stride), _Reached(adjoint)
        matters = self._horizon == self.inner_steps and run.moves_start
        for before, terms, steps in trajectory.pull_back(adjoint, None if matters else self._horizon):
            reached = _Reached(reached.adjoint, steps * len(terms)) if before is None else _Reached(before)
            for term in terms:
                tally.add(term, steps)
        return tally, reached

    def _start(self, run: DifferentiatedRun, reached: "_Reached") -> Mapping[str, Tensors] | None:
        """dF/ds₀, if the whole run is differentiated."""
        if self._horizon < self.inner_steps:
            return None
        return run.at_start(reached.adjoint) if reached.left == 0 else StartGradient(run, *reached)

    def _indirect(self, run: DifferentiatedRun, tally: Tally, reached: "_Reached") -> Tensors:
        """The sum of the terms, with that of the start if K = T or K = 0."""
        indirect = tally.total()
        if self._horizon in (0, self.inner_steps) and reached.left == 0:
            add(indirect, run.start_term(reached.adjoint))
        if self._horizon == 0:
            _require_in_start(run.dynamics.hparams, indirect)
        return indirect


def _growth(end: State, reached: State) -> float | None:
    """The growth of the adjoint of the parameters on the way back; None if it is not a finite number."""
    first, last = (get_total_norm(list(adjoint["params"].values())) for adjoint in (reached, end))
    growth = (first / last).item()
    return growth if math.isfinite(growth) else None


class _Reached(NamedTuple):
    """An adjoint a_left, with the number of first steps that are left to pull back."""

    adjoint: State
    left: int = 0


def _require_in_start(hparams: Tensors, indirect: Tensors) -> None:
    """Require that each hyperparameter moves the start; otherwise the direct term alone would be the result.

    Raises:
        UnusedHyperparameterError: if one does not.
    """
    for name in hparams:
        if name not in indirect:
            raise UnusedHyperparameterError(
                f"The start of training does not depend on the hyperparameter {name!r}, and horizon = 0 differentiates "
                "none of the steps. Use a horizon of 1 or more."
            )
