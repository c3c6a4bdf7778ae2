"""BOME."""

from dataclasses import dataclass

import torch

from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.validation import require_int, require_real
from hypergrad.single_loop.base import Memory, Method, Move
from hypergrad.single_loop.terms import Terms


@dataclass(frozen=True, kw_only=True)
class BOME(Method):
    """Bilevel optimisation made easy: w and λ descend f while the gap q of w to the minimum of g shrinks.

    From w, `inner_steps` gradient steps lead to ŵ, which counts as constant, and

        q = g(w, λ) − g(ŵ, λ)
        ∇q = (∇_w g(w, λ), ∇_λ g(w, λ) − ∇_λ g(ŵ, λ))
        µ = max(barrier − ⟨∇f, ∇q⟩ / ‖∇q‖², 0)
        (D_w, D_λ) = ∇f + µ ∇q

    so that q falls by at least barrier ‖∇q‖² per unit of step, whatever f does; µ = 0 where ∇q = 0. Products and norms
    are over w and λ together, λ in natural units. That is a statement on steps of the same size along D_w and D_λ, such
    as gradient descent and SGD with the same lr; others change it. λ must move along: at a fixed λ, w does not
    tend to w*(λ), and D_λ is not the hypergradient. Near a minimum of F(λ), w stays at a distance of O(lr) from w*(λ),
    so that lr should be small, or fall.

    Step k to ŵ is on inner batch k of the move, and q on the first one. A move costs `inner_steps` + 1 gradients of the
    inner loss and one of the outer loss, and no second derivative. The paper is on full batches; on mini-batches the
    quotient makes the directions biased.

    Attributes:
        barrier: η of the dynamic barrier η ‖∇q‖², by which q falls at least, > 0.
        inner_steps: steps from w to ŵ, ≥ 1; the fewer, the further is ŵ from the minimum that it stands for.
        inner_lr: of these steps, > 0; less than 2 over the largest curvature of the inner loss.

    Source: Liu, Ye, Wright, Stone & Liu, "BOME! Bilevel optimization made easy: a simple first-order approach", NeurIPS
    (2022).
    """

    barrier: float = 0.5
    inner_steps: int = 10
    inner_lr: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver is None:
            raise ValueError(
                "BOME.solver must be given, because w stays at a distance of its lr from the solution, so that the "
                "curvature of the inner loss, by which None chooses it, does not say how small it must be. Begin with "
                "a tenth of inner_lr, for example."
            )
        if self.solver.decays:
            raise ValueError(
                f"BOME needs a solver whose steps follow its directions alone, but {type(self.solver).__name__} has a "
                "weight_decay, which draws w away from the minimum of the inner loss. Set it to 0, and make the "
                "penalty a part of the inner loss."
            )
        require_real(self, "barrier", above=0)
        require_int(self, "inner_steps", least=1)
        require_real(self, "inner_lr", above=0)

    @property
    def num_batches(self) -> int:
        return self.inner_steps

    @property
    def num_matvecs(self) -> int:
        return 0

    def begin(self, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
        return {"solver": self.start_solver(params)}

    def move(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory, t: int) -> Move:
        f, g = terms.outer(params, hparams), terms.inner(params, hparams)
        ahead = flatten(params) - self.inner_lr * g.wrt_params
        for k in range(1, self.inner_steps):
            ahead = ahead - self.inner_lr * terms.inner(unflatten(ahead, params), hparams, k).wrt_params
        q_hp = g.wrt_hparams - terms.inner(unflatten(ahead, params), hparams).wrt_hparams
        q_hp, f_hp = terms.rows.summed(q_hp, hparams), terms.rows.summed(f.wrt_hparams, hparams)
        squared_hp, dot_hp = terms.rows.dots(hparams, (q_hp, q_hp), (f_hp, q_hp))
        squared = g.wrt_params @ g.wrt_params + squared_hp
        dot = f.wrt_params @ g.wrt_params + dot_hp
        multiplier = torch.where(squared > 0, self.barrier - dot / squared, 0.0).clamp(min=0)
        D_w, D_hp = f.wrt_params + multiplier * g.wrt_params, f_hp + multiplier * q_hp
        after, state = self.step_solver(params, memory["solver"], unflatten(D_w, params), hparams, t)
        return Move(after, D_hp, {"solver": state}, f.loss, g.loss, D_w, f.wrt_params)
