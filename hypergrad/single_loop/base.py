"""The promise of a single-loop method: one joint move of the parameters and of what goes with them.

Each file of this folder is one method, or what methods share: `terms.py` computes what their papers call the
directions. A method may import solvers, problems and the layers below them. It does not know estimators.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.second_derivatives import require_second_derivatives
from hypergrad.single_loop.direction_rows import MapRows
from hypergrad.single_loop.terms import Terms
from hypergrad.solver.base import InnerSolver, require_solver
from hypergrad.solver.coefficient import root
from hypergrad.solver.gradient_descent import GradientDescent

Memory = dict[str, Any]
"""What a method takes from one move to the next besides w: tensors, and dicts, lists and tuples of tensors and plain
values."""


@dataclass(frozen=True)
class Move:
    """One joint move, computed from one (w, λ) and the memory there.

    Attributes:
        params: w after the move, outside any graph.
        direction: D_λ, an estimate of dF/dλ; flat, in the order of the hyperparameters, shape (p,).
        memory: what the next move begins with.
        outer_loss: f on the outer batch, at the w of D_λ: before the move, unless the method moves w first; shape ().
        inner_loss: g on an inner batch at that w, shape ().
        inner_direction: D_w at that w, flat, shape (n,): that by which gradient descent moves from there.
        adjoint_direction: D_v there, shape (n,); None if the method has no adjoint v.
        outer_gradient: ∂f/∂w there, flat, shape (n,).
    """

    params: Tensors
    direction: Tensor
    memory: Memory
    outer_loss: Tensor
    inner_loss: Tensor
    inner_direction: Tensor
    outer_gradient: Tensor
    adjoint_direction: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """How w moves together with what estimates dF/dλ; λ itself is moved by the optimiser of the outer loop.

    A method of your own is a frozen keyword-only dataclass that defines `begin` and `move`. Every move is a pure
    function of its arguments.

    Attributes:
        solver: moves w by one step of its `update` along a direction that the method gives. The coefficients in move
            t = 0, 1, … are those of its step t, and name no hyperparameter. None is gradient descent with the inner
            step of `step_sizes`, which is found before the first move.
    """

    solver: InnerSolver | None = field(default_factory=GradientDescent)

    def __post_init__(self) -> None:
        if self.solver is None:
            return
        require_solver(self)
        named = {name: root(value) for name, value in self.solver.coefficients().items()}
        tuned = [f"{name} = {value!r}" for name, value in named.items() if isinstance(value, str)]
        if tuned:
            raise ValueError(
                f"{type(self).__name__} cannot tune a coefficient of the solver, such as {tuned[0]}, because it "
                "follows the solution of the inner problem, which does not depend on it. Give a number or a schedule."
            )
        if type(self.solver).update is InnerSolver.update:
            raise ValueError(
                f"{type(self).__name__} moves w along a direction of its own, which a step of "
                f"{type(self.solver).__name__} cannot take: it is not defined by `update`. Use GradientDescent, "
                "Momentum or Adam."
            )

    def with_inner_step(self, lr: float) -> Self:
        """The method with gradient descent of this step for the inner loss, if it has no solver; else itself."""
        return (
            self
            if self.solver is not None
            else replace(self, solver=GradientDescent(lr=lr / (1 + lr * self.added_curvature)))
        )

    @property
    def known_solver(self) -> InnerSolver:
        """The solver, which a move needs.

        Raises:
            ValueError: if it is None.
        """
        if self.solver is None:
            raise ValueError(
                f"{type(self).__name__}.solver is None, which SingleLoop replaces before the first move. To move "
                "without it, use method.with_inner_step(hg.step_sizes(problem, outer=False).inner)."
            )
        return self.solver

    @property
    def added_curvature(self) -> float:
        """What the method adds to the curvature of the inner loss that its solver meets, ≥ 0."""
        return 0.0

    @property
    def num_batches(self) -> int:
        """Inner batches of a move, ≥ 1; move t uses those of the inner steps from t · num_batches on."""
        return 1

    @property
    def num_matvecs(self) -> int:
        """Products with the Hessian in a move."""
        return 1

    @abstractmethod
    def begin(self, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
        """The memory before the first move, which starts from `params`."""

    @abstractmethod
    def move(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory, t: int) -> Move:
        """The move t ≥ 0.

        Args:
            terms: the terms of the directions on the batches of this move.
            params: w; not changed.
            hparams: λ in natural units; not changed.
            memory: what the last move returned; not changed.
            t: moves so far.
        """

    def to_compiled(self, memory: Memory) -> Memory:
        """The memory as compiled moves carry it, by default as it is; many tensors of one shape are better one there.

        A method whose moves are not to be compiled raises a `CannotCompileError` here.
        """
        return memory

    def from_compiled(self, memory: Memory) -> Memory:
        """The inverse of `to_compiled`."""
        return memory

    def map_rows(self, memory: Memory, function: MapRows) -> Memory:
        """The memory with a function of each part that is shaped as λ: a flat vector, shape (p,), or named tensors.

        By default there is none. What the function makes of all parts is mapped back by another function.
        """
        return memory

    def require(self, problem: InnerProblem) -> None:
        """Check that the method can tune the problem.

        Raises:
            ValueError: if it cannot; the message says why.
        """
        name = type(problem).__name__
        if not (problem.is_minimisation and problem.is_smooth):
            raise ValueError(
                f"{type(self).__name__} moves w along the gradient of the inner loss, but the solution of {name} is "
                f"{'not where that is zero' if problem.is_smooth else 'at kinks of it'}. Use Implicit."
            )
        if self.num_matvecs > 0:
            require_second_derivatives(problem, type(self).__name__)
        if self.solver is None and not problem.has_second_derivatives:
            raise ValueError(
                f"{type(self).__name__} needs a solver for {name}, which has no second derivatives to find a step "
                "by: write solver=hg.GradientDescent(lr=…), with any lr below 2 over the largest curvature, or "
                "hg.Adam()."
            )
        if problem.tunes_initial:
            raise ValueError(
                f"{type(self).__name__} follows one solution from step to step, so the initial parameters of {name} "
                "cannot be tuned. Use Unrolled with warm_start=False."
            )
        if problem.at_outer_step(1) is not problem:
            raise ValueError(
                f"{type(self).__name__} follows the solution of one inner problem, but {name} has another one in each "
                "outer step. Use Implicit or Unrolled with warm_start=False."
            )

    def start_solver(self, params: Tensors) -> Memory:
        """The state of the solver before the first move, without the parameters."""
        return {name: group for name, group in self.known_solver.init(params).items() if name != "params"}

    def step_solver(
        self,
        params: Tensors,
        state: Memory,
        direction: Tensors,
        hparams: Tensors,
        t: int,
        *,
        solver_step: int | None = None,
    ) -> tuple[Tensors, Memory]:
        """w and the state of the solver after one of its steps along a direction, shaped as w.

        Args:
            params: w; not changed.
            state: of the solver; not changed.
            direction: in the place of the gradient.
            hparams: λ.
            t: moves so far, the step of the coefficients.
            solver_step: steps of the solver so far, for its bias corrections; None for t.
        """
        solver, step = self.known_solver, t if solver_step is None else solver_step
        coefficients = solver.coefficients_at(hparams, t, params)
        after: Mapping[str, Any] = solver.update({"params": params, **state}, direction, coefficients, step)
        return after["params"], {name: group for name, group in after.items() if name != "params"}
