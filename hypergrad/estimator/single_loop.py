"""Stochastic single-loop methods as an estimator: one joint move, and the direction of λ."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from hypergrad.core.autodiff import Tensors, unflatten
from hypergrad.core.cost import Spent, charging
from hypergrad.core.status import Status
from hypergrad.core.torch_internals.trees import tree_leaves
from hypergrad.core.validation import require_compile, require_instance
from hypergrad.estimator.base import HypergradEstimator, Hypergradient
from hypergrad.estimator.linearization import require_dependence
from hypergrad.estimator.point import Point
from hypergrad.estimator.rank_plan import ABOUT, EXACT, Part, RankPlan
from hypergrad.estimator.rehearsal import Rehearsal
from hypergrad.estimator.report import AdjointReport
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.oracle import Oracle
from hypergrad.product.differences import CentredDifferences
from hypergrad.product.reverse import Reverse
from hypergrad.single_loop.base import Method, Move
from hypergrad.single_loop.default_steps import begun, moved, remark, stepping
from hypergrad.single_loop.direction_rows import MapRows
from hypergrad.single_loop.divergence import explain_steps
from hypergrad.single_loop.sizes import Sizes, require_bounded
from hypergrad.single_loop.soba import SOBA
from hypergrad.single_loop.srba import SRBA
from hypergrad.single_loop.terms import Terms
from hypergrad.training.report import TrainingReport

_HINT = (
    "it enters neither the gradient of the inner loss nor the outer loss. A single-loop method cannot tune a "
    "coefficient of the solver, on which the solution does not depend; use Unrolled for that."
)


@dataclass(frozen=True, kw_only=True)
class SingleLoop(HypergradEstimator):
    """One joint move of the parameters and the adjoint on mini-batches, instead of a training and an adjoint solve.

    `grad` is the method's direction for λ at the point before the move: unbiased, or nearly, once w and v follow λ, and
    not the hypergradient at every step. The errors of w and v are in the stats as `inner_grad_norm` = ‖D_w‖ and
    `adjoint_residual` = ‖D_v‖ / ‖∂f/∂w‖, of the batches of the step. The `carry` is the memory of the method. It
    requires warm starts.

    Attributes:
        method: how w and the adjoint move, and which direction λ gets.
        compile: run the steps of a `Trainer` that have no record through torch's Inductor, several at a time and with
            the step of λ; "auto" does so once it pays, see docs/compile.md. A single estimate is never compiled.

    Examples:
        >>> problem, estimator = hg.Ridge(hg.diabetes()), hg.SingleLoop(method=hg.SOBA())
        >>> result = hg.fit(problem, estimator, hg.SuggestedSGD(), 200, progress=False)
        >>> print(f"dev loss {result.last.dev_loss:.2f} at λ = {result.last.hparams['l2']:.1f}")
        dev loss 0.48 at λ = 0.2
    """

    method: Method = field(default_factory=SOBA)
    compile: bool | str = False
    inner_steps: int = field(init=False)
    sums_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_instance(self, "method", Method)
        require_compile(self)
        object.__setattr__(self, "inner_steps", self.method.num_batches)

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
        """As promised by `HypergradEstimator`, from one move.

        Also raised, by what it calls: UnusedHyperparameterError, before the first move, if nothing depends on a
        hyperparameter; DivergenceError if the move is not finite, or belongs to a run that explodes.
        """
        t, move, terms = self._move(problem, hparams, params, outer_step, inner_step, carry)
        sizes = Sizes.of(move, terms.rows.norm(move.direction, hparams))
        scale = sizes.scale if carry is None or "scale" not in carry else carry["scale"]
        require_bounded(sizes, scale, type(self.method).__name__, t)
        steps, adjoint = self.method.num_batches, None
        if move.adjoint_direction is not None:
            said, residual = remark(self.method, move.memory), sizes.adjoint_residual
            adjoint = AdjointReport(self.method.num_matvecs, residual, Status.NOT_REQUIRED, said)
        return Hypergradient(
            unflatten(move.direction, terms.rows.kept(hparams)),
            move.params,
            sizes.outer_loss,
            training=TrainingReport(sizes.inner_loss, sizes.inner_direction, steps, Status.NOT_REQUIRED),
            adjoint_system=adjoint,
            carry={"t": t + 1, "memory": move.memory, "scale": scale},
        )

    def map_rows(self, carry: Any, function: MapRows) -> Any:
        return {**carry, "memory": self.method.map_rows(carry["memory"], function)}

    def unrecorded(self, problem: InnerProblem, hparams: Tensors, params: Tensors, **where: Any) -> Hypergradient:
        """As promised by `HypergradEstimator`: the move alone, for which the host waits for nothing."""
        t, move, terms = self._move(problem, hparams, params, **where)
        training, adjoint = self._counts
        return Hypergradient(
            unflatten(move.direction, terms.rows.kept(hparams)),
            move.params,
            math.nan,
            training=training,
            adjoint_system=None if move.adjoint_direction is None else adjoint,
            carry={**(where.get("carry") or {}), "t": t + 1, "memory": move.memory},
        )

    def plan(
        self, problem: InnerProblem, hparams: Tensors | None = None, params: Tensors | None = None, *, world: int = 1
    ) -> RankPlan:
        """What the first move of a run and a later one cost each of `world` ranks, as `Implicit.plan`.

        The total is that of a later move. Moves on all data, as `SRBA` makes every `period` moves, cost more.
        """
        rehearsal = Rehearsal.of(problem, hparams, params, world)

        def move(carry: Any, k: int) -> Hypergradient:
            where = {"outer_step": k, "inner_step": k * self.inner_steps, "carry": carry}
            return self.unrecorded(rehearsal.problem, rehearsal.hparams, rehearsal.params, **where)

        first, begin = rehearsal.cost(lambda: move(None, 0))
        second, later = rehearsal.cost(lambda: move(first.carry, 1))
        graph = rehearsal.gradient_graph() if self.method.num_matvecs > 0 else 0
        memory = graph + sum(x.nbytes for x in tree_leaves(second.carry) if isinstance(x, Tensor))
        sure = ABOUT if isinstance(self.method, SRBA) else EXACT
        return RankPlan(world, [Part("a move", 1, later, sure)], memory, rehearsal.itemsize, first=begin)

    @cached_property
    def _counts(self) -> tuple[TrainingReport, AdjointReport]:
        """The reports of a move that is not recorded, which have no other numbers."""
        training = TrainingReport(math.nan, math.nan, self.method.num_batches, Status.NOT_REQUIRED)
        return training, AdjointReport(self.method.num_matvecs, math.nan, Status.NOT_REQUIRED)

    def explain_divergence(
        self, problem: InnerProblem, hparams: Tensors, params: Tensors, *, tried: Tensors, carry: Any
    ) -> str:
        """As promised by `HypergradEstimator`, by the curvature of the inner loss there and here."""
        method = stepping(self.method, carry["memory"])
        return explain_steps(method, problem, hparams, params, tried, carry["t"])

    def _move(
        self,
        problem: InnerProblem,
        hparams: Tensors,
        params: Tensors,
        outer_step: int = 0,
        inner_step: int = 0,
        carry: Any = None,
    ) -> tuple[int, Move, Terms]:
        """The number of the move, the move, and the terms on its batches."""
        terms = Terms(problem, inner_step, outer_step)
        if carry is None:
            self.method.require(problem)
            before = Oracle(problem, hparams, problem.inner_batch(inner_step))
            with charging(Spent()):
                product = Reverse() if problem.has_second_derivatives else CentredDifferences()
                require_dependence(Point(before, params, problem.outer_batch(outer_step), product), _HINT)
            t, memory = 0, begun(self.method, terms, params, hparams)
        else:
            t, memory = carry["t"], carry["memory"]
        return t, moved(self.method, terms, params, hparams, memory, t), terms
