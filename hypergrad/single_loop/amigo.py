"""AmIGO, and with it stocBiO."""

from dataclasses import dataclass

from torch import Tensor

from hypergrad.core.autodiff import Tensors, unflatten
from hypergrad.core.validation import require_instance, require_int
from hypergrad.single_loop.adjoint import AdjointMethod, start_adjoint
from hypergrad.single_loop.base import Memory, Move
from hypergrad.single_loop.terms import Gradients, Terms


@dataclass(frozen=True, kw_only=True)
class AmIGO(AdjointMethod):
    """Amortized implicit gradient optimisation: T steps of w, then Q steps of v, then the direction of λ.

    With w and v where the last move left them,

        w −= lr ∇_w g(w, λ), T times;  v −= adjoint_lr (∇²_ww g(w, λ) v + ∇_w f(w, λ)), Q times at the new w;
        D_λ = ∇²_λw g(w, λ) v + ∇_λ f(w, λ) at the new w and v.

    Each of the T + Q + 1 uses of g has an inner batch of its own, and f has one outer batch. The coefficients of a move
    are the same in all of its steps. The inner gradient and the residual of the adjoint that are reported are those at
    the new w and v, on the last inner batch.

    `warm_adjoint=False` begins each move with v = 0, so that v is −adjoint_lr Σ_{k<Q} (I − adjoint_lr H)^k ∇_w f, Q
    terms of the Neumann series on Q batches. That is stocBiO, whose bias falls with Q only.

    Attributes:
        inner_steps: T, ≥ 1.
        adjoint_steps: Q, ≥ 1.
        warm_adjoint: start v from the last move, and not from 0.

    Source: Arbel & Mairal, "Amortized implicit differentiation for stochastic bilevel optimization", ICLR (2022); Ji,
    Yang & Liang, "Bilevel optimization: convergence analysis and enhanced design", ICML (2021), for stocBiO.
    """

    inner_steps: int = 10
    adjoint_steps: int = 10
    warm_adjoint: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int(self, "inner_steps", least=1)
        require_int(self, "adjoint_steps", least=1)
        require_instance(self, "warm_adjoint", bool)

    @property
    def num_batches(self) -> int:
        return self.inner_steps + self.adjoint_steps + 1

    @property
    def num_matvecs(self) -> int:
        return self.adjoint_steps + 1

    def begin(self, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
        return {"v": start_adjoint(params), "solver": self.start_solver(params)}

    def move(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory, t: int) -> Move:
        params, solver = self._trained(terms, params, hparams, memory["solver"], t)
        f = terms.outer(params, hparams)
        v = memory["v"] if self.warm_adjoint else start_adjoint(params)
        v = self._solved(terms, params, hparams, v, f, t)
        g = terms.products(params, hparams, v, number=self.inner_steps + self.adjoint_steps)
        return Move(
            params,
            terms.rows.summed(g.mixed + f.wrt_hparams, hparams),
            {"v": v, "solver": solver},
            f.loss,
            g.loss,
            g.gradient,
            f.wrt_params,
            g.hvp + f.wrt_params,
        )

    def _trained(
        self, terms: Terms, params: Tensors, hparams: Tensors, state: Memory, t: int
    ) -> tuple[Tensors, Memory]:
        """w and the state of the solver after T steps, on inner batches 0 to T − 1 of the move."""
        for number in range(self.inner_steps):
            D_w = unflatten(terms.inner(params, hparams, number).wrt_params, params)
            step = t * self.inner_steps + number
            params, state = self.step_solver(params, state, D_w, hparams, t, solver_step=step)
        return params, state

    def _solved(self, terms: Terms, params: Tensors, hparams: Tensors, v: Tensor, f: Gradients, t: int) -> Tensor:
        """v after Q steps, on inner batches T to T + Q − 1 of the move."""
        for number in range(self.inner_steps, self.inner_steps + self.adjoint_steps):
            v = self.step_adjoint(v, terms.products(params, hparams, v, number).hvp + f.wrt_params, hparams, t)
        return v
