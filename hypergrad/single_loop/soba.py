"""SOBA."""

from dataclasses import dataclass

from hypergrad.core.autodiff import Tensors
from hypergrad.single_loop.base import Memory
from hypergrad.single_loop.joint import Directions, JointMethod, sampled
from hypergrad.single_loop.terms import Terms


@dataclass(frozen=True, kw_only=True)
class SOBA(JointMethod):
    """Stochastic bilevel algorithm: w, v and λ move together, each along an unbiased direction from the same batches.

    D_w = ∇_w g(w, λ), D_v = ∇²_ww g(w, λ) v + ∇_w f(w, λ) and D_λ = ∇²_λw g(w, λ) v + ∇_λ f(w, λ) on one batch of each
    loss: one gradient, one walk for both products, and one gradient of the outer loss. With mini-batches the steps must
    decrease, such as with the inverse square root of t, or the error stays at a level that the steps determine.

    Source: Dagréou, Ablin, Vaiter & Moreau, "A framework for bilevel optimization that enables stochastic and global
    variance reduction algorithms", NeurIPS (2022).
    """

    def directions(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory) -> tuple[Directions, Memory]:
        return sampled(terms, params, hparams, memory["v"]), {}
