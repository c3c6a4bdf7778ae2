"""SAMA."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach, flatten, leaves, unflatten
from hypergrad.core.validation import require_real
from hypergrad.problem.precision import epsilon_of
from hypergrad.single_loop.base import Memory, Method, Move
from hypergrad.single_loop.terms import Gradients, Terms
from hypergrad.solver.adam import Adam
from hypergrad.solver.base import InnerSolver


@dataclass(frozen=True, kw_only=True)
class SAMA(Method):
    """Scalable meta-learning with arbitrary optimizers: the derivative of one step of the solver, of first order.

    With w⁺ = Φ(w, ∇g(w, λ)), one step of the solver, and u = (∂Φ/∂∇g)ᵀ ∇_w f(w⁺, λ), which is −lr ∇_w f for gradient
    descent and has a factor for each entry in adaptive solvers, w moves to w⁺ and

        D_λ = ∇_λ f(w⁺, λ) + (∇_λ g(w + h u, λ) − ∇_λ g(w − h u, λ)) / 2h.

    This is the hypergradient of `Unrolled(inner_steps=1)` from the same state of the solver, but for the error O(h²) of
    the differences. As an implicit method, it has the identity in place of the inverse Hessian, times the derivative of
    the solver's step. So D_λ is a direction and no estimate of dF/dλ at the solution: its size is that of lr, and it
    ignores what later steps do. A move costs three gradients of the inner loss and one of the outer loss, and no second
    derivative.

    The paper's code evaluates both the outer loss and the differences after the step. Then D_λ is the derivative of no
    function. Here the differences are at the point where the step begins.

    Attributes:
        solver: whose step is differentiated.
        step: h ‖u‖ / max(‖w‖, 1) (dimensionless), > 0; None uses ε^⅓ of the format of the losses.

    Source: Choe, Mehta, Ahn, Neiswanger, Xie, Strubell & Xing, "Making scalable meta learning practical", NeurIPS
    (2023); with gradient descent: Liu, Simonyan & Yang, "DARTS: differentiable architecture search", ICLR (2019).
    """

    solver: InnerSolver | None = field(default_factory=Adam)
    step: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step is not None:
            require_real(self, "step", above=0)

    @property
    def num_matvecs(self) -> int:
        return 0

    def begin(self, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
        return {"solver": self.start_solver(params)}

    def move(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory, t: int) -> Move:
        g = terms.inner(params, hparams)
        grad = leaves(unflatten(g.wrt_params, params))
        with torch.enable_grad():
            after, state = self.step_solver(params, memory["solver"], grad, hparams, t)
        w = detach(after)
        f = terms.outer(w, hparams)
        df_dw = list(unflatten(f.wrt_params, w).values())
        u = torch.autograd.grad(list(after.values()), list(grad.values()), df_dw)
        D_hp = f.wrt_hparams + self._mixed(terms, params, hparams, flatten(dict(zip(grad, u, strict=True))))
        D_hp = terms.rows.summed(D_hp, hparams)
        memory = {"solver": {group: detach(tensors) for group, tensors in state.items()}}
        return Move(w, D_hp, memory, f.loss, g.loss, g.wrt_params, f.wrt_params)

    def _mixed(self, terms: Terms, params: Tensors, hparams: Tensors, u: Tensor) -> Tensor:
        """∇²_λw g u, by centred differences."""
        w = flatten(params)
        length = torch.linalg.vector_norm(w).clamp_min(1.0) * self._relative_step(terms, w)
        size = torch.linalg.vector_norm(u)
        h = torch.where(size > 0, length / size, 1.0)

        def at(h: Tensor) -> Gradients:
            return terms.inner(unflatten(w + h * u, params), hparams)

        return (at(h).wrt_hparams - at(-h).wrt_hparams) / (2 * h)

    def _relative_step(self, terms: Terms, w: Tensor) -> float:
        return self.step or max(torch.finfo(w.dtype).eps, epsilon_of(terms.problem)) ** (1 / 3)
