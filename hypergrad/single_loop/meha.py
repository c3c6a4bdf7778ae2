"""MEHA."""

from dataclasses import dataclass

from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.validation import require_real
from hypergrad.single_loop.base import Memory, Move
from hypergrad.single_loop.penalty import PenaltyMethod
from hypergrad.single_loop.terms import Terms


@dataclass(frozen=True, kw_only=True)
class MEHA(PenaltyMethod):
    """Moreau-envelope Hessian-free algorithm: a penalty for the distance of g to its Moreau envelope.

    v(w, λ) = min_θ g(θ, λ) + ‖θ − w‖² / (2 smoothing) is below g except where ∇_w g = 0. With the multiplier
    c = multiplier (t + 1)^growth_power in move t, θ moves first, and w and λ descend f / c + g − v as it is at θ:

        D_θ = ∇_w g(θ, λ) + (θ − w) / smoothing
        D_w = ∇_w f(w, λ) / c + ∇_w g(w, λ) − (w − θ) / smoothing
        D_λ = ∇_λ f(w, λ) + c (∇_λ g(w, λ) − ∇_λ g(θ, λ))

    The minimiser θ is unique if g has no curvature below −1 / smoothing, so g need not be convex. At a fixed c and λ,
    D_λ tends to dF/dλ + O(1/c) where g is strongly convex; it is c times the direction of the paper. w converges more
    slowly than by gradient descent on g: an eigenvalue h of the Hessian acts as smoothing h² / (1 + smoothing h).

    While w lags behind w*(λ), so does θ behind w, and c multiplies what λ sees of it. So the lr of λ should fall as
    1 / c, which is the constant step of the paper along D_λ / c. `solver` moves θ and w. With gradient descent, its
    lr < 2 / (L + 1 / smoothing) for the largest curvature L of g. A weight decay of gradient descent is a penalty of g,
    at w and at θ. In the paper w moves after λ, here at the same λ.

    θ moves on the first inner batch of a move, and the other directions are on the second, so that they are unbiased
    given θ. A move costs three gradients of the inner loss and one of the outer loss, and no second derivative.

    Attributes:
        multiplier: c in the first move, > 0.
        growth_power: the power of t + 1 by which c grows, ≥ 0 and < 0.5.
        smoothing: γ of the Moreau envelope, > 0; the paper requires less than 1 / (2 ρ) if the least curvature of g
            is −ρ < 0.

    Source: Liu, Liu, Yao, Zeng & Zhang, "Moreau envelope for nonconvex bi-level optimization: a single-loop and
    Hessian-free solution strategy", ICML (2024).
    """

    growth_power: float = 0.25
    smoothing: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_real(self, "growth_power", least=0, below=0.5)
        require_real(self, "smoothing", above=0)

    @property
    def added_curvature(self) -> float:
        return 1 / self.smoothing

    @property
    def num_batches(self) -> int:
        return 2

    def begin(self, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
        theta = {name: w.clone() for name, w in params.items()}
        return {"solver": self.start_solver(params), "theta": theta, "theta_solver": self.start_solver(theta)}

    def move(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory, t: int) -> Move:
        c, w, theta = self.multiplier * (t + 1) ** self.growth_power, flatten(params), memory["theta"]
        D_theta = terms.inner(theta, hparams).wrt_params + (flatten(theta) - w) / self.smoothing
        theta, theta_state = self.step_solver(theta, memory["theta_solver"], unflatten(D_theta, theta), hparams, t)
        f, g, v = terms.outer(params, hparams), terms.inner(params, hparams, 1), terms.inner(theta, hparams, 1)
        D_w = f.wrt_params / c + g.wrt_params - (w - flatten(theta)) / self.smoothing
        D_hp = terms.rows.summed(f.wrt_hparams + c * (g.wrt_hparams - v.wrt_hparams), hparams)
        after, state = self.step_solver(params, memory["solver"], unflatten(D_w, params), hparams, t)
        memory = {"solver": state, "theta": theta, "theta_solver": theta_state}
        return Move(after, D_hp, memory, f.loss, g.loss, D_w, f.wrt_params)
